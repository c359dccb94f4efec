# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""compliance_record: one call of server_info on the target, its answer into one file on the controller.

The facts never become part of a result, so that ten thousand hosts do not fill the memory of the controller.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure

from ansible_collections.webfarm.iis.plugins.plugin_utils import _record
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import ActionFailure, Options, Result, WebfarmAction

# Ansible loads this file once, before it starts the workers: all hosts of a run share this key. It is not kept.
_RUN_KEY = secrets.token_hex(32)
# Where connection plugins let the exceptions of their libraries through: a broken connection, not a broken module.
_TRANSPORT_LIBRARIES = frozenset({"requests", "urllib3", "winrm", "pypsrp", "psrp", "httpcore", "httpx", "paramiko"})


def is_transport_failure(error: BaseException) -> bool:
    """Did the connection fail, rather than the work?"""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (AnsibleConnectionFailure, ConnectionError, TimeoutError)):
            return True
        if type(seen).__module__.partition(".")[0] in _TRANSPORT_LIBRARIES:
            return True
        seen = seen.__cause__
    return False


class ActionModule(WebfarmAction):
    MODULE = "webfarm.iis.compliance_record"
    SPEC = {
        "canonical_ignore": {"type": "list", "elements": "str", "default": []},
        "canonical_overrides": {"type": "list", "elements": "str", "default": []},
        "containers": {"type": "list", "elements": "str", "default": []},
        "decrypt": {"type": "str", "choices": ["none", "session", "all"], "default": "all"},
        "farm": {"type": "str", "default": "iis"},
        "gather_subset": {"type": "list", "elements": "str", "default": ["all"]},
        "report_dir": {"type": "path", "required": True},
        "run_key": {"type": "str", "no_log": True},
        "web_configurations": {"type": "str", "choices": ["none", "sites"], "default": "sites"},
    }

    def work(self, options: Options) -> Result:
        # Only where the record lies and how the host is called stay here.
        arguments = {name: value for name, value in options.items() if name not in ("farm", "report_dir")}
        arguments["compare_attributes"] = True
        arguments["run_key"] = options["run_key"] or _RUN_KEY
        # What cannot be read is a finding of its own and must not hide the rest.
        arguments["unreadable"] = "report"
        try:
            facts = self.call_target(arguments, module="webfarm.iis.server_info")
        except ActionFailure as failure:
            return self._write(options, "failed", message=str(failure))
        except Exception as error:
            if not is_transport_failure(error):
                raise
            self._write(options, "unreachable", message=str(error).strip() or type(error).__name__)
            # Ansible has to know as well: it shows the host as unreachable.
            raise (
                error if isinstance(error, AnsibleConnectionFailure) else AnsibleConnectionFailure(str(error))
            ) from error
        # Its warnings are findings; the report tells them, and a terminal could not hold those of a thousand hosts.
        return self._write(options, "answered", facts=facts)

    def _write(self, options: Options, outcome: str, message: str | None = None, facts: Result | None = None) -> Result:
        host = str(self._task_vars["inventory_hostname"])
        folder = Path(self.controller_path(options["report_dir"]))
        record = _record.make(
            host,
            outcome,
            farm=options["farm"],
            groups=[str(name) for name in self._task_vars.get("group_names") or []],
            message=message,
            facts=facts,
            gather_subset=options["gather_subset"],
            decrypt=options["decrypt"],
        )
        result: Result = {"changed": False, "outcome": outcome, "recorded": record["recorded"]}
        try:
            result["path"] = str(folder / _record.file_name(host))
            if not self.check_mode:
                _record.write(folder, record)
        except _record.RecordError as error:
            raise ActionFailure(f"report_dir: {error}") from None
        if message:
            result["message"] = _record.mask(message)
        return result
