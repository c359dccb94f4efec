# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""The key bundle ``NAME.keyset.json``: sealed private keys with clear metadata.

A bundle is JSON (UTF-8, sorted keys, indented by 2, one final newline, mode 0600):

* ``format`` "webfarm.iis keyset", ``version`` 1, ``farm``, ``generation`` (from 1), ``created`` (UTC,
  2026-01-31T12:00:00Z)
* ``source``: ``host`` and ``machine_guid``
* ``containers``: per key ``container``, ``store``, ``bits``, ``fingerprint``, ``exportable``, ``sddl``, and
  ``sealed``: base64 of a CMS EnvelopedData whose content is the PRIVATEKEYBLOB
* ``recipients`` (optional): base64 of the recipients' certificates (DER), so that everybody can see who they are. Who
  really opens a key is said by its ``sealed`` alone; the two must agree.
* ``accepted_undecryptable``: ``path`` and ``reason`` of values that the source itself could not open
* ``signature`` (optional): base64 of a detached CMS SignedData over the canonical form, which is everything else as
  JSON with sorted keys and without spaces, UTF-8

A bundle is believed only when its fingerprints are pinned or its signature verifies; :func:`check_trust` decides. The
fingerprints are always computed anew from the opened keys. Pinning covers the keys and nothing else: access list,
farm and generation of a bundle without a signature are only as trustworthy as the place where it lies.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import json
import os
import re
import tempfile
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.webfarm.iis.plugins.plugin_utils._keyblob import KeyBlobError, RsaKey, Store, read_private_blob
from ansible_collections.webfarm.iis.plugins.plugin_utils._protection import KeyRing
from ansible_collections.webfarm.iis.plugins.plugin_utils._seal import (
    CertificateFacts,
    Recipient,
    SealedPart,
    SealError,
    assemble,
    certificate_facts,
    disassemble,
    seal,
    sign,
    unseal,
    verify,
)

FORMAT = "webfarm.iis keyset"
VERSION = 1
MAXIMUM_BYTES = 8 * 1024 * 1024

_FINGERPRINT = re.compile(r"[0-9a-f]{64}\Z")
_CREATED = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z\Z")

Trust = t.Literal["pinned", "signed"]


class BundleError(ValueError):
    """A bundle that cannot be read, believed or opened. The message names the option, what is wrong and what to do."""


@dataclass(frozen=True)
class BundleKey:
    """One key of a bundle. ``sealed`` is CMS EnvelopedData (DER)."""

    container: str
    bits: int
    fingerprint: str
    sealed: bytes = field(repr=False)
    store: Store = "cryptoapi"
    exportable: bool | None = None
    sddl: str | None = None


@dataclass(frozen=True)
class Accepted:
    """A value that the source cannot open and that was accepted with a reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class OpenedKey:
    """A private key out of a bundle, with what the bundle says about it. ``blob`` is the PRIVATEKEYBLOB."""

    container: str
    key: RsaKey
    exportable: bool | None
    sddl: str | None
    blob: bytes = field(repr=False)

    def seal_for(self, transport: RsaKey) -> SealedPart:
        """The key sealed for a target's transport key."""
        return seal(self.blob, [transport])


@dataclass(frozen=True)
class Bundle:
    """A key bundle as it stands in its file."""

    farm: str
    generation: int
    created: str
    source_host: str
    machine_guid: str
    containers: tuple[BundleKey, ...]
    accepted: tuple[Accepted, ...] = ()
    signature: bytes | None = field(default=None, repr=False)
    certificates: tuple[bytes, ...] = field(default=(), repr=False)

    def get(self, container: str) -> BundleKey | None:
        """The key of that container; the case does not matter."""
        for key in self.containers:
            if key.container.casefold() == container.casefold():
                return key
        return None

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint by container, as the bundle states them."""
        return {key.container: key.fingerprint for key in self.containers}

    def recipient_sets(self) -> list[frozenset[tuple[str, int]]]:
        """Identities (issuer, serial number) of those who can open it, for each key. Raises :class:`BundleError`."""
        try:
            return [frozenset(disassemble(key.sealed, f"the key of {key.container}")[1]) for key in self.containers]
        except SealError as error:
            raise BundleError(f"bundle: {error}") from None

    def recipients(self) -> frozenset[tuple[str, int]]:
        """Identities of those who can open every key. Raises :class:`BundleError`."""
        sets = self.recipient_sets()
        return frozenset.intersection(*sets) if sets else frozenset()

    def sealed_to(self, recipients: t.Collection[Recipient]) -> bool:
        """Is every key sealed to these recipients and to nobody else? Raises :class:`BundleError`."""
        wanted = frozenset(one.identity for one in recipients)
        if any(found != wanted for found in self.recipient_sets()):
            return False
        # issuer and serial number are only names: a certificate that is at hand must be the very same
        return not self.certificates or set(self.certificates) == {one.der for one in recipients}

    def recipient_facts(self) -> list[tuple[tuple[str, int], CertificateFacts | None]]:
        """Everybody who can open at least one key, with the certificate's facts where the bundle holds it.

        Raises :class:`BundleError` where the bundle names somebody to whom nothing is sealed.
        """
        sealed: frozenset[tuple[str, int]] = frozenset().union(*self.recipient_sets())
        try:
            facts = [certificate_facts(der, "a certificate in recipients") for der in self.certificates]
        except SealError as error:
            raise BundleError(f"bundle: {error}") from None
        known = {one.identity: one for one in facts}
        for one in facts:
            if one.identity not in sealed:
                raise BundleError(
                    f"bundle: it names {one.subject} as a recipient, but no key is sealed to that certificate. "
                    "The file was edited by hand; do not use it."
                )
        return sorted(((one, known.get(one)) for one in sealed), key=lambda pair: pair[0])

    def to_dict(self) -> dict[str, t.Any]:
        data: dict[str, t.Any] = {
            "format": FORMAT,
            "version": VERSION,
            "farm": self.farm,
            "generation": self.generation,
            "created": self.created,
            "source": {"host": self.source_host, "machine_guid": self.machine_guid},
            "containers": [
                {
                    "container": key.container,
                    "store": key.store,
                    "bits": key.bits,
                    "fingerprint": key.fingerprint,
                    "exportable": key.exportable,
                    "sddl": key.sddl,
                    "sealed": base64.b64encode(key.sealed).decode("ascii"),
                }
                for key in self.containers
            ],
            "accepted_undecryptable": [{"path": one.path, "reason": one.reason} for one in self.accepted],
        }
        if self.certificates:
            data["recipients"] = [base64.b64encode(one).decode("ascii") for one in self.certificates]
        if self.signature is not None:
            data["signature"] = base64.b64encode(self.signature).decode("ascii")
        return data

    def canonical(self) -> bytes:
        """What a signature covers."""
        data = self.to_dict()
        data.pop("signature", None)
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return (json.dumps(self.to_dict(), sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode("utf-8")

    def signed(
        self, key_pem: bytes, passphrase: str | None, certificate_pem: bytes, what: str = "signing_file"
    ) -> Bundle:
        """The same bundle with a signature. Raises :class:`BundleError`."""
        try:
            signature = sign(self.canonical(), key_pem, passphrase, certificate_pem, what)
        except SealError as error:
            raise BundleError(str(error)) from None
        return dataclasses.replace(self, signature=signature)


# --- making ---------------------------------------------------------------------------------------------------------


def utc_now() -> str:
    """The present time as a bundle writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_bundle_key(
    container: str,
    key: RsaKey,
    part: SealedPart,
    recipients: t.Sequence[Recipient],
    *,
    exportable: bool | None = None,
    sddl: str | None = None,
) -> BundleKey:
    """An entry from a sealed part that the source computed; *key* is the public key. Raises :class:`BundleError`."""
    try:
        sealed = assemble(part, recipients)
    except SealError as error:
        raise BundleError(f"container {container}: {error}") from None
    return BundleKey(container, key.bits, key.fingerprint, sealed, exportable=exportable, sddl=sddl)


def planned_generation(old: Bundle | None, fingerprints: t.Mapping[str, str]) -> int:
    """The generation of a bundle with these fingerprints (by container) that takes the place of *old*.

    1 where there is none; one more where a key changed, came or went; else the same.
    """
    if old is None:
        return 1
    before = {container.casefold(): value for container, value in old.fingerprints().items()}
    after = {container.casefold(): value for container, value in fingerprints.items()}
    return old.generation + (before != after)


# --- reading --------------------------------------------------------------------------------------------------------


class _Invalid(Exception):
    pass


def _no_duplicates(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    found: dict[str, t.Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Invalid(f"'{name}' is given twice")
        found[name] = value
    return found


def _fields(
    data: object, where: str, required: t.Mapping[str, type | tuple[type, ...]], optional: t.Collection[str] = ()
) -> dict[str, t.Any]:
    if not isinstance(data, dict):
        raise _Invalid(f"{where} is not an object")
    for name in data:
        if name not in required and name not in optional:
            raise _Invalid(f"{where} has the unknown field '{name}'; was it written by a newer release?")
    for name, kinds in required.items():
        if name not in data:
            raise _Invalid(f"{where} lacks the field '{name}'")
        value = data[name]
        # bool is a kind of int in Python, but not in a bundle
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
            raise _Invalid(f"field '{name}' of {where} has the wrong type")
    return data


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise _Invalid(f"{where} is not valid base64") from None


def _key_from_dict(data: object, number: int) -> BundleKey:
    where = f"containers[{number}]"
    none = type(None)
    fields = _fields(
        data,
        where,
        {
            "container": str,
            "store": str,
            "bits": int,
            "fingerprint": str,
            "exportable": (bool, none),
            "sddl": (str, none),
            "sealed": str,
        },
    )
    if not fields["container"]:
        raise _Invalid(f"{where} has an empty container name")
    if fields["store"] != "cryptoapi":
        raise _Invalid(f"{where} has the store '{fields['store']}'; only cryptoapi keys can be sealed")
    if not _FINGERPRINT.match(fields["fingerprint"]):
        raise _Invalid(f"{where} has a fingerprint that is not 64 lower-case hexadecimal digits")
    if not 384 <= fields["bits"] <= 16384:
        raise _Invalid(f"{where} has {fields['bits']} bits")
    return BundleKey(
        fields["container"],
        fields["bits"],
        fields["fingerprint"],
        _decoded(fields["sealed"], f"'sealed' of {where}"),
        "cryptoapi",
        fields["exportable"],
        fields["sddl"],
    )


def _from_dict(data: object) -> Bundle:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise _Invalid(f"it is not a key bundle (its format is not '{FORMAT}')")
    if data.get("version") != VERSION or isinstance(data.get("version"), bool):
        raise _Invalid(
            f"it has version {data.get('version')!r}, this release reads version {VERSION}; use a newer release"
        )
    fields = _fields(
        data,
        "the bundle",
        {
            "format": str,
            "version": int,
            "farm": str,
            "generation": int,
            "created": str,
            "source": dict,
            "containers": list,
            "accepted_undecryptable": list,
        },
        ("recipients", "signature"),
    )
    source = _fields(fields["source"], "source", {"host": str, "machine_guid": str})
    if fields["generation"] < 1:
        raise _Invalid("the generation is less than 1")
    if not _CREATED.match(fields["created"]):
        raise _Invalid("'created' is not a UTC time such as 2026-01-31T12:00:00Z")
    containers = tuple(_key_from_dict(one, number) for number, one in enumerate(fields["containers"]))
    if not containers:
        raise _Invalid("it holds no keys")
    names = [key.container.casefold() for key in containers]
    for key in containers:
        if names.count(key.container.casefold()) > 1:
            raise _Invalid(f"container {key.container} is in it twice")
    accepted = []
    for number, one in enumerate(fields["accepted_undecryptable"]):
        entry = _fields(one, f"accepted_undecryptable[{number}]", {"path": str, "reason": str})
        accepted.append(Accepted(entry["path"], entry["reason"]))
    signature = fields.get("signature")
    if signature is not None and not isinstance(signature, str):
        raise _Invalid("field 'signature' of the bundle has the wrong type")
    certificates = fields.get("recipients", [])
    if not isinstance(certificates, list) or not all(isinstance(one, str) for one in certificates):
        raise _Invalid("field 'recipients' of the bundle has the wrong type")
    return Bundle(
        farm=fields["farm"],
        generation=fields["generation"],
        created=fields["created"],
        source_host=source["host"],
        machine_guid=source["machine_guid"],
        containers=containers,
        accepted=tuple(accepted),
        signature=None if signature is None else _decoded(signature, "'signature'"),
        certificates=tuple(_decoded(one, f"recipients[{number}]") for number, one in enumerate(certificates)),
    )


def parse_bundle(content: bytes, what: str) -> Bundle:
    """A bundle from the bytes of its file. *what* names option and file. Raises :class:`BundleError`."""
    try:
        data = json.loads(content.decode("utf-8"), object_pairs_hook=_no_duplicates)
        return _from_dict(data)
    except UnicodeDecodeError:
        raise BundleError(f"{what} is not a key bundle: it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise BundleError(f"{what} is not a key bundle: line {error.lineno} is not valid JSON ({error.msg})") from None
    except ValueError:
        # The only other one that json raises: Python reads no integer of more than some thousand digits.
        raise BundleError(f"{what} is not a key bundle: it holds a number that is too long") from None
    except RecursionError:
        raise BundleError(f"{what} is not a key bundle: it is nested too deeply") from None
    except _Invalid as error:
        raise BundleError(f"{what} cannot be used: {error}. Write it anew with key_export.") from None


def read_bundle(path: str | Path, option: str = "bundle") -> Bundle:
    """Read a bundle from its file. Raises :class:`BundleError`, which names *option* and the file."""
    source = Path(path)
    try:
        with source.open("rb") as stream:
            content = stream.read(MAXIMUM_BYTES + 1)
    except FileNotFoundError:
        raise BundleError(f"{option}: {source} does not exist. Write it with key_export.") from None
    except OSError as error:
        raise BundleError(f"{option}: {source} cannot be read: {error.strerror}") from None
    if len(content) > MAXIMUM_BYTES:
        raise BundleError(f"{option}: {source} is larger than {MAXIMUM_BYTES} bytes; it is no key bundle")
    return parse_bundle(content, f"{option}: {source}")


def write_bundle(path: str | Path, bundle: Bundle, option: str = "dest") -> None:
    """Write a bundle in one step, mode 0600. Raises :class:`BundleError`; nothing is half-written."""
    target = Path(path)
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mode 0600
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(bundle.to_bytes())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        temporary = None
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        reason = (
            f"{option}: {target} cannot be written: {error.strerror}. Name a folder that exists and may be written."
        )
        raise BundleError(reason) from None
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


# --- believing and opening ------------------------------------------------------------------------------------------


def _normal_fingerprint(value: object, container: str) -> str:
    text = str(value).strip().lower().replace(":", "").replace(" ", "")
    if not _FINGERPRINT.match(text):
        raise BundleError(
            f"expected_fingerprints: the value for {container} is not a SHA-256 fingerprint (64 hexadecimal digits)"
        )
    return text


def check_trust(
    bundle: Bundle,
    *,
    containers: t.Iterable[str] | None = None,
    expected_fingerprints: t.Mapping[str, t.Any] | None = None,
    signer_certificate: bytes | None = None,
) -> frozenset[Trust]:
    """Is the bundle to be believed for *containers* (all by default)? Returns how: pinned, signed or both.

    A signer certificate (PEM) demands a valid signature. A pinned fingerprint must be equal. Raises
    :class:`BundleError` where neither covers every key that is used.
    """
    used = [key.container for key in bundle.containers] if containers is None else list(containers)
    pins = {
        str(name).casefold(): _normal_fingerprint(value, str(name))
        for name, value in (expected_fingerprints or {}).items()
    }
    trust: set[Trust] = set()
    if signer_certificate is not None:
        if bundle.signature is None:
            raise BundleError(
                "signer_certificate is given, but the bundle has no signature. Export it again with signing_file."
            )
        try:
            verify(bundle.canonical(), bundle.signature, signer_certificate, "signer_certificate")
        except SealError as error:
            raise BundleError(f"The bundle is not believed: {error}. Do not use it; export it again.") from None
        trust.add("signed")
    unpinned = []
    for container in used:
        key = bundle.get(container)
        if key is None:
            raise BundleError(
                f"containers: the bundle has no key {container}; it has {', '.join(bundle.fingerprints())}"
            )
        pin = pins.get(container.casefold())
        if pin is None:
            unpinned.append(key.container)
        elif pin != key.fingerprint:
            raise BundleError(
                f"The bundle is not believed: its {key.container} has the fingerprint {key.fingerprint}, "
                f"expected_fingerprints says {pin}. Use the right bundle, or update the inventory if the key was "
                "changed on purpose."
            )
    if not unpinned:
        trust.add("pinned")
    if not trust:
        raise BundleError(
            f"The bundle is not believed: nothing vouches for {', '.join(unpinned)}. Put the fingerprint into "
            "expected_fingerprints (read it on the source with key_info), or sign the bundle and give "
            "signer_certificate."
        )
    return frozenset(trust)


def open_key(bundle_key: BundleKey, opening: RsaKey, what: str = "opening_file") -> OpenedKey:
    """Open one key and compute its fingerprint anew. Raises :class:`BundleError`."""
    name = f"the key of {bundle_key.container}"
    try:
        part, dummy = disassemble(bundle_key.sealed, name)
        blob = unseal(part, opening)
    except SealError as error:
        raise BundleError(f"bundle: {error}. Export it again with key_export.") from None
    if blob is None:
        raise BundleError(
            f"{what} does not open {name}: it is none of the recipients. Give the private key of a recipient."
        )
    try:
        key = read_private_blob(blob)
    except KeyBlobError as error:
        raise BundleError(
            f"bundle: {name} opens, but is no private key: {error}. Export it again with key_export."
        ) from None
    if key.fingerprint != bundle_key.fingerprint or key.bits != bundle_key.bits:
        raise BundleError(
            f"bundle: {name} is another one than the bundle says (fingerprint {key.fingerprint}, "
            f"stated {bundle_key.fingerprint}). The bundle was altered; do not use it, export it again."
        )
    return OpenedKey(bundle_key.container, key, bundle_key.exportable, bundle_key.sddl, blob)


def open_bundle(
    bundle: Bundle,
    opening: RsaKey,
    *,
    containers: t.Iterable[str] | None = None,
    what: str = "opening_file",
) -> dict[str, OpenedKey]:
    """Open the keys of *containers* (all by default), by container name. Trust is the caller's: :func:`check_trust`
    first.
    """
    names = [key.container for key in bundle.containers] if containers is None else list(containers)
    opened: dict[str, OpenedKey] = {}
    for name in names:
        found = bundle.get(name)
        if found is None:
            raise BundleError(f"containers: the bundle has no key {name}; it has {', '.join(bundle.fingerprints())}")
        opened[found.container] = open_key(found, opening, what)
    return opened


def key_ring(opened: t.Mapping[str, OpenedKey]) -> KeyRing:
    """The opened keys as a ring for proofs."""
    return KeyRing({name: one.key for name, one in opened.items()})
