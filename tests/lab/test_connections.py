# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Over psrp as over winrm, which every other test uses: the same facts, a change, and a key that travels sealed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import Host

NAME = "webfarmLabConnection"


def test_modules_run_over_psrp(
    ansible_module: Callable[..., dict[str, Any]], playbook: Callable[..., Any], web2: Host, tmp_path: Path
) -> None:
    expected = ansible_module(web2, "key_info")
    command = "openssl req -x509 -newkey rsa:2048 -days 10 -nodes -subj /CN=custody -keyout key.pem -out custody.crt"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    export = {
        "containers": ["iisWasKey"],
        "recipients": [str(tmp_path / "custody.crt")],
        "dest": str(tmp_path / "web2.keyset.json"),
        "farm": "shop",
    }
    tasks: list[dict[str, Any]] = [
        {"webfarm.iis.key_info": {}, "register": "facts"},
        {"webfarm.iis.key": {"container": NAME, "size": 2048}, "register": "made"},
        {"webfarm.iis.key_export": export},
        {
            "ansible.builtin.copy": {
                "dest": str(tmp_path / "said.json"),
                "content": "{{ dict(facts=facts, made=made) | to_json }}",
            },
            "delegate_to": "localhost",
            "vars": {"ansible_connection": "local"},
        },
    ]
    connection = {
        "ansible_connection": "psrp",
        "ansible_psrp_protocol": "https",
        "ansible_psrp_auth": "basic",
        "ansible_psrp_ca_cert": web2.inventory_vars()["ansible_winrm_ca_trust_path"],
    }
    variables = tmp_path / "connection.json"
    variables.write_text(json.dumps(connection))
    try:
        done = playbook([{"hosts": "web2", "gather_facts": False, "vars_files": [str(variables)], "tasks": tasks}])
        assert done.rc == 0, done.text
        said = json.loads((tmp_path / "said.json").read_text())
        assert said["made"]["changed"] is True and web2.oracle("exists", NAME) == "yes"
        for name in ("machine_guid", "protected_values", "session_keys"):
            assert said["facts"][name] == expected[name] and expected[name], name
        bundle = json.loads((tmp_path / "web2.keyset.json").read_text())
        assert bundle["containers"][0]["fingerprint"] == web2.oracle("fingerprint", "iisWasKey")
    finally:
        if web2.oracle("exists", NAME) == "yes":
            web2.oracle("delete", NAME)
    # It was no winrm in disguise.
    log = (web2.farm.folder / "endpoint.log").read_text(encoding="utf-8")
    assert "a runspace pool" in log
