# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the documentation load, and use options as they are documented."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MODULES = sorted({path.stem for path in (ROOT / "plugins" / "modules").iterdir() if path.suffix in (".yml", ".py")})
WORDS = ("always", "block", "rescue")


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    command = [str(BIN / "ansible-doc"), "--json", *(f"webfarm.iis.{name}" for name in MODULES)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def tasks(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        yield item
        for word in (*WORDS, "tasks", "pre_tasks", "post_tasks"):
            yield from tasks(item.get(word) or [])


def spec(options: dict[str, Any]) -> dict[str, Any]:
    """The argument spec that an option's documentation amounts to."""
    result = {}
    for name, option in options.items():
        kept = {word: option[word] for word in ("type", "elements", "required", "choices", "aliases") if word in option}
        if option.get("suboptions"):
            kept["options"] = spec(option["suboptions"])
        result[name] = kept
    return result


def blind(value: Any, option: dict[str, Any]) -> None:
    """What is known only when a play runs is of any type, and any choice."""
    if isinstance(value, str) and "{{" in value:
        for word in ("choices", "elements", "options"):
            option.pop(word, None)
        option["type"] = "raw"
    elif isinstance(value, dict) and "options" in option:
        for name, inner in value.items():
            blind(inner, option["options"].get(name, {}))
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, str) and "{{" in inner:
                option.pop("elements", None)
            else:
                blind(inner, {"options": option["options"]} if "options" in option else {})


@pytest.mark.parametrize("name", MODULES)
def test_options_of_the_examples_are_those_of_the_documentation(name: str, documented: dict[str, Any]) -> None:
    used = 0
    for task in tasks(yaml.safe_load(documented[f"webfarm.iis.{name}"]["examples"])):
        for module in [word for word in task if word.startswith("webfarm.iis.")]:
            entry = documented.get(module)
            assert entry is not None, f"{module} is no module"
            arguments = task[module] or {}
            wanted = spec(entry["doc"]["options"])
            for option, value in arguments.items():
                if option in wanted:
                    blind(value, wanted[option])
            problems = ArgumentSpecValidator(wanted).validate(arguments).error_messages
            assert problems == [], f"{task.get('name')}: {problems}"
            used += module == f"webfarm.iis.{name}"
    assert used


def test_the_examples_load_as_playbooks(documented: dict[str, Any], tmp_path: Path) -> None:
    books = []
    for name in MODULES:
        items = yaml.safe_load(documented[f"webfarm.iis.{name}"]["examples"])
        single = [item for item in items if "hosts" not in item and "ansible.builtin.import_playbook" not in item]
        plays = [item for item in items if "hosts" in item]
        book = tmp_path / f"{name}.yml"
        book.write_text(yaml.safe_dump([*plays, {"hosts": "all", "gather_facts": False, "tasks": single}]))
        books.append(str(book))
    command = [str(BIN / "ansible-playbook"), "--syntax-check", "-i", "localhost,", *books]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_what_every_module_says_about_itself(name: str, documented: dict[str, Any]) -> None:
    entry = documented[f"webfarm.iis.{name}"]
    attributes = entry["doc"]["attributes"]
    assert {"check_mode", "diff_mode", "platform"} <= attributes.keys()
    assert "idempotent" in attributes or not (ROOT / "plugins" / "modules" / f"{name}.ps1").exists()
    assert entry["return"]
    for key, value in entry["return"].items():
        assert value.get("description") and value.get("type") and value.get("returned"), key
