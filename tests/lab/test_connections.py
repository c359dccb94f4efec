# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same tasks over winrm and over psrp: the same facts, a change, a second run, and a key that travels sealed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import Host

NAME = "webfarmLabConnection"


def over(connection: str, host: Host) -> dict[str, Any]:
    """The connection variables; those of winrm stand in the inventory."""
    if connection == "winrm":
        return {}
    return {
        "ansible_connection": "psrp",
        "ansible_psrp_protocol": "https",
        "ansible_psrp_auth": "basic",
        "ansible_psrp_ca_cert": host.inventory_vars()["ansible_winrm_ca_trust_path"],
    }


@pytest.fixture(scope="module")
def custody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("custody")
    command = (
        "openssl req -x509 -newkey rsa:2048 -days 10 -nodes -subj /CN=custody -keyout custody.key -out custody.crt"
    )
    subprocess.run(command.split(), cwd=place, check=True, capture_output=True)
    return place


def test_the_same_over_winrm_and_psrp(playbook: Callable[..., Any], web2: Host, custody: Path, tmp_path: Path) -> None:
    facts = {}
    try:
        for connection in ("winrm", "psrp"):
            place = tmp_path / connection
            key = {"webfarm.iis.key": {"container": NAME, "size": 2048}}
            export = {
                "webfarm.iis.key_export": {
                    "containers": ["iisWasKey"],
                    "recipients": [str(custody / "custody.crt")],
                    "dest": f"{place}/web2.keyset.json",
                    "farm": "shop",
                }
            }
            tasks = [
                {"webfarm.iis.key_info": {}, "register": "facts"},
                {**key, "register": "made"},
                {**key, "register": "again"},
                {**export, "register": "exported"},
                {"webfarm.iis.key_info": {"decrypt": "rubbish"}, "register": "refused", "ignore_errors": True},
                {
                    "ansible.builtin.copy": {
                        "dest": f"{place}/facts.json",
                        "content": "{{ dict(facts=facts, made=made, again=again, refused=refused.msg) | to_json }}",
                    },
                    "delegate_to": "localhost",
                    "vars": {"ansible_connection": "local"},
                },
            ]
            place.mkdir()
            variables = place / "variables.json"
            variables.write_text(json.dumps(over(connection, web2)))
            play = [{"hosts": "web2", "gather_facts": False, "vars_files": [str(variables)], "tasks": tasks}]
            done = playbook(play)
            assert done.rc == 0, done.text
            said = json.loads((place / "facts.json").read_text())
            assert said["made"]["changed"] is True and said["again"]["changed"] is False
            assert "rubbish" in said["refused"] and "decrypt" in said["refused"]
            assert web2.oracle("exists", NAME) == "yes"
            web2.oracle("delete", NAME)
            bundle = json.loads((place / "web2.keyset.json").read_text())
            assert bundle["containers"][0]["fingerprint"] == web2.oracle("fingerprint", "iisWasKey")
            facts[connection] = {
                name: said["facts"][name] for name in ("machine_guid", "protected_values", "session_keys")
            }
            print(f"{connection}: {done.seconds:.1f} s")
        assert facts["psrp"] == facts["winrm"] and facts["psrp"]["protected_values"]
    finally:
        if web2.oracle("exists", NAME) == "yes":
            web2.oracle("delete", NAME)
