# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of config_rewrap: writes the candidate configuration that the golden server prepared."""

from __future__ import annotations

import hashlib
import os
import typing as t

from ansible_collections.webfarm.iis.plugins.plugin_utils import _custody
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import (
    ActionFailure,
    Options,
    Result,
    WebfarmAction,
    pack,
    unpack,
    write_private_file,
)


class ActionModule(WebfarmAction):
    MODULE = "webfarm.iis.config_rewrap"
    SPEC = {
        "accept_undecryptable": _custody.ACCEPT_SPEC,
        "cng": {"type": "str", "choices": ["refuse", "portable"], "default": "refuse"},
        "dest": {"type": "path", "required": True},
        "path": {"type": "path"},
    }

    def work(self, options: Options) -> Result:
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
        return result


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
