# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of config_rewrap: the copy that the golden server prepared, and one for each server's own keys."""

from __future__ import annotations

import hashlib
import os
import typing as t

from ansible import constants as C

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost, _bundle, _custody, _rewrap, _seal
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import (
    ActionFailure,
    Options,
    Result,
    WebfarmAction,
    pack,
    unpack,
    write_private_file,
)

_RECORD_SUFFIX = ".targets.json"


class ActionModule(WebfarmAction):
    MODULE = "webfarm.iis.config_rewrap"
    SPEC = {
        **_custody.TRUST_SPEC,
        "accept_undecryptable": _custody.ACCEPT_SPEC,
        "cng": {"type": "str", "choices": ["refuse", "portable"], "default": "refuse"},
        "dest": {"type": "path"},
        "path": {"type": "path"},
        "session_key": {"type": "str", "choices": ["shared", "per_host"], "default": "shared", "no_log": False},
        "src": {"type": "path"},
        "targets": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "dest": {"type": "path", "required": True},
                "expected_fingerprints": {"type": "dict"},
                "name": {"type": "str", "required": True},
                "public_keys": {"type": "list", "elements": "dict", "required": True, "no_log": False},
            },
        },
    }
    RULES = {
        "mutually_exclusive": [("src", "dest"), ("src", "path"), ("opening_file", "opening_content")],
        "required_one_of": [("src", "dest")],
        "required_by": {"src": ("bundle", "targets")},
    }
    CONTROLLER_ONLY = frozenset(_custody.TRUST_SPEC) | {"src", "targets"}

    def work(self, options: Options) -> Result:
        if options["bundle"]:
            self.refuse_unsafe_surroundings(allow_unencrypted=True, needs_target=False)
        _check_names(options["targets"])
        if options["src"]:
            content, result = self._local_copy(options)
        else:
            content, result = self._servers_copy(options)
        if options["targets"]:
            self._serve_targets(options, content, result)
        return result

    def _masked_arguments(self) -> Options:
        shown = super()._masked_arguments()
        if isinstance(shown.get("targets"), list):
            # The facts of a thousand servers do not belong into every report of this task.
            shown["targets"] = [item.get("name") if isinstance(item, dict) else item for item in shown["targets"]]
        return shown

    # --- the copy ----------------------------------------------------------------------------------------------------

    def _servers_copy(self, options: Options) -> tuple[bytes, Result]:
        """The portable copy of the server's configuration, and what was done to it."""
        dest = self.controller_path(options["dest"])
        existing = self.read_file(dest, "dest") if os.path.exists(dest) else None
        arguments = self.target_options(options)
        if existing is not None:
            arguments["_existing"] = pack(existing)
        result = self.call_target(arguments)

        same = bool(result.get("same_content")) and existing is not None
        if same:
            content = existing or b""
        else:
            content = unpack(str(result.get("_content") or ""), "the candidate configuration")
            if hashlib.sha256(content).hexdigest() != str(result.get("sha256", "")).lower():
                raise ActionFailure(
                    "The candidate configuration changed on its way from the target (SHA-256 differs). Run again."
                )
            if not self.check_mode:
                write_private_file(dest, content, "dest")
        result["changed"] = not same
        result["dest"] = dest
        result.pop("same_content", None)
        result["sha256"] = hashlib.sha256(content).hexdigest()
        result["candidate_values"] = candidate_values(result)
        if self._task.diff:
            result["diff"] = _diff(existing, result)
        return content, result

    def _local_copy(self, options: Options) -> tuple[bytes, Result]:
        """A file on the controller, proven with the keys of the bundle. No server is asked."""
        name = self.find_source(options["src"])
        if name is None:
            raise ActionFailure(f"src: there is no file {self.controller_path(options['src'])} on the controller.")
        content = self.read_file(name, "src")
        proof = self._custodian(options).prove(content, name)
        result: Result = {
            "changed": False,
            "src": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "conversions": [],
            "session_keys": proof.session_keys,
            "protected_values": proof.protected_values,
            "candidate_values": proof.protected_values,
            "accepted_undecryptable": [
                {"path": value["path"], "reason": value["reason"]}
                for value in proof.protected_values
                if value["accepted"]
            ],
        }
        bad = [*proof.failed, *proof.needs_target]
        if bad:
            shown = "; ".join(f"{item['path']} ({item['provider']}: {item['verdict']})" for item in bad[:5])
            raise ActionFailure(
                f"src: the bundle does not open {len(bad)} values of {name}: {shown}. Values under CNG keys have to be "
                "made portable on their own server first (cng: portable, without src). What is known to be broken and "
                "not needed can be listed with a reason in accept_undecryptable.",
                result,
            )
        return content, result

    def _custodian(self, options: Options) -> _custody.Custody:
        return _custody.Custody.load(self, options)

    # --- one for each server -----------------------------------------------------------------------------------------

    def _serve_targets(self, options: Options, content: bytes, result: Result) -> None:
        """A file for each server's own keys. Those that are still right stay as they are."""
        try:
            configuration = _apphost.parse(content, os.path.basename(result.get("dest") or result["src"]))
        except _apphost.ConfigurationError as error:
            raise ActionFailure(str(error), result) from None
        left = {str(item["path"]) for item in result.get("accepted_undecryptable") or []}
        needed = _rewrap.needed_containers(configuration, left)
        record_path = self._record_path(options)
        record = _rewrap.read_record(
            self.read_file(record_path, "targets") if os.path.exists(record_path) else None,
            result["sha256"],
            options["session_key"],
        )
        reports: list[Result] = []
        pending: list[tuple[Result, _rewrap.Target]] = []
        for item in options["targets"]:
            report: Result = {"name": item["name"], "dest": self.controller_path(item["dest"]), "changed": False}
            reports.append(report)
            try:
                target = _rewrap.read_target(
                    item["name"], item["public_keys"], needed, item.get("expected_fingerprints")
                )
            except _rewrap.RewrapError as error:
                if self.check_mode and isinstance(error, _rewrap.NoKeyYet):
                    report.update(src=None, sha256=None, fingerprints={}, message=str(error))
                    continue
                raise ActionFailure(f"targets: {error} No server's file was written.", result) from None
            report.update(src=report["dest"], fingerprints=target.fingerprints(), message=None)
            present = _file_hash(report["dest"])
            noted = record.get(target.name) or {}
            if present and noted == {"sha256": present, "fingerprints": report["fingerprints"]}:
                report["sha256"] = present
            else:
                pending.append((report, target))
        if pending:
            self._fill(options, configuration, pending, result, left)
        result["targets"] = reports
        result["rewrapped_paths"] = result.get("rewrapped_paths") or []
        result["changed"] = result["changed"] or bool(pending)
        if pending and not self.check_mode:
            # Servers that this run leaves out keep their entries: their files are still right.
            for report in reports:
                record[report["name"]] = {"sha256": report["sha256"], "fingerprints": report["fingerprints"]}
            write_private_file(
                record_path, _rewrap.write_record(record, result["sha256"], options["session_key"]), "targets"
            )
        if "diff" in result:
            result["diff"]["after"]["targets"] = {report["name"]: report["fingerprints"] for report, dummy in pending}

    def _fill(
        self,
        options: Options,
        configuration: _apphost.Configuration,
        pending: list[tuple[Result, _rewrap.Target]],
        result: Result,
        left: set[str],
    ) -> None:
        """Have the secrets wrapped and put them into the places of the copy; every other byte stays."""
        targets = [target for dummy, target in pending]
        if options["bundle"]:
            paths, rows = self._wrap_with_bundle(options, configuration, targets, left)
        else:
            paths, rows = self._wrap_on_source(options, configuration, targets)
        try:
            template = configuration.template(paths)
            checked = False
            for report, row in zip((report for report, dummy in pending), rows, strict=True):
                filled = template.fill(row)
                if not checked:
                    # The filling cannot change what XML reads elsewhere. One file is compared as a whole nevertheless.
                    if filled != configuration.replace(dict(zip(paths, row, strict=True))):
                        raise ActionFailure(
                            "The places of the secrets in the copy cannot be found for certain.", result
                        )
                    checked = True
                report["sha256"] = hashlib.sha256(filled).hexdigest()
                report["changed"] = True
                if self.check_mode:
                    report["src"] = _passing_file(report["dest"])
                write_private_file(report["src"], filled, "targets")
        except _apphost.ConfigurationError as error:
            raise ActionFailure(f"The source returned something else than secrets: {error}", result) from None
        result["rewrapped_paths"] = list(paths)

    def _wrap_on_source(
        self, options: Options, configuration: _apphost.Configuration, targets: list[_rewrap.Target]
    ) -> tuple[list[str], list[list[str]]]:
        """The source host opens its session keys in memory and returns them wrapped. One call for all servers."""
        request = "".join(
            "\t".join((str(number), container, wire["modulus"], wire["exponent"])) + "\n"
            for number, target in enumerate(targets)
            for container, key in target.keys.items()
            for wire in (_seal.public_key_to_wire(key),)
        )
        arguments = self.target_options(options) | {
            "_existing": pack(configuration.content),
            "_targets": pack(request.encode("utf-8")),
        }
        answer = self.call_target(arguments)
        paths = [str(path) for path in answer.get("_paths") or []]
        text = unpack(str(answer.get("_wrapped") or ""), "the wrapped session keys").decode("utf-8")
        rows = [line.split("\t") for line in text.split("\n") if line]
        numbers = [row[0] for row in rows]
        if numbers != [str(number) for number in range(len(targets))] or answer.get("sha256") != configuration.sha256:
            raise ActionFailure("The source did not answer for the servers that it was asked for. Run again.")
        return paths, [row[1:] for row in rows]

    def _wrap_with_bundle(
        self,
        options: Options,
        configuration: _apphost.Configuration,
        targets: list[_rewrap.Target],
        left: set[str],
    ) -> tuple[list[str], list[list[str]]]:
        """The controller opens the session keys with the keys of the bundle, in memory."""
        ring = _bundle.key_ring(self._custodian(options).open())
        try:
            source = _rewrap.Source(configuration, ring, accepted=left, fresh=options["session_key"] == "per_host")
            return list(source.paths), [source.wrap(target.keys) for target in targets]
        except _rewrap.RewrapError as error:
            raise ActionFailure(
                f"bundle: {error} The bundle has to hold the keys that this copy was encrypted for."
            ) from None

    def _record_path(self, options: Options) -> str:
        return self.controller_path(options["dest"] or options["src"]) + _RECORD_SUFFIX


def _check_names(targets: list[Result]) -> None:
    for option in ("name", "dest"):
        seen: set[str] = set()
        for item in targets:
            if item[option] in seen:
                raise ActionFailure(f"targets: the {option} {item[option]} is given twice; every server needs its own.")
            seen.add(item[option])


def _file_hash(path: str) -> str | None:
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return None


def _passing_file(dest: str) -> str:
    """Where check mode puts a file for the proofs of this run: a folder that ends with the run."""
    name = hashlib.sha256(dest.encode("utf-8")).hexdigest()[:16]
    return os.path.join(C.DEFAULT_LOCAL_TMP, "webfarm-rewrap", name, os.path.basename(dest))


def candidate_values(result: Result) -> list[dict[str, t.Any]]:
    """The verdicts as they stand for the candidate: a converted value is under its new provider there."""
    values = [dict(item) for item in result.get("protected_values") or []]
    converted = {str(item["path"]): item for item in result.get("conversions") or []}
    for item in values:
        conversion = converted.get(str(item.get("path")))
        if conversion:
            item.update(provider=conversion["to_provider"], kind="aes", container=conversion["to_container"])
    return values


def _diff(existing: bytes | None, result: Result) -> Result:
    """Hashes and attribute paths, no content."""
    before = {"sha256": hashlib.sha256(existing).hexdigest() if existing is not None else ""}
    after: Result = {"sha256": result["sha256"]}
    if result["changed"]:
        after["conversions"] = [
            f"{item['path']}: {item['from_provider']} -> {item['to_provider']}"
            for item in result.get("conversions") or []
        ]
    return {"before": before, "after": after, "before_header": result["dest"], "after_header": result["dest"]}
