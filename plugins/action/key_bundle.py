# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""key_bundle runs on the controller alone: shows a bundle, changes who can open it, takes keys in, signs it."""

from __future__ import annotations

import datetime
import os

from ansible_collections.webfarm.iis.plugins.plugin_utils import _bundle, _bundle_edit, _custody, _keyblob, _keyfile
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import (
    ActionFailure,
    Options,
    Result,
    WebfarmAction,
    write_private_file,
)

_SECRETS = ("opening_content", "opening_file", "signing_content", "signing_file", "import_from")


class ActionModule(WebfarmAction):
    _requires_connection = False

    MODULE = "webfarm.iis.key_bundle"
    SPEC = {
        **_custody.TRUST_SPEC,
        "backup": {"type": "bool", "default": False},
        "bundle": {"type": "path", "required": True},
        "drop_signature": {"type": "bool", "default": False},
        "export_unencrypted_xml": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"container": {"type": "str", "required": True}, "dest": {"type": "path", "required": True}},
        },
        "farm": {"type": "str"},
        "import_from": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "container": {"type": "str", "required": True},
                "content": {"type": "str", "no_log": True},
                "passphrase": {"type": "str", "no_log": True},
                "src": {"type": "path"},
            },
        },
        "recipients": {"type": "list", "elements": "path"},
        "recipients_action": {"type": "str", "choices": ["set", "add", "remove"], "default": "set"},
        "remove_containers": {"type": "list", "elements": "str", "default": []},
        "replace": {"type": "bool", "default": False},
        "signing_certificate": {"type": "path"},
        "signing_content": {"type": "str", "no_log": True},
        "signing_file": {"type": "path"},
        "signing_passphrase": {"type": "str", "no_log": True},
    }
    RULES = {
        "mutually_exclusive": [
            ("opening_content", "opening_file"),
            ("signing_content", "signing_file"),
        ],
        "required_by": {
            "signing_content": "signing_certificate",
            "signing_file": "signing_certificate",
            "signing_passphrase": "signing_certificate",
        },
    }

    def work(self, options: Options) -> Result:
        if any(options[name] for name in _SECRETS):
            self.refuse_unsafe_surroundings(allow_unencrypted=True, needs_target=False)
        try:
            return self._work(options)
        except _bundle.BundleError as error:
            raise ActionFailure(str(error)) from None

    def _work(self, options: Options) -> Result:
        path = self.controller_path(options["bundle"])
        old = _bundle.read_bundle(path) if os.path.exists(path) else None
        if options["import_from"]:
            self.refuse_recording(clear=True)
        edit = _bundle_edit.plan(old, self._wanted(options))
        signing = self._signing(options, edit)
        reasons = [*edit.reasons, *self._signature_reasons(options, edit, signing)]
        if reasons and options["export_unencrypted_xml"]:
            raise ActionFailure(
                "export_unencrypted_xml: the same task would change the bundle. Export in a task of its own."
            )
        trust = self._believe(options, edit, signing, bool(reasons))
        opened = self._open(options, edit)
        new = self._new(edit, options, signing, opened, bool(reasons))

        result: Result = {"changed": bool(reasons), "reasons": reasons, "trust": sorted(trust), "backup_file": None}
        if reasons and not self.check_mode:
            if options["backup"] and old is not None:
                result["backup_file"] = _back_up(path)
            write_private_file(path, new.to_bytes(), "bundle")
        result["exported"] = self._export(options, opened)
        result["changed"] = result["changed"] or any(item["changed"] for item in result["exported"])
        result |= self._facts(path, new)
        if self._task.diff:
            result["diff"] = {
                "before": _bundle_edit.describe(old) if old else {},
                "after": _bundle_edit.describe(new),
                "before_header": path,
                "after_header": path,
            }
        return result

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def _wanted(self, options: Options) -> _bundle_edit.Wanted:
        names = options["recipients"]
        return _bundle_edit.Wanted(
            farm=options["farm"],
            recipients=None if names is None else _custody.load_recipients(self, names),
            recipients_action=options["recipients_action"],
            new_keys=tuple(self._imported(item) for item in options["import_from"]),
            remove_containers=tuple(options["remove_containers"]),
            replace=options["replace"],
        )

    def _imported(self, item: Options) -> _bundle_edit.NewKey:
        container = str(item["container"])
        # No rule of the specification: validation adds the missing one as None, and a second try of a task would fail.
        if (item.get("content") is None) == (item.get("src") is None):
            raise ActionFailure(f"import_from: give either src or content for {container}.")
        if item.get("content") is not None:
            content, what = str(item["content"]).encode("utf-8"), f"import_from: the content for {container}"
        else:
            content = self.read_file(item["src"], "import_from")
            what = f"import_from: {self.controller_path(item['src'])}"
        try:
            found = _keyfile.read_key_file(content, item.get("passphrase"), what)
        except _keyfile.KeyFileError as error:
            raise ActionFailure(str(error)) from None
        if found.warning:
            self.warn(found.warning)
        return _bundle_edit.NewKey(container, found.key, what)

    # --- signature and trust -----------------------------------------------------------------------------------------

    def _signing(self, options: Options, edit: _bundle_edit.Edit) -> bytes | None:
        """The certificate that the bundle shall be signed with."""
        name = options["signing_certificate"]
        if name and options["drop_signature"]:
            raise ActionFailure("drop_signature and signing_certificate contradict each other; give one of them.")
        if name:
            return self.read_file(name, "signing_certificate")
        if edit.changed and edit.old is not None and edit.old.signature and not options["drop_signature"]:
            raise ActionFailure(
                "The bundle is signed, and the change would make its signature void. Give signing_certificate with "
                "signing_file (or signing_content) to sign it again, or set drop_signature: true."
            )
        return None

    def _signature_reasons(self, options: Options, edit: _bundle_edit.Edit, signing: bytes | None) -> list[str]:
        if edit.old is None:
            return []
        if signing is not None:
            problem = _bundle_edit.signature_problem(edit.old, signing, "signing_certificate")
            return [problem] if problem else []
        return ["the bundle is signed"] if options["drop_signature"] and edit.old.signature else []

    def _believe(
        self, options: Options, edit: _bundle_edit.Edit, signing: bytes | None, changed: bool
    ) -> frozenset[_bundle.Trust]:
        """A bundle that is only looked at need not be believed, unless somebody asks."""
        name = options["signer_certificate"]
        pins = options["expected_fingerprints"]
        _bundle_edit.check_new_keys(edit, pins)
        if not (changed or options["export_unencrypted_xml"] or name or pins):
            return frozenset()
        certificate = self.read_file(name, "signer_certificate") if name else None
        return _bundle_edit.believe(
            edit, expected_fingerprints=pins, signer_certificate=certificate, signing_certificate=signing
        )

    # --- keys --------------------------------------------------------------------------------------------------------

    def _open(self, options: Options, edit: _bundle_edit.Edit) -> dict[str, _bundle.OpenedKey]:
        """The private keys that are needed: all that stay when the recipients change, else those to be written out."""
        if edit.old is None:
            return {}
        names = [one.container for one in edit.kept] if edit.reseal else []
        names += [str(item["container"]) for item in options["export_unencrypted_xml"]]
        if not names:
            return {}
        self.refuse_recording(clear=True)
        opening, what = _custody.opening_key(self, options)
        return _bundle.open_bundle(edit.old, opening, containers=names, what=what)

    def _new(
        self,
        edit: _bundle_edit.Edit,
        options: Options,
        signing: bytes | None,
        opened: dict[str, _bundle.OpenedKey],
        changed: bool,
    ) -> _bundle.Bundle:
        if not changed:
            if edit.old is None:
                raise AssertionError("a bundle that does not exist is a change")
            return edit.old
        new = edit.build(opened)
        if signing is None:
            return new
        if options["signing_content"]:
            pem, what = str(options["signing_content"]).encode("utf-8"), "signing_content"
        elif options["signing_file"]:
            pem, what = self.read_file(options["signing_file"], "signing_file"), "signing_file"
        else:
            raise ActionFailure(
                "signing_file: the bundle has to be signed, so the private key of signing_certificate is needed "
                "(signing_file, or signing_content for a key out of a variable or lookup)."
            )
        return new.signed(pem, options["signing_passphrase"], signing, what)

    def _export(self, options: Options, opened: dict[str, _bundle.OpenedKey]) -> list[Result]:
        exported: list[Result] = []
        by_name = {name.casefold(): one for name, one in opened.items()}
        for item in options["export_unencrypted_xml"]:
            one = by_name[str(item["container"]).casefold()]
            dest = self.controller_path(item["dest"])
            content = _keyblob.write_xml(one.key, private=True).encode("ascii")
            changed = _export_changes(dest, one)
            if changed and not self.check_mode:
                write_private_file(dest, content, "export_unencrypted_xml")
            self.warn(
                f"export_unencrypted_xml: the private key of {one.container} lies readable in {dest}. Whoever reads "
                "the file can decrypt the farm's passwords. Delete it as soon as it has served its purpose."
            )
            exported.append({"container": one.container, "dest": dest, "changed": changed})
        return exported

    # --- result ------------------------------------------------------------------------------------------------------

    def _facts(self, path: str, bundle: _bundle.Bundle) -> Result:
        recipients = _bundle_edit.recipients_of(bundle)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for one in recipients:
            if one["not_after"] and one["not_after"] < now:
                self.warn(
                    f"The certificate of the recipient {one['subject']} expired on {one['not_after'][:10]}. Its key "
                    "still opens the bundle."
                )
        return {
            "bundle": {
                "path": path,
                "farm": bundle.farm,
                "generation": bundle.generation,
                "created": bundle.created,
                "source_host": bundle.source_host or None,
                "machine_guid": bundle.machine_guid or None,
                "accepted_undecryptable": [{"path": one.path, "reason": one.reason} for one in bundle.accepted],
            },
            "fingerprints": bundle.fingerprints(),
            "key_containers": [
                {
                    "container": one.container,
                    "store": one.store,
                    "bits": one.bits,
                    "fingerprint": one.fingerprint,
                    "exportable": one.exportable,
                    "sddl": one.sddl,
                }
                for one in bundle.containers
            ],
            "recipients": recipients,
            "signed": bundle.signature is not None,
            "signers": _bundle_edit.signers_of(bundle),
        }


def _export_changes(dest: str, one: _bundle.OpenedKey) -> bool:
    """Is the file to be written? A file that holds something else is never replaced: it may be the only copy."""
    if not os.path.lexists(dest):
        return True
    try:
        with open(dest, "rb") as stream:
            present = _keyfile.read_key_file(stream.read(_bundle.MAXIMUM_BYTES), None, dest)
    except (OSError, _keyfile.KeyFileError):
        present = None
    if present is None or present.kind != "xml" or present.key.fingerprint != one.key.fingerprint:
        raise ActionFailure(
            f"export_unencrypted_xml: {dest} exists and is not the key of {one.container}. Name another file, or move "
            "that one away."
        )
    return bool(os.stat(dest).st_mode & 0o077)


def _back_up(path: str) -> str:
    """A copy of the file beside it, readable by the owner only."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%fZ")
    copy = f"{path}.{stamp}~"
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except OSError as error:
        raise ActionFailure(f"backup: {path} cannot be read: {error.strerror}") from None
    write_private_file(copy, content, "backup")
    return copy
