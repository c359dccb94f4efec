# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""RSA keys as IIS and CryptoAPI write them.

RSAKeyValue XML (what ``aspnet_regiis -px`` writes and ``-pi`` reads), the CryptoAPI blobs PRIVATEKEYBLOB,
PUBLICKEYBLOB and SIMPLEBLOB, the file names of key containers, and public fingerprints.

Sources: .NET Framework reference source, mscorlib ``rsa.cs`` (XML: big-endian integers in base64, any order, local
names, unknown elements ignored); Microsoft's wincrypt.h documentation of the blobs (little-endian integers of fixed
width); the rule of the file names: MD5 of the lower-case name with its NUL, printed as four little-endian DWORDs,
then the machine GUID.

No function puts key numbers into an exception or a ``repr``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
import typing as t
from dataclasses import dataclass

from ansible_collections.webfarm.iis.plugins.plugin_utils import _libraries
from ansible_collections.webfarm.iis.plugins.plugin_utils._xml import XmlError, parse_utf8

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import load_der_public_key
except ImportError as error:
    _libraries.note(error)

ALG_AES_128 = 0x660E
ALG_AES_192 = 0x660F
ALG_AES_256 = 0x6610
ALG_RSA_KEYX = 0xA400

# Bytes of a session key by its algorithm.
SESSION_KEY_BYTES = {ALG_AES_128: 16, ALG_AES_192: 24, ALG_AES_256: 32}

MINIMUM_BITS = 384
MAXIMUM_BITS = 16384

_SIMPLEBLOB = 1
_PUBLICKEYBLOB = 6
_PRIVATEKEYBLOB = 7
_BLOB_VERSION = 2
_MAGIC_PUBLIC = b"RSA1"
_MAGIC_PRIVATE = b"RSA2"

# What an RSAKeyValue holds, in the order RSA.ToXmlString writes.
_PUBLIC_ELEMENTS = ("Modulus", "Exponent")
_PRIVATE_ELEMENTS = ("P", "Q", "DP", "DQ", "InverseQ", "D")

# DER of AlgorithmIdentifier rsaEncryption with NULL parameters (RFC 8017, appendix A.1).
_RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")

Store = t.Literal["cryptoapi", "cng"]

# Containers that IIS and its neighbours use. The file names on a server lead back to these.
KNOWN_CONTAINERS: dict[Store, tuple[str, ...]] = {
    "cryptoapi": (
        "iisWasKey",
        "iisConfigurationKey",
        "NetFrameworkConfigurationKey",
        "Microsoft Internet Information Server",
        "WMSvc Certificate Key Container",
        "MS IIS DCOM Server",
        "TSSecKeySet1",
    ),
    "cng": ("iisCngWasKey", "iisCngConfigurationKey"),
}

_FILE_NAME = re.compile(r"([0-9a-fA-F]{32})_([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\Z")
_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")


class KeyBlobError(ValueError):
    """A key, blob or name that cannot be used; the message names what is wrong, never a private number."""


@dataclass(frozen=True, repr=False)
class RsaKey:
    """An RSA key. The private numbers are all there or all 0."""

    modulus: int
    exponent: int
    p: int = 0
    q: int = 0
    dp: int = 0
    dq: int = 0
    inverse_q: int = 0
    d: int = 0

    def __repr__(self) -> str:
        kind = "private" if self.has_private else "public"
        return f"<RsaKey {kind} {self.bits} bits {self.fingerprint[:16]}>"

    @property
    def bits(self) -> int:
        """Length of the modulus in bits."""
        return self.modulus.bit_length()

    @property
    def size(self) -> int:
        """Length of the modulus, so of one RSA block, in bytes."""
        return (self.bits + 7) // 8

    @property
    def has_private(self) -> bool:
        return self.d != 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the DER SubjectPublicKeyInfo, lower-case hexadecimal."""
        return fingerprint(self.modulus, self.exponent)

    def public(self) -> RsaKey:
        """The same key without its private numbers."""
        return RsaKey(self.modulus, self.exponent)


@dataclass(frozen=True)
class SimpleBlob:
    """A wrapped session key: algorithm of the key and one RSA block in CryptoAPI's byte order (little-endian)."""

    algorithm: int
    block: bytes

    @property
    def key_bits(self) -> int:
        """Bits of the RSA key that the block was made for; known without opening it."""
        return len(self.block) * 8


@dataclass(frozen=True)
class ContainerFile:
    """A key file name taken apart. ``container`` is None when the first part belongs to no name that was tried."""

    prefix: str
    machine_guid: str
    container: str | None
    store: Store | None


# --- checks ---------------------------------------------------------------------------------------------------------


def _check_public(modulus: int, exponent: int) -> None:
    bits = modulus.bit_length()
    if not MINIMUM_BITS <= bits <= MAXIMUM_BITS:
        raise KeyBlobError(f"the modulus has {bits} bits; between {MINIMUM_BITS} and {MAXIMUM_BITS} are accepted")
    if modulus % 2 == 0:
        raise KeyBlobError("the modulus is even, so it is no RSA modulus")
    if exponent < 3 or exponent % 2 == 0 or exponent >= modulus:
        raise KeyBlobError("the exponent is not an odd number between 3 and the modulus")


def _check_private(key: RsaKey) -> None:
    """The private numbers fit together; a mix-up of elements would otherwise show only at the first decryption."""
    if key.p < 3 or key.q < 3 or key.p * key.q != key.modulus:
        raise KeyBlobError("P times Q is not the modulus: the private numbers do not belong to this modulus")
    if key.dp != key.d % (key.p - 1):
        raise KeyBlobError("DP does not fit D and P")
    if key.dq != key.d % (key.q - 1):
        raise KeyBlobError("DQ does not fit D and Q")
    if key.inverse_q * key.q % key.p != 1 or key.inverse_q >= key.p:
        raise KeyBlobError("InverseQ is not the inverse of Q modulo P")
    if key.d * key.exponent % (key.p - 1) != 1 or key.d * key.exponent % (key.q - 1) != 1:
        raise KeyBlobError("D does not fit the exponent: this private key cannot decrypt for its public key")


def make_key(modulus: int, exponent: int, p: int, q: int, d: int) -> RsaKey:
    """A checked private key from its essential numbers. Raises :class:`KeyBlobError`."""
    if p < 3 or q < 3:
        raise KeyBlobError("P or Q is missing")
    try:
        inverse = pow(q, -1, p)
    except ValueError:
        raise KeyBlobError("Q has no inverse modulo P: these are not the primes of an RSA key") from None
    key = RsaKey(modulus, exponent, p, q, d % (p - 1), d % (q - 1), inverse, d)
    _check_public(modulus, exponent)
    _check_private(key)
    return key


# --- RSAKeyValue XML ------------------------------------------------------------------------------------------------


def _element_number(name: str, text: str | None) -> int:
    compact = "".join((text or "").split())
    if not compact:
        raise KeyBlobError(f"element <{name}> is empty")
    try:
        raw = decode_base64(compact)
    except KeyBlobError:
        raise KeyBlobError(f"element <{name}> is not valid base64") from None
    return int.from_bytes(raw, "big")


def decode_base64(text: str) -> bytes:
    """Standard base64 with its padding; white space is ignored, anything else refused (:class:`KeyBlobError`)."""
    compact = "".join(text.split())
    try:
        if len(compact) % 4:
            raise ValueError
        return base64.b64decode(compact.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise KeyBlobError("not valid base64") from None


def _xml_bytes(data: str | bytes) -> bytes:
    if isinstance(data, str):
        return data.lstrip("\ufeff").encode("utf-8", "strict")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        # What PowerShell 5.1's redirection makes of the file.
        try:
            return data.decode("utf-16").encode("utf-8")
        except UnicodeDecodeError:
            raise KeyBlobError("the file has a UTF-16 byte-order mark and is not UTF-16") from None
    return data.removeprefix(b"\xef\xbb\xbf")


def read_xml(data: str | bytes) -> RsaKey:
    """Read an RSAKeyValue document, private or public only.

    Accepted as the .NET reader accepts it: any order, white space in values, unknown elements, any root element, a
    ``KeyValue`` wrapper, namespaces. Refused with a :class:`KeyBlobError` that names the element: malformed XML, bad
    base64, a missing or repeated element, some but not all private elements, numbers that do not fit together.
    """
    try:
        raw = _xml_bytes(data)
    except UnicodeEncodeError:
        raise KeyBlobError("the text is not valid Unicode") from None
    if not raw.strip():
        raise KeyBlobError("the document is empty")
    try:
        root = parse_utf8(raw)
    except XmlError as error:
        raise KeyBlobError(str(error)) from None
    found: dict[str, int] = {}
    for element in root.iter():
        if not isinstance(element.tag, str):
            continue
        name = element.tag.rpartition("}")[2]
        if name not in _PUBLIC_ELEMENTS and name not in _PRIVATE_ELEMENTS:
            continue
        if name in found:
            raise KeyBlobError(f"element <{name}> occurs twice, in line {element.sourceline} again")
        if len(element):
            raise KeyBlobError(f"element <{name}> holds other elements instead of base64")
        found[name] = _element_number(name, element.text)
    for name in _PUBLIC_ELEMENTS:
        if name not in found:
            raise KeyBlobError(f"element <{name}> is missing; this is no RSAKeyValue")
    _check_public(found["Modulus"], found["Exponent"])
    missing = [name for name in _PRIVATE_ELEMENTS if name not in found]
    if len(missing) == len(_PRIVATE_ELEMENTS):
        return RsaKey(found["Modulus"], found["Exponent"])
    if missing:
        names = ", ".join(f"<{name}>" for name in missing)
        raise KeyBlobError(f"the private key is incomplete: {names} missing")
    key = RsaKey(
        found["Modulus"],
        found["Exponent"],
        found["P"],
        found["Q"],
        found["DP"],
        found["DQ"],
        found["InverseQ"],
        found["D"],
    )
    _check_private(key)
    return key


def write_xml(key: RsaKey, *, private: bool = False) -> str:
    """RSAKeyValue on one line without a declaration, byte for byte as RSA.ToXmlString writes it."""
    if private and not key.has_private:
        raise KeyBlobError("the key has no private half to write")
    half = (key.size + 1) // 2
    parts = [
        ("Modulus", key.modulus, key.size),
        ("Exponent", key.exponent, (key.exponent.bit_length() + 7) // 8),
    ]
    if private:
        parts += [
            ("P", key.p, half),
            ("Q", key.q, half),
            ("DP", key.dp, half),
            ("DQ", key.dq, half),
            ("InverseQ", key.inverse_q, half),
            ("D", key.d, key.size),
        ]
    body = "".join(
        f"<{name}>{base64.b64encode(number.to_bytes(size, 'big')).decode('ascii')}</{name}>"
        for name, number, size in parts
    )
    return f"<RSAKeyValue>{body}</RSAKeyValue>"


# --- CryptoAPI blobs ------------------------------------------------------------------------------------------------


def _header(data: bytes, what: str) -> tuple[int, int]:
    """Type and algorithm of a blob. PUBLICKEYSTRUC: type (1), version (1), reserved (2), algorithm (4)."""
    if len(data) < 8:
        raise KeyBlobError(f"{what}: {len(data)} bytes are too few for a blob header")
    kind, version, reserved, algorithm = struct.unpack_from("<BBHI", data)
    if version != _BLOB_VERSION or reserved != 0:
        raise KeyBlobError(f"{what}: not a CryptoAPI blob (version {version}, expected {_BLOB_VERSION})")
    return kind, algorithm


def _read_rsa(data: bytes, what: str, kind: int) -> RsaKey:
    found, algorithm = _header(data, what)
    if found != kind:
        raise KeyBlobError(f"{what}: blob type {found}, expected {kind}")
    if algorithm != ALG_RSA_KEYX:
        raise KeyBlobError(
            f"{what}: algorithm {algorithm:#06x}, expected {ALG_RSA_KEYX:#06x} (an exchange key, AT_KEYEXCHANGE)"
        )
    if len(data) < 20:
        raise KeyBlobError(f"{what}: cut off in its header")
    magic = data[8:12]
    bits, exponent = struct.unpack_from("<II", data, 12)
    wanted = _MAGIC_PRIVATE if kind == _PRIVATEKEYBLOB else _MAGIC_PUBLIC
    if magic != wanted:
        raise KeyBlobError(f"{what}: the magic is not {wanted.decode()}")
    if not MINIMUM_BITS <= bits <= MAXIMUM_BITS:
        raise KeyBlobError(f"{what}: {bits} bits; between {MINIMUM_BITS} and {MAXIMUM_BITS} are accepted")
    size = (bits + 7) // 8
    half = (size + 1) // 2
    length = 20 + size + (5 * half + size if kind == _PRIVATEKEYBLOB else 0)
    if len(data) != length:
        raise KeyBlobError(f"{what}: {len(data)} bytes, a blob of {bits} bits has {length}")
    offset = 20

    def number(count: int) -> int:
        nonlocal offset
        offset += count
        return int.from_bytes(data[offset - count : offset], "little")

    modulus = number(size)
    _check_public(modulus, exponent)
    if modulus.bit_length() != bits and (modulus.bit_length() + 7) // 8 != size:
        raise KeyBlobError(f"{what}: the modulus is shorter than the {bits} bits of the header")
    if kind == _PUBLICKEYBLOB:
        return RsaKey(modulus, exponent)
    key = RsaKey(modulus, exponent, number(half), number(half), number(half), number(half), number(half), number(size))
    _check_private(key)
    return key


def read_private_blob(data: bytes) -> RsaKey:
    """A PRIVATEKEYBLOB of an exchange key. Raises :class:`KeyBlobError`."""
    return _read_rsa(data, "PRIVATEKEYBLOB", _PRIVATEKEYBLOB)


def read_public_blob(data: bytes) -> RsaKey:
    """A PUBLICKEYBLOB of an exchange key. Raises :class:`KeyBlobError`."""
    return _read_rsa(data, "PUBLICKEYBLOB", _PUBLICKEYBLOB)


def read_blob(data: bytes) -> RsaKey:
    """Either of the two, decided by its first byte."""
    return read_private_blob(data) if data[:1] == bytes([_PRIVATEKEYBLOB]) else read_public_blob(data)


def _blob_start(key: RsaKey, kind: int, magic: bytes) -> bytes:
    if key.exponent >= 1 << 32:
        raise KeyBlobError("the exponent has more than 32 bits, which no CryptoAPI blob can hold")
    head = struct.pack("<BBHI", kind, _BLOB_VERSION, 0, ALG_RSA_KEYX) + magic
    # CryptoAPI counts whole bytes; the modulus of a key of its own always fills them.
    return head + struct.pack("<II", key.size * 8, key.exponent) + key.modulus.to_bytes(key.size, "little")


def write_public_blob(key: RsaKey) -> bytes:
    """PUBLICKEYBLOB of an exchange key."""
    return _blob_start(key, _PUBLICKEYBLOB, _MAGIC_PUBLIC)


def write_private_blob(key: RsaKey) -> bytes:
    """PRIVATEKEYBLOB of an exchange key, as CryptImportKey takes it. D is reduced where it is longer than the
    modulus.
    """
    if not key.has_private:
        raise KeyBlobError("the key has no private half to write")
    half = (key.size + 1) // 2
    if max(key.p, key.q).bit_length() > half * 8:
        raise KeyBlobError("P and Q differ so much in length that no CryptoAPI blob can hold them")
    d = key.d % ((key.p - 1) * (key.q - 1))
    numbers = ((key.p, half), (key.q, half), (key.dp, half), (key.dq, half), (key.inverse_q, half), (d, key.size))
    return _blob_start(key, _PRIVATEKEYBLOB, _MAGIC_PRIVATE) + b"".join(
        n.to_bytes(size, "little") for n, size in numbers
    )


def read_simple_blob(data: bytes) -> SimpleBlob:
    """A SIMPLEBLOB, the form of a provider's sessionKey: ``01 02 00 00 | algorithm | 00 a4 00 00 | RSA block``."""
    kind, algorithm = _header(data, "session key")
    if kind != _SIMPLEBLOB:
        raise KeyBlobError(f"session key: blob type {kind}, expected {_SIMPLEBLOB} (SIMPLEBLOB)")
    if algorithm not in SESSION_KEY_BYTES:
        raise KeyBlobError(f"session key: algorithm {algorithm:#06x} is none of AES-128, AES-192 and AES-256")
    if len(data) < 12 + MINIMUM_BITS // 8:
        raise KeyBlobError(f"session key: {len(data)} bytes are too few")
    (exchange,) = struct.unpack_from("<I", data, 8)
    if exchange != ALG_RSA_KEYX:
        raise KeyBlobError(f"session key: wrapped by algorithm {exchange:#06x}, expected {ALG_RSA_KEYX:#06x}")
    return SimpleBlob(algorithm, data[12:])


def write_simple_blob(blob: SimpleBlob) -> bytes:
    """The bytes of a SIMPLEBLOB."""
    return struct.pack("<BBHII", _SIMPLEBLOB, _BLOB_VERSION, 0, blob.algorithm, ALG_RSA_KEYX) + blob.block


# --- names ----------------------------------------------------------------------------------------------------------


def file_prefix(container: str, store: Store = "cryptoapi") -> str:
    """The first 32 digits of a container's file name. CryptoAPI hashes the ANSI name, CNG the UTF-16 name."""
    if not container:
        raise KeyBlobError("the container name is empty")
    encoding = "utf-16-le" if store == "cng" else "cp1252"
    try:
        raw = (container.lower() + "\0").encode(encoding)
    except UnicodeEncodeError:
        raise KeyBlobError(
            f"container name {container!r} has characters that a CryptoAPI container name cannot hold"
        ) from None
    digest = hashlib.md5(raw, usedforsecurity=False).digest()
    return "".join(f"{word:08x}" for word in struct.unpack("<4I", digest))


def file_name(container: str, machine_guid: str, store: Store = "cryptoapi") -> str:
    """The file name of a container on the machine with that MachineGuid."""
    guid = machine_guid.strip().strip("{}")
    if not _GUID.match(guid):
        raise KeyBlobError(f"{machine_guid!r} is not a machine GUID such as 01234567-89ab-cdef-0123-456789abcdef")
    return f"{file_prefix(container, store)}_{guid}"


def container_of_file(name: str, others: t.Iterable[str] = ()) -> ContainerFile:
    """Which container a key file belongs to.

    A name cannot be read from its hash: the known containers and *others* (names found in configuration files) are
    tried, each for both stores. Raises :class:`KeyBlobError` when *name* has not the form of a key file.
    """
    match = _FILE_NAME.match(name.replace("\\", "/").rpartition("/")[2])
    if not match:
        raise KeyBlobError(f"{name!r} is not the name of a key file (32 hexadecimal digits, '_', machine GUID)")
    prefix, guid = match.group(1).lower(), match.group(2).lower()
    candidates: list[tuple[Store, str]] = [
        (store, container) for store, names in KNOWN_CONTAINERS.items() for container in names
    ]
    for other in others:
        candidates += [("cryptoapi", other), ("cng", other)]
    for store, container in candidates:
        try:
            if file_prefix(container, store) == prefix:
                return ContainerFile(prefix, guid, container, store)
        except KeyBlobError:
            continue
    return ContainerFile(prefix, guid, None, None)


# --- fingerprints ---------------------------------------------------------------------------------------------------


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    raw = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(raw)]) + raw + content


def _der_integer(number: int) -> bytes:
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def spki(modulus: int, exponent: int) -> bytes:
    """DER SubjectPublicKeyInfo of an RSA public key (rsaEncryption, NULL parameters)."""
    key = _der(0x30, _der_integer(modulus) + _der_integer(exponent))
    return _der(0x30, _RSA_ALGORITHM + _der(0x03, b"\0" + key))


def fingerprint(modulus: int, exponent: int) -> str:
    """SHA-256 over :func:`spki`, lower-case hexadecimal."""
    return hashlib.sha256(spki(modulus, exponent)).hexdigest()


def read_public_key(der: bytes) -> RsaKey:
    """The public key of a DER SubjectPublicKeyInfo, as :func:`spki` writes it. Raises :class:`KeyBlobError`."""
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPublicKey):
        raise KeyBlobError("it is no SubjectPublicKeyInfo of an RSA key")
    numbers = key.public_numbers()
    _check_public(numbers.n, numbers.e)
    if spki(numbers.n, numbers.e) != der:
        raise KeyBlobError("it is not in the form that its fingerprint is computed from")
    return RsaKey(numbers.n, numbers.e)
