# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""What actions do with a bundle: believe it, open it, seal its keys again to one target, prove a file with them."""

from __future__ import annotations

import json
import os
import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost, _bundle, _proof, _seal
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import ActionFailure, Options, Result, WebfarmAction
from ansible_collections.webfarm.iis.plugins.plugin_utils._keyblob import RsaKey

ACCEPT_SPEC: dict[str, t.Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {"path": {"type": "str", "required": True}, "reason": {"type": "str", "required": True}},
}

# How a bundle is found, believed and opened.
TRUST_SPEC: dict[str, dict[str, t.Any]] = {
    "bundle": {"type": "path"},
    "expected_fingerprints": {"type": "dict"},
    "opening_content": {"type": "str", "no_log": True},
    "opening_file": {"type": "path"},
    "opening_passphrase": {"type": "str", "no_log": True},
    "signer_certificate": {"type": "path"},
}

# The same for modules that bring its keys to a target.
TRANSFER_SPEC: dict[str, dict[str, t.Any]] = {
    **TRUST_SPEC,
    "allow_unencrypted_transport": {"type": "bool", "default": False},
    "containers": {"type": "list", "elements": "str"},
    "exportable": {"type": "bool"},
    "undo_expiry_hours": {"type": "int", "default": 72},
    "without_undo": {"type": "bool", "default": False},
}

# `bundle` goes along as a name, because the target's specification requires it of key_import.
TRANSFER_CONTROLLER_ONLY = frozenset(TRUST_SPEC) - {"bundle"} | {"allow_unencrypted_transport"}


def accepted_paths(options: Options) -> dict[str, str]:
    """accept_undecryptable as path and reason."""
    return {str(item["path"]): str(item["reason"]) for item in options.get("accept_undecryptable") or []}


@dataclass
class Custody:
    """A bundle that is believed. It is opened when a key is first needed, in memory only."""

    action: WebfarmAction
    options: Options
    bundle: _bundle.Bundle
    containers: tuple[str, ...]
    _opened: dict[str, _bundle.OpenedKey] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, action: WebfarmAction, options: Options, bundle: _bundle.Bundle | None = None) -> Custody:
        """Read the bundle, where it is not given, and check that it is pinned or signed. Nothing is opened yet."""
        bundle = bundle or read_bundle(action, options)
        wanted = options.get("containers") or [key.container for key in bundle.containers]
        certificate = (
            action.read_file(options["signer_certificate"], "signer_certificate")
            if options["signer_certificate"]
            else None
        )
        try:
            _bundle.check_trust(
                bundle,
                containers=wanted,
                expected_fingerprints=options["expected_fingerprints"],
                signer_certificate=certificate,
            )
        except _bundle.BundleError as error:
            raise ActionFailure(str(error)) from None
        found = [bundle.get(name) for name in wanted]
        return cls(action, options, bundle, tuple(key.container for key in found if key))

    def planned(self) -> list[dict[str, t.Any]]:
        """The keys as the target should hold them: public facts only."""
        keys = [self.bundle.get(name) for name in self.containers]
        return [
            {"container": key.container, "fingerprint": key.fingerprint, "bits": key.bits, "sddl": key.sddl or ""}
            for key in keys
            if key is not None
        ]

    def open(self) -> dict[str, _bundle.OpenedKey]:
        """The private keys. Their fingerprints are computed again on the way."""
        if not self._opened:
            opening, what = opening_key(self.action, self.options)
            try:
                self._opened = _bundle.open_bundle(self.bundle, opening, containers=self.containers, what=what)
            except _bundle.BundleError as error:
                raise ActionFailure(str(error)) from None
        return self._opened

    def sealed_for(self, transport: t.Mapping[str, t.Any], names: t.Iterable[str]) -> str:
        """The keys of these containers sealed to the target's transport key, as one string that no_log can mask."""
        self.action.refuse_recording(clear=False)
        opened = {name.casefold(): key for name, key in self.open().items()}
        try:
            public = _seal.public_key_from_wire(transport)
            parts = [(opened[name.casefold()], opened[name.casefold()].seal_for(public).to_wire()) for name in names]
        except _seal.SealError as error:
            raise ActionFailure(str(error)) from None
        except KeyError as error:
            raise ActionFailure(
                f"The target asks for the key of {error.args[0]}, which is not among the containers of this task."
            ) from None
        return json.dumps(
            [{"container": key.container, **part, "wrapped": part["wrapped"][0]} for key, part in parts], sort_keys=True
        )

    def prove(self, content: bytes, name: str) -> _proof.Proof:
        """Judge every protected value of a configuration with the keys of the bundle."""
        try:
            configuration = _apphost.parse(content, os.path.basename(name))
        except _apphost.ConfigurationError as error:
            raise ActionFailure(f"src: {error}") from None
        return _proof.prove([configuration], _bundle.key_ring(self.open()), accepted_paths(self.options))


def opening_key(action: WebfarmAction, options: Options) -> tuple[RsaKey, str]:
    """The private key that opens the bundle, and the name of the option it came from."""
    path, content = options["opening_file"], options["opening_content"]
    if path and content:
        raise ActionFailure("opening_file and opening_content are both given; one opening key is enough.")
    if content:
        pem, what = str(content).encode("utf-8"), "opening_content"
    elif path:
        pem, what = action.read_file(path, "opening_file"), f"opening_file: {action.controller_path(path)}"
    else:
        raise ActionFailure(
            "opening_file: the bundle has to be opened, so the private key of one of its recipients is needed "
            "(opening_file, or opening_content for a key out of a variable or lookup)."
        )
    try:
        return _seal.load_opening_key(pem, options["opening_passphrase"], what), what
    except _seal.SealError as error:
        raise ActionFailure(str(error)) from None


def load_recipients(action: WebfarmAction, names: t.Sequence[str]) -> tuple[_seal.Recipient, ...]:
    """The certificates that the option recipients names."""
    if not names:
        raise ActionFailure(
            "recipients: name at least one certificate (PEM). Only its private key will open the bundle."
        )
    recipients = []
    try:
        for name in names:
            what = f"recipients: {action.controller_path(name)}"
            recipients.append(_seal.load_recipient(action.read_file(name, "recipients"), what))
    except _seal.SealError as error:
        raise ActionFailure(str(error)) from None
    identities = [recipient.identity for recipient in recipients]
    for recipient in recipients:
        if identities.count(recipient.identity) > 1:
            raise ActionFailure(
                f"{recipient.source} is listed twice, or another certificate has the same issuer and serial number."
            )
    return tuple(recipients)


def read_bundle(action: WebfarmAction, options: Options) -> _bundle.Bundle:
    """The bundle that the option names."""
    try:
        return _bundle.read_bundle(action.controller_path(options["bundle"]))
    except _bundle.BundleError as error:
        raise ActionFailure(str(error)) from None


def exchange(action: WebfarmAction, first_phase: str, arguments: Options, custody: Custody | None) -> Result:
    """The two calls of a module that may need keys. The transport key of the first one is deleted in any case."""
    first = action.call_target(arguments | {"_phase": first_phase})
    transport = first.get("_transport")
    if first.get("_final") or action.check_mode or not transport:
        return first
    name = str(transport["container"])
    done = False
    try:
        if custody is None:
            raise ActionFailure(
                "The target asks for keys although the task names no bundle: update the collection on the controller."
            )
        more = {
            "_phase": "apply",
            "_transport": name,
            "_sealed": custody.sealed_for(transport, first.get("_import") or []),
        }
        if first.get("_expected_sha256"):
            more["_expected_sha256"] = first["_expected_sha256"]
        second = action.call_target(arguments | more)
        done = True
    finally:
        if not done:
            _clean_up(action, arguments, name)
    if "settled" in first:
        second.setdefault("settled", first["settled"])
    second["warnings"] = [
        *(first.get("warnings") or []),
        *(w for w in second.get("warnings") or [] if w not in (first.get("warnings") or [])),
    ]
    return second


def _clean_up(action: WebfarmAction, arguments: Options, transport: str) -> None:
    """Delete the transport key after a call that did not come back, or came back with a failure."""
    try:
        public = {name: value for name, value in arguments.items() if not name.startswith("_")}
        action.call_target(public | {"_phase": "cleanup", "_transport": transport})
    except Exception as error:  # the first failure is the one to report
        action.warn(
            f"The key container {transport}, made for this transfer, may be left on the target ({error}). "
            "It is of no use to anybody; the next run of key_import or config deletes it."
        )


# --- export ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Export:
    """What the bundle shall be: for whom, by whom signed, in place of which."""

    options: Options
    dest: str
    recipients: tuple[_seal.Recipient, ...]
    existing: _bundle.Bundle | None
    existing_content: bytes = field(default=b"", repr=False)
    signing_key: bytes | None = field(default=None, repr=False)
    signing_certificate: bytes | None = None

    @classmethod
    def load(cls, action: WebfarmAction, options: Options, dest: str) -> Export:
        recipients = load_recipients(action, options["recipients"])
        existing, content = _read_kept(dest, "an export never replaces what it cannot read")
        if existing and options["generate"] and existing.farm != options["farm"]:
            raise ActionFailure(
                f"farm: {dest} is the bundle of the farm {existing.farm}, not of {options['farm']}. "
                "Name the right bundle; new keys for another farm belong into a file of their own."
            )
        if not options["signing_file"]:
            return cls(options, dest, recipients, existing, content)
        key = action.read_file(options["signing_file"], "signing_file")
        certificate = action.read_file(options["signing_certificate"], "signing_certificate")
        return cls(options, dest, recipients, existing, content, key, certificate)

    # --- generations ---

    def kept_path(self, generation: int) -> str:
        """Where a bundle of that generation is kept beside the present one."""
        head, tail = _split_name(self.dest)
        return f"{head}.gen{generation}{tail}"

    def kept(self, generation: int) -> tuple[bytes, _bundle.Bundle] | None:
        """The kept bundle of that generation: the content of its file, and what it says."""
        path = self.kept_path(generation)
        bundle, content = _read_kept(path, "it is in the way of a kept bundle")
        if bundle is None:
            return None
        if bundle.generation != generation or bundle.farm != self.options["farm"]:
            raise ActionFailure(
                f"dest: {path} holds generation {bundle.generation} of the farm {bundle.farm}. "
                "Kept bundles are not renamed: move it away."
            )
        return content, bundle

    def highest_generation(self) -> int:
        """The highest number that was ever given, as far as the files tell."""
        head, tail = _split_name(os.path.basename(self.dest))
        pattern = re.compile(re.escape(head) + r"\.gen(\d{1,9})" + re.escape(tail))
        folder = os.path.dirname(self.dest)
        names = os.listdir(folder) if os.path.isdir(folder) else []
        found = [int(match[1]) for match in map(pattern.fullmatch, names) if match]
        return max([*found, self.existing.generation if self.existing else 0])

    def refuse_older(self, result: Result) -> None:
        """A source that holds the keys of a kept generation is behind the farm, not ahead of it."""
        if self.existing is None:
            return
        held = {name.casefold(): mark for name, mark in fingerprints(result).items()}
        for generation in range(1, self.highest_generation() + 1):
            path = self.kept_path(generation)
            if generation == self.existing.generation or not os.path.exists(path):
                continue
            kept, _content = _read_kept(path, "it is in the way of a kept bundle")
            if kept is not None and {name.casefold(): mark for name, mark in kept.fingerprints().items()} == held:
                raise ActionFailure(
                    f"{result.get('host')} holds the keys of generation {generation}, and {self.dest} is of generation "
                    f"{self.existing.generation}: a rotation is not finished, or the server was restored to an old "
                    "state. Nothing was exported. Finish it with the playbook webfarm.iis.rotate, or go back with "
                    f"rotate_generation={generation}."
                )

    def wanted_generation(self) -> int:
        """The generation that the bundle shall hold, from the option or from what the servers hold."""
        wanted = self.options["generation"]
        if wanted is not None:
            if wanted < 1:
                raise ActionFailure(f"generation is {wanted}; generations are counted from 1.")
            return int(wanted)
        following = self.highest_generation() + 1
        if self.existing is None:
            return following
        present = {name.casefold(): mark for name, mark in self.existing.fingerprints().items()}
        for server in self.options["in_use"]:
            held = {str(name).casefold(): str(mark).lower() for name, mark in server.items()}
            if any(held.get(name.casefold()) != present.get(name.casefold()) for name in self.options["containers"]):
                return self.existing.generation
        return following

    def to_keep(self, generation: int) -> str | None:
        """Where the present bundle has to be kept before one of that generation takes its place."""
        old = self.existing
        if old is None or old.generation == generation:
            return None
        path = self.kept_path(old.generation)
        before, _content = _read_kept(path, "it is in the way of the bundle that has to be kept there")
        if before is not None and before.fingerprints() != old.fingerprints():
            raise ActionFailure(
                f"dest: {path} holds other keys of the same generation, and {self.dest} has to be kept there. "
                "Find out which of the two a server still needs, and move the other away. Nothing was changed."
            )
        return path

    def facts(self, generation: int) -> Result:
        """What the result says of the bundle."""
        old = self.existing
        kept = self.kept_path(old.generation) if old is not None and old.generation != generation else None
        return {"path": self.dest, "generation": generation, "kept": kept}

    def described(self, bundle: _bundle.Bundle) -> Result:
        """The result where a bundle that is at hand serves and no server had to be asked."""
        return {
            "host": bundle.source_host,
            "machine_guid": bundle.machine_guid,
            "key_containers": [
                {
                    "container": key.container,
                    "store": key.store,
                    "bits": key.bits,
                    "fingerprint": key.fingerprint,
                    "exportable": key.exportable,
                    "sddl": key.sddl,
                }
                for key in bundle.containers
            ],
            "session_keys": [],
            "protected_values": [],
            "accepted_undecryptable": [{"path": one.path, "reason": one.reason} for one in bundle.accepted],
            "fingerprints": bundle.fingerprints(),
            "bundle": self.facts(bundle.generation),
        }

    # --- content ---

    def recipient_arguments(self) -> list[dict[str, str]]:
        """The recipients' public keys as the source takes them."""
        return [recipient.wire() for recipient in self.recipients]

    def reasons_to_write(self, result: Result) -> list[str]:
        """Why the bundle on disk is not the one that is wanted; empty when it is."""
        old = self.existing
        if old is None:
            return ["the bundle does not exist"]
        before, after = old.fingerprints(), fingerprints(result)
        reasons = [
            f"the key of {name} changed" for name, mark in after.items() if name in before and before[name] != mark
        ]
        reasons += [f"{name} is not in the bundle" for name in after if name not in before]
        reasons += [f"{name} is in the bundle and not asked for" for name in before if name not in after]
        if old.farm != self.options["farm"]:
            reasons.append(f"the bundle is that of the farm {old.farm}")
        try:
            if not old.sealed_to(self.recipients):
                reasons.append("the recipients differ")
        except _bundle.BundleError:
            reasons.append("the sealed keys of the bundle are damaged")
        if {item.path: item.reason for item in old.accepted} != _accepted(result):
            reasons.append("the accepted values differ")
        reasons += self._signature_problem(old)
        return reasons

    def _signature_problem(self, old: _bundle.Bundle) -> list[str]:
        if self.signing_certificate is None:
            return []
        if old.signature is None:
            return ["the bundle is not signed"]
        try:
            _seal.verify(old.canonical(), old.signature, self.signing_certificate, "signing_certificate")
        except _seal.SealError as error:
            return [f"the signature does not verify: {error}"]
        return []

    def planned_generation(self, result: Result) -> int:
        """The generation of a bundle with the keys that the source holds."""
        following = _bundle.planned_generation(self.existing, fingerprints(result))
        if self.existing is not None and following != self.existing.generation:
            # a number that was given once is never given to other keys
            return max(following, self.highest_generation() + 1)
        return following

    def content(self, result: Result, generation: int) -> bytes:
        """The new bundle from the sealed parts that the source returned."""
        try:
            bundle = _bundle.Bundle(
                farm=self.options["farm"],
                generation=generation,
                created=_bundle.utc_now(),
                source_host=str(result.get("host") or ""),
                machine_guid=str(result.get("machine_guid") or ""),
                containers=tuple(self._key(item) for item in result["key_containers"]),
                accepted=tuple(_bundle.Accepted(path, reason) for path, reason in _accepted(result).items()),
                certificates=tuple(recipient.der for recipient in self.recipients),
            )
            if self.signing_key is not None and self.signing_certificate is not None:
                bundle = bundle.signed(self.signing_key, self.options["signing_passphrase"], self.signing_certificate)
            return bundle.to_bytes()
        except (_bundle.BundleError, _seal.SealError) as error:
            raise ActionFailure(f"No bundle was written: {error}") from None

    def _key(self, item: dict[str, t.Any]) -> _bundle.BundleKey:
        part = _seal.SealedPart.from_wire(item.get("sealed") or {}, len(self.recipients))
        return _bundle.BundleKey(
            str(item["container"]),
            int(item["bits"]),
            str(item["fingerprint"]),
            _seal.assemble(part, self.recipients),
            exportable=item.get("exportable"),
            sddl=item.get("sddl"),
        )


def _read_kept(path: str, otherwise: str) -> tuple[_bundle.Bundle | None, bytes]:
    """A bundle and the content of its file, or None where there is no file."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(_bundle.MAXIMUM_BYTES + 1)
        return _bundle.parse_bundle(content, f"dest: {path}"), content
    except FileNotFoundError:
        return None, b""
    except OSError as error:
        raise ActionFailure(f"dest: {path} cannot be read: {error.strerror}") from None
    except _bundle.BundleError as error:
        raise ActionFailure(f"{error} Or move the file away: {otherwise}.") from None


def _split_name(path: str) -> tuple[str, str]:
    """A path before and from its suffix; .keyset.json counts as one."""
    if path.endswith(".keyset.json"):
        return path.removesuffix(".keyset.json"), ".keyset.json"
    return os.path.splitext(path)


def fingerprints(result: Result) -> dict[str, str]:
    """Fingerprint by container, of a result with key_containers."""
    return {str(item["container"]): str(item["fingerprint"]) for item in result["key_containers"]}


def _accepted(result: Result) -> dict[str, str]:
    return {str(item["path"]): str(item["reason"]) for item in result.get("accepted_undecryptable") or []}
