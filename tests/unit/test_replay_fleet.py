# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compliance run over recorded hosts, through Ansible's own winrm connection: retry, slices, schedules, bench."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _fleet
import pytest
import yaml

from ansible_collections.webfarm.iis.plugins.plugin_utils import _evidence
from lab.errors import LabError
from lab.replay import Fleet, module_of

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "docsite" / "rst" / "guide_scheduling.rst"
BIN = Path(sys.executable).parent
FARMS = {"shop": [f"shop{at}" for at in range(1, 21)], "blog": [f"blog{at}" for at in range(1, 11)]}
# Hosts that are not in order, by the trouble they have.
TROUBLED = {"shop3": "other_key", "shop9": "bad_values", "blog4": "configuration"}
# Whose connection breaks once, and whose always.
FLAKY, AWAY = "shop12", "blog7"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    fleet.define(FARMS)
    for farm, names in FARMS.items():
        for name in names:
            facts = _fleet.facts(name, farm)
            if name in TROUBLED:
                _fleet.TROUBLE[TROUBLED[name]](facts)
            fleet.answer("webfarm.iis.server_info", {"changed": False, **facts}, name)
    with fleet:
        yield fleet


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PWD": str(folder), "ANSIBLE_NOCOLOR": "1"}


def playbook(folder: Path, fleet: Fleet, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    folder.mkdir(parents=True, exist_ok=True)
    extra = {"compliance_retry_delay": 0} | variables
    command = [str(BIN / "ansible-playbook"), "-i", str(fleet.inventory), "--forks", "10", *arguments]
    return subprocess.run(
        [*command, "-e", json.dumps(extra)],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def verdicts(path: Path) -> dict[str, Any]:
    """Everything that a report says about its hosts, but when they were recorded."""
    text = re.sub(r"20\d\d-\d\d-\d\dT[\d:]+Z", "TIME", path.read_text(encoding="utf-8"))
    data = json.loads(text)
    return {
        "hosts": {one["host"]: one for one in data["hosts"]},
        "totals": data["totals"],
        "summary": data["summary"],
    }


@pytest.fixture(scope="module")
def whole(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One run over all hosts; one host answers at the second try only, one never."""
    fleet.fault(FLAKY, kind="drop", action="Create", times=1)
    fleet.fault(AWAY, kind="drop")
    folder: Path = tmp_path_factory.mktemp("whole")
    done = playbook(folder, fleet, "webfarm.iis.compliance")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_a_payload_without_a_module_is_refused() -> None:
    with pytest.raises(LabError):
        module_of(b'{"name": "exec_wrapper"}')


def test_every_host_answers_as_itself(whole: tuple[Path, str]) -> None:
    data = verdicts(whole[0] / "compliance/report/compliance.json")
    assert len(data["hosts"]) == 30
    assert {host for host, one in data["hosts"].items() if one["state"] != "answered"} == {AWAY}
    for host, rule in (("shop3", "keys_equal"), ("shop9", "values_open"), ("blog4", "configuration_equal")):
        assert data["hosts"][host]["verdicts"][rule]["status"] == "fail"
        assert data["hosts"]["shop1"]["verdicts"][rule]["status"] == "pass"


def test_a_broken_connection_is_tried_in_a_second_play(whole: tuple[Path, str]) -> None:
    """With the real connection plugin: what pywinrm raises is told from a failed module."""
    again = whole[1].partition("PLAY [Record once more")[2].partition("PLAY [Report]")[0]
    assert f"[{FLAKY}]" in again
    assert f"[{AWAY}]" in again
    assert "[shop1]" not in again


def test_slices_merge_into_the_same_verdicts(
    fleet: Fleet, whole: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Three slices through ansible-runner, as AWX cuts them: every third host, each run with a folder of its own."""
    import ansible_runner

    top: Path = tmp_path_factory.mktemp("slices")
    fleet.fault(FLAKY, kind="drop", action="Create", times=1)
    names = sorted(name for members in FARMS.values() for name in members)
    quiet = dict.fromkeys(("compliance_html", "compliance_json", "compliance_junit", "compliance_csv"), "")
    for number in range(3):
        private = top / f"job{number}"
        (private / "project").mkdir(parents=True)
        (private / "project" / "site.yml").write_text("- import_playbook: webfarm.iis.compliance\n")
        run = ansible_runner.run(
            private_data_dir=str(private),
            playbook="site.yml",
            inventory=str(fleet.inventory),
            limit=",".join(names[number::3]),
            forks=10,
            extravars={
                "compliance_report_dir": str(top / "records" / f"slice{number}"),
                "compliance_retry_delay": 0,
                "compliance_evidence_dir": "",
                **quiet,
            },
            envvars=environment(private),
            quiet=True,
        )
        assert run.rc == 0, run.stdout.read()
        assert len(list((top / "records" / f"slice{number}").glob("*.host.json"))) == 10
    (top / "report.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  connection: local\n  tasks:\n"
        "    - ansible.builtin.import_role: {name: webfarm.iis.compliance, tasks_from: report.yml}\n"
        "      vars: {compliance_expected_hosts: \"{{ groups['all'] }}\"}\n"
    )
    done = playbook(
        top,
        fleet,
        str(top / "report.yml"),
        compliance_report_dir=str(top / "records"),
        compliance_evidence_dir=str(top / "evidence"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts(top / "records/report/compliance.json") == verdicts(whole[0] / "compliance/report/compliance.json")
    (piece,) = _evidence.verify(top / "evidence")
    assert len(json.loads(piece.read_bytes())["hosts"]) == 30


# --- the scheduling guide -------------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    """The code blocks of that language in the guide."""
    found, lines = [], GUIDE.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.strip() == f".. code-block:: {language}":
            indent = " " * (len(line) - len(line.lstrip()) + 3)
            body = []
            for later in lines[number + 2 :]:
                if later and not later.startswith(indent):
                    break
                body.append(later.removeprefix(indent))
            found.append("\n".join(body).strip() + "\n")
    assert found, f"the guide has no {language}"
    return found


def commands(text: str) -> list[str]:
    found = re.findall(r"ansible-playbook (?:'[^'\n]*'|[^'\n>|&])*", text)
    return [line.strip() for line in found if "webfarm.iis.compliance" in line]


def test_the_units_are_sound(tmp_path: Path) -> None:
    """systemd reads both units without a complaint; without it their parts are checked alone."""
    units = {}
    for text in blocks("ini"):
        name = text.splitlines()[0].rpartition("/")[2]
        units[name] = text
        (tmp_path / name).write_text(text)
    assert {name for name in units if name.startswith("webfarm-compliance.")} == {
        "webfarm-compliance.service",
        "webfarm-compliance.timer",
    }
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(units["webfarm-compliance.service"])
    assert parser["Service"]["Type"] == "oneshot"
    if not shutil.which("systemd-analyze"):
        return
    # The command is there under another name on the machine of the test.
    service = tmp_path / "webfarm-compliance.service"
    service.write_text(re.sub(r"/usr/bin/ansible-playbook", str(BIN / "ansible-playbook"), service.read_text()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in units)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    complaints = [line for line in done.stderr.splitlines() if "webfarm-" in line]
    assert not complaints, done.stderr
    calendar = re.search(r"OnCalendar=(.*)", units["webfarm-compliance.timer"])
    assert calendar
    assert (
        subprocess.run(["systemd-analyze", "calendar", calendar[1]], capture_output=True, check=False).returncode == 0
    )


def test_the_pipelines_are_yaml_and_keep_the_report() -> None:
    found = [yaml.safe_load(text) for text in blocks("yaml")]
    github = next(one for one in found if isinstance(one, dict) and "jobs" in one)
    steps = github["jobs"]["compliance"]["steps"]
    upload = next(step for step in steps if "upload-artifact" in str(step.get("uses")))
    assert upload["if"] == "always()"
    gitlab = next(one for one in found if isinstance(one, dict) and "script" in one.get("compliance", {}))
    artifacts = gitlab["compliance"]["artifacts"]
    assert artifacts["when"] == "always"
    assert artifacts["reports"]["junit"] == "compliance/report/compliance.xml"


def test_the_commands_run(fleet: Fleet, tmp_path: Path) -> None:
    """Every command line of the guide, in a folder as the guide describes it: two hosts, one with a finding."""
    lines = sorted(set(commands(GUIDE.read_text(encoding="utf-8"))))
    assert len(lines) >= 2
    for number, line in enumerate(lines):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(fleet.inventory, folder / "inventory.yml")
        limit = "shop1,shop3"
        done = subprocess.run(
            ["bash", "-c", f"{line.strip()} --limit {limit}"],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        expected = 2 if "compliance_fail_on" in line else 0
        assert done.returncode == expected, (line, done.stdout + done.stderr)
        assert (folder / "compliance/report/compliance.xml").is_file()


@pytest.mark.parametrize(
    ("arguments", "variables", "code"),
    [
        (["--limit", "shop1,shop2"], {"compliance_fail_on": ["keys_equal"]}, 0),
        (["--limit", "shop1,shop3"], {"compliance_fail_on": ["keys_equal"]}, 2),
        (["--limit", f"{AWAY},blog1"], {}, 0),
        (["--limit", f"{AWAY},blog1"], {"compliance_fail_on": ["unreachable"]}, 2),
        (["--limit", "shop1"], {"compliance_fail_on": ["nonsense"]}, 2),
        (["--limit", "nobody"], {}, 1),
    ],
)
def test_exit_codes_as_documented(
    fleet: Fleet, tmp_path: Path, arguments: list[str], variables: dict[str, Any], code: int
) -> None:
    fleet.fault(AWAY, kind="drop")
    done = playbook(tmp_path, fleet, "webfarm.iis.compliance", *arguments, **variables)
    assert done.returncode == code, done.stdout + done.stderr


# --- the bench ------------------------------------------------------------------------------------------------------


def test_the_bench_measures(tmp_path: Path) -> None:
    """Small, so that it says nothing about speed, but every part of it runs."""
    search = [ROOT / "tests/bench", ROOT / "tests/lab", ROOT / "tests/unit", *map(Path, sys.path)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench",
            "--smoke",
            "--output",
            str(tmp_path / "b.json"),
            "config_proof",
            "config_rewrap",
            "controller",
        ],
        env=environment(tmp_path) | {"PYTHONPATH": os.pathsep.join(str(one) for one in search if str(one))},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "b.json").read_text())
    assert result["format"] == "webfarm.iis bench"
    figures = {one["name"]: one for one in result["figures"]}
    assert {"config_proof", "config_rewrap", "controller_time", "controller_memory", "controller_linear"} <= set(
        figures
    )
    assert all(one["ratio"] > 0 for one in figures.values())
    # A module with the libraries costs more than one without: else the reference is not what it says.
    assert figures["controller_libraries"]["ratio"] > 1


def test_a_missed_bound_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "bench"))
    from bench import __main__ as bench
    from bench.figure import Figure

    good = Figure("good", "good", "r", "s", [(1.0, 1.0), (9.0, 1.0), (1.1, 1.0)], 1.2)
    slow = Figure("slow", "slow", "r", "s", [(2.0, 1.0), (1.3, 1.0), (1.0, 1.0)], 1.2)
    fast = Figure("fast", "fast", "r", "s", [(6.0, 1.0)], 5, at_least=True)
    assert (good.ratio, good.passed, slow.passed, fast.passed) == (1.1, True, False, True)
    for figures, code in (([good, fast], 0), ([good, slow], 1)):
        monkeypatch.setattr(bench, "FIGURES", {"one": lambda _smoke, found=figures: found})
        monkeypatch.setattr(sys, "argv", ["bench", "--output", str(tmp_path / "b.json")])
        assert bench.main() == code
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{bench.BEGIN}\nold\n{bench.END}\nafter\n")
    bench.write_readme(readme, json.loads((tmp_path / "b.json").read_text()))
    text = readme.read_text()
    assert "| slow | 1.3 s | r: 1 s | 1.30 | at most 1.2 | NO |" in text
    assert "old" not in text
    assert text.startswith("before\n") and text.endswith("after\n")
