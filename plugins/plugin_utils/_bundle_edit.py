# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""Changes of a key bundle on the controller: recipients, keys from files, signature. No server takes part.

:func:`plan` compares the bundle with what is wanted and needs no key. :meth:`Edit.build` makes the new bundle. Where
the recipients change, every key is sealed anew with a fresh content key, so who held the old file and an old content
key can open nothing of the new one.
"""

from __future__ import annotations

import dataclasses
import typing as t
from dataclasses import dataclass, field

from ansible_collections.webfarm.iis.plugins.plugin_utils._bundle import (
    Bundle,
    BundleError,
    BundleKey,
    OpenedKey,
    Trust,
    check_trust,
    make_bundle_key,
    planned_generation,
    utc_now,
)
from ansible_collections.webfarm.iis.plugins.plugin_utils._keyblob import (
    KNOWN_CONTAINERS,
    KeyBlobError,
    RsaKey,
    file_prefix,
    write_private_blob,
)
from ansible_collections.webfarm.iis.plugins.plugin_utils._seal import (
    Recipient,
    SealError,
    certificate_facts,
    issuer_name,
    recipient_from_der,
    seal,
    signers,
    verify,
)

RecipientsAction = t.Literal["set", "add", "remove"]
Facts = dict[str, t.Any]


@dataclass(frozen=True)
class NewKey:
    """A key that comes from a file. ``source`` names option and file."""

    container: str
    key: RsaKey
    source: str


@dataclass(frozen=True)
class Wanted:
    """What the bundle shall be. What is None or empty stays as it is."""

    farm: str | None = None
    recipients: tuple[Recipient, ...] | None = None
    recipients_action: RecipientsAction = "set"
    new_keys: tuple[NewKey, ...] = ()
    remove_containers: tuple[str, ...] = ()
    replace: bool = False


@dataclass(frozen=True)
class Edit:
    """The difference between a bundle and what is wanted of it."""

    old: Bundle | None
    farm: str
    reasons: tuple[str, ...]
    recipients: tuple[Recipient, ...]
    kept: tuple[BundleKey, ...]
    added: tuple[NewKey, ...]
    # the recipients change, so the kept keys have to be opened and sealed anew
    reseal: bool
    # recipients are taken over from the file itself, which is sound only when a signature covers them
    carries_recipients: bool = field(default=False)

    @property
    def changed(self) -> bool:
        return bool(self.reasons)

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint by container, as it will be."""
        return {one.container: one.fingerprint for one in self.kept} | {
            one.container: one.key.fingerprint for one in self.added
        }

    def build(self, opened: t.Mapping[str, OpenedKey]) -> Bundle:
        """The new bundle, not signed. *opened* holds the kept keys where :attr:`reseal` is set."""
        kept = [self._sealed_again(one, opened[one.container]) for one in self.kept] if self.reseal else list(self.kept)
        added = [self._sealed(one) for one in self.added]
        old = self.old
        certificates = tuple(one.der for one in self.recipients)
        return Bundle(
            farm=self.farm,
            generation=planned_generation(old, self.fingerprints()),
            created=utc_now(),
            source_host=old.source_host if old else "",
            machine_guid=old.machine_guid if old else "",
            containers=tuple(kept + added),
            accepted=old.accepted if old else (),
            certificates=certificates or (old.certificates if old else ()),
        )

    def _sealed_again(self, entry: BundleKey, opened: OpenedKey) -> BundleKey:
        part = seal(opened.blob, [one.key for one in self.recipients])
        new = make_bundle_key(entry.container, opened.key, part, self.recipients)
        return dataclasses.replace(entry, sealed=new.sealed)

    def _sealed(self, new: NewKey) -> BundleKey:
        before = self.old.get(new.container) if self.old else None
        try:
            part = seal(write_private_blob(new.key), [one.key for one in self.recipients])
        except (KeyBlobError, SealError) as error:
            raise BundleError(f"{new.source} cannot be sealed: {error}") from None
        return make_bundle_key(
            new.container,
            new.key.public(),
            part,
            self.recipients,
            exportable=before.exportable if before else None,
            sddl=before.sddl if before else None,
        )


def plan(old: Bundle | None, wanted: Wanted) -> Edit:
    """What has to be done to *old* (None: there is no file). Raises :class:`BundleError`."""
    _check_names(wanted.new_keys)
    reasons: list[str] = []
    if old is None:
        if not wanted.new_keys:
            raise BundleError("bundle: it does not exist. Write it with key_export, or make one with import_from.")
        if not wanted.farm:
            raise BundleError("farm: a new bundle needs the name of its farm.")
        if wanted.recipients is None or wanted.recipients_action != "set":
            raise BundleError("recipients: a new bundle needs the certificates of those who may open it.")
        reasons.append("the bundle does not exist")
    farm = wanted.farm or (old.farm if old else "")
    if old and farm != old.farm:
        reasons.append(f"the farm is {old.farm}")
    kept, added = _keys(old, wanted, reasons)
    recipients, carried = _recipients(old, wanted, bool(added))
    reseal = bool(old and recipients and not old.sealed_to(recipients))
    if old and reseal:
        reasons.append(f"the recipients differ: {_difference(old, recipients)}")
    return Edit(old, farm, tuple(reasons), recipients, kept, added, reseal, carried)


def _check_names(new_keys: t.Sequence[NewKey]) -> None:
    names = [one.container.casefold() for one in new_keys]
    for one in new_keys:
        if names.count(one.container.casefold()) > 1:
            raise BundleError(f"import_from: container {one.container} is given twice")
        if one.container.casefold() in (name.casefold() for name in KNOWN_CONTAINERS["cng"]):
            raise BundleError(
                f"import_from: {one.container} is a CNG key, which is no RSA key and cannot come from such a file"
            )
        try:
            file_prefix(one.container)
        except KeyBlobError as error:
            raise BundleError(f"import_from: {error}") from None


def _keys(old: Bundle | None, wanted: Wanted, reasons: list[str]) -> tuple[tuple[BundleKey, ...], tuple[NewKey, ...]]:
    removed = {name.casefold() for name in wanted.remove_containers}
    added = []
    for one in wanted.new_keys:
        if one.container.casefold() in removed:
            raise BundleError(f"remove_containers: {one.container} is also in import_from")
        before = old.get(one.container) if old else None
        if before is None:
            reasons.append(f"{one.container} is not in the bundle")
        elif before.fingerprint == one.key.fingerprint:
            continue
        elif not wanted.replace:
            raise BundleError(
                f"import_from: the bundle holds another key for {before.container} (fingerprint {before.fingerprint}) "
                f"than {one.source} ({one.key.fingerprint}). Set replace: true to put the new one in its place; the "
                "old one is then only in a backup (backup: true)."
            )
        else:
            reasons.append(f"the key of {before.container} differs")
        added.append(one)
    gone = removed | {one.container.casefold() for one in added}
    kept = tuple(one for one in (old.containers if old else ()) if one.container.casefold() not in gone)
    reasons += [
        f"{one.container} is in the bundle"
        for one in (old.containers if old else ())
        if one.container.casefold() in removed
    ]
    if not kept and not added:
        raise BundleError("remove_containers: nothing would be left in the bundle. Delete the file if that is meant.")
    return kept, tuple(added)


def _recipients(old: Bundle | None, wanted: Wanted, added: bool) -> tuple[tuple[Recipient, ...], bool]:
    """The recipients as they will be (empty: nobody asks), and whether some come from the file itself."""
    if wanted.recipients is not None and wanted.recipients_action == "set":
        return wanted.recipients, False
    if old is None or (wanted.recipients is None and not added):
        return (), False
    known = {facts.identity for dummy, facts in old.recipient_facts() if facts}
    if len(known) != len(old.recipient_facts()) or len(known) != len(old.certificates):
        raise BundleError(
            "recipients: the bundle does not hold the certificates of all its recipients. "
            "List all who shall be able to open it."
        )
    try:
        present = tuple(recipient_from_der(der, "bundle: a recipient's certificate") for der in old.certificates)
    except SealError as error:
        raise BundleError(str(error)) from None
    given = wanted.recipients or ()
    if wanted.recipients_action == "remove":
        gone = {one.der for one in given}
        left = tuple(one for one in present if one.der not in gone)
        if not left:
            raise BundleError("recipients: nobody would be left who can open the bundle.")
        return left, True
    have = {one.der for one in present}
    joined = present + tuple(one for one in given if one.der not in have)
    identities = [one.identity for one in joined]
    for one in given:
        if identities.count(one.identity) > 1:
            raise BundleError(
                f"{one.source} has the issuer and serial number of a present recipient and is another certificate. "
                "List all recipients with recipients_action: set."
            )
    return joined, True


def _difference(old: Bundle, recipients: t.Sequence[Recipient]) -> str:
    before = {show_recipient(identity, facts) for identity, facts in old.recipient_facts()}
    after = {show_recipient(one.identity, certificate_facts(one.der, one.source)) for one in recipients}
    parts = [f"{one} is added" for one in sorted(after - before)]
    parts += [f"{one} is removed" for one in sorted(before - after)]
    return "; ".join(parts) or "not every key is sealed to all of them and to nobody else"


# --- trust and signature --------------------------------------------------------------------------------------------


def signature_problem(bundle: Bundle, certificate: bytes, what: str) -> str | None:
    """Why *bundle* is not validly signed by the key of that certificate (PEM); None when it is."""
    if bundle.signature is None:
        return "the bundle is not signed"
    try:
        verify(bundle.canonical(), bundle.signature, certificate, what)
    except SealError as error:
        return f"the signature is not the wanted one: {error}"
    return None


def believe(
    edit: Edit,
    *,
    expected_fingerprints: t.Mapping[str, t.Any] | None,
    signer_certificate: bytes | None,
    signing_certificate: bytes | None,
) -> frozenset[Trust]:
    """Is what is taken over from the old file to be believed? Else :class:`BundleError`.

    The certificate that will sign is as good as signer_certificate: the administrator names both, and a second run of
    a task that changes the signer finds its own signature.
    """
    if edit.old is None:
        return frozenset()
    signer = signer_certificate
    if signing_certificate and signature_problem(edit.old, signing_certificate, "signing_certificate") is None:
        signer = signing_certificate
    trust = check_trust(
        edit.old,
        containers=[one.container for one in edit.kept],
        expected_fingerprints=expected_fingerprints,
        signer_certificate=signer,
    )
    if edit.carries_recipients and "signed" not in trust:
        raise BundleError(
            "recipients: the present recipients would be taken from the file, and only a signature vouches for them. "
            "Give signer_certificate, or list all recipients with recipients_action: set."
        )
    return trust


def check_new_keys(edit: Edit, expected_fingerprints: t.Mapping[str, t.Any] | None) -> None:
    """New keys that are pinned are the pinned ones; else :class:`BundleError`."""
    pins = {str(name).casefold(): str(value) for name, value in (expected_fingerprints or {}).items()}
    for one in edit.added:
        pin = pins.get(one.container.casefold())
        if pin is not None and pin.strip().lower().replace(":", "").replace(" ", "") != one.key.fingerprint:
            raise BundleError(
                f"{one.source} has the fingerprint {one.key.fingerprint}, expected_fingerprints says {pin} for "
                f"{one.container}. Use the right file, or update the inventory if the key is meant."
            )


# --- what may be shown ----------------------------------------------------------------------------------------------


def show_recipient(identity: tuple[str, int], facts: t.Any) -> str:
    """One line about a recipient, for reasons and differences."""
    if facts is None:
        return f"serial number {identity[1]:x} of {issuer_name(identity)}"
    return f"{facts.subject} (sha256 {facts.fingerprint})"


def person(identity: tuple[str, int], facts: t.Any) -> Facts:
    """A recipient or signer as a result shows it."""
    return {
        "subject": facts.subject if facts else None,
        "issuer": facts.issuer if facts else issuer_name(identity),
        "serial": f"{identity[1]:x}",
        "certificate_fingerprint": facts.fingerprint if facts else None,
        "not_after": facts.not_after.strftime("%Y-%m-%dT%H:%M:%SZ") if facts else None,
    }


def recipients_of(bundle: Bundle) -> list[Facts]:
    """Everybody who can open at least one key. Raises :class:`BundleError`."""
    return [person(identity, facts) for identity, facts in bundle.recipient_facts()]


def signers_of(bundle: Bundle) -> list[Facts]:
    """Who the signature says made it; nothing is verified. Raises :class:`BundleError`."""
    if bundle.signature is None:
        return []
    try:
        return [
            person(identity, certificate_facts(der, "the certificate in the signature") if der else None)
            for identity, der in signers(bundle.signature)
        ]
    except SealError as error:
        raise BundleError(f"bundle: {error}") from None


def describe(bundle: Bundle) -> Facts:
    """The public facts that a difference shows."""
    return {
        "farm": bundle.farm,
        "generation": bundle.generation,
        "fingerprints": dict(sorted(bundle.fingerprints().items())),
        "recipients": sorted(show_recipient(identity, facts) for identity, facts in bundle.recipient_facts()),
        "signed_by": [one["subject"] or one["issuer"] for one in signers_of(bundle)],
    }
