# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller without one of the libraries is told which one, and what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ACTIONS = sorted(path.stem for path in (Path(__file__).parents[2] / "plugins" / "action").glob("*.py"))
IMPORT_ALL = f"""
import importlib
for name in {ACTIONS}:
    importlib.import_module("ansible_collections.webfarm.iis.plugins.action." + name)
from ansible_collections.webfarm.iis.plugins.plugin_utils import _libraries
print(_libraries.problem())
"""


def without(tmp_path: Path, library: str) -> dict[str, str]:
    folder = tmp_path / library
    folder.mkdir()
    (folder / "__init__.py").write_text(f"raise ImportError('cannot import {library} today')\n")
    found = os.environ.get("ANSIBLE_COLLECTIONS_PATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), found])}


@pytest.mark.parametrize("library", ["asn1crypto", "cryptography", "lxml"])
def test_every_action_loads_without_it(tmp_path: Path, library: str) -> None:
    command = [sys.executable, "-c", IMPORT_ALL]
    done = subprocess.run(command, env=without(tmp_path, library), capture_output=True, text=True, check=True)
    assert f"lacks a library that this collection needs: cannot import {library} today." in done.stdout
    requirements = Path(done.stdout.strip().rpartition(" ")[2])
    assert library in requirements.read_text()


def test_nothing_is_said_when_all_are_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        env=os.environ | {"PYTHONPATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH", "")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"


def test_a_task_says_it(tmp_path: Path) -> None:
    options = "src=a.config bundle=a.keyset.json opening_file=a.key"
    command = [
        str(Path(sys.executable).parent / "ansible"),
        "localhost",
        "-m",
        "webfarm.iis.config_proof",
        "-a",
        options,
    ]
    done = subprocess.run(
        command, env=without(tmp_path, "lxml"), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode != 0
    assert "lacks a library that this collection needs: cannot import lxml today." in done.stdout + done.stderr
