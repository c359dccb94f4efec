# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Protected values against the vectors of the C oracle."""

from __future__ import annotations

import base64
import hmac
import os
import random
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
from _support import key, unb64, vectors

from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyblob as kb
from ansible_collections.webfarm.iis.plugins.plugin_utils import _protection as pr

CNG_LABEL = "EncryptionLabel\0".encode("utf-16-le")
CNG_CONTEXT = "EncryptionContext\0".encode("utf-16-le")


@dataclass
class Fake:
    """The least that a provider has to say."""

    name: str = "AesProvider"
    kind: pr.Kind = "aes"
    container: str = "iisConfigurationKey"
    use_oaep: bool = False
    session_key: str | None = None


def session_of(name: str) -> pr.SessionKey:
    stated = vectors()["sessions"][name]
    return pr.unwrap_session_key(unb64(stated["wrapped"]), key(stated["key"]), oaep=stated["oaep"])


def title(case: dict[str, Any]) -> str:
    return " ".join(str(case.get(part, "")) for part in ("session", "key", "title", "extra", "fill")).strip()


@pytest.mark.parametrize("name", sorted(vectors()["sessions"]))
def test_unwrap_as_cryptoapi_does(name: str) -> None:
    algorithm, clear = vectors()["sessions"][name]["unwrapped"].split()
    session = session_of(name)
    assert session.algorithm == int(algorithm, 16)
    assert session.key.hex() == clear
    assert clear not in repr(session)
    assert pr.session_key_bits(vectors()["sessions"][name]["wrapped"]) == key(vectors()["sessions"][name]["key"]).bits


@pytest.mark.parametrize("oaep", [False, True])
@pytest.mark.parametrize("algorithm", sorted(kb.SESSION_KEY_BYTES))
def test_wrap_and_rewrap(algorithm: int, oaep: bool) -> None:
    session = pr.new_session_key(algorithm)
    old, new = key("TestKey2048"), key("TestKeyOther")
    wrapped = pr.wrap_session_key(session, old.public(), oaep=oaep)
    assert pr.unwrap_session_key(wrapped, old, oaep=oaep) == session
    again = pr.rewrap_session_key(wrapped, old, new.public(), oaep=oaep)
    assert pr.unwrap_session_key(again, new, oaep=oaep) == session
    for blob, one, form in [(again, old, oaep), (wrapped, new, oaep), (wrapped, old, not oaep)]:
        with pytest.raises(pr.ProtectionError) as caught:
            pr.unwrap_session_key(blob, one, oaep=form)
        assert caught.value.verdict == "bad_data"
        assert caught.value.hresult == 0x80090005


def test_openssl_opens_our_rsa_blocks(tmp_path: Any) -> None:
    from cryptography.hazmat.primitives import serialization

    one = key("TestKey2048")
    pem = pr._private_key(one).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(pem)
    for oaep, mode in [(False, "pkcs1"), (True, "oaep")]:
        block = pr.rsa_encrypt(b"sixteen bytes!!!", one, oaep=oaep)
        done = subprocess.run(
            [
                "openssl",
                "pkeyutl",
                "-decrypt",
                "-inkey",
                str(tmp_path / "key.pem"),
                "-pkeyopt",
                f"rsa_padding_mode:{mode}",
            ],
            input=block[::-1],
            capture_output=True,
            check=True,
        )
        assert done.stdout == b"sixteen bytes!!!"


@pytest.mark.parametrize("case", vectors()["aes"], ids=title)
def test_aes_values_of_cryptoapi(case: dict[str, Any]) -> None:
    session = session_of(case["session"])
    assert pr.decrypt_aes(unb64(case["value"]), session) == case["text"]
    assert pr.judge_aes_plaintext(bytes.fromhex(case["raw"])) == case["text"]
    again = pr.encrypt_aes(case["text"], session)
    assert again != unb64(case["value"])
    assert pr.decrypt_aes(again, session) == case["text"]


def test_openssl_decrypts_our_aes_values() -> None:
    session = pr.new_session_key()
    value = pr.encrypt_aes("äöü and a 🔑", session)
    done = subprocess.run(
        ["openssl", "enc", "-d", "-aes-128-cbc", "-K", session.key.hex(), "-iv", "0" * 32],
        input=value,
        capture_output=True,
        check=True,
    )
    raw = "äöü and a 🔑".encode("utf-16-le") + b"\0\0"
    assert done.stdout[4:].startswith(raw)
    assert len(done.stdout) - 4 - len(raw) <= 15


@pytest.mark.parametrize("case", vectors()["layout"], ids=title)
def test_strict_judgement(case: dict[str, Any]) -> None:
    session = session_of("TestKey2048 v1.5 AES-128")
    if case["verdict"] == "ok":
        assert pr.decrypt_aes(unb64(case["value"]), session) == "abc"
        return
    with pytest.raises(pr.ProtectionError) as caught:
        pr.decrypt_aes(unb64(case["value"]), session)
    assert caught.value.verdict == case["verdict"]


@pytest.mark.parametrize("case", vectors()["rsa"], ids=title)
def test_direct_values_of_cryptoapi(case: dict[str, Any]) -> None:
    one = key(case["key"])
    found = pr.decrypt_rsa(unb64(case["value"]), one)
    if case["extra"].startswith("prefix") and found != case["text"]:
        # 4 random bytes may happen to be text themselves: then they are taken for a part of it
        assert found.endswith(case["text"])
    else:
        assert found == case["text"]
    assert pr.decrypt_rsa(pr.encrypt_rsa(case["text"], one.public()), one) == case["text"]


def test_direct_value_is_limited_to_one_block() -> None:
    assert vectors()["rsa_too_long"]["error"].startswith("0x8009")
    one = key("TestKey1024")
    assert pr.decrypt_rsa(pr.encrypt_rsa("x" * 58, one), one) == "x" * 58
    with pytest.raises(pr.ProtectionError, match="do not fit into one RSA block"):
        pr.encrypt_rsa("x" * 59, one)


@pytest.mark.parametrize("case", vectors()["wrong"], ids=title)
def test_what_does_not_open(case: dict[str, Any]) -> None:
    """Where CryptoAPI reports an error, so do we, with its code; where it is content with rubbish, we are not."""
    ring = pr.KeyRing({"c": key(case["key"])})
    provider = Fake(kind=case["kind"], container="C", use_oaep=case["oaep"], session_key=case["session_key"])
    judged = pr.judge("AesProvider", case["value"], provider, ring)
    assert judged.verdict in ("bad_data", "garbage")
    assert judged.text is None
    cryptoapi = case["cryptoapi"]
    if cryptoapi.get("error") == "0x80090005":
        assert judged.verdict == "bad_data"
        assert judged.hresult in (0x80090005, 0x80090004)
    elif case["title"] != "session key with an unknown algorithm":
        assert judged.verdict == "garbage"


@pytest.mark.parametrize("case", vectors()["cng"]["cases"], ids=title)
def test_cng_values(case: dict[str, Any]) -> None:
    assert pr.decrypt_cng(unb64(case["value"]), unb64(vectors()["cng"]["secret"])) == case["text"]
    with pytest.raises(pr.ProtectionError) as caught:
        pr.decrypt_cng(unb64(case["value"]), unb64(vectors()["cng"]["other_secret"]))
    assert caught.value.verdict == "bad_data"


@pytest.mark.parametrize("case", vectors()["cng_stand_in"]["cases"], ids=title)
def test_cng_values_of_the_stand_in(case: dict[str, Any]) -> None:
    """The C stand-in for cngkeyhelper.dll derives the key and encrypts by CryptoAPI alone."""
    secret = unb64(vectors()["cng_stand_in"]["secret"])
    value = unb64(case["value"])
    assert pr.decrypt_cng(value, secret) == case["text"]
    # the openssl command line, as a third implementation
    command = ["openssl", "enc", "-d", "-aes-256-cbc", "-K", pr.derive_cng_key(secret).hex(), "-iv", value[:16].hex()]
    clear = subprocess.run(command, input=value[48:], capture_output=True, check=True).stdout
    assert clear == case["text"].encode("utf-16-le") + b"\0\0"
    for wrong in (unb64(vectors()["cng"]["secret"]), secret[:-1], secret + b"\0\0" + b"x"):
        with pytest.raises(pr.ProtectionError) as caught:
            pr.decrypt_cng(value, wrong)
        assert caught.value.verdict in ("bad_data", "garbage")


def test_cng_key_derivation_by_hand() -> None:
    """SP 800-108, 5.1: one block of HMAC over counter, label, zero, context and length, all big-endian."""
    secret = bytes(range(32))
    message = b"\0\0\0\1" + CNG_LABEL + b"\0" + CNG_CONTEXT + (256).to_bytes(4, "big")
    assert (len(CNG_LABEL), len(CNG_CONTEXT)) == (0x20, 0x24)
    assert pr.derive_cng_key(secret) == hmac.new(secret, message, "sha256").digest()


def test_cng_key_derivation_agrees_with_openssl() -> None:
    secret = os.urandom(32)
    done = subprocess.run(
        [
            *("openssl", "kdf", "-keylen", "32", "-binary", "-kdfopt", "mac:HMAC", "-kdfopt", "digest:SHA256"),
            *("-kdfopt", "hexkey:" + secret.hex(), "-kdfopt", "hexsalt:" + CNG_LABEL.hex()),
            *("-kdfopt", "hexinfo:" + CNG_CONTEXT.hex(), "KBKDF"),
        ],
        capture_output=True,
        check=True,
    )
    assert pr.derive_cng_key(secret) == done.stdout


def test_cng_layout_errors() -> None:
    for length in (0, 16, 48, 63, 65):
        with pytest.raises(pr.ProtectionError) as caught:
            pr.decrypt_cng(bytes(length), b"x" * 32)
        assert caught.value.verdict == "bad_data"


def test_implicit_rejection_is_not_trusted() -> None:
    """Random blocks under the right key: every single one has to be refused or have true padding."""
    one = key("TestKey1024")
    refused = 0
    for _dummy in range(200):
        block = int(random.randrange(one.modulus)).to_bytes(one.size, "little")
        try:
            pr.rsa_decrypt(block, one)
        except pr.ProtectionError as error:
            assert error.verdict == "bad_data"
            refused += 1
    assert refused >= 199


def test_chance_of_passing_is_what_the_documentation_says() -> None:
    documented = {16: 2.8e-7, 32: 3.6e-7, 48: 2.8e-7, 64: 2.1e-7, 128: 7.4e-8}
    for length, figure in documented.items():
        assert pr.chance_of_passing(length) == pytest.approx(figure, rel=0.03)
        assert f"{figure:.1e}".replace("e-0", "e-") in (pr.__doc__ or "")
    assert max(pr.chance_of_passing(length) for length in range(16, 512, 16)) < 1 / 2.7e6
    assert pr.chance_of_passing(0) == pr.chance_of_passing(15) == 0


def test_chance_of_passing_measured() -> None:
    """Random blocks: none should pass. Given a one-byte padding, as many as computed (256 times the chance) do."""
    source = random.Random(20260131)
    passed = 0
    for _dummy in range(60_000):
        try:
            pr.judge_aes_plaintext(source.randbytes(32))
            passed += 1
        except pr.ProtectionError:
            pass
    assert passed <= 1
    samples, passed = 300_000, 0
    for _dummy in range(samples):
        try:
            pr.judge_aes_plaintext(source.randbytes(31) + b"\x01")
            passed += 1
        except pr.ProtectionError:
            pass
    expected = pr.chance_of_passing(32) * 256 * samples  # about 28
    assert 0.4 * expected < passed < 2 * expected


@pytest.mark.parametrize(
    ("text", "provider", "data"),
    [
        ("[enc:AesProvider:QUJD:enc]", "AesProvider", "QUJD"),
        ("[enc:AesProvider::enc]", "AesProvider", ""),
        ("[enc:a:b:c:enc]", "a", "b:c"),
        ("[enc:57686f6120:enc]", None, None),
        ("[enc::QUJD:enc]", None, None),
        ("[enc::enc]", None, None),
        ("[enc:enc]", None, None),
    ],
)
def test_form_of_a_value(text: str, provider: str | None, data: str | None) -> None:
    assert pr.is_protected(text)
    assert pr.split_value(text) == (provider, data)


def test_form_of_a_value_written() -> None:
    assert pr.format_value("AesProvider", b"ABC") == "[enc:AesProvider:QUJD:enc]"
    for text in ("", "secret", "[enc:x:y:enc] ", " [enc:x:y:enc]"):
        assert not pr.is_protected(text)


@pytest.mark.parametrize("data", ["", "QUJ", "QUJD=", "QU JD", "QUJD\n", "QUJ*", "====", "QQ=="])
def test_strict_base64(data: str) -> None:
    if data == "QQ==":
        assert pr.strict_base64(data) == b"A"
        return
    with pytest.raises(kb.KeyBlobError, match="base64"):
        pr.strict_base64(data)


@pytest.mark.parametrize(
    ("type_name", "kind"),
    [
        ("", "rsa"),
        ("Microsoft.ApplicationHost.AesProtectedConfigurationProvider", "aes"),
        ("microsoft.applicationhost.aesprotectedconfigurationprovider, Some.Assembly, Version=1.0.0.0", "aes"),
        ("Microsoft.ApplicationHost.CngProtectedConfigurationProvider", "cng"),
        ("System.Configuration.RsaProtectedConfigurationProvider, System.Configuration", "unsupported"),
        ("System.Configuration.DpapiProtectedConfigurationProvider", "unsupported"),
    ],
)
def test_kind_of_type(type_name: str, kind: str) -> None:
    assert pr.kind_of_type(type_name) == kind


def test_verdicts_of_the_container() -> None:
    stated = vectors()["sessions"]["TestKey2048 v1.5 AES-128"]
    value = vectors()["aes"][0]["value"]
    provider = Fake(container="iisWasKey", session_key=stated["wrapped"])
    ring = pr.KeyRing()
    assert pr.judge("p", value, provider, ring).verdict == "missing_key"
    assert pr.judge("p", value, provider, ring).hresult == 0x80090016
    for state in ("denied", "damaged", "missing_key"):
        ring = pr.KeyRing()
        ring.set_state("IISWASKEY", state)  # type: ignore[arg-type]
        assert pr.judge("p", value, provider, ring).verdict == state
    assert pr.judge("p", value, Fake(container="", session_key=stated["wrapped"]), ring).verdict == "missing_key"
    assert pr.judge("p", value, Fake(session_key=None), ring).verdict == "bad_data"
    assert pr.judge("p", value, Fake(session_key="x"), ring).verdict == "bad_data"
    assert pr.judge("p", value, None, ring).verdict == "unknown_provider"
    assert pr.judge(None, None, None, ring).verdict == "malformed"
    assert pr.judge("p", "not base64", provider, ring).verdict == "malformed"
    assert pr.judge("p", value, Fake(kind="unsupported"), ring).verdict == "unsupported"
    cng = Fake(kind="cng", container="iisCngWasKey")
    assert pr.judge("p", vectors()["cng"]["cases"][0]["value"], cng, ring).verdict == "needs_target"
    assert pr.judge("p", value[:64], cng, ring).verdict == "bad_data"
    ring.add_cng("IISCNGWASKEY", unb64(vectors()["cng"]["secret"]))
    assert pr.judge("p", vectors()["cng"]["cases"][0]["value"], cng, ring).verdict == "ok"
    with pytest.raises(kb.KeyBlobError, match="public only"):
        ring.add("iisWasKey", key("TestKey2048").public())


@pytest.mark.parametrize("text", ["tab\there", "\ud800", "\uffff", "line\n", "\x7f"])
def test_text_that_could_not_be_read_back_is_not_written(text: str) -> None:
    with pytest.raises(pr.ProtectionError):
        pr.encrypt_aes(text, pr.new_session_key())
    with pytest.raises(pr.ProtectionError):
        pr.encrypt_rsa(text, key("TestKey2048"))


def test_no_plaintext_in_repr_or_errors() -> None:
    stated = vectors()["sessions"]["TestKey2048 v1.5 AES-128"]
    ring = pr.KeyRing({"k": key("TestKey2048")})
    provider = Fake(container="k", session_key=stated["wrapped"])
    text = "the-plaintext-canary"
    value = pr.seal_text(provider, text, ring)
    name, data = pr.split_value(value)
    judged = pr.judge(name, data, provider, ring)
    assert judged.text == text
    for shown in (repr(judged), str(judged), repr(ring), repr(ring.session(provider)), value):
        assert text not in shown
    with pytest.raises(pr.ProtectionError) as caught:
        pr.encrypt_aes(text + "\x01", pr.new_session_key())
    assert text not in str(caught.value)
    raw = pr.encrypt_aes(text, ring.session(provider))
    with pytest.raises(pr.ProtectionError) as caught:
        pr.decrypt_aes(raw[:-16], ring.session(provider))
    assert text not in str(caught.value)
    assert base64.b64encode(ring.session(provider).key).decode() not in repr(caught.value)
