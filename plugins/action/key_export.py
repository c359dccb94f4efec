# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of key_export: compares with the bundle on disk, lets the source seal keys, writes the bundle."""

from __future__ import annotations

from ansible_collections.webfarm.iis.plugins.plugin_utils import _custody
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import (
    ActionFailure,
    Options,
    Result,
    WebfarmAction,
    write_private_file,
)


class ActionModule(WebfarmAction):
    MODULE = "webfarm.iis.key_export"
    SPEC = {
        "accept_undecryptable": _custody.ACCEPT_SPEC,
        "containers": {"type": "list", "elements": "str", "default": ["iisWasKey", "iisConfigurationKey"]},
        "dest": {"type": "path", "required": True},
        "farm": {"type": "str", "required": True},
        "generate": {"type": "bool", "default": False},
        "generation": {"type": "int"},
        "in_use": {"type": "list", "elements": "dict"},
        "recipients": {"type": "list", "elements": "path", "required": True},
        "signing_certificate": {"type": "path"},
        "signing_file": {"type": "path"},
        "signing_passphrase": {"type": "str", "no_log": True},
        "size": {"type": "int", "choices": [2048, 3072, 4096], "default": 2048},
    }
    RULES = {
        "required_if": [("generate", True, ("generation", "in_use"), True)],
        "required_together": [("signing_file", "signing_certificate")],
    }
    CONTROLLER_ONLY = frozenset({"in_use", "signing_passphrase"})

    def work(self, options: Options) -> Result:
        export = _custody.Export.load(self, options, self.controller_path(options["dest"]))
        result = self._generate(options, export) if options["generate"] else self._export(options, export)
        result["changed"] = bool(result["reasons"])
        if self._task.diff:
            before = export.existing.fingerprints() if export.existing else {}
            result["diff"] = {
                "before": {"fingerprints": before},
                "after": {"fingerprints": result["fingerprints"], "reasons": result["reasons"]},
                "before_header": export.dest,
                "after_header": export.dest,
            }
        return result

    def _export(self, options: Options, export: _custody.Export) -> Result:
        """The bundle shall hold the keys of this server."""
        arguments = self.target_options(options)
        result = self.call_target(arguments)
        reasons = export.reasons_to_write(result)
        generation = export.planned_generation(result)
        if reasons:
            export.refuse_older(result)
            if result.get("_export_refusal"):
                raise ActionFailure(str(result["_export_refusal"]), result)
            if not self.check_mode:
                result = self._sealed(arguments, export, generation)
        return result | {
            "reasons": reasons,
            "fingerprints": _custody.fingerprints(result),
            "bundle": export.facts(generation),
        }

    def _generate(self, options: Options, export: _custody.Export) -> Result:
        """The bundle shall hold the keys of one generation: those that it holds, those that were kept, or new ones."""
        generation = export.wanted_generation()
        present = export.existing.generation if export.existing else 0
        if export.existing and generation == present:
            return export.described(export.existing) | {"reasons": []}
        reason = f"generation {generation} is wanted, the bundle " + (
            f"holds generation {present}" if present else "does not exist"
        )
        kept = export.kept(generation)
        if kept is not None:
            content, bundle = kept
            if not self.check_mode:
                self._write(export, content, generation)
            return export.described(bundle) | {"reasons": [f"{reason}; it was kept and is put back"]}
        if generation < export.highest_generation():
            raise ActionFailure(
                f"generation: there is no bundle of generation {generation} beside {export.dest}. Put the kept file "
                f"{export.kept_path(generation)} back, or leave generation out to go on."
            )
        arguments = self.target_options(options)
        result = self.call_target(arguments)
        if not self.check_mode:
            result = self._sealed(arguments, export, generation)
        return result | {
            "reasons": [reason],
            # what the new keys will be, nobody knows before they are made
            "fingerprints": {} if self.check_mode else _custody.fingerprints(result),
            "bundle": export.facts(generation),
        }

    def _sealed(self, arguments: Options, export: _custody.Export, generation: int) -> Result:
        result = self.call_target(arguments | {"_recipients": export.recipient_arguments()})
        self._write(export, export.content(result, generation), generation)
        return result

    def _write(self, export: _custody.Export, content: bytes, generation: int) -> None:
        """The way back first: a bundle of another generation is kept beside the new one."""
        keep = export.to_keep(generation)
        if keep is not None:
            write_private_file(keep, export.existing_content, "dest")
        write_private_file(export.dest, content, "dest")
