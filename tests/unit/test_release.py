# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release: the same files give the same bytes, the artefact installs, and its papers agree with it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]
GALAXY = str(Path(sys.executable).parent / "ansible-galaxy")
EPOCH = 1_767_225_600
EXECUTION_ENVIRONMENT = """
version: 3
images:
  base_image:
    name: registry.example.com/python:3.12
dependencies:
  ansible_core:
    package_pip: ansible-core>=2.18
  ansible_runner:
    package_pip: ansible-runner
  galaxy:
    collections:
      - name: {artefact}
        type: file
"""


def tracked() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def release(names: list[str], folder: Path, mask: int) -> dict[str, bytes]:
    """A release from a copy whose files were made in this order, now, under this umask."""
    before = os.umask(mask)
    try:
        for name in names:
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target, follow_symlinks=False)
    finally:
        os.umask(before)
    command = [sys.executable, str(ROOT / "tests" / "release" / "release.py"), str(folder / "source")]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run([*command, str(folder / "out"), str(EPOCH)], check=True, env=os.environ | {"PATH": path})
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    names = tracked()
    first = release(names, tmp_path_factory.mktemp("first"), 0o022)
    return first, release(names[::-1], tmp_path_factory.mktemp("second"), 0o077)


def one(files: dict[str, bytes], suffix: str) -> tuple[str, bytes]:
    (found,) = [(name, data) for name, data in files.items() if name.endswith(suffix)]
    return found


def test_the_same_files_give_the_same_bytes(twice: Any) -> None:
    first, second = twice
    assert sorted(first) == sorted(second)
    for name, data in first.items():
        assert hashlib.sha256(data).hexdigest() == hashlib.sha256(second[name]).hexdigest(), name


def test_the_checksums_are_those_of_the_files(twice: Any, tmp_path: Path) -> None:
    for name, data in twice[0].items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout.count(b": OK") == len(twice[0]) - 1 == 2


def test_the_bill_of_materials_is_valid_and_names_what_is_needed(twice: Any) -> None:
    name, artefact = one(twice[0], ".tar.gz")
    text = one(twice[0], ".cdx.json")[1].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    component = bill["metadata"]["component"]
    assert name == f"{component['name'].replace('.', '-')}-{component['version']}.tar.gz"
    assert component["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(artefact).hexdigest()}]
    requirements = (ROOT / "meta" / "ee-requirements.txt").read_text().split()
    versions = {part["name"]: part["properties"][0]["value"] for part in bill["components"]}
    assert versions.pop("ansible-core") == ">=2.18.0"
    assert [f"{package}{limits}" for package, limits in sorted(versions.items())] == sorted(requirements)


def test_the_action_group_holds_the_modules_that_share_its_options() -> None:
    group = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())["action_groups"]["transaction"]
    fragment = "webfarm.iis.transaction.services"
    documents = [yaml.safe_load(path.read_text())["DOCUMENTATION"] for path in (ROOT / "plugins/modules").glob("*.yml")]
    sharing = [one["module"] for one in documents if fragment in one["extends_documentation_fragment"]]
    assert sorted(group) == sorted(sharing)


def test_the_artefact_installs_where_nothing_is_and_is_what_it_says(twice: Any, tmp_path: Path) -> None:
    name, artefact = one(twice[0], ".tar.gz")
    (tmp_path / name).write_bytes(artefact)
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env.update(HOME=str(tmp_path), ANSIBLE_COLLECTIONS_PATH=str(tmp_path / "c"), PYTHONDONTWRITEBYTECODE="1")
    for action in (["install", str(tmp_path / name), "-p", str(tmp_path / "c")], ["verify", "webfarm.iis"]):
        command = [GALAXY, "collection", *action, "--offline"]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    builder = str(Path(sys.executable).parent / "ansible-builder")
    done = subprocess.run(
        [builder, "introspect", "-v0", str(tmp_path / "c")],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for line in (ROOT / "meta" / "ee-requirements.txt").read_text().split():
        assert f"{line}  # from collection webfarm.iis" in done.stdout
    (tmp_path / "execution-environment.yml").write_text(EXECUTION_ENVIRONMENT.format(artefact=tmp_path / name))
    done = subprocess.run([builder, "create"], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert name in (tmp_path / "context" / "_build" / "requirements.yml").read_text()
    command = [str(Path(sys.executable).parent / "ansible-doc"), "--json", "webfarm.iis.config"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["webfarm.iis.config"]["doc"]["filename"].startswith(str(tmp_path / "c"))
