# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order that the playbook and the role give to the modules. The modules themselves are stand-ins here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Stands in for the three actions: writes down how it was called and answers what the scenario says.
STAND_IN = """
from __future__ import annotations
import json, os
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        name = self._task.action.rpartition(".")[2]
        host = task_vars["inventory_hostname"]
        check = bool(self._task.check_mode)
        arguments = json.loads(json.dumps(dict(self._task.args)))
        with open(os.environ["CALLS"], "a") as stream:
            stream.write(json.dumps([name, host, check, arguments]) + "\\n")
        with open(os.environ["SCENARIO"]) as stream:
            scenario = json.load(stream)
        result = {**scenario[name], **scenario.get(f"{name} {host}", {})}
        return result if check else {**result, **scenario.get(f"{name} for real", {})}
"""

FINGERPRINTS = {"iisWasKey": "a" * 64, "iisConfigurationKey": "b" * 64}
SCENARIO: dict[str, Any] = {
    "key_export": {
        "changed": True,
        "fingerprints": FINGERPRINTS,
        "key_containers": [{"container": name, "fingerprint": mark} for name, mark in FINGERPRINTS.items()],
    },
    "config_rewrap": {
        "changed": True,
        "sha256": "c" * 64,
        "protected_values": [],
        "candidate_values": [{"path": "one", "verdict": "ok"}],
    },
    "key_info": {
        "key_containers": [
            {"container": name, "state": "present", "fingerprint": mark, "public_key": "MIIB"}
            for name, mark in FINGERPRINTS.items()
        ],
    },
    "key_info web3": {
        "key_containers": [
            {"container": "iisWasKey", "state": "missing", "fingerprint": None, "public_key": None},
            {"container": "iisConfigurationKey", "state": "present", "fingerprint": "c" * 64, "public_key": "MIIC"},
        ],
    },
    "key": {"changed": True},
    "config": {
        "changed": True,
        "key_containers": [
            {"container": name, "before": {}, "after": {"fingerprint": mark}, "changed": True}
            for name, mark in FINGERPRINTS.items()
        ],
        "configuration_file": {"changed": True},
        "proof": {"method": "target", "proven": 9, "total": 9},
        "services": [{"name": "WAS", "after": "running"}],
    },
}
INVENTORY = """
all:
  vars:
    ansible_connection: local
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
golden: {hosts: {web1: }}
farm: {hosts: {web1: , web2: , web3: , web4: , web5: , web6: }}
"""
DRAIN = """
- name: Write it down
  ansible.builtin.lineinfile:
    path: "{{ lookup('ansible.builtin.env', 'CALLS') }}"
    line: '["%s", "{{ inventory_hostname }}", false, {}]'
    create: true
    mode: "0600"
"""


@dataclass
class Run:
    code: int
    output: str
    calls: list[tuple[str, str, bool, dict[str, Any]]]

    def order(self, *names: str) -> list[str]:
        return [f"{name} {host}" for name, host, dummy, dummy2 in self.calls if name in names or not names]

    def arguments(self, name: str, host: str) -> dict[str, Any]:
        return next(arguments for called, where, dummy, arguments in self.calls if (called, where) == (name, host))


Playbook = Callable[..., Run]


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed collection, with stand-ins for the actions."""
    top: Path = tmp_path_factory.mktemp("collections")
    installed = Path(os.environ["ANSIBLE_COLLECTIONS_PATH"]) / "ansible_collections" / "webfarm" / "iis"
    copy = top / "ansible_collections" / "webfarm" / "iis"
    shutil.copytree(installed, copy)
    for name in ("key_export", "config_rewrap", "config", "key_info", "key"):
        (copy / "plugins" / "action" / f"{name}.py").write_text(STAND_IN)
    return top


@pytest.fixture
def playbook(collections: Path, tmp_path: Path) -> Playbook:
    (tmp_path / "inventory.yml").write_text(INVENTORY)
    for name in ("drain", "undrain"):
        (tmp_path / f"{name}.yml").write_text(DRAIN % name)

    def run(
        *arguments: str, scenario: dict[str, Any] | None = None, book: str = "webfarm.iis.provision", **variables: Any
    ) -> Run:
        calls = tmp_path / "calls"
        calls.write_text("")
        (tmp_path / "scenario.json").write_text(json.dumps(SCENARIO | (scenario or {})))
        (tmp_path / "extra.json").write_text(json.dumps(variables))
        env = os.environ | {
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "CALLS": str(calls),
            "SCENARIO": str(tmp_path / "scenario.json"),
        }
        program = str(Path(sys.executable).parent / "ansible-playbook")
        command = [
            program,
            "-i",
            str(tmp_path / "inventory.yml"),
            book,
            "-e",
            f"@{tmp_path / 'extra.json'}",
        ]
        done = subprocess.run(
            [*command, *arguments],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        return Run(
            done.returncode, done.stdout + done.stderr, [json.loads(line) for line in calls.read_text().splitlines()]
        )

    return run


def test_golden_first_then_the_farm_in_batches(playbook: Playbook) -> None:
    run = playbook()
    assert run.code == 0, run.output
    assert run.order() == [
        "key_export web1",
        "config_rewrap web1",
        *(f"config {name}" for name in ("web2", "web3", "web4", "web5", "web6")),
    ]
    # The first batch is one host, the next ones a quarter of six.
    assert run.output.count("PLAY [Farm - prove") == 5


def test_the_golden_server_is_never_a_member(playbook: Playbook) -> None:
    run = playbook("-e", "target_hosts=all")
    assert "config web1" not in run.order()


def test_the_golden_servers_answer_is_the_pin_of_the_same_run(playbook: Playbook) -> None:
    arguments = playbook().arguments("config", "web2")
    assert arguments["expected_fingerprints"] == FINGERPRINTS
    assert "golden_verdicts" not in arguments
    assert "planned_fingerprints" not in arguments


def test_pins_of_the_inventory_come_first(playbook: Playbook) -> None:
    pins = {"iisWasKey": "d" * 64}
    assert playbook(provision_expected_fingerprints=pins).arguments("config", "web2")["expected_fingerprints"] == pins


def test_check_mode_hands_on_what_the_golden_server_plans(playbook: Playbook) -> None:
    run = playbook("--check")
    assert run.code == 0, run.output
    arguments = run.arguments("config", "web2")
    assert arguments["planned_fingerprints"] == FINGERPRINTS
    assert arguments["planned_sha256"] == "c" * 64
    assert arguments["golden_verdicts"] == [{"path": "one", "verdict": "ok"}]
    assert all(check for dummy, dummy2, check, dummy3 in run.calls)


def test_limit_without_the_golden_server_needs_pins(playbook: Playbook) -> None:
    run = playbook("--limit", "web3")
    assert run.code != 0
    assert run.calls == []
    assert "provision_expected_fingerprints" in run.output
    run = playbook("--limit", "web3", provision_expected_fingerprints=FINGERPRINTS)
    assert run.code == 0, run.output
    assert run.order() == ["config web3"]
    assert "web3  iisWasKey" in run.output


def test_the_first_failure_stops_the_run(playbook: Playbook) -> None:
    run = playbook(scenario={"config web2": {"failed": True, "msg": "W3SVC did not start"}})
    assert run.code != 0
    assert run.order("config") == ["config web2"]


def test_drain_and_undrain_around_each_server(playbook: Playbook, tmp_path: Path) -> None:
    run = playbook(
        "--limit",
        "web1,web2",
        provision_drain_tasks=str(tmp_path / "drain.yml"),
        provision_undrain_tasks=str(tmp_path / "undrain.yml"),
    )
    assert run.code == 0, run.output
    assert run.order("config", "drain", "undrain") == ["config web2", "drain web2", "config web2", "undrain web2"]
    # The first of the two calls only looks.
    assert [check for name, dummy, check, dummy2 in run.calls if name == "config"] == [True, False]


def test_a_server_that_failed_stays_drained(playbook: Playbook, tmp_path: Path) -> None:
    run = playbook(
        "--limit",
        "web1,web2",
        scenario={"config for real": {"failed": True, "msg": "W3SVC did not start"}},
        provision_drain_tasks=str(tmp_path / "drain.yml"),
        provision_undrain_tasks=str(tmp_path / "undrain.yml"),
    )
    assert run.code != 0
    assert run.order("drain", "undrain") == ["drain web2"]


def test_an_unchanged_server_is_not_drained(playbook: Playbook, tmp_path: Path) -> None:
    same = {
        "changed": False,
        "key_containers": [{"container": "iisWasKey", "changed": False}],
        "configuration_file": {"changed": False},
    }
    run = playbook(
        scenario={"config": SCENARIO["config"] | same},
        provision_drain_tasks=str(tmp_path / "drain.yml"),
        provision_undrain_tasks=str(tmp_path / "undrain.yml"),
    )
    assert run.code == 0, run.output
    assert run.order("drain", "undrain") == []


def test_the_summary_names_every_server(playbook: Playbook) -> None:
    run = playbook()
    for name in ("web1", "web2", "web6"):
        assert f"{name}  iisWasKey" in run.output
    assert run.output.count("KEY CONTAINER") == 1


# --- every server keeps its own keys ----------------------------------------------------------------------------------


def test_rewrap_collects_public_keys_first_and_exports_none(playbook: Playbook, tmp_path: Path) -> None:
    run = playbook("--limit", "web1,web2,web3", provision_strategy="rewrap", provision_session_key="per_host")
    assert run.code == 0, run.output
    order = run.order()
    assert "key_export web1" not in order
    assert sorted(order[:5]) == ["key web3", "key_info web2", "key_info web3", "key_info web3", "key_info web3"]
    assert order[5:] == ["config_rewrap web1", "config web2", "config web3"]
    # Only the key that is missing is made.
    assert run.arguments("key", "web3")["container"] == "iisWasKey"

    asked = run.arguments("config_rewrap", "web1")
    assert asked["session_key"] == "per_host"
    folder = tmp_path / "webfarm" / "iis.rewrap"
    assert [(one["name"], one["dest"]) for one in asked["targets"]] == [
        (name, str(folder / name / "applicationHost.config")) for name in ("web2", "web3")
    ]
    assert asked["targets"][1]["public_keys"] == [
        {"container": "iisConfigurationKey", "fingerprint": "c" * 64, "public_key": "MIIC"}
    ]

    arguments = run.arguments("config", "web3")
    assert arguments["src"] == str(folder / "web3" / "applicationHost.config")
    assert not {"bundle", "expected_fingerprints", "containers", "opening_file"} & set(arguments)


def test_rewrap_needs_no_pins_and_passes_those_of_a_member_on(playbook: Playbook) -> None:
    run = playbook("--limit", "web2", provision_strategy="rewrap")
    assert run.code == 0, run.output
    assert run.order() == ["key_info web2", "config web2"]
    pins = {"iisWasKey": "d" * 64}
    run = playbook("--limit", "web1,web2", provision_strategy="rewrap", provision_expected_fingerprints=pins)
    assert run.arguments("config_rewrap", "web1")["targets"][0]["expected_fingerprints"] == pins


def test_rewrap_in_check_mode_proves_what_the_golden_server_made(playbook: Playbook) -> None:
    reports = [
        {"name": "web2", "src": "/passing/web2.config", "message": None},
        {"name": "web3", "src": None, "message": "web3 has no public key for iisWasKey"},
    ]
    scenario = {"config_rewrap": SCENARIO["config_rewrap"] | {"targets": reports}}
    run = playbook("--check", "--limit", "web1,web2,web3", scenario=scenario, provision_strategy="rewrap")
    assert run.code == 0, run.output
    assert run.arguments("config", "web2")["src"] == "/passing/web2.config"
    assert "planned_fingerprints" not in run.arguments("config", "web2")
    assert "config web3" not in run.order()
    assert "web3 has no public key for iisWasKey" in run.output
