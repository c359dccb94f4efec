# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""Protected values ``[enc:Provider:data:enc]``: open, judge strictly, write, wrap again.

Three kinds of provider, told apart by their ``type``:

* ``aes``: the value is AES-CBC with a zero IV under the provider's session key, which is wrapped by an RSA container.
  Content: 4 random bytes, UTF-16LE text, 00 00, 0 to 15 random bytes, PKCS padding.
* ``rsa`` (type=""): the value is one RSA block, PKCS #1 v1.5, least significant byte first; content UTF-16LE.
* ``cng``: 16 bytes IV, 32 bytes that are not checked (their meaning is not published), AES-256-CBC under a key
  derived from the container's raw secret (SP 800-108, HMAC-SHA256 in counter mode).

Sources: JexusManager's AesEncryptionProvider (the layout of AES values), Microsoft's IIS.Administration (direct RSA),
the public proof of concept AppPoolCredDecrypt (CNG layout). Not verified on Windows: the padding of CNG values.

**How strict, and how often chance passes.** An AES value carries no integrity check: under a wrong session key it
decrypts to random bytes without an error. :func:`judge_aes_plaintext` therefore demands PKCS padding, an aligned end
of the text, at most 15 bytes behind it, valid UTF-16 without control characters and noncharacters. Random plaintext
of 16, 32, 48, 64 and 128 bytes passes with probability 2.8e-7, 3.6e-7, 2.8e-7, 2.1e-7 and 7.4e-8
(:func:`chance_of_passing`, exact): once in three million values at most. Two values wrong together pass once in
10**13.

OpenSSL 3.2 and later answers bad PKCS #1 v1.5 padding with random bytes instead of an error ("implicit rejection"). A
verdict needs the truth, so the private operation is done on integers here and the padding is checked strictly. These
functions work on files, not as a network service: their timing is no oracle for an attacker.

Plaintexts and session keys never appear in a ``repr`` or an exception.
"""

from __future__ import annotations

import base64
import functools
import os
import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.webfarm.iis.plugins.plugin_utils import _libraries
from ansible_collections.webfarm.iis.plugins.plugin_utils._keyblob import (
    ALG_AES_128,
    SESSION_KEY_BYTES,
    KeyBlobError,
    RsaKey,
    SimpleBlob,
    decode_base64,
    read_simple_blob,
    write_simple_blob,
)

try:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
    from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
except ImportError as error:
    _libraries.note(error)
else:
    # What CRYPT_OAEP computes: SHA-1 for both, empty label.
    _OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)

Kind = t.Literal["aes", "rsa", "cng", "unsupported"]
Verdict = t.Literal[
    "ok",
    "bad_data",
    "garbage",
    "missing_key",
    "denied",
    "damaged",
    "unknown_provider",
    "unsupported",
    "malformed",
    "needs_target",
]
ContainerState = t.Literal["missing_key", "denied", "damaged"]

NTE_BAD_LEN = 0x80090004
NTE_BAD_DATA = 0x80090005
NTE_BAD_KEYSET = 0x80090016
NTE_PERM = 0x80090010
NTE_KEYSET_ENTRY_BAD = 0x8009001A

# What CryptoAPI reports for the states that are passed on.
_STATE_CODES: dict[ContainerState, int] = {
    "missing_key": NTE_BAD_KEYSET,
    "denied": NTE_PERM,
    "damaged": NTE_KEYSET_ENTRY_BAD,
}

_BLOCK = 16
_AES_RANDOM = 4
_MAXIMUM_TAIL = 15

_CNG_IV = 16
_CNG_FIELD = 32
_CNG_LABEL = "EncryptionLabel\0".encode("utf-16-le")
_CNG_CONTEXT = "EncryptionContext\0".encode("utf-16-le")

_START = "[enc:"
_END = ":enc]"


class ProtectionError(ValueError):
    """A value or session key that does not open or cannot be made.

    ``verdict`` is the word of the contract, ``hresult`` what CryptoAPI reports for the same input (0 where it reports
    none).
    """

    def __init__(self, verdict: Verdict, message: str, hresult: int = 0) -> None:
        super().__init__(message)
        self.verdict: Verdict = verdict
        self.hresult = hresult


def _bad_data(message: str, hresult: int = NTE_BAD_DATA) -> ProtectionError:
    return ProtectionError("bad_data", message, hresult)


def _garbage(message: str) -> ProtectionError:
    return ProtectionError("garbage", message)


@dataclass(frozen=True, repr=False)
class SessionKey:
    """An unwrapped session key: CryptoAPI algorithm (0x660e, 0x660f, 0x6610) and its bytes."""

    algorithm: int
    key: bytes

    def __repr__(self) -> str:
        return f"<SessionKey AES-{len(self.key) * 8}>"

    @functools.cached_property
    def _decryptor(self) -> CipherContext:
        return Cipher(algorithms.AES(self.key), modes.CBC(bytes(_BLOCK))).decryptor()

    def decrypt(self, data: bytes) -> bytes:
        """AES-CBC with a zero IV: behind a block of zeros the chain begins anew, so one decryptor serves all values."""
        return self._decryptor.update(bytes(_BLOCK) + data)[_BLOCK:]


@dataclass(frozen=True)
class Judgement:
    """What became of one value. ``text`` is the plaintext where the verdict is ok; it is left out of ``repr``."""

    verdict: Verdict
    hresult: int = 0
    message: str = ""
    text: str | None = field(default=None, repr=False, compare=False)


class ProviderLike(t.Protocol):
    """What a provider of a configuration file must say about itself."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def container(self) -> str: ...

    @property
    def use_oaep(self) -> bool: ...

    @property
    def session_key(self) -> str | None: ...


class KeyRing:
    """Keys by container name (the case does not matter): private RSA keys, raw CNG secrets, or why there is none.

    Unwrapped session keys are kept, so that a file with many values costs one RSA operation per provider.
    """

    def __init__(self, keys: t.Mapping[str, RsaKey] | None = None) -> None:
        self._rsa: dict[str, RsaKey] = {}
        self._cng: dict[str, bytes] = {}
        self._states: dict[str, ContainerState] = {}
        self._sessions: dict[tuple[str, str, bool], SessionKey | ProtectionError] = {}
        for container, key in (keys or {}).items():
            self.add(container, key)

    def __repr__(self) -> str:
        return f"<KeyRing rsa={sorted(self._rsa)} cng={sorted(self._cng)}>"

    def add(self, container: str, key: RsaKey) -> None:
        """A private key. Raises :class:`KeyBlobError` for a public one."""
        if not key.has_private:
            raise KeyBlobError(f"the key of {container} is public only; it cannot decrypt anything")
        self._rsa[container.casefold()] = key
        self._sessions.clear()

    def add_cng(self, container: str, secret: bytes) -> None:
        """The raw secret of a CNG container."""
        self._cng[container.casefold()] = secret

    def set_state(self, container: str, state: ContainerState) -> None:
        """The container is known to be missing, denied or damaged; its values get that verdict."""
        self._states[container.casefold()] = state

    def rsa(self, container: str) -> RsaKey | None:
        return self._rsa.get(container.casefold())

    def cng(self, container: str) -> bytes | None:
        return self._cng.get(container.casefold())

    def require(self, container: str) -> RsaKey:
        """The key of *container*, or a :class:`ProtectionError` that says which state the container is in."""
        key = self.rsa(container)
        if key is not None:
            return key
        if not container:
            raise ProtectionError("missing_key", "the provider names no container (keyContainerName)")
        state = self._states.get(container.casefold(), "missing_key")
        text = {
            "missing_key": f"there is no private key for container {container}",
            "denied": f"the key of container {container} may not be read",
            "damaged": f"container {container} is damaged",
        }[state]
        raise ProtectionError(state, text, _STATE_CODES[state])

    def session(self, provider: ProviderLike) -> SessionKey:
        """The unwrapped session key of an AES provider. Raises :class:`ProtectionError`."""
        slot = (provider.container.casefold(), provider.session_key or "", provider.use_oaep)
        found = self._sessions.get(slot)
        if found is None:
            try:
                found = self._open_session(provider)
            except ProtectionError as error:
                found = error
            self._sessions[slot] = found
        if isinstance(found, ProtectionError):
            raise ProtectionError(found.verdict, str(found), found.hresult)
        return found

    def _open_session(self, provider: ProviderLike) -> SessionKey:
        if not provider.session_key:
            raise _bad_data(f"provider {provider.name} has no sessionKey")
        try:
            blob = strict_base64(provider.session_key)
            read_simple_blob(blob)
        except KeyBlobError as error:
            raise _bad_data(f"the sessionKey of provider {provider.name} cannot be used: {error}") from None
        return unwrap_session_key(blob, self.require(provider.container), oaep=provider.use_oaep)


# --- the form of a value --------------------------------------------------------------------------------------------


def kind_of_type(type_name: str) -> Kind:
    """The kind of a provider by its ``type`` attribute; an assembly name behind a comma is ignored."""
    if not type_name:
        return "rsa"
    name = type_name.split(",")[0].strip().casefold()
    if name.endswith("aesprotectedconfigurationprovider"):
        return "aes"
    if name.endswith("cngprotectedconfigurationprovider"):
        return "cng"
    return "unsupported"


def is_protected(text: str) -> bool:
    """Has *text* the outer form of a protected value?"""
    return text.startswith(_START) and text.endswith(_END)


def split_value(text: str) -> tuple[str | None, str | None]:
    """Provider and base64 data of a protected value; (None, None) where it names no provider.

    ``[enc:X::enc]`` gives ("X", ""): a default of the schema, not a secret.
    """
    inner = text[len(_START) : -len(_END)] if len(text) >= len(_START) + len(_END) else ""
    provider, colon, data = inner.partition(":")
    if not colon or not provider:
        return None, None
    return provider, data


def strict_base64(text: str) -> bytes:
    """Base64 as IIS writes it: padded, without white space. Raises :class:`KeyBlobError`."""
    if text.split() != [text]:
        raise KeyBlobError("not valid base64")
    return decode_base64(text)


def format_value(provider: str, data: bytes) -> str:
    """The attribute value for *data* encrypted under *provider*."""
    return f"{_START}{provider}:{base64.b64encode(data).decode('ascii')}{_END}"


# --- text -----------------------------------------------------------------------------------------------------------

# Control characters and noncharacters, the last two of every plane among them.
_UNCLEAN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(f"{chr(plane | 0xFFFE)}{chr(plane | 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]"
)


def _clean_text(raw: bytes) -> str | None:
    """UTF-16LE text under the strict rules, None where it breaks one."""
    try:
        text = raw.decode("utf-16-le", "strict")
    except UnicodeDecodeError:
        return None
    return None if _UNCLEAN.search(text) else text


def _check_writable(text: str) -> bytes:
    try:
        raw = text.encode("utf-16-le", "strict")
    except UnicodeEncodeError:
        raise ProtectionError("garbage", "the text is not valid Unicode; IIS could not read it back") from None
    if _clean_text(raw) is None:
        raise ProtectionError(
            "garbage", "the text holds control characters or noncharacters; it would not be proven afterwards"
        )
    return raw


def _find_end(raw: bytes, start: int) -> int:
    """Offset of the first 00 00 that is aligned to *start*; -1 where there is none."""
    for offset in range(start, len(raw) - 1, 2):
        if raw[offset] == 0 and raw[offset + 1] == 0:
            return offset
    return -1


# --- RSA blocks -----------------------------------------------------------------------------------------------------


def _private_operation(block: bytes, key: RsaKey) -> bytes:
    """Raw RSA decryption of a little-endian block; the result is big-endian, as long as the modulus."""
    if len(block) != key.size:
        raise _bad_data(f"the RSA block has {len(block)} bytes, the key has {key.size}: it was made for another key")
    number = int.from_bytes(block, "little")
    if number >= key.modulus:
        raise _bad_data("the RSA block is larger than the modulus: it was made for another key")
    one = pow(number % key.p, key.dp, key.p)
    two = pow(number % key.q, key.dq, key.q)
    clear = two + key.q * ((one - two) * key.inverse_q % key.p)
    return clear.to_bytes(key.size, "big")


def rsa_decrypt(block: bytes, key: RsaKey, *, oaep: bool = False) -> bytes:
    """Open one RSA block in CryptoAPI's byte order. Raises :class:`ProtectionError` (bad_data)."""
    if not key.has_private:
        raise ProtectionError("missing_key", "the key has no private half", NTE_BAD_KEYSET)
    if oaep:
        if len(block) != key.size:
            raise _bad_data(
                f"the RSA block has {len(block)} bytes, the key has {key.size}: it was made for another key"
            )
        try:
            return _private_key(key).decrypt(block[::-1], _OAEP)
        except ValueError:
            raise _bad_data(
                "the RSA block has no OAEP padding under this key: it was made for another key, or without OAEP"
            ) from None
    message = _private_operation(block, key)
    end = message.find(0, 2)
    if message[:2] != b"\x00\x02" or end < 10:
        raise _bad_data("the RSA block has no PKCS #1 padding under this key: it was made for another key")
    return message[end + 1 :]


def rsa_encrypt(clear: bytes, key: RsaKey, *, oaep: bool = False) -> bytes:
    """Make one RSA block in CryptoAPI's byte order under the public half of *key*."""
    room = key.size - (42 if oaep else 11)
    if len(clear) > room:
        raise ProtectionError(
            "bad_data", f"{len(clear)} bytes do not fit into one RSA block of {key.bits} bits (at most {room})"
        )
    try:
        public = rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()
        return public.encrypt(clear, _OAEP if oaep else padding.PKCS1v15())[::-1]
    except ValueError as error:
        raise ProtectionError("bad_data", f"this public key cannot be used: {error}") from None


def _private_key(key: RsaKey) -> rsa.RSAPrivateKey:
    numbers = rsa.RSAPrivateNumbers(
        p=key.p,
        q=key.q,
        d=key.d,
        dmp1=key.dp,
        dmq1=key.dq,
        iqmp=key.inverse_q,
        public_numbers=rsa.RSAPublicNumbers(key.exponent, key.modulus),
    )
    # The numbers were checked when the key was read.
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


# --- session keys ---------------------------------------------------------------------------------------------------


def unwrap_session_key(blob: bytes, key: RsaKey, *, oaep: bool = False) -> SessionKey:
    """Open a sessionKey (SIMPLEBLOB). Raises :class:`ProtectionError` (bad_data) as CryptImportKey does."""
    try:
        simple = read_simple_blob(blob)
    except KeyBlobError as error:
        raise _bad_data(str(error)) from None
    raw = rsa_decrypt(simple.block, key, oaep=oaep)
    if len(raw) != SESSION_KEY_BYTES[simple.algorithm]:
        raise _bad_data(
            f"the session key has {len(raw)} bytes, its algorithm needs {SESSION_KEY_BYTES[simple.algorithm]}"
        )
    return SessionKey(simple.algorithm, raw)


def wrap_session_key(session: SessionKey, key: RsaKey, *, oaep: bool = False) -> bytes:
    """The sessionKey (SIMPLEBLOB) of *session* for the public half of *key*."""
    return write_simple_blob(SimpleBlob(session.algorithm, rsa_encrypt(session.key, key, oaep=oaep)))


def rewrap_session_key(blob: bytes, old: RsaKey, new: RsaKey, *, oaep: bool = False) -> bytes:
    """The same session key wrapped for another public key: values under it stay as they are."""
    return wrap_session_key(unwrap_session_key(blob, old, oaep=oaep), new, oaep=oaep)


def new_session_key(algorithm: int = ALG_AES_128) -> SessionKey:
    """A fresh random session key."""
    return SessionKey(algorithm, os.urandom(SESSION_KEY_BYTES[algorithm]))


# --- AES values -----------------------------------------------------------------------------------------------------


def judge_aes_plaintext(raw: bytes) -> str:
    """The text of a decrypted AES value, padding included. Raises :class:`ProtectionError` (garbage)."""
    count = raw[-1] if raw else 0
    if not 1 <= count <= _BLOCK or count > len(raw) or raw[-count:] != bytes([count]) * count:
        raise _garbage("the value decrypts, but its padding is wrong")
    body = raw[:-count]
    end = _find_end(body, _AES_RANDOM)
    if end < 0:
        raise _garbage("the value decrypts, but its text has no end")
    if len(body) - end - 2 > _MAXIMUM_TAIL:
        raise _garbage("the value decrypts, but too much follows its text")
    text = _clean_text(body[_AES_RANDOM:end])
    if text is None:
        raise _garbage("the value decrypts, but not to text")
    return text


def decrypt_aes(data: bytes, session: SessionKey) -> str:
    """The text of an AES value. Raises :class:`ProtectionError` (bad_data for a wrong length, else garbage)."""
    if not data or len(data) % _BLOCK:
        raise _bad_data(
            f"the value has {len(data)} bytes, not a multiple of {_BLOCK}: it was cut off or edited", NTE_BAD_LEN
        )
    return judge_aes_plaintext(session.decrypt(data))


def encrypt_aes(text: str, session: SessionKey) -> bytes:
    """An AES value as IIS writes it: 4 random bytes, text, 00 00, r % 16 random bytes, PKCS padding."""
    body = os.urandom(_AES_RANDOM) + _check_writable(text) + b"\0\0" + os.urandom(os.urandom(1)[0] % 16)
    count = _BLOCK - len(body) % _BLOCK
    encryptor = Cipher(algorithms.AES(session.key), modes.CBC(bytes(_BLOCK))).encryptor()
    return encryptor.update(body + bytes([count]) * count) + encryptor.finalize()


def chance_of_passing(length: int) -> float:
    """Exact probability that *length* uniformly random bytes pass :func:`judge_aes_plaintext`."""
    if length <= 0 or length % _BLOCK:
        return 0.0
    single = 65536 - 2048 - 32 - 33 - 34  # surrogates, C0, 7f..9f, noncharacters of the first plane
    pairs = 1024 * 1024 - 32
    valid = [1.0, single / 65536]
    while len(valid) <= length // 2:
        valid.append(valid[-1] * single / 65536 + valid[-2] * pairs / 2**32)
    total = 0.0
    for count in range(1, _BLOCK + 1):
        room = length - count - _AES_RANDOM - 2
        for units in range(room // 2 + 1 if room >= 0 else 0):
            if room - 2 * units <= _MAXIMUM_TAIL:
                total += valid[units] / 65536 / 256**count
    return total


# --- direct RSA values ----------------------------------------------------------------------------------------------


def judge_rsa_plaintext(raw: bytes) -> str:
    """The text of an opened RSA block. Raises :class:`ProtectionError` (garbage).

    The text alone, with or without a NUL, is what Microsoft's own code writes for another purpose. Whether IIS puts
    the layout of AES values (without its padding) into configuration values is not published, so that is read as
    well.
    """
    body = raw[:-2] if len(raw) % 2 == 0 and raw.endswith(b"\0\0") else raw
    text = _clean_text(body)
    if text is not None:
        return text
    end = _find_end(raw, _AES_RANDOM)
    if end >= 0 and len(raw) - end - 2 <= _MAXIMUM_TAIL:
        text = _clean_text(raw[_AES_RANDOM:end])
        if text is not None:
            return text
    raise _garbage("the value decrypts, but not to text")


def decrypt_rsa(data: bytes, key: RsaKey) -> str:
    """The text of a direct RSA value. Raises :class:`ProtectionError`."""
    return judge_rsa_plaintext(rsa_decrypt(data, key))


def encrypt_rsa(text: str, key: RsaKey) -> bytes:
    """A direct RSA value: the text alone, as Microsoft's own code writes it."""
    return rsa_encrypt(_check_writable(text), key)


# --- CNG values -----------------------------------------------------------------------------------------------------


def derive_cng_key(secret: bytes) -> bytes:
    """The AES-256 key of a CNG container's raw secret (SP 800-108, counter mode, HMAC-SHA256)."""
    kdf = KBKDFHMAC(
        algorithm=hashes.SHA256(),
        mode=Mode.CounterMode,
        length=32,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=_CNG_LABEL,
        context=_CNG_CONTEXT,
        fixed=None,
    )
    return kdf.derive(secret)


def judge_cng_plaintext(raw: bytes) -> str:
    """The text of a decrypted CNG value, padding included. Raises :class:`ProtectionError`.

    bad_data where the padding is wrong, which IIS's own library reports as an error, garbage where the text is none.
    Behind the text only PKCS padding or zero bytes are accepted. Which of them IIS writes is not verified on Windows.
    """
    end = _find_end(raw, 0)
    tail = raw[end + 2 :]
    padded = 1 <= len(tail) <= _BLOCK and tail == bytes([len(tail)]) * len(tail)
    zeroed = len(tail) < _BLOCK and not any(tail)
    if end < 0 or not (padded or zeroed):
        raise _bad_data("the CNG value does not open with this key: it was made for another key, or it was altered")
    text = _clean_text(raw[:end])
    if text is None:
        raise _garbage("the value decrypts, but not to text")
    return text


def decrypt_cng(data: bytes, secret: bytes) -> str:
    """The text of a CNG value, given the raw secret of its container. Raises :class:`ProtectionError`."""
    ciphertext = data[_CNG_IV + _CNG_FIELD :]
    if not ciphertext or len(ciphertext) % _BLOCK:
        raise _bad_data(
            f"the value has {len(data)} bytes, which is no CNG value (48 + a multiple of {_BLOCK})", NTE_BAD_LEN
        )
    decryptor = Cipher(algorithms.AES(derive_cng_key(secret)), modes.CBC(data[:_CNG_IV])).decryptor()
    return judge_cng_plaintext(decryptor.update(ciphertext) + decryptor.finalize())


# --- any value ------------------------------------------------------------------------------------------------------


def open_data(provider: ProviderLike, data: bytes, keys: KeyRing) -> str:
    """The text of *data* under *provider*. Raises :class:`ProtectionError` with the verdict."""
    if provider.kind == "aes":
        return decrypt_aes(data, keys.session(provider))
    if provider.kind == "rsa":
        return decrypt_rsa(data, keys.require(provider.container))
    if provider.kind == "cng":
        secret = keys.cng(provider.container)
        if len(data) < _CNG_IV + _CNG_FIELD + _BLOCK or len(data) % _BLOCK:
            raise _bad_data(
                f"the value has {len(data)} bytes, which is no CNG value: it was cut off or edited", NTE_BAD_LEN
            )
        if secret is None:
            raise ProtectionError("needs_target", f"the CNG key {provider.container} does not leave its server")
        return decrypt_cng(data, secret)
    raise ProtectionError("unsupported", f"the kind of provider {provider.name} is not known")


def seal_text(provider: ProviderLike, text: str, keys: KeyRing) -> str:
    """A new protected value for *text* under an AES or direct RSA provider. Raises :class:`ProtectionError`."""
    if provider.kind == "aes":
        return format_value(provider.name, encrypt_aes(text, keys.session(provider)))
    if provider.kind == "rsa":
        return format_value(provider.name, encrypt_rsa(text, keys.require(provider.container)))
    raise ProtectionError("unsupported", f"values of provider {provider.name} can only be made on a server")


def judge(provider_name: str | None, data: str | None, provider: ProviderLike | None, keys: KeyRing) -> Judgement:
    """The verdict on one value. Never raises; *provider* is None where the file does not declare *provider_name*."""
    if provider_name is None or data is None:
        return Judgement("malformed", message="the value is not of the form [enc:Provider:data:enc]")
    if provider is None:
        return Judgement("unknown_provider", message=f"the file declares no provider {provider_name}")
    try:
        raw = strict_base64(data)
    except KeyBlobError:
        return Judgement("malformed", message="the data of the value is not valid base64")
    try:
        return Judgement("ok", text=open_data(provider, raw, keys))
    except ProtectionError as error:
        return Judgement(error.verdict, error.hresult, str(error))


def session_key_bits(session_key: str) -> int:
    """Bits of the RSA key that a provider's sessionKey was made for, without opening it. Raises
    :class:`KeyBlobError`.
    """
    return read_simple_blob(strict_base64(session_key)).key_bits
