# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""selftest: the questions are answered on the target, the report is written on the controller."""

from __future__ import annotations

import secrets
from pathlib import Path

from ansible_collections.webfarm.iis.plugins.plugin_utils import _record, _selftest
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import (
    ActionFailure,
    Options,
    Result,
    WebfarmAction,
    write_private_file,
)


class ActionModule(WebfarmAction):
    MODULE = "webfarm.iis.selftest"
    SPEC = {
        "describe_iis_keys": {"type": "bool", "default": False},
        "host_name": {"type": "bool", "default": False},
        "report_dir": {"type": "path", "required": True},
    }

    def work(self, options: Options) -> Result:
        result = self.call_target(self.target_options(options))
        if self.check_mode:
            return result
        try:
            report = _selftest.make(result["server"], result["answers"], recorded=_record.utc_now())
        except _selftest.SelftestError as error:
            raise ActionFailure(f"The self-test ran and cleaned up, but {error}.") from None
        # The file's name tells as little of the server as its content does.
        build = "".join(sign for sign in str(result["server"].get("build") or "") if sign.isalnum() or sign == ".")
        name = f"selftest-{build or 'unknown'}-{secrets.token_hex(4)}"
        folder = Path(self.controller_path(options["report_dir"]))
        paths = [str(folder / f"{name}.{ending}") for ending in ("json", "txt")]
        for path, content in zip(paths, (_selftest.to_json(report), _selftest.to_text(report)), strict=True):
            write_private_file(path, content, "report_dir")
        return {**result, "summary": report["summary"], "report": paths[0], "report_text": paths[1]}
