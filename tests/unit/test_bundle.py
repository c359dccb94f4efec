# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles: sealing, opening, trust, reading and writing; openssl as the second implementation."""

from __future__ import annotations

import base64
import datetime
import json
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _support import key
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ansible_collections.webfarm.iis.plugins.plugin_utils import _bundle as bu
from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyblob as kb
from ansible_collections.webfarm.iis.plugins.plugin_utils import _seal as se

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Identity:
    """A certificate with its key, as the administrator has them in files."""

    def __init__(
        self, name: str, private: Private | None = None, passphrase: str | None = None, key_usage: bool = False
    ) -> None:
        self.private = private or rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self.private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=36500))
        )
        if key_usage:
            usage = dict.fromkeys(
                (
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "key_cert_sign",
                    "crl_sign",
                ),
                False,
            )
            builder = builder.add_extension(
                x509.KeyUsage(digital_signature=True, encipher_only=False, decipher_only=False, **usage), True
            )
        self.certificate = builder.sign(self.private, hashes.SHA256())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        encryption: Any = serialization.NoEncryption()
        if passphrase:
            encryption = serialization.BestAvailableEncryption(passphrase.encode())
        self.key_pem = self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )

    @property
    def recipient(self) -> se.Recipient:
        return se.load_recipient(self.pem, "recipients: x.pem")

    @property
    def opening(self) -> kb.RsaKey:
        return se.load_opening_key(self.key_pem, None, "opening_file: x.pem")


@pytest.fixture(scope="module")
def ann() -> Identity:
    return Identity("Ann of the farm")


@pytest.fixture(scope="module")
def ben() -> Identity:
    return Identity("Ben, Büro")


@pytest.fixture(scope="module")
def signer() -> Identity:
    return Identity("signer")


def make_bundle(*people: Identity, farm: str = "shop") -> bu.Bundle:
    recipients = [one.recipient for one in people]
    keys = []
    for container, name in (("iisWasKey", "TestKey2048"), ("iisConfigurationKey", "TestKey4096")):
        blob = kb.write_private_blob(key(name))
        # what a source sends: the wire form of a sealed part
        part = se.SealedPart.from_wire(se.seal(blob, [one.key for one in recipients]).to_wire(), len(recipients))
        keys.append(
            bu.make_bundle_key(container, key(name).public(), part, recipients, exportable=True, sddl="D:(A;;FA;;;SY)")
        )
    accepted = (bu.Accepted("a/@password", "old pool, to be removed"),)
    return bu.Bundle(
        farm, 1, "2026-01-31T12:00:00Z", "web1", "0e3b1c7a-5d2f-4b89-9c10-aabbccddeeff", tuple(keys), accepted
    )


@pytest.fixture(scope="module")
def bundle(ann: Identity, ben: Identity) -> bu.Bundle:
    return make_bundle(ann, ben)


PINS = {"iisWasKey": "TestKey2048", "iisConfigurationKey": "TestKey4096"}


def pins() -> dict[str, str]:
    return {container: key(name).fingerprint for container, name in PINS.items()}


def test_every_recipient_opens_it(bundle: bu.Bundle, ann: Identity, ben: Identity) -> None:
    for one in (ann, ben):
        opened = bu.open_bundle(bundle, one.opening)
        assert {name: found.key for name, found in opened.items()} == {c: key(n) for c, n in PINS.items()}
        assert opened["iisWasKey"].blob == kb.write_private_blob(key("TestKey2048"))
        assert opened["iisWasKey"].sddl == "D:(A;;FA;;;SY)"
        ring = bu.key_ring(opened)
        assert ring.rsa("IISWASKEY") == key("TestKey2048")
    assert list(bu.open_bundle(bundle, ann.opening, containers=["IISWASKEY"])) == ["iisWasKey"]


def test_a_stranger_does_not_open_it(bundle: bu.Bundle) -> None:
    with pytest.raises(
        bu.BundleError, match="opening_file does not open the key of iisWasKey: it is none of the recipients"
    ):
        bu.open_bundle(bundle, Identity("stranger").opening)
    with pytest.raises(bu.BundleError, match="no key other; it has iisWasKey, iisConfigurationKey"):
        bu.open_bundle(bundle, key("TestKey2048"), containers=["other"])


def test_openssl_opens_it(bundle: bu.Bundle, ann: Identity, ben: Identity, tmp_path: Path) -> None:
    for one in (ann, ben):
        (tmp_path / "key.pem").write_bytes(one.key_pem)
        (tmp_path / "certificate.pem").write_bytes(one.pem)
        (tmp_path / "sealed.der").write_bytes(bundle.containers[0].sealed)
        command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-in", "sealed.der", "-inkey", "key.pem"]
        for extra in ([], ["-recip", "certificate.pem"]):
            done = subprocess.run([*command, *extra], capture_output=True, check=True, cwd=tmp_path)
            assert done.stdout == kb.write_private_blob(key("TestKey2048"))


def test_we_open_what_openssl_sealed(ann: Identity, tmp_path: Path) -> None:
    blob = kb.write_private_blob(key("TestKey2048"))
    (tmp_path / "certificate.pem").write_bytes(ann.pem)
    command = ["openssl", "cms", "-encrypt", "-binary", "-aes-256-cbc", "-outform", "DER", "-recip", "certificate.pem"]
    done = subprocess.run(
        [*command, "-keyopt", "rsa_padding_mode:oaep"], input=blob, capture_output=True, check=True, cwd=tmp_path
    )
    part, identities = se.disassemble(done.stdout, "it")
    assert se.unseal(part, ann.opening) == blob
    assert identities == (ann.recipient.identity,)
    done = subprocess.run(command, input=blob, capture_output=True, check=True, cwd=tmp_path)
    with pytest.raises(se.SealError, match="rsaes_oaep is expected"):
        se.disassemble(done.stdout, "it")


def test_sealed_for_a_transport_key(bundle: bu.Bundle, ann: Identity) -> None:
    transport = key("TestKeyOther")
    opened = bu.open_bundle(bundle, ann.opening)["iisWasKey"]
    target = se.public_key_from_wire(se.public_key_to_wire(transport))
    wire = opened.seal_for(target).to_wire()
    assert set(wire) == {"iv", "ciphertext", "wrapped"}
    assert len(wire["wrapped"]) == 1
    part = se.SealedPart.from_wire(json.loads(json.dumps(wire)), 1)
    assert se.unseal(part, transport) == opened.blob
    assert opened.seal_for(target).to_wire() != wire
    with pytest.raises(se.SealError, match="1024 bits"):
        se.public_key_from_wire(se.public_key_to_wire(key("TestKey1024")))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"wrapped": []}, "did not seal the key to 1 recipient"),
        ({"wrapped": "x"}, "did not seal"),
        ({"iv": "AAAA"}, "3 bytes, not 16"),
        ({"iv": 5}, "missing or not text"),
        ({"ciphertext": "AAAA"}, "no whole number of AES blocks"),
        ({"ciphertext": "*"}, "not valid base64"),
    ],
)
def test_wire_form_errors(change: dict[str, Any], reason: str) -> None:
    wire = se.seal(b"x", [key("TestKey2048")]).to_wire()
    with pytest.raises(se.SealError, match=reason):
        se.SealedPart.from_wire(wire | change, 1)


def test_altered_bundles_do_not_open(bundle: bu.Bundle, ann: Identity) -> None:
    first = bundle.containers[0]
    part, dummy = se.disassemble(first.sealed, "it")
    position = first.sealed.index(part.ciphertext) + len(part.ciphertext) - 20
    altered = bytearray(first.sealed)
    altered[position] ^= 1
    with pytest.raises(bu.BundleError):
        bu.open_key(replace(first, sealed=bytes(altered)), ann.opening)
    with pytest.raises(bu.BundleError, match="another one than the bundle says"):
        bu.open_key(replace(first, fingerprint="0" * 64), ann.opening)
    with pytest.raises(bu.BundleError, match="another one than the bundle says"):
        bu.open_key(replace(first, sealed=bundle.containers[1].sealed), ann.opening)
    with pytest.raises(bu.BundleError, match="damaged: it is not CMS"):
        bu.open_key(replace(first, sealed=first.sealed[:-5]), ann.opening)
    with pytest.raises(bu.BundleError, match="damaged: it is not CMS"):
        bu.open_key(replace(first, sealed=b"abc"), ann.opening)


# --- trust -----------------------------------------------------------------------------------------------------------


def test_nothing_vouches_for_it(bundle: bu.Bundle) -> None:
    with pytest.raises(bu.BundleError, match="nothing vouches for iisWasKey, iisConfigurationKey"):
        bu.check_trust(bundle)
    with pytest.raises(bu.BundleError, match="nothing vouches for iisConfigurationKey"):
        bu.check_trust(bundle, expected_fingerprints={"iisWasKey": key("TestKey2048").fingerprint})


def test_pinned(bundle: bu.Bundle) -> None:
    assert bu.check_trust(bundle, expected_fingerprints=pins()) == {"pinned"}
    spelled = {
        name.upper(): ":".join(value[i : i + 2] for i in range(0, 64, 2)).upper() for name, value in pins().items()
    }
    assert bu.check_trust(bundle, expected_fingerprints=spelled) == {"pinned"}
    only = {"iisWasKey": key("TestKey2048").fingerprint}
    assert bu.check_trust(bundle, containers=["iisWasKey"], expected_fingerprints=only) == {"pinned"}
    with pytest.raises(bu.BundleError, match="its iisWasKey has the fingerprint .* expected_fingerprints says"):
        bu.check_trust(bundle, expected_fingerprints=pins() | {"iisWasKey": "a" * 64})
    with pytest.raises(bu.BundleError, match="is not a SHA-256 fingerprint"):
        bu.check_trust(bundle, expected_fingerprints={"iisWasKey": "abc"})
    with pytest.raises(bu.BundleError, match="has no key other"):
        bu.check_trust(bundle, containers=["other"], expected_fingerprints=pins())


@pytest.mark.parametrize("curve", [False, True])
def test_signed(bundle: bu.Bundle, ann: Identity, curve: bool, tmp_path: Path) -> None:
    who = Identity("signer", ec.generate_private_key(ec.SECP256R1()) if curve else None)
    one = bundle.signed(who.key_pem, None, who.pem)
    assert bu.check_trust(one, signer_certificate=who.pem) == {"signed"}
    assert bu.check_trust(one, signer_certificate=who.pem, expected_fingerprints=pins()) == {"signed", "pinned"}
    again = bu.parse_bundle(one.to_bytes(), "bundle: x")
    assert again == one
    assert bu.check_trust(again, signer_certificate=who.pem) == {"signed"}

    (tmp_path / "signature.der").write_bytes(one.signature or b"")
    (tmp_path / "content").write_bytes(one.canonical())
    (tmp_path / "signer.pem").write_bytes(who.pem)
    command = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "signature.der", "-content", "content"]
    trust = ["-CAfile", "signer.pem", "-purpose", "any", "-certfile", "signer.pem"]
    done = subprocess.run([*command, *trust], capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout == one.canonical()
    (tmp_path / "content").write_bytes(one.canonical() + b" ")
    assert subprocess.run([*command, *trust], capture_output=True, check=False, cwd=tmp_path).returncode != 0

    with pytest.raises(bu.BundleError, match="content was changed after it was signed"):
        bu.check_trust(replace(one, farm="other"), signer_certificate=who.pem)
    with pytest.raises(bu.BundleError, match="not signed by signer_certificate"):
        bu.check_trust(one, signer_certificate=ann.pem)
    with pytest.raises(bu.BundleError, match="its iisWasKey has the fingerprint"):
        bu.check_trust(one, signer_certificate=who.pem, expected_fingerprints={"iisWasKey": "a" * 64})


def test_signature_is_demanded(bundle: bu.Bundle, signer: Identity) -> None:
    with pytest.raises(bu.BundleError, match="the bundle has no signature"):
        bu.check_trust(bundle, signer_certificate=signer.pem, expected_fingerprints=pins())
    one = bundle.signed(signer.key_pem, None, signer.pem)
    with pytest.raises(bu.BundleError, match="nothing vouches"):
        bu.check_trust(one)
    for broken in (b"", b"abc", (one.signature or b"")[:-3]):
        with pytest.raises(bu.BundleError, match="not believed"):
            bu.check_trust(replace(one, signature=broken), signer_certificate=signer.pem)


def test_a_forged_certificate_of_the_same_name_and_number(bundle: bu.Bundle, signer: Identity) -> None:
    """Issuer and serial number are only names: the key of the given certificate decides."""
    mallory = rsa.generate_private_key(65537, 2048)
    forged = (
        x509.CertificateBuilder()
        .subject_name(signer.certificate.subject)
        .issuer_name(signer.certificate.issuer)
        .public_key(mallory.public_key())
        .serial_number(signer.certificate.serial_number)
        .not_valid_before(signer.certificate.not_valid_before_utc)
        .not_valid_after(signer.certificate.not_valid_after_utc)
        .sign(mallory, hashes.SHA256())
    )
    pem = mallory.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    one = bundle.signed(pem, None, forged.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(bu.BundleError, match="not by the key of signer_certificate"):
        bu.check_trust(one, signer_certificate=signer.pem)


def test_signing_errors(bundle: bu.Bundle, signer: Identity, ann: Identity) -> None:
    with pytest.raises(bu.BundleError, match="is not the key of signing_certificate"):
        bundle.signed(ann.key_pem, None, signer.pem)
    with pytest.raises(bu.BundleError, match="is not a PEM private key"):
        bundle.signed(signer.pem, None, signer.pem)
    with pytest.raises(bu.BundleError, match="not a PEM certificate"):
        bundle.signed(signer.key_pem, None, b"x")


# --- certificates and opening keys ---------------------------------------------------------------------------------


def damaged(who: Identity, old: bytes, new: bytes) -> bytes:
    der = who.certificate.public_bytes(serialization.Encoding.DER)
    assert old in der
    body = base64.encodebytes(der.replace(old, new))
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


def test_recipient_errors(ann: Identity, ben: Identity) -> None:
    cases = [
        (b"nothing", "recipients: x is not a PEM certificate"),
        (ann.pem + ben.pem, "holds 2 certificates"),
        (Identity("ec", ec.generate_private_key(ec.SECP256R1())).pem, "has no RSA key"),
        (Identity("small", rsa.generate_private_key(65537, 1024)).pem, "1024 bits; at least 2048"),
        (Identity("usage", key_usage=True).pem, "lacks keyEncipherment"),
        (damaged(ann, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"), "is not a PEM certificate"),
        (damaged(ann, b"\x0c\x0fAnn of the farm", b"\xcc\x0fAnn of the farm"), "is a damaged certificate"),
    ]
    for pem, reason in cases:
        with pytest.raises(se.SealError, match=reason):
            se.load_recipient(pem, "recipients: x")


def test_opening_key_errors(ann: Identity) -> None:
    locked = Identity("locked", passphrase="pass phrase")
    assert se.load_opening_key(locked.key_pem, "pass phrase", "opening_file: x").modulus == locked.recipient.key.modulus
    assert se.load_opening_key(ann.key_pem, "unneeded", "opening_file: x") == ann.opening
    cases = [
        (locked.key_pem, None, "protected by a passphrase; give it in opening_passphrase"),
        (locked.key_pem, "wrong", "does not open with the given opening_passphrase"),
        (ann.pem, None, "not a PEM private key"),
        (ann.key_pem[:300] + b"\n-----END PRIVATE KEY-----\n", None, "damaged"),
        (Identity("ec", ec.generate_private_key(ec.SECP256R1())).key_pem, None, "is not an RSA key"),
    ]
    for pem, passphrase, reason in cases:
        with pytest.raises(se.SealError, match=reason) as caught:
            se.load_opening_key(pem, passphrase, "opening_file: x")
        assert "pass phrase" not in str(caught.value).replace("passphrase", "")


def test_assembling_checks_the_recipients(ann: Identity, ben: Identity) -> None:
    part = se.seal(b"x", [ann.recipient.key])
    with pytest.raises(bu.BundleError, match="sealed to 1 recipient"):
        bu.make_bundle_key("iisWasKey", key("TestKey2048"), part, [ann.recipient, ben.recipient])
    with pytest.raises(se.SealError, match="no recipient"):
        se.seal(b"x", [])


# --- file ------------------------------------------------------------------------------------------------------------


def test_write_and_read(bundle: bu.Bundle, tmp_path: Path) -> None:
    path = tmp_path / "shop.keyset.json"
    path.write_text("old")
    path.chmod(0o644)
    bu.write_bundle(path, bundle)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["shop.keyset.json"]
    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    assert bu.read_bundle(path) == bundle
    assert bundle.canonical() == bu.read_bundle(path).canonical()
    assert b"signature" not in bundle.canonical()


def test_write_errors_leave_nothing(bundle: bu.Bundle, tmp_path: Path) -> None:
    with pytest.raises(bu.BundleError, match="dest: .* cannot be written"):
        bu.write_bundle(tmp_path / "none" / "x.json", bundle)
    (tmp_path / "folder").mkdir()
    with pytest.raises(bu.BundleError, match="cannot be written"):
        bu.write_bundle(tmp_path / "folder", bundle)
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(tmp_path / "folder") == []


def test_read_errors(tmp_path: Path) -> None:
    with pytest.raises(bu.BundleError, match="bundle: .*none.json does not exist. Write it with key_export"):
        bu.read_bundle(tmp_path / "none.json")
    with pytest.raises(bu.BundleError, match="cannot be read: Is a directory"):
        bu.read_bundle(tmp_path)
    path = tmp_path / "x"
    for content, reason in [
        (b"", "line 1 is not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "is not a key bundle"),
        (b"[" * 100_000, "nested too deeply|not valid JSON|is not a key bundle"),
        (b'{"format": "webfarm.iis keyset", "format": "x"}', "'format' is given twice"),
        (b'{"format": "webfarm.iis keyset", "version": 2}', "version 2, this release reads version 1"),
        (b'{"format": "webfarm.iis keyset", "version": 1}', "lacks the field"),
        (b" " * (bu.MAXIMUM_BYTES + 1), "larger than"),
    ]:
        path.write_bytes(content)
        with pytest.raises(bu.BundleError, match=reason):
            bu.read_bundle(path)


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        (("farm",), 5, "field 'farm' of the bundle has the wrong type"),
        (("generation",), 0, "generation is less than 1"),
        (("generation",), True, "wrong type"),
        (("created",), "yesterday", "not a UTC time"),
        (("source",), [], "wrong type"),
        (("source", "host"), None, "wrong type"),
        (("containers",), [], "holds no keys"),
        (("containers", 0, "store"), "cng", "only cryptoapi keys"),
        (("containers", 0, "container"), "", "empty container name"),
        (("containers", 0, "container"), "IISCONFIGURATIONKEY", "is in it twice"),
        (("containers", 0, "fingerprint"), "ABC", "64 lower-case hexadecimal"),
        (("containers", 0, "bits"), 1, "has 1 bits"),
        (("containers", 0, "sealed"), "*", "'sealed' of containers.0. is not valid base64"),
        (("containers", 0, "extra"), 1, "unknown field 'extra'"),
        (("accepted_undecryptable", 0, "reason"), 1, "wrong type"),
        (("signature",), 1, "wrong type"),
        (("signature",), "*", "not valid base64"),
        (("more",), 1, "unknown field 'more'"),
    ],
)
def test_invalid_fields(bundle: bu.Bundle, where: tuple[Any, ...], value: object, reason: str) -> None:
    data: Any = bundle.to_dict()
    spot = data
    for step in where[:-1]:
        spot = spot[step]
    spot[where[-1]] = value
    with pytest.raises(bu.BundleError, match=reason) as caught:
        bu.parse_bundle(json.dumps(data).encode(), "bundle: x.keyset.json")
    assert str(caught.value).startswith("bundle: x.keyset.json")


# --- what an export decides ------------------------------------------------------------------------------------------


def test_planned_generation(bundle: bu.Bundle) -> None:
    same = bundle.fingerprints()
    assert bu.planned_generation(None, same) == 1
    assert bu.planned_generation(bundle, same) == 1
    assert bu.planned_generation(bundle, {name.upper(): value for name, value in same.items()}) == 1
    assert bu.planned_generation(bundle, same | {"iisWasKey": "0" * 64}) == 2
    assert bu.planned_generation(bundle, {"iisWasKey": same["iisWasKey"]}) == 2
    assert bu.planned_generation(replace(bundle, generation=7), same | {"another": "0" * 64}) == 8


def test_recipients_of_a_bundle(bundle: bu.Bundle, ann: Identity, ben: Identity) -> None:
    assert bundle.recipients() == {ann.recipient.identity, ben.recipient.identity}
    assert make_bundle(ann).recipients() == {ann.recipient.identity}
    assert bundle.get("IISWASKEY") is bundle.containers[0]
    assert bundle.get("x") is None


def test_the_recipients_certificates_are_in_the_file(bundle: bu.Bundle, ann: Identity, ben: Identity) -> None:
    everybody = [ann.recipient, ben.recipient]
    named = replace(bundle, certificates=tuple(one.der for one in everybody))
    again = bu.parse_bundle(named.to_bytes(), "bundle: x")
    assert again == named
    assert named.canonical() != bundle.canonical()  # a signature covers them
    assert sorted(facts.subject for dummy, facts in again.recipient_facts() if facts) == sorted(
        one.subject for one in everybody
    )
    assert again.sealed_to(everybody)
    assert not again.sealed_to([ann.recipient])
    assert not again.sealed_to([*everybody, Identity("third").recipient])
    # without certificates issuer and serial number have to do
    assert bundle.sealed_to(everybody)
    assert {facts for dummy, facts in bundle.recipient_facts()} == {None}
    # another certificate with the same issuer and serial number is somebody else
    twin = replace(ann.recipient, der=ann.recipient.der + b" ")
    assert not again.sealed_to([twin, ben.recipient])
    for content, reason in (([5], "wrong type"), ("x", "wrong type"), (["*"], "recipients.0. is not valid base64")):
        data = named.to_dict() | {"recipients": content}
        with pytest.raises(bu.BundleError, match=reason):
            bu.parse_bundle(json.dumps(data).encode(), "bundle: x")
    with pytest.raises(bu.BundleError, match="is not a certificate"):
        replace(bundle, certificates=(b"abc",)).recipient_facts()


def test_no_private_number_in_the_file_or_in_repr(bundle: bu.Bundle, ann: Identity) -> None:
    opened = bu.open_bundle(bundle, ann.opening)["iisWasKey"]
    one = key("TestKey2048")
    shown = (
        repr(opened)
        + repr(bundle)
        + repr(bundle.containers)
        + repr(opened.seal_for(key("TestKeyOther")))
        + repr(ann.recipient)
    )
    for number in (one.d, one.p, one.q, one.dp, one.dq, one.inverse_q):
        raw = number.to_bytes((number.bit_length() + 7) // 8, "little")
        assert raw not in bundle.to_bytes()
        for text in (raw.hex(), raw[::-1].hex(), str(number), repr(raw)[2:40]):
            assert text not in shown


def test_utc_now() -> None:
    assert bu._CREATED.match(bu.utc_now())
