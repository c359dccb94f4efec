# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an action accepts is what its documentation says."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ACTIONS = [
    "compliance_record",
    "config",
    "config_backup",
    "config_proof",
    "config_rewrap",
    "fleet_report",
    "history_restore",
    "key_bundle",
    "key_export",
    "key_import",
    "selftest",
]


@pytest.fixture(scope="module")
def documentation() -> dict[str, Any]:
    command = [str(Path(sys.executable).parent / "ansible-doc"), "--json", *(f"webfarm.iis.{name}" for name in ACTIONS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return {name: entry["doc"] for name, entry in json.loads(done.stdout).items()}


def action(name: str) -> Any:
    return importlib.import_module(f"ansible_collections.webfarm.iis.plugins.action.{name}").ActionModule


def comparable(options: dict[str, Any], suboptions: str) -> dict[str, Any]:
    """The parts of an option that the two sides must agree on."""
    return {
        name: {
            "type": option.get("type", "str"),
            "elements": option.get("elements"),
            "required": bool(option.get("required", False)),
            "default": option.get("default"),
            "choices": option.get("choices"),
            "options": comparable(option.get(suboptions) or {}, suboptions),
        }
        for name, option in options.items()
        if not name.startswith("_")  # set by the action
    }


@pytest.mark.parametrize("name", ACTIONS)
def test_options_are_those_of_the_documentation(name: str, documentation: dict[str, Any]) -> None:
    documented = comparable(documentation[f"webfarm.iis.{name}"]["options"], "suboptions")
    assert comparable(action(name).SPEC, "options") == documented


@pytest.mark.parametrize("name", ACTIONS)
def test_passphrases_never_leave_the_controller(name: str) -> None:
    plugin = action(name)
    secret = {option for option, spec in plugin.SPEC.items() if "passphrase" in option}
    assert secret <= {option for option, spec in plugin.SPEC.items() if spec.get("no_log")}
    assert secret <= plugin.CONTROLLER_ONLY or plugin._requires_connection is False


@pytest.mark.parametrize("name", ACTIONS)
def test_documented_as_an_action(name: str, documentation: dict[str, Any]) -> None:
    attributes = documentation[f"webfarm.iis.{name}"]["attributes"]
    assert attributes["check_mode"]["support"] == "full"
    assert attributes["diff_mode"]["support"] in ("full", "none")
    assert attributes["action"]["support"] == "full"
