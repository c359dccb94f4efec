# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compliance playbook with real records and reports; server_info is a stand-in, some connections lead nowhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _fleet
import pytest
from _fleet import TROUBLE, facts

from ansible_collections.webfarm.iis.plugins.plugin_utils import _record

# A Python module, so that it runs over the local connection: answers what the scenario says and counts the calls.
SERVER_INFO = """#!/usr/bin/python
import json, os
from ansible.module_utils.basic import AnsibleModule

def main():
    module = AnsibleModule(
        {
            "canonical_ignore": {"type": "list", "elements": "str"},
            "canonical_overrides": {"type": "list", "elements": "str"},
            "compare_attributes": {"type": "bool"},
            "containers": {"type": "list", "elements": "str"},
            "decrypt": {"type": "str"},
            "gather_subset": {"type": "list", "elements": "str"},
            "run_key": {"type": "str", "no_log": True},
            "unreadable": {"type": "str"},
            "web_configurations": {"type": "str"},
        },
        supports_check_mode=True,
    )
    with open(os.environ["CALLS"], "a") as stream:
        stream.write(os.environ["FLEET_HOST"] + " " + json.dumps(module.params, sort_keys=True) + chr(10))
    with open(os.environ["SCENARIO"]) as stream:
        answer = json.load(stream)[os.environ["FLEET_HOST"]]
    if isinstance(answer, str):
        module.fail_json(answer)
    module.exit_json(changed=False, **answer)

if __name__ == "__main__":
    main()
"""

# A connection that leads nowhere.
NOWHERE = """
from __future__ import annotations
DOCUMENTATION = "{name: nowhere, short_description: nowhere, description: [nowhere], author: [x], options: {}}"
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

class Connection(ConnectionBase):
    transport = "webfarm.iis.nowhere"
    has_pipelining = True

    def _connect(self):
        raise AnsibleConnectionFailure("Connection refused")

    exec_command = put_file = fetch_file = lambda self, *args, **kwargs: self._connect()

    def close(self):
        pass
"""

INVENTORY = """
all:
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
    # Who is flaky is reached once a record says that it was not.
    ansible_connection: >-
      {{ 'webfarm.iis.nowhere' if away | default(false) or (flaky | default(false)
         and (lookup('ansible.builtin.env', 'PWD') ~ '/compliance/' ~ inventory_hostname ~ '.host.json') is not exists)
         else 'local' }}
farm:
  vars: {compliance_farm: shop}
  hosts:
    web1: {}
    web2: {}
    web3: {flaky: true}
    web4: {away: true}
    web5: {}
other:
  vars: {compliance_farm: blog}
  hosts: {blog1: {}}
"""
HOSTS = ("web1", "web2", "web3", "web5", "blog1")


@dataclass
class Run:
    code: int
    output: str
    calls: list[tuple[str, dict[str, Any]]]
    folder: Path

    def record(self, host: str) -> dict[str, Any]:
        return _record.read(self.folder / f"{host}.host.json")

    def report(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.folder / "report" / "compliance.json").read_text())
        return data

    def states(self) -> dict[str, str]:
        return {one["host"]: one["state"] for one in self.report()["hosts"]}


Playbook = Callable[..., Run]


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top: Path = tmp_path_factory.mktemp("collections")
    installed = Path(_record.__file__).parents[2]
    copy = top / "ansible_collections" / "webfarm" / "iis"
    shutil.copytree(installed, copy)
    (copy / "plugins" / "modules" / "server_info.py").write_text(SERVER_INFO)
    (copy / "plugins" / "modules" / "server_info.ps1").unlink()
    (copy / "plugins" / "connection").mkdir()
    (copy / "plugins" / "connection" / "nowhere.py").write_text(NOWHERE)
    return top


@pytest.fixture
def playbook(collections: Path, tmp_path: Path) -> Playbook:
    (tmp_path / "inventory.yml").write_text(INVENTORY)

    def run(
        *arguments: str,
        scenario: dict[str, Any] | None = None,
        forks: int = 5,
        play: str = "site.yml",
        **variables: Any,
    ) -> Run:
        calls = tmp_path / "calls"
        calls.write_text("")
        answers = {name: facts(name, "blog" if name == "blog1" else "shop") for name in HOSTS} | (scenario or {})
        (tmp_path / "scenario.json").write_text(json.dumps(answers))
        policy = {"rules": {"backup_recent": False}}
        (tmp_path / "extra.json").write_text(
            json.dumps({"compliance_retry_delay": 0, "compliance_policy": policy} | variables)
        )
        env = os.environ | {
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "CALLS": str(calls),
            "SCENARIO": str(tmp_path / "scenario.json"),
        }
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            str(tmp_path / "inventory.yml"),
            "--forks",
            str(forks),
        ]
        command += [str(tmp_path / play), "-e", f"@{tmp_path / 'extra.json'}", *arguments]
        # The stand-in has to know for which host it runs.
        source = (collections / "ansible_collections/webfarm/iis/playbooks/compliance.yml").read_text()
        marked = source.replace(
            "  tasks:\n    - name: Record this server",
            '  environment: {FLEET_HOST: "{{ inventory_hostname }}"}\n  tasks:\n    - name: Record this server',
        )
        assert marked.count("FLEET_HOST") == 2
        (tmp_path / "site.yml").write_text(marked)
        done = subprocess.run(
            command,
            env=env | {"PWD": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        lines = [line.split(" ", 1) for line in calls.read_text().splitlines()]
        return Run(
            done.returncode,
            done.stdout + done.stderr,
            [(host, json.loads(rest)) for host, rest in lines],
            tmp_path / "compliance",
        )

    return run


@pytest.fixture
def run(playbook: Playbook) -> Run:
    done = playbook(scenario={"web5": "The module refuses to work without an elevated token."})
    assert done.code == 0, done.output
    return done


def test_one_call_per_host(run: Run) -> None:
    assert sorted(host for host, dummy in run.calls) == ["blog1", "web1", "web2", "web3", "web5"]
    run_keys = {given.pop("run_key") for dummy, given in run.calls}
    # One random key for the whole run, retries included.
    assert len(run_keys) == 1 and re.fullmatch("[0-9a-f]{64}", run_keys.pop())
    assert run.calls[0][1] == {
        "canonical_ignore": [],
        "canonical_overrides": [],
        "compare_attributes": True,
        "containers": [],
        "decrypt": "all",
        "gather_subset": ["all"],
        "unreadable": "report",
        "web_configurations": "sites",
    }


def test_one_task_per_host(run: Run) -> None:
    """Every further task would cost as much again on the controller. The first host also carries what runs once."""
    recap = {line.split()[0]: line for line in run.output.rpartition("PLAY RECAP")[2].splitlines() if ": ok=" in line}
    assert "ok=1 " in recap["web2"]
    assert "changed=0" in recap["web2"]


def test_every_host_has_a_verdict(run: Run) -> None:
    assert run.states() == {
        "web1": "answered",
        "web2": "answered",
        "web3": "answered",
        "web4": "unreachable",
        "web5": "failed",
        "blog1": "answered",
    }
    assert "elevated token" in run.record("web5")["message"]
    assert "Connection refused" in run.record("web4")["message"]


def test_who_was_unreachable_is_asked_again(run: Run) -> None:
    assert run.record("web3")["outcome"] == "answered"
    again = run.output.partition("PLAY [Record once more")[2]
    assert "[web3]" in again
    assert "[web4]" in again
    assert "[web1]" not in again.partition("PLAY [Report]")[0]


def test_farms_and_groups_are_recorded(run: Run) -> None:
    assert (run.record("web1")["farm"], run.record("web1")["groups"]) == ("shop", ["farm"])
    assert run.record("blog1")["farm"] == "blog"


def test_every_report_is_written(run: Run) -> None:
    assert sorted(path.name for path in (run.folder / "report").iterdir()) == [
        "compliance.csv",
        "compliance.html",
        "compliance.json",
        "compliance.xml",
    ]
    assert [path.name for path in (run.folder / "evidence").iterdir()] == ["000001.evidence.json"]
    assert "6 hosts: 2 unreachable" in run.output


def test_the_facts_are_in_no_result(run: Run) -> None:
    assert facts("web1")["host"]["machine_guid"] not in run.output


def test_a_second_run_tells_what_changed(playbook: Playbook) -> None:
    playbook()
    changed = facts("web2")
    TROUBLE["other_key"](changed)
    run = playbook(scenario={"web2": changed})
    drift = run.report()["drift"]
    assert [(one["host"], one["container"]) for one in drift["keys"]] == [("web2", "iisWasKey")]
    assert len(list((run.folder / "evidence").iterdir())) == 2


@pytest.mark.parametrize(
    ("fail_on", "code"), [([], 0), (["fail"], 0), (["unreachable"], 2), (["warn"], 2), (["values_open"], 0)]
)
def test_exit_codes(playbook: Playbook, fail_on: list[str], code: int) -> None:
    run = playbook(compliance_fail_on=fail_on)
    assert run.code == code, run.output
    # The summary is shown in any case.
    assert "6 hosts:" in run.output


def test_limit(playbook: Playbook) -> None:
    run = playbook("--limit", "web1,web2")
    assert run.code == 0, run.output
    assert sorted(run.states()) == ["web1", "web2"]


def test_a_host_without_a_record_is_missed(playbook: Playbook) -> None:
    run = playbook("--limit", "web1")
    assert run.states() == {"web1": "answered"}
    # A later report over records from elsewhere.
    (run.folder.parent / "report.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.import_role: {name: webfarm.iis.compliance, tasks_from: report.yml}\n"
        "      vars: {compliance_expected_hosts: [web1, web2]}\n"
    )
    run = playbook(target_hosts="web1", play="report.yml")
    assert run.code == 0, run.output
    assert run.states() == {"web1": "answered", "web2": "missing"}


def test_a_part_of_the_fleet(playbook: Playbook) -> None:
    run = playbook(target_hosts="other")
    assert run.code == 0, run.output
    assert run.states() == {"blog1": "answered"}
    assert "PLAY [Record once more" in run.output


def test_check_mode_writes_nothing(playbook: Playbook) -> None:
    _fleet.write(playbook(target_hosts="web1").folder, [])
    run = playbook("--check")
    before = sorted(path.name for path in run.folder.iterdir())
    assert before == ["evidence", "report", "web1.host.json"]
    assert len(list((run.folder / "evidence").iterdir())) == 1
    assert len(run.calls) >= 4


def test_too_many_forks_are_refused(playbook: Playbook) -> None:
    run = playbook(forks=75)
    assert run.code == 2
    assert "issues/82471" in run.output
    assert run.calls == []
    assert playbook(forks=75, compliance_max_forks=80, target_hosts="web1").code == 0


def test_signed_evidence(playbook: Playbook, tmp_path: Path) -> None:
    from test_evidence import make_signer

    from ansible_collections.webfarm.iis.plugins.plugin_utils import _evidence

    signer = make_signer("open sesame")
    (tmp_path / "auditor.key").write_bytes(signer.key)
    (tmp_path / "auditor.crt").write_bytes(signer.certificate)
    run = playbook(
        target_hosts="web1",
        compliance_signing_file=str(tmp_path / "auditor.key"),
        compliance_signing_passphrase="open sesame",
        compliance_signing_certificate=str(tmp_path / "auditor.crt"),
        compliance_operator="night shift",
    )
    assert run.code == 0, run.output
    assert "open sesame" not in run.output
    found = _evidence.verify(run.folder / "evidence", signer.certificate)
    assert json.loads(found[0].read_text())["operator"] == "night shift"
