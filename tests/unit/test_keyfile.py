# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private keys as people have them. The files are written by openssl or come from CryptoAPI and the corpus."""

from __future__ import annotations

import base64
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from _support import CORPUS, NO_CORPUS, corpus, key, name_of, unb64, vectors
from cryptography.exceptions import UnsupportedAlgorithm
from test_keyblob import BROKEN

from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyblob as kb
from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyfile as kf

PASSWORD = "Geheim-und-lang"
NAMES = ["TestKey1024", "TestKey2048", "TestKey4096"]
# RC4 is in the legacy provider of OpenSSL 3.
LEGACY = ["-provider", "legacy", "-provider", "default"]


def openssl(*arguments: str, data: bytes) -> bytes:
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def pem_of(name: str) -> bytes:
    """CryptoAPI's own PRIVATEKEYBLOB of the test key, converted by openssl."""
    return openssl("rsa", "-inform", "MSBLOB", data=unb64(vectors()["keys"][name]["private"]))


def read(content: bytes, passphrase: str | None = None) -> kf.KeyFile:
    return kf.read_key_file(content, passphrase, "import_from: x")


WRITTEN: dict[str, tuple[list[str], str]] = {
    "PKCS#8": (["pkey"], "pem"),
    "PKCS#1": (["rsa", "-traditional"], "pem"),
    "PKCS#8 encrypted": (["pkey", "-aes256", "-passout", f"pass:{PASSWORD}"], "pem"),
    "PKCS#1 encrypted": (["rsa", "-traditional", "-aes256", "-passout", f"pass:{PASSWORD}"], "pem"),
    "PKCS#8 DER": (["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], "der"),
    "PKCS#1 DER": (["rsa", "-traditional", "-outform", "DER"], "der"),
    "PKCS#8 DER encrypted": (["pkcs8", "-topk8", "-passout", f"pass:{PASSWORD}", "-outform", "DER"], "der"),
    "PRIVATEKEYBLOB": (["rsa", "-outform", "MSBLOB"], "privatekeyblob"),
    "PVK clear": (["rsa", "-outform", "PVK", "-pvk-none"], "pvk"),
    "PVK strong": (["rsa", "-outform", "PVK", "-pvk-strong", "-passout", f"pass:{PASSWORD}", *LEGACY], "pvk"),
    "PVK weak": (["rsa", "-outform", "PVK", "-pvk-weak", "-passout", f"pass:{PASSWORD}", *LEGACY], "pvk"),
}
ENCRYPTED = [title for title in WRITTEN if "encrypted" in title or "strong" in title or "weak" in title]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("title", WRITTEN)
def test_what_openssl_writes(title: str, name: str) -> None:
    arguments, kind = WRITTEN[title]
    content = openssl(*arguments, data=pem_of(name))
    found = read(content, PASSWORD)
    assert (found.key, found.kind) == (key(name), kind)
    assert (found.warning is not None) == (title == "PVK weak")
    # a variable holds text only
    assert read(base64.b64encode(content), PASSWORD).key == key(name)
    assert read(base64.encodebytes(content), PASSWORD).key == key(name)


@pytest.mark.parametrize("title", ENCRYPTED)
def test_a_passphrase_that_is_missing_or_wrong(title: str) -> None:
    content = openssl(*WRITTEN[title][0], data=pem_of("TestKey2048"))
    with pytest.raises(
        kf.KeyFileError, match=r"import_from: x is protected by a pass(word|phrase); give it in passphr"
    ):
        read(content)
    with pytest.raises(kf.KeyFileError, match="does not open with the given passphrase") as caught:
        read(content, "Falsch-und-lang")
    assert "Falsch" not in str(caught.value)


def test_pvk_with_a_password_beyond_ascii() -> None:
    """OpenSSL takes the bytes of the terminal; the Windows tools took the ANSI code page."""
    for encoding in ("utf-8", "cp1252"):
        command = [b"openssl", b"rsa", b"-outform", b"PVK", b"-passout", "pass:Schlüssel".encode(encoding)]
        command += [argument.encode() for argument in LEGACY]
        done = subprocess.run(command, input=pem_of("TestKey2048"), capture_output=True, check=True)
        assert read(done.stdout, "Schlüssel").key == key("TestKey2048")


def test_pvk_without_rc4(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise UnsupportedAlgorithm("no RC4")

    content = openssl(*WRITTEN["PVK strong"][0], data=pem_of("TestKey2048"))
    monkeypatch.setattr(kf, "Cipher", Refusing)
    with pytest.raises(kf.KeyFileError, match="RC4, which the OpenSSL of this controller does not offer"):
        read(content, PASSWORD)


def pvk(**change: int) -> bytes:
    blob = unb64(vectors()["keys"]["TestKey2048"]["private"])
    header = {"magic": 0xB0B5F11E, "reserved": 0, "type": 1, "encrypted": 0, "salt": 0, "length": len(blob)} | change
    return struct.pack("<6I", *header.values()) + blob


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"  \r\n", "is empty"),
        (b"hello there", "none of the known kinds"),
        (b"\xff\xfb\x00\x10", "none of the known kinds"),
        (base64.b64encode(b"hello there, no key"), "none of the known kinds"),
        (pvk()[:20], "cut off in its header"),
        (pvk()[:-1], "is a PVK file that is cut off"),
        (pvk(length=4), "is a PVK file that is cut off"),
        (pvk(reserved=1), "damaged PVK header"),
        (pvk(encrypted=2), "damaged PVK header"),
        (pvk(encrypted=1), "encrypted and has no salt"),
        (pvk(length=1 << 20), "damaged PVK header"),
        (pvk().replace(b"\x00\xa4\x00\x00", b"\x00\x24\x00\x00", 1), "algorithm 0x2400; .* AT_KEYEXCHANGE"),
        (pvk().replace(b"RSA2", b"RSA1", 1), "the magic is not RSA2"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is not a PEM private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "damaged or not a PEM private key"),
        (b"\x30\x82\x00\x03\x02\x01\x00", "damaged or not a DER private key"),
        (b"<RSAKeyValue></RSAKeyValue>", "<Modulus> is missing"),
    ],
)
def test_what_is_no_private_key(content: bytes, reason: str) -> None:
    with pytest.raises(kf.KeyFileError, match=reason) as caught:
        read(content, PASSWORD)
    assert str(caught.value).startswith("import_from: x ")


def test_the_clear_pvk_of_the_test_is_one() -> None:
    assert read(pvk()).key == key("TestKey2048")


def test_another_algorithm() -> None:
    content = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", data=b"")
    with pytest.raises(kf.KeyFileError, match="import_from: x is not an RSA key"):
        read(content)


@pytest.mark.parametrize(
    "content",
    [
        kb.write_xml(key("TestKey2048")).encode(),
        unb64(vectors()["keys"]["TestKey2048"]["public"]),
        openssl("rsa", "-pubout", data=pem_of("TestKey2048")),
        openssl("rsa", "-RSAPublicKey_out", data=pem_of("TestKey2048")),
    ],
    ids=["XML", "PUBLICKEYBLOB", "PEM", "PKCS#1 PEM"],
)
def test_the_public_half_is_refused_with_the_reason(content: bytes) -> None:
    with pytest.raises(kf.KeyFileError, match="public half .* reports success for such a file and changes nothing"):
        read(content)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_text(encoding: str) -> None:
    xml = kb.write_xml(key("TestKey2048"), private=True)
    assert read(f"\r\n{xml}\r\n".encode(encoding)).key == key("TestKey2048")
    assert read(pem_of("TestKey2048").decode().encode(encoding)).key == key("TestKey2048")
    assert read(base64.b64encode(xml.encode(encoding))).key == key("TestKey2048")


@pytest.mark.skipif(not CORPUS.exists(), reason=NO_CORPUS)
@pytest.mark.parametrize("path", corpus("rsa_keys"), ids=name_of)
def test_every_spelling_of_the_corpus(path: Path) -> None:
    content = path.read_bytes()
    if path.name in BROKEN:
        with pytest.raises(kf.KeyFileError, match=BROKEN[path.name]):
            read(content)
    elif kb.read_xml(content).has_private:
        found = read(content)
        assert found.kind == "xml"
        # openssl computes what the numbers say
        der = openssl("rsa", "-inform", "MSBLOB", "-pubout", "-outform", "DER", data=kb.write_private_blob(found.key))
        assert der == kb.spki(found.key.modulus, found.key.exponent)
    else:
        with pytest.raises(kf.KeyFileError, match="public half"):
            read(content)


def test_no_key_numbers_in_what_is_shown() -> None:
    found = read(pem_of("TestKey2048"))
    for number in (found.key.d, found.key.p):
        assert str(number) not in repr(found)
        assert f"{number:x}" not in repr(found)
