# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""Private keys as people have them in files: recognised by their content, read into one form.

* RSAKeyValue XML of ``aspnet_regiis -px CONTAINER FILE -pri``
* PEM and DER: PKCS#1, PKCS#8, with or without a passphrase
* PVK, clear or encrypted (RC4 under SHA-1 of salt and password; 128 bits, or 40 bits in the export variant)
* PRIVATEKEYBLOB, the blob of CryptoAPI

Any of them may also be base64 text, because a variable or a lookup cannot hold bytes.

Sources: OpenSSL ``crypto/pem/pvkfmt.c`` for the PVK header and its two key lengths; the rest is in ``_keyblob`` and
in the cryptography library.
"""

from __future__ import annotations

import hashlib
import struct
import typing as t
from dataclasses import dataclass

from ansible_collections.webfarm.iis.plugins.plugin_utils import _libraries
from ansible_collections.webfarm.iis.plugins.plugin_utils._keyblob import (
    ALG_RSA_KEYX,
    KeyBlobError,
    RsaKey,
    decode_base64,
    make_key,
    read_private_blob,
    read_public_blob,
    read_xml,
)

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.ciphers import Cipher
except ImportError as error:
    _libraries.note(error)

Kind = t.Literal["xml", "pem", "der", "pvk", "privatekeyblob"]

_PVK_MAGIC = b"\x1e\xf1\xb5\xb0"
_PVK_HEADER = struct.Struct("<6I")
_PVK_RC4_BYTES = 16
_PVK_WEAK_BYTES = 5
_BLOB_CLEAR_BYTES = 8  # the blob header stays readable in an encrypted PVK file
_MAXIMUM_SALT = 10 * 1024
_MAXIMUM_BLOB = 100 * 1024


class KeyFileError(ValueError):
    """A key that cannot be read. The message names option and file, what is wrong and what to do; no key material."""


@dataclass(frozen=True)
class KeyFile:
    """A private key out of a file, the kind of the file, and what its owner should know about it."""

    key: RsaKey
    kind: Kind
    warning: str | None = None


def read_key_file(content: bytes, passphrase: str | None, what: str, option: str = "passphrase") -> KeyFile:
    """A private RSA key from the content of a file. *what* names option and file, *option* is the passphrase's.

    Raises :class:`KeyFileError`. Content without the private half is refused.
    """
    kind, raw = _recognise(content, what)
    try:
        if kind == "xml":
            return KeyFile(_private_half(read_xml(raw), what), kind)
        if kind == "privatekeyblob":
            return KeyFile(_private_half(_blob(raw), what), kind)
        if kind == "pem" and b"PRIVATE KEY-----" not in raw and b"PUBLIC KEY-----" in raw:
            raise _public_only(what)
        if kind == "pvk":
            key, weak = _read_pvk(raw, passphrase, what, option)
            warning = (
                f"{what} is a PVK file in the weak variant: 40 bits protect its key, which anybody can break. "
                "Delete the file once the bundle is in place."
            )
            return KeyFile(key, kind, warning if weak else None)
        return KeyFile(_rsa_key(load_private(raw, passphrase, what, option), what), kind)
    except KeyBlobError as error:
        raise KeyFileError(f"{what} holds no usable private key: {error}") from None


# --- recognition ----------------------------------------------------------------------------------------------------


def _recognise(content: bytes, what: str) -> tuple[Kind, bytes]:
    kind = _kind_of_bytes(content)
    if kind:
        return kind, content
    text = _text(content)
    if text is None:
        raise _unknown(what)
    if text.startswith("<"):
        return "xml", content  # as it is, so that the lines of an error are right
    if "-----BEGIN " in text:
        return "pem", text.encode("utf-8")
    if not text:
        raise KeyFileError(f"{what} is empty")
    try:
        raw = decode_base64(text)
    except KeyBlobError:
        raise _unknown(what) from None
    inner = _kind_of_bytes(raw)
    if inner:
        return inner, raw
    # base64 of a text file; once is enough
    text = _text(raw) or ""
    if text.startswith("<"):
        return "xml", raw
    if "-----BEGIN " in text:
        return "pem", text.encode("utf-8")
    raise _unknown(what)


def _kind_of_bytes(content: bytes) -> Kind | None:
    if content.startswith(_PVK_MAGIC):
        return "pvk"
    if content[:4] in (b"\x07\x02\0\0", b"\x06\x02\0\0"):
        return "privatekeyblob"
    if content[:1] == b"\x30" and content[1:2] in (b"\x81", b"\x82"):
        return "der"
    return None


def _text(content: bytes) -> str | None:
    """The content as text, if it is text. PowerShell 5.1 writes UTF-16 when a command's output is redirected."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding).strip()
    except UnicodeDecodeError:
        return None


def _unknown(what: str) -> KeyFileError:
    return KeyFileError(
        f"{what} is none of the known kinds of key: RSAKeyValue XML (aspnet_regiis -px -pri), PEM, DER, PVK, "
        "PRIVATEKEYBLOB, or one of these in base64"
    )


def _public_only(what: str) -> KeyFileError:
    return KeyFileError(
        f"{what} holds the public half of the key only, so it cannot decrypt anything. aspnet_regiis -pi reports "
        "success for such a file and changes nothing. Export the key with its private half: "
        "aspnet_regiis -px CONTAINER FILE -pri"
    )


def _private_half(key: RsaKey, what: str) -> RsaKey:
    if not key.has_private:
        raise _public_only(what)
    return key


# --- PEM and DER ----------------------------------------------------------------------------------------------------


def load_private(content: bytes, passphrase: str | None, what: str, option: str) -> object:
    """A private key of any algorithm from PEM or DER. Raises :class:`KeyFileError`."""
    pem = b"-----BEGIN " in content
    if pem and b"PRIVATE KEY-----" not in content:
        raise KeyFileError(f"{what} is not a PEM private key (-----BEGIN PRIVATE KEY-----)")
    encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in content or b"Proc-Type: 4,ENCRYPTED" in content
    if not pem:
        encrypted = _der_is_encrypted(content)
    if encrypted and not passphrase:
        raise KeyFileError(f"{what} is protected by a passphrase; give it in {option}")
    load = serialization.load_pem_private_key if pem else serialization.load_der_private_key
    try:
        return load(content, passphrase.encode("utf-8") if encrypted and passphrase else None)
    except UnsupportedAlgorithm:
        raise KeyFileError(f"{what} has a kind of key or encryption that is not supported") from None
    except (ValueError, TypeError):
        if encrypted:
            raise KeyFileError(f"{what} does not open with the given {option}; check the passphrase") from None
        raise KeyFileError(f"{what} is damaged or not a {'PEM' if pem else 'DER'} private key") from None


def _der_is_encrypted(content: bytes) -> bool:
    """EncryptedPrivateKeyInfo starts with an AlgorithmIdentifier, the other two with a version number."""
    skip = 2 + (content[1] & 0x7F) if len(content) > 2 and content[1] & 0x80 else 2
    return content[skip : skip + 1] == b"\x30"


def _rsa_key(private: object, what: str) -> RsaKey:
    if not isinstance(private, rsa.RSAPrivateKey):
        raise KeyFileError(f"{what} is not an RSA key; the key containers of IIS hold RSA keys")
    numbers = private.private_numbers()
    return make_key(numbers.public_numbers.n, numbers.public_numbers.e, numbers.p, numbers.q, numbers.d)


# --- CryptoAPI ------------------------------------------------------------------------------------------------------


def _blob(raw: bytes) -> RsaKey:
    return read_private_blob(raw) if raw[0] == 7 else read_public_blob(raw)


def _read_pvk(raw: bytes, passphrase: str | None, what: str, option: str) -> tuple[RsaKey, bool]:
    """The key of a PVK file, and whether it was encrypted in the weak variant."""
    if len(raw) < _PVK_HEADER.size:
        raise KeyFileError(f"{what} is a PVK file that is cut off in its header")
    dummy, reserved, dummy, encrypted, salt_length, blob_length = _PVK_HEADER.unpack_from(raw)
    if reserved or encrypted > 1 or salt_length > _MAXIMUM_SALT or blob_length > _MAXIMUM_BLOB:
        raise KeyFileError(f"{what} has a damaged PVK header")
    start = _PVK_HEADER.size + salt_length
    salt, blob = raw[_PVK_HEADER.size : start], raw[start : start + blob_length]
    if len(blob) != blob_length or blob_length < _BLOB_CLEAR_BYTES + 4:
        raise KeyFileError(f"{what} is a PVK file that is cut off")
    (algorithm,) = struct.unpack_from("<I", blob, 4)
    if algorithm != ALG_RSA_KEYX:
        raise KeyFileError(
            f"{what} holds a key of the algorithm {algorithm:#06x}; the containers of IIS hold RSA exchange keys "
            f"({ALG_RSA_KEYX:#06x}, AT_KEYEXCHANGE)"
        )
    if not encrypted:
        return read_private_blob(blob), False
    if not salt_length:
        raise KeyFileError(f"{what} has a damaged PVK header: it is encrypted and has no salt")
    if not passphrase:
        raise KeyFileError(f"{what} is protected by a password; give it in {option}")
    for secret in _encodings(passphrase):
        digest = hashlib.sha1(salt + secret, usedforsecurity=False).digest()
        for length in (_PVK_RC4_BYTES, _PVK_WEAK_BYTES):
            key = digest[:length].ljust(_PVK_RC4_BYTES, b"\0")
            clear = blob[:_BLOB_CLEAR_BYTES] + _rc4(key, blob[_BLOB_CLEAR_BYTES:], what)
            if clear[_BLOB_CLEAR_BYTES : _BLOB_CLEAR_BYTES + 4] == b"RSA2":
                return read_private_blob(clear), length == _PVK_WEAK_BYTES
    raise KeyFileError(f"{what} does not open with the given {option}; check the password")


def _encodings(passphrase: str) -> list[bytes]:
    """The password as OpenSSL gets it from a terminal today, and as the older Windows tools took it."""
    found = [passphrase.encode("utf-8")]
    try:
        found.append(passphrase.encode("cp1252"))
    except UnicodeEncodeError:
        pass
    return list(dict.fromkeys(found))


def _rc4(key: bytes, data: bytes, what: str) -> bytes:
    try:
        decryptor = Cipher(ARC4(key), mode=None).decryptor()
    except UnsupportedAlgorithm:
        raise KeyFileError(
            f"{what} is encrypted by RC4, which the OpenSSL of this controller does not offer (FIPS, or no legacy "
            "provider). Convert the file elsewhere, for instance to PKCS#8: openssl rsa -inform PVK -aes256"
        ) from None
    return decryptor.update(data) + decryptor.finalize()
