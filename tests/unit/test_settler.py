# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The script of the scheduled task: complete, in order, and sent where a transaction can happen. The lab runs it."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path

import pytest

from ansible_collections.webfarm.iis.plugins.plugin_utils import _action, _settler

SOURCES, MODULES = _settler.parts()
SCRIPT = gzip.decompress(base64.b64decode(_action.settler())).decode("utf-8")


def test_every_library_comes_behind_those_that_it_needs() -> None:
    seen: set[str] = set()
    for path in (*SOURCES, *MODULES):
        text = path.read_text(encoding="utf-8")
        needed = re.findall(r"^#AnsibleRequires -\w+ \.\.module_utils\.(\w+)", text, re.MULTILINE)
        needed += re.findall(
            r"^using ansible_collections\.webfarm\.iis\.plugins\.module_utils\.(\w+);", text, re.MULTILINE
        )
        assert set(needed) <= seen, path.name
        seen.add(path.stem)
    assert MODULES[-1].stem == "_Transaction"


def test_every_function_of_the_collection_that_is_called_is_in_it() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)
    code = re.sub(r"<#.*?#>|^\s*#.*$", "", code, flags=re.DOTALL | re.MULTILINE)
    defined = set(re.findall(r"^Function ([A-Z]\w+-Webfarm\w+)", code, re.MULTILINE))
    called = set(re.findall(r"\b([A-Z][a-z]+-Webfarm\w+)", code))
    assert called == defined


def test_the_script_holds_the_libraries_as_they_are() -> None:
    for path in (*SOURCES, *MODULES):
        assert path.read_text(encoding="utf-8") in SCRIPT, path.name
    assert "Function Add-CSharpType" in SCRIPT
    assert SCRIPT.rstrip().endswith("exit (Invoke-WebfarmSettling)")


def test_it_is_not_too_large_for_an_argument() -> None:
    assert len(_action.settler()) < 200_000


def test_libraries_in_a_circle_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, other in (("_A", "_B"), ("_B", "_A")):
        (tmp_path / f"{name}.psm1").write_text(
            f"#AnsibleRequires -PowerShell ..module_utils.{other}\n", encoding="utf-8"
        )
    monkeypatch.setattr(_settler, "UTILS", tmp_path)
    with pytest.raises(ValueError, match="_A -> _B -> _A"):
        _settler.parts("_A")
