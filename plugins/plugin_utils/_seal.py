# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""Sealing of private keys: CMS EnvelopedData, CMS signatures, and the sealed parts that travel to and from a target.

The source computes the ciphertext (AES-256-CBC, PKCS padding) and wraps the content key for each recipient (RSA-OAEP
with SHA-1, what CryptoAPI's CRYPT_OAEP computes); here the DER is assembled by asn1crypto (RFC 5652, RFC 8017) in
such a way that ``openssl cms -decrypt`` opens it. The content is a PRIVATEKEYBLOB. Detached signatures are CMS
SignedData.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import os
import typing as t
from dataclasses import dataclass, field

from ansible_collections.webfarm.iis.plugins.plugin_utils import _libraries
from ansible_collections.webfarm.iis.plugins.plugin_utils._keyblob import KeyBlobError, RsaKey, make_key
from ansible_collections.webfarm.iis.plugins.plugin_utils._keyfile import KeyFileError, load_private
from ansible_collections.webfarm.iis.plugins.plugin_utils._protection import ProtectionError, rsa_decrypt, rsa_encrypt

try:
    from asn1crypto import algos, cms
    from asn1crypto import x509 as asn1_x509
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.padding import PKCS7
    from cryptography.hazmat.primitives.serialization import pkcs7
except ImportError as error:
    _libraries.note(error)
else:
    # What the certificate library raises for a certificate that is broken inside.
    _DAMAGED = (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
    _HASHES: dict[str, type[hashes.HashAlgorithm]] = {
        "sha256": hashes.SHA256,
        "sha384": hashes.SHA384,
        "sha512": hashes.SHA512,
    }

MINIMUM_RECIPIENT_BITS = 2048

_IV = 16
_CEK = 32
_BLOCK_BITS = 128


class SealError(ValueError):
    """Something cannot be sealed, opened, signed or verified. The message says what and what to do; never key
    material.
    """


def _wire_base64(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise SealError(f"{what} is missing or not text")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise SealError(f"{what} is not valid base64") from None


@dataclass(frozen=True)
class SealedPart:
    """A PRIVATEKEYBLOB sealed to public keys, in the form in which it travels.

    ``iv`` 16 bytes, ``ciphertext`` AES-256-CBC with PKCS padding, ``wrapped`` the content key once per recipient in
    their order, RSA-OAEP with SHA-1, most significant byte first.
    """

    iv: bytes
    ciphertext: bytes = field(repr=False)
    wrapped: tuple[bytes, ...] = field(repr=False)

    def to_wire(self) -> dict[str, t.Any]:
        """The dictionary that goes to a target as JSON."""
        return {
            "iv": base64.b64encode(self.iv).decode("ascii"),
            "ciphertext": base64.b64encode(self.ciphertext).decode("ascii"),
            "wrapped": [base64.b64encode(one).decode("ascii") for one in self.wrapped],
        }

    @staticmethod
    def from_wire(data: t.Mapping[str, t.Any], recipients: int) -> SealedPart:
        """Read what a target sent. Raises :class:`SealError` where it is not sealed to that number of recipients."""
        wrapped = data.get("wrapped")
        if not isinstance(wrapped, list) or len(wrapped) != recipients:
            raise SealError(f"the target did not seal the key to {recipients} recipient(s)")
        part = SealedPart(
            _wire_base64(data.get("iv"), "iv of the sealed key"),
            _wire_base64(data.get("ciphertext"), "ciphertext of the sealed key"),
            tuple(_wire_base64(one, "content key of the sealed key") for one in wrapped),
        )
        part.check()
        return part

    def check(self) -> None:
        """The lengths are possible ones."""
        if len(self.iv) != _IV:
            raise SealError(f"the initialisation vector of a sealed key has {len(self.iv)} bytes, not {_IV}")
        if not self.ciphertext or len(self.ciphertext) % 16:
            raise SealError("the ciphertext of a sealed key is no whole number of AES blocks")


# --- keys and certificates ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipient:
    """A certificate to seal to. ``key`` is its RSA public key, ``identity`` issuer (DER, hexadecimal) and serial
    number.
    """

    source: str
    subject: str
    key: RsaKey
    identity: tuple[str, int]
    der: bytes = field(repr=False)

    def wire(self) -> dict[str, str]:
        """Modulus and exponent as a target takes them: base64, most significant byte first."""
        return public_key_to_wire(self.key)


def _certificate(pem: bytes, what: str) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificates(pem)
    except _DAMAGED:
        raise SealError(f"{what} is not a PEM certificate (-----BEGIN CERTIFICATE-----)") from None
    if len(found) != 1:
        raise SealError(f"{what} holds {len(found)} certificates; give a file with exactly one")
    return found[0]


def load_recipient(pem: bytes, what: str) -> Recipient:
    """A recipient from a PEM certificate. *what* names option and file. Raises :class:`SealError`."""
    return _recipient(_certificate(pem, what), what)


def recipient_from_der(der: bytes, what: str) -> Recipient:
    """A recipient from the certificate that a bundle holds. Raises :class:`SealError`."""
    return _recipient(_der_certificate(der, what), what)


def _der_certificate(der: bytes, what: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except _DAMAGED:
        raise SealError(f"{what} is not a certificate") from None


def _recipient(certificate: x509.Certificate, what: str) -> Recipient:
    try:
        public = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, rsa.RSAPublicKey):
        raise SealError(f"{what} has no RSA key; keys are sealed by RSA-OAEP, so give an RSA certificate")
    if public.key_size < MINIMUM_RECIPIENT_BITS:
        raise SealError(
            f"{what} has an RSA key of {public.key_size} bits; at least {MINIMUM_RECIPIENT_BITS} are required"
        )
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.key_encipherment:
            raise SealError(f"{what} may not be used to encrypt keys (its key usage lacks keyEncipherment)")
    except x509.ExtensionNotFound:
        pass
    except SealError:
        raise
    except _DAMAGED:
        raise SealError(f"{what} is a damaged certificate: its extensions cannot be read") from None
    numbers = public.public_numbers()
    der = certificate.public_bytes(serialization.Encoding.DER)
    facts = _facts(certificate, what)
    return Recipient(what, facts.subject, RsaKey(numbers.n, numbers.e), facts.identity, der)


@dataclass(frozen=True)
class CertificateFacts:
    """What may be shown of a certificate. ``fingerprint`` is the SHA-256 of its DER, lower-case hexadecimal."""

    subject: str
    issuer: str
    serial: int
    fingerprint: str
    not_after: datetime.datetime
    identity: tuple[str, int]


def certificate_facts(der: bytes, what: str) -> CertificateFacts:
    """The facts of a certificate (DER). Raises :class:`SealError`."""
    return _facts(_der_certificate(der, what), what)


def _facts(certificate: x509.Certificate, what: str) -> CertificateFacts:
    try:
        return CertificateFacts(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            serial=certificate.serial_number,
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            not_after=certificate.not_valid_after_utc,
            identity=(certificate.issuer.public_bytes().hex(), certificate.serial_number),
        )
    except _DAMAGED:
        raise SealError(f"{what} is a damaged certificate: its names cannot be read") from None


def issuer_name(identity: tuple[str, int]) -> str:
    """The issuer of a recipient or signer whose certificate is not at hand."""
    return str(asn1_x509.Name.load(bytes.fromhex(identity[0])).human_friendly)


def load_opening_key(pem: bytes, passphrase: str | None, what: str) -> RsaKey:
    """The private key that opens a bundle. *what* names option and file. Raises :class:`SealError`."""
    private = _load_private(pem, passphrase, what, "opening_passphrase")
    if not isinstance(private, rsa.RSAPrivateKey):
        raise SealError(f"{what} is not an RSA key; bundles are sealed to RSA keys")
    numbers = private.private_numbers()
    try:
        return make_key(numbers.public_numbers.n, numbers.public_numbers.e, numbers.p, numbers.q, numbers.d)
    except KeyBlobError as error:
        raise SealError(f"{what} is not a usable RSA key: {error}") from None


def _load_private(pem: bytes, passphrase: str | None, what: str, option: str) -> object:
    if b"-----BEGIN " not in pem:
        raise SealError(f"{what} is not a PEM private key (-----BEGIN PRIVATE KEY-----)")
    try:
        return load_private(pem, passphrase, what, option)
    except KeyFileError as error:
        raise SealError(str(error)) from None


def public_key_to_wire(key: RsaKey) -> dict[str, str]:
    """``modulus`` and ``exponent``, base64, most significant byte first."""
    exponent = key.exponent.to_bytes((key.exponent.bit_length() + 7) // 8, "big")
    return {
        "modulus": base64.b64encode(key.modulus.to_bytes(key.size, "big")).decode("ascii"),
        "exponent": base64.b64encode(exponent).decode("ascii"),
    }


def public_key_from_wire(data: t.Mapping[str, t.Any]) -> RsaKey:
    """The transport key that a target made. Raises :class:`SealError` where it is too weak to seal to."""
    modulus = int.from_bytes(_wire_base64(data.get("modulus"), "modulus of the transport key"), "big")
    exponent = int.from_bytes(_wire_base64(data.get("exponent"), "exponent of the transport key"), "big")
    if modulus.bit_length() < MINIMUM_RECIPIENT_BITS or modulus % 2 == 0 or exponent < 3 or exponent % 2 == 0:
        raise SealError(
            f"the transport key of the target has {modulus.bit_length()} bits or is no RSA key; nothing is sealed to it"
        )
    return RsaKey(modulus, exponent)


# --- sealing --------------------------------------------------------------------------------------------------------


def seal(clear: bytes, keys: t.Sequence[RsaKey]) -> SealedPart:
    """Seal *clear* to public keys, with a fresh content key and initialisation vector."""
    if not keys:
        raise SealError("there is no recipient to seal to")
    cek, iv = os.urandom(_CEK), os.urandom(_IV)
    padder = PKCS7(_BLOCK_BITS).padder()
    encryptor = Cipher(algorithms.AES(cek), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(padder.update(clear) + padder.finalize()) + encryptor.finalize()
    try:
        wrapped = tuple(rsa_encrypt(cek, key, oaep=True)[::-1] for key in keys)
    except ProtectionError as error:
        raise SealError(f"a recipient's key cannot be used: {error}") from None
    return SealedPart(iv, ciphertext, wrapped)


def unseal(part: SealedPart, key: RsaKey) -> bytes | None:
    """The content, where *key* is one of the recipients' private keys; else None."""
    part.check()
    for wrapped in part.wrapped:
        try:
            cek = rsa_decrypt(wrapped[::-1], key, oaep=True)
        except ProtectionError:
            continue
        if len(cek) != _CEK:
            continue
        decryptor = Cipher(algorithms.AES(cek), modes.CBC(part.iv)).decryptor()
        unpadder = PKCS7(_BLOCK_BITS).unpadder()
        try:
            return unpadder.update(decryptor.update(part.ciphertext) + decryptor.finalize()) + unpadder.finalize()
        except ValueError:
            raise SealError("the sealed key was altered: its content key opens, its content does not") from None
    return None


def assemble(part: SealedPart, recipients: t.Sequence[Recipient]) -> bytes:
    """CMS ContentInfo (DER) of a sealed part whose content keys belong to *recipients*, in this order."""
    part.check()
    if len(part.wrapped) != len(recipients):
        raise SealError(f"the key is sealed to {len(part.wrapped)} recipient(s), {len(recipients)} were expected")
    infos = []
    for wrapped, recipient in zip(part.wrapped, recipients, strict=True):
        if len(wrapped) != recipient.key.size:
            raise SealError(
                f"the content key has {len(wrapped)} bytes, the key of {recipient.source} has {recipient.key.size}"
            )
        certificate = asn1_x509.Certificate.load(recipient.der)
        identifier = cms.IssuerAndSerialNumber(
            {"issuer": certificate.issuer, "serial_number": certificate.serial_number}
        )
        infos.append(
            cms.RecipientInfo(
                name="ktri",
                value=cms.KeyTransRecipientInfo(
                    {
                        "version": "v0",
                        "rid": cms.RecipientIdentifier(name="issuer_and_serial_number", value=identifier),
                        "key_encryption_algorithm": {
                            "algorithm": "rsaes_oaep",
                            "parameters": algos.RSAESOAEPParams.load(b"\x30\x00"),
                        },
                        "encrypted_key": wrapped,
                    }
                ),
            )
        )
    content = cms.EnvelopedData(
        {
            "version": "v0",
            "recipient_infos": infos,
            "encrypted_content_info": {
                "content_type": "data",
                "content_encryption_algorithm": {"algorithm": "aes256_cbc", "parameters": part.iv},
                "encrypted_content": part.ciphertext,
            },
        }
    )
    return bytes(cms.ContentInfo({"content_type": "enveloped_data", "content": content}).dump())


def disassemble(der: bytes, what: str) -> tuple[SealedPart, tuple[tuple[str, int], ...]]:
    """Sealed part and recipients' identities of a CMS EnvelopedData. *what* names it in the :class:`SealError`."""
    try:
        info = cms.ContentInfo.load(der, strict=True)
        if info["content_type"].native != "enveloped_data":
            raise SealError(f"{what} is not sealed: it is CMS {info['content_type'].native}, not EnvelopedData")
        content = info["content"]
        encrypted = content["encrypted_content_info"]
        algorithm = encrypted["content_encryption_algorithm"]
        if algorithm["algorithm"].native != "aes256_cbc":
            raise SealError(f"{what} is sealed by {algorithm['algorithm'].native}; aes256_cbc is expected")
        wrapped, identities = [], []
        for one in content["recipient_infos"]:
            if one.name != "ktri":
                raise SealError(f"{what} has a recipient of the kind {one.name}; only RSA key transport is known")
            transport = one.chosen["key_encryption_algorithm"]["algorithm"].native
            if transport != "rsaes_oaep":
                raise SealError(f"{what} has a content key wrapped by {transport}; rsaes_oaep is expected")
            rid = one.chosen["rid"]
            if rid.name != "issuer_and_serial_number":
                raise SealError(f"{what} names a recipient by {rid.name}; issuer and serial number are expected")
            identities.append((rid.chosen["issuer"].dump().hex(), int(rid.chosen["serial_number"].native)))
            wrapped.append(bytes(one.chosen["encrypted_key"].native))
        part = SealedPart(
            bytes(algorithm["parameters"].native), bytes(encrypted["encrypted_content"].native), tuple(wrapped)
        )
    except SealError:
        raise
    except (ValueError, TypeError, KeyError):
        raise SealError(f"{what} is damaged: it is not CMS EnvelopedData") from None
    part.check()
    return part, tuple(identities)


# --- signatures -----------------------------------------------------------------------------------------------------


def sign(
    content: bytes, key_pem: bytes, passphrase: str | None, certificate_pem: bytes, what: str = "signing_file"
) -> bytes:
    """Detached CMS SignedData (DER) over *content*. Raises :class:`SealError`."""
    private = _load_private(key_pem, passphrase, what, "signing_passphrase")
    certificate = _certificate(certificate_pem, "signing_certificate")
    if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise SealError(f"{what} is neither an RSA nor an elliptic-curve key")
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise SealError(f"{what} is not the key of signing_certificate; give the two that belong together")
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content).add_signer(certificate, private, hashes.SHA256())
    options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCapabilities]
    return builder.sign(serialization.Encoding.DER, options)


def signers(signature: bytes) -> list[tuple[tuple[str, int], bytes | None]]:
    """Who a detached signature says made it: identity, and the certificate (DER) where it is enclosed.

    Nothing is verified here. Raises :class:`SealError` where it is no CMS SignedData.
    """
    try:
        info = cms.ContentInfo.load(signature, strict=True)
        if info["content_type"].native != "signed_data":
            raise SealError("the signature is not CMS SignedData")
        enclosed = {}
        for choice in info["content"]["certificates"]:
            if choice.name == "certificate":
                one = choice.chosen
                enclosed[(one.issuer.dump().hex(), int(one.serial_number))] = bytes(one.dump())
        found: list[tuple[tuple[str, int], bytes | None]] = []
        for signer in info["content"]["signer_infos"]:
            if signer["sid"].name != "issuer_and_serial_number":
                raise SealError("the signature names its signer in an unknown way")
            sid = signer["sid"].chosen
            identity = (sid["issuer"].dump().hex(), int(sid["serial_number"].native))
            found.append((identity, enclosed.get(identity)))
        return found
    except SealError:
        raise
    except (ValueError, TypeError, KeyError):
        raise SealError("the signature is damaged: it is not CMS SignedData") from None


def verify(content: bytes, signature: bytes, certificate_pem: bytes, what: str) -> None:
    """The detached *signature* is by the key of that very certificate and over *content*; else :class:`SealError`.

    The certificate is trusted as given: no chain is built and no date is checked, because the administrator names it.
    """
    certificate = _certificate(certificate_pem, what)
    try:
        wanted = (certificate.issuer.public_bytes().hex(), certificate.serial_number)
    except _DAMAGED:
        raise SealError(f"{what} is a damaged certificate: its names cannot be read") from None
    try:
        info = cms.ContentInfo.load(signature, strict=True)
        if info["content_type"].native != "signed_data":
            raise SealError("the signature is not CMS SignedData")
        signers = []
        for signer in info["content"]["signer_infos"]:
            sid = signer["sid"]
            if sid.name == "issuer_and_serial_number":
                identity = (sid.chosen["issuer"].dump().hex(), int(sid.chosen["serial_number"].native))
                if identity == wanted:
                    signers.append(signer)
        if not signers:
            raise SealError(f"it is not signed by {what}, but by someone else")
        _verify_signer(content, signers[0], certificate)
    except SealError:
        raise
    except (ValueError, TypeError, KeyError):
        raise SealError("the signature is damaged: it is not CMS SignedData") from None


def _verify_signer(content: bytes, signer: t.Any, certificate: x509.Certificate) -> None:
    name = str(signer["digest_algorithm"]["algorithm"].native)
    if name not in _HASHES:
        raise SealError(f"the signature uses {name}; SHA-256, SHA-384 or SHA-512 is required")
    attributes = signer["signed_attrs"]
    found: dict[str, t.Any] = {}
    for attribute in attributes:
        kind = str(attribute["type"].native)
        if kind in found or len(attribute["values"]) != 1:
            raise SealError("the signature is damaged: a signed attribute is repeated")
        found[kind] = attribute["values"][0].native
    if found.get("content_type") != "data" or "message_digest" not in found:
        raise SealError("the signature is damaged: it signs no message digest")
    if bytes(found["message_digest"]) != hashlib.new(name, content).digest():
        raise SealError("the signature does not fit the content: the content was changed after it was signed")
    signed = attributes.untag().dump()
    public = certificate.public_key()
    algorithm = _HASHES[name]()
    value = bytes(signer["signature"].native)
    try:
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(value, signed, padding.PKCS1v15(), algorithm)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(value, signed, ec.ECDSA(algorithm))
        else:
            raise SealError("signer_certificate has neither an RSA nor an elliptic-curve key")
    except InvalidSignature:
        raise SealError("the signature is not by the key of signer_certificate") from None
