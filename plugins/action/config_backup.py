# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of config_backup: the archive with the sealed keys, and the restore from one."""

from __future__ import annotations

import hashlib
import os
import typing as t

from ansible_collections.webfarm.iis.plugins.action import config as _config
from ansible_collections.webfarm.iis.plugins.plugin_utils import _archive, _bundle, _custody
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import (
    ActionFailure,
    Options,
    Result,
    WebfarmAction,
    pack,
    unpack,
    write_private_file,
)

RESTORABLE = ("applicationHost.config", "administration.config")
SERVICE_SPEC = {
    name: _config.ActionModule.SPEC[name]
    for name in (
        "deadman_minutes",
        "logon_test",
        "prior_backups",
        "start_services",
        "start_timeout",
        "stop_timeout",
        "verify_urls",
        "warm_up",
    )
}


class ActionModule(WebfarmAction):
    MODULE = "webfarm.iis.config_backup"
    SPEC = {
        **_custody.TRANSFER_SPEC,
        **SERVICE_SPEC,
        "accept_undecryptable": _custody.ACCEPT_SPEC,
        "accept_unfit": _config.ActionModule.SPEC["accept_unfit"],
        "dependents": {"type": "str", "choices": ["fail", "reencrypt"], "default": "fail"},
        "dest": {"type": "path"},
        "farm": {"type": "str", "default": "iis"},
        "force": {"type": "bool", "default": False},
        "keep": {"type": "int"},
        "keep_days": {"type": "int"},
        "name": {"type": "str"},
        "overrides": {"type": "dict"},
        "recipients": {"type": "list", "elements": "path"},
        "restore_keys": {"type": "bool", "default": False},
        "sealed_keys": {"type": "bool", "default": True},
        "src": {"type": "path"},
        "state": {"type": "str", "choices": ["absent", "present", "restored", "verified"], "default": "present"},
    }
    CONTROLLER_ONLY = _custody.TRANSFER_CONTROLLER_ONLY | {"farm", "recipients", "restore_keys", "sealed_keys"}

    def work(self, options: Options) -> Result:
        self._check(options)
        if options["state"] == "restored":
            return self._restore(options)
        if options["src"]:
            return self._verify_archive(options)
        arguments = self.target_options(options) | {"_phase": "plan"}
        if options["dest"]:
            # What cannot be sealed or written should be known before a backup is made.
            if options["sealed_keys"]:
                _custody.load_recipients(self, options["recipients"] or [])
            arguments["_fetch"] = True
        result = self.call_target(arguments)
        if options["dest"]:
            self._fetch(options, result)
        return result

    @staticmethod
    def _check(options: Options) -> None:
        state = options["state"]
        wrong = {
            "dest": state not in ("present", "verified"),
            "keep": state != "present",
            "keep_days": state != "present",
            "src": state not in ("restored", "verified"),
            "bundle": state != "restored" and not (state == "verified" and options["src"]),
            "accept_unfit": state != "restored",
            "overrides": state != "restored",
            "restore_keys": state != "restored",
        }
        for name, bad in wrong.items():
            if bad and options[name]:
                raise ActionFailure(f"{name}: it has no meaning with state={state}.")
        for name in ("keep", "keep_days"):
            if options[name] is not None and options[name] < 1:
                raise ActionFailure(f"{name} is {options[name]}; give at least 1, or leave it out.")
        if options["src"] and options["name"]:
            raise ActionFailure("src and name are both given: an archive, or a backup on the server.")
        if options["src"] and options["dest"]:
            raise ActionFailure("src and dest are both given: an archive is verified, or a backup is fetched.")
        if options["restore_keys"] and not options["src"] and not options["bundle"]:
            raise ActionFailure(
                "restore_keys: the keys come from the archive of src, or from bundle; give one of them."
            )
        if options["bundle"] and state == "restored" and not options["restore_keys"]:
            raise ActionFailure("bundle: its keys are restored with restore_keys=true only.")

    # --- fetch -------------------------------------------------------------------------------------------------------

    def _fetch(self, options: Options, result: Result) -> None:
        fact: dict[str, t.Any] = result.get("backup") or {}
        path = self._destination(options, fact)
        if fact.get("planned"):
            result["archive"] = {"path": path, "sha256": None, "changed": True, "server_only": []}
            return
        packed = {str(item["name"]): str(item["content"]) for item in result.get("_files") or []}
        files = {name: unpack(content, name) for name, content in packed.items() if name in _archive.KNOWN}
        for item in fact["files"]:
            if item["name"] in files and hashlib.sha256(files[item["name"]]).hexdigest() != item["sha256"]:
                raise ActionFailure(f"{item['name']} changed on its way from the target (SHA-256 differs). Run again.")
        before = self._existing(path)
        marks = {name: str(mark) for name, mark in (result.get("_key_fingerprints") or {}).items() if mark}
        bundle = None
        if options["sealed_keys"]:
            bundle = self._sealed(options, path, before, marks)
        archive = _archive.Archive(
            name=str(fact["name"]),
            host=str(result.get("host") or ""),
            machine_guid=str(result.get("machine_guid") or ""),
            created=str(fact["created"]),
            files=files,
            key_fingerprints=marks,
            bundle=bundle,
        )
        content = archive.to_bytes()
        changed = before is None or before[0] != content
        if changed and not self.check_mode and (bundle is not None or not options["sealed_keys"]):
            self._write(path, content, archive)
        result["archive"] = {
            "path": path,
            "sha256": hashlib.sha256(content).hexdigest() if bundle or not options["sealed_keys"] else None,
            "changed": changed,
            # CNG keys do not leave their server, so the archive's keys do not open these anywhere else.
            "server_only": [
                str(item["path"]) for item in result.get("protected_values") or [] if item.get("kind") == "cng"
            ],
        }
        result["changed"] = bool(result.get("changed")) or changed

    def _destination(self, options: Options, fact: Result) -> str:
        """A folder gets one file per host and backup."""
        path = self.controller_path(options["dest"])
        if str(options["dest"]).endswith("/") or os.path.isdir(path):
            host = str(self._task_vars.get("inventory_hostname") or "host").replace("/", "_")
            path = os.path.join(path, f"{host}.{fact.get('name')}.backup.tar")
        return path

    def _existing(self, path: str) -> tuple[bytes, _archive.Archive] | None:
        if not os.path.exists(path):
            return None
        content = self.read_file(path, "dest")
        try:
            return content, _archive.parse(content, f"dest: {path}")
        except _archive.ArchiveError as error:
            raise ActionFailure(f"{error} Move it away: what cannot be read is never replaced.") from None

    def _sealed(
        self, options: Options, path: str, before: tuple[bytes, _archive.Archive] | None, marks: dict[str, str]
    ) -> bytes | None:
        """The keys that the backup needs, sealed; those of the existing archive where they are right."""
        wanted = options["containers"] or sorted(marks)
        if not wanted:
            raise ActionFailure("sealed_keys: the backup needs no key that could be sealed. Set sealed_keys=false.")
        kept = before[1].bundle if before else None
        existing = None
        if kept is not None:
            try:
                existing = _bundle.parse_bundle(kept, f"dest: {path}")
            except _bundle.BundleError as error:
                raise ActionFailure(f"{error} Move the archive away: what cannot be read is never replaced.") from None
        settings = {"farm": options["farm"], "recipients": options["recipients"], "generation": None, "generate": False}
        recipients = _custody.load_recipients(self, options["recipients"] or [])
        export = _custody.Export(settings, path, recipients, existing, kept or b"")
        arguments: Options = {
            "containers": wanted,
            "dest": path,
            "farm": options["farm"],
            "recipients": options["recipients"],
            "accept_undecryptable": options["accept_undecryptable"],
        }
        answer = self.call_target(arguments, "webfarm.iis.key_export")
        if not export.reasons_to_write(answer):
            return kept
        if answer.get("_export_refusal"):
            raise ActionFailure(
                f"{answer['_export_refusal']} The backup is on the server; nothing was fetched. "
                "Set sealed_keys=false to fetch the files alone."
            )
        if self.check_mode:
            return None
        sealed = self.call_target(arguments | {"_recipients": export.recipient_arguments()}, "webfarm.iis.key_export")
        found = _custody.fingerprints(sealed)
        for name, mark in found.items():
            if name in marks and marks[name] != mark:
                raise ActionFailure(
                    f"The key of {name} changed while the backup was fetched. Nothing was written. Run again."
                )
        return export.content(sealed, export.planned_generation(sealed))

    @staticmethod
    def _write(path: str, content: bytes, archive: _archive.Archive) -> None:
        """Written beside, read back and compared, then put in place in one step."""
        beside = path + ".new"
        try:
            write_private_file(beside, content, "dest")
            with open(beside, "rb") as stream:
                again = _archive.parse(stream.read(), f"dest: {path}")
            if again != archive:
                raise ActionFailure(f"dest: {path} does not read back as it was written. Check the disk.")
            os.replace(beside, path)
        except (OSError, _archive.ArchiveError) as error:
            raise ActionFailure(f"dest: {path} was not written: {error}") from None
        finally:
            if os.path.exists(beside):
                os.unlink(beside)

    # --- an archive on the controller ---------------------------------------------------------------------------------

    def _load(self, options: Options) -> _archive.Archive:
        path = self.controller_path(options["src"])
        try:
            return _archive.parse(self.read_file(options["src"], "src"), f"src: {path}")
        except _archive.ArchiveError as error:
            raise ActionFailure(str(error)) from None

    def _custody_of(self, options: Options, archive: _archive.Archive | None) -> _custody.Custody:
        """The keys of the bundle, else of the archive: believed only when they are pinned or signed."""
        if archive is None or options["bundle"]:
            return _custody.Custody.load(self, options)
        if archive.bundle is None:
            raise ActionFailure(
                "src: the archive holds no sealed keys. Restore without restore_keys when the server still has them, "
                "or name a bundle."
            )
        try:
            bundle = _bundle.parse_bundle(archive.bundle, f"src: {self.controller_path(options['src'])}")
        except _bundle.BundleError as error:
            raise ActionFailure(str(error)) from None
        return _custody.Custody.load(self, options, bundle)

    def _verify_archive(self, options: Options) -> Result:
        """Hashes, the fingerprints of its own keys, and with an opening key every value."""
        archive = self._load(options)
        path = self.controller_path(options["src"])
        result: Result = {
            "changed": False,
            "archive": {"path": path, "sha256": hashlib.sha256(self.read_file(options["src"], "src")).hexdigest()},
            "backup": {
                "name": archive.name,
                "host": archive.host,
                "created": archive.created,
                "files": [
                    {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                    for name, data in sorted(archive.files.items())
                ],
            },
            "protected_values": [],
        }
        try:
            if archive.bundle is not None:
                self._compare_fingerprints(archive, path)
            if options["opening_file"] or options["opening_content"]:
                self.refuse_unsafe_surroundings(True, needs_target=False)
                custody = self._custody_of(options, archive)
                proof = custody.prove(archive.files["applicationHost.config"], "applicationHost.config")
                result["protected_values"] = [dict(item) for item in proof.protected_values]
                _config._count(result, "bundle")
                _config._judge(result, options)
        except ActionFailure as failure:
            # What was found good before belongs into the result as well.
            raise ActionFailure(str(failure), {**result, **failure.result}) from None
        return result

    @staticmethod
    def _compare_fingerprints(archive: _archive.Archive, path: str) -> None:
        try:
            sealed = _bundle.parse_bundle(archive.bundle or b"", f"src: {path}").fingerprints()
        except _bundle.BundleError as error:
            raise ActionFailure(str(error)) from None
        for name, mark in sealed.items():
            if archive.key_fingerprints.get(name, mark) != mark:
                raise ActionFailure(
                    f"src: {path} holds a key of {name} that is not the one its configuration was proven with."
                )

    # --- restore -----------------------------------------------------------------------------------------------------

    def _restore(self, options: Options) -> Result:
        if not options["src"] and not options["name"]:
            raise ActionFailure("name: say which backup to restore, or name an archive on the controller with src.")
        archive = self._load(options) if options["src"] else None
        custody = None
        if options["restore_keys"]:
            self.refuse_unsafe_surroundings(options["allow_unencrypted_transport"])
            custody = self._custody_of(options, archive)
        arguments = self.target_options(options)
        arguments["_planned"] = custody.planned() if custody else []
        if archive is not None:
            content = archive.files["applicationHost.config"]
            if options["overrides"]:
                content = _config.ActionModule._override(content, {**options, "src": "applicationHost.config"})
            arguments["_content"] = pack(content)
            arguments["_machine_guid"] = archive.machine_guid
            if "administration.config" in archive.files:
                arguments["_administration"] = pack(archive.files["administration.config"])
        result = _custody.exchange(self, "plan", arguments, custody)
        pending = result.get("_pending") or []
        if self.check_mode and pending:
            if archive is None:
                content = unpack(str(result.get("_content") or ""), "the configuration of the backup")
            _config.ActionModule._prove_offline(result, pending, {**options, "src": "src"}, content, custody)
        return result
