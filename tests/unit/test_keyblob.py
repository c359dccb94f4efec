# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys as XML and as CryptoAPI blobs, key file names, fingerprints."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from _support import CORPUS, NO_CORPUS, corpus, key, name_of, unb64, vectors
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyblob as kb

KEYS = sorted(vectors()["keys"])

# What each broken file of the corpus must be blamed for.
BROKEN = {
    "corefx_FromInvalidXml.xml": "line 28: not well-formed",
    "corefx_FromNonsenseXml.xml": "P times Q is not the modulus",
    "corefx_FromXml_BadBase64.xml": "<D> is not valid base64",
    "corefx_FromXml_MissingDP.xml": "<DP> missing",
    "corefx_FromXml_MissingDQ.xml": "<DQ> missing",
    "corefx_FromXml_MissingExponent.xml": "<Exponent> is missing",
    "corefx_FromXml_MissingInverseQ.xml": "<InverseQ> missing",
    "corefx_FromXml_MissingModulus.xml": "<Modulus> is missing",
    "corefx_FromXml_MissingQ.xml": "<Q> missing",
    "derived_corefx_2048_truncated.xml": "not well-formed",
    "derived_corefx_2048_truncated_after_Q.xml": "not well-formed",
    "placeholder_ellipsis.xml": "<Modulus> is not valid base64",
}


@pytest.mark.parametrize("name", KEYS)
def test_blobs_of_cryptoapi(name: str) -> None:
    stated = vectors()["keys"][name]
    private = kb.read_private_blob(unb64(stated["private"]))
    public = kb.read_public_blob(unb64(stated["public"]))
    assert private.bits == public.bits == stated["bits"]
    assert f"{public.modulus:x}" == stated["modulus"].lstrip("0")
    assert public.exponent == int(stated["exponent"], 16)
    assert private.public() == public
    assert kb.write_private_blob(private) == unb64(stated["private"])
    assert kb.write_public_blob(private) == unb64(stated["public"])
    assert kb.read_blob(unb64(stated["private"])) == private
    assert kb.read_blob(unb64(stated["public"])) == public


@pytest.mark.parametrize("name", KEYS)
def test_fingerprint_agrees_with_cryptoapi_and_openssl(name: str) -> None:
    one = key(name)
    assert one.fingerprint == vectors()["keys"][name]["fingerprint"]
    der = (
        rsa.RSAPublicNumbers(one.exponent, one.modulus)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert hashlib.sha256(der).hexdigest() == one.fingerprint
    assert kb.spki(one.modulus, one.exponent) == der
    text = subprocess.run(
        ["openssl", "rsa", "-pubin", "-inform", "DER", "-noout", "-modulus"], input=der, capture_output=True, check=True
    ).stdout.decode()
    assert int(text.split("=")[1], 16) == one.modulus


@pytest.mark.parametrize("name", KEYS)
def test_xml_round_trip(name: str) -> None:
    one = key(name)
    assert kb.read_xml(kb.write_xml(one, private=True)) == one
    assert kb.read_xml(kb.write_xml(one)) == one.public()
    assert "<D>" not in kb.write_xml(one)


def test_xml_spellings() -> None:
    one = key("TestKey1024")
    text = kb.write_xml(one, private=True)
    assert kb.read_xml(b"\xef\xbb\xbf" + text.encode()) == one
    assert kb.read_xml(text.encode("utf-16")) == one
    assert kb.read_xml("\ufeff\n  " + text.replace("><", ">\n  <") + "\n") == one
    assert kb.read_xml(f'<KeyValue xmlns="http://www.w3.org/2000/09/xmldsig#">{text}</KeyValue>') == one
    assert kb.read_xml(f'<?xml version="1.0" encoding="utf-16"?>{text}') == one


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("<RSAKeyValue/>", "<Modulus> is missing"),
        ("<RSAKeyValue><Modulus/><Exponent>AQAB</Exponent></RSAKeyValue>", "<Modulus> is empty"),
        ("<RSAKeyValue><Modulus>Aw==</Modulus><Exponent>AQAB</Exponent></RSAKeyValue>", "2 bits"),
        ("<!DOCTYPE a [<!ENTITY x 'y'>]><RSAKeyValue>&x;</RSAKeyValue>", "document type"),
        ("<RSAKeyValue><Modulus><b/></Modulus></RSAKeyValue>", "other elements"),
        ("not xml", "not well-formed"),
        ("<a>\ud800</a>", "not valid Unicode"),
    ],
)
def test_malformed_xml(text: str, reason: str) -> None:
    with pytest.raises(kb.KeyBlobError, match=reason):
        kb.read_xml(text)


def test_repeated_element_and_public_key_written_as_private() -> None:
    text = kb.write_xml(key("TestKey1024"))
    with pytest.raises(kb.KeyBlobError, match="<Exponent> occurs twice"):
        kb.read_xml(text.replace("</RSAKeyValue>", "<Exponent>Aw==</Exponent></RSAKeyValue>"))
    with pytest.raises(kb.KeyBlobError, match="no private half"):
        kb.write_xml(key("TestKey1024").public(), private=True)
    with pytest.raises(kb.KeyBlobError, match="no private half"):
        kb.write_private_blob(key("TestKey1024").public())


def test_big_exponent_fits_xml_but_no_blob() -> None:
    one = kb.RsaKey(key("TestKey1024").modulus, (1 << 40) + 1)
    assert kb.read_xml(kb.write_xml(one)) == one
    with pytest.raises(kb.KeyBlobError, match="more than 32 bits"):
        kb.write_public_blob(one)


def test_longer_d_is_reduced_for_the_blob() -> None:
    one = key("TestKey1024")
    phi = (one.p - 1) * (one.q - 1)
    longer = kb.RsaKey(one.modulus, one.exponent, one.p, one.q, one.dp, one.dq, one.inverse_q, one.d + 5 * phi)
    assert kb.read_private_blob(kb.write_private_blob(longer)).d == one.d % phi


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: b[:-1], "bytes, a blob of 1024 bits has"),
        (lambda b: b + b"\0", "bytes, a blob of 1024 bits has"),
        (lambda b: b[:7], "too few"),
        (lambda b: b[:15], "cut off"),
        (lambda b: b"\x06" + b[1:], "blob type 6"),
        (lambda b: b[:1] + b"\x01" + b[2:], "version 1"),
        (lambda b: b[:4] + b"\x00\x24" + b[6:], "AT_KEYEXCHANGE"),
        (lambda b: b[:8] + b"RSA1" + b[12:], "magic"),
        (lambda b: b[:12] + b"\xff\xff\xff\x7f" + b[16:], "bits"),
        (lambda b: b[:20] + bytes([b[20] ^ 2]) + b[21:], "P times Q"),
        (lambda b: b[:-1] + bytes([b[-1] ^ 1]), "does not fit"),
    ],
)
def test_malformed_private_blob(change: object, reason: str) -> None:
    blob = kb.write_private_blob(key("TestKey1024"))
    with pytest.raises(kb.KeyBlobError, match=reason):
        kb.read_private_blob(change(blob))  # type: ignore[operator]


def test_simple_blob() -> None:
    for name, session in vectors()["sessions"].items():
        raw = unb64(session["wrapped"])
        blob = kb.read_simple_blob(raw)
        assert raw[:12].hex() == f"01020000{raw[4:6].hex()}000000a40000"
        assert kb.write_simple_blob(blob) == raw
        assert blob.key_bits == vectors()["keys"][session["key"]]["bits"]
        assert f"AES-{kb.SESSION_KEY_BYTES[blob.algorithm] * 8}" in name
    for broken, reason in [
        (b"", "too few"),
        (raw[:20], "too few"),
        (b"\x07" + raw[1:], "blob type 7"),
        (raw[:4] + b"\x01\x68" + raw[6:], "none of AES"),
        (raw[:8] + b"\0\0\0\0" + raw[12:], "wrapped by"),
    ]:
        with pytest.raises(kb.KeyBlobError, match=reason):
            kb.read_simple_blob(broken)


def test_no_key_numbers_in_repr_and_errors() -> None:
    one = key("TestKey1024")
    for number in (one.d, one.p, one.q, one.dp, one.dq, one.inverse_q):
        assert str(number) not in repr(one)
        assert f"{number:x}" not in repr(one)
    with pytest.raises(kb.KeyBlobError) as caught:
        kb.make_key(one.modulus, one.exponent, one.p, one.q, one.d + 2)
    assert str(one.d) not in str(caught.value)
    assert kb.make_key(one.modulus, one.exponent, one.p, one.q, one.d) == one


@pytest.mark.parametrize(
    ("container", "store", "prefix"),
    [
        ("iisWasKey", "cryptoapi", "76944fb33636aeddb9590521c2e8815a"),
        ("iisConfigurationKey", "cryptoapi", "6de9cb26d2b98c01ec4e9e8b34824aa2"),
        ("NetFrameworkConfigurationKey", "cryptoapi", "d6d986f09a1ee04e24c949879fdb506c"),
        ("Microsoft Internet Information Server", "cryptoapi", "c2319c42033a5ca7f44e731bfd3fa2b5"),
        ("WMSvc Certificate Key Container", "cryptoapi", "bedbf0b4da5f8061b6444baedf4c00b1"),
        ("MS IIS DCOM Server", "cryptoapi", "7a436fe806e483969f48a894af2fe9a1"),
        ("TSSecKeySet1", "cryptoapi", "f686aace6942fb7f7ceb231212eef4a4"),
        ("iisCngWasKey", "cng", "597367cc37b886d7ee6c493e3befb421"),
        ("iisCngConfigurationKey", "cng", "f0e91f6485ac2d09485e4ec18135601e"),
        ("Certificate-LTD-CA", "cng", "26b68cbdfcd6f5e467996e3f3810f3ca"),
    ],
)
def test_file_names(container: str, store: kb.Store, prefix: str) -> None:
    guid = "0e3b1c7a-5d2f-4b89-9c10-aabbccddeeff"
    assert kb.file_name(container, guid, store) == f"{prefix}_{guid}"
    assert kb.file_prefix(container.upper(), store) == prefix
    found = kb.container_of_file(f"C:\\ProgramData\\x\\{prefix}_{guid}", ["Certificate-LTD-CA"])
    assert (found.container, found.store, found.machine_guid) == (container, store, guid)


def test_file_names_that_are_none() -> None:
    unknown = kb.container_of_file("0" * 32 + "_0e3b1c7a-5d2f-4b89-9c10-aabbccddeeff")
    assert unknown.container is None
    with pytest.raises(kb.KeyBlobError, match="not the name of a key file"):
        kb.container_of_file("desktop.ini")
    with pytest.raises(kb.KeyBlobError, match="machine GUID"):
        kb.file_name("iisWasKey", "not-a-guid")
    with pytest.raises(kb.KeyBlobError, match="empty"):
        kb.file_prefix("")
    with pytest.raises(kb.KeyBlobError, match="cannot hold"):
        kb.file_prefix("密码")


@pytest.mark.skipif(not CORPUS.exists(), reason=NO_CORPUS)
@pytest.mark.parametrize("path", corpus("rsa_keys"), ids=name_of)
def test_every_key_of_the_corpus(path: Path) -> None:
    content = path.read_bytes()
    if path.name in BROKEN:
        with pytest.raises(kb.KeyBlobError, match=BROKEN[path.name]):
            kb.read_xml(content)
        return
    one = kb.read_xml(content)
    assert kb.read_xml(kb.write_xml(one, private=one.has_private)) == one
    if "assembled" in path.name:
        assert kb.write_xml(one, private=one.has_private).encode() == content
    if one.has_private:
        assert kb.read_private_blob(kb.write_private_blob(one)) == one
