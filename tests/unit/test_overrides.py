# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that differ per server: byte-exact, in Python as in C#; what is refused. And what a schema says."""

from __future__ import annotations

import base64
import random
import re
from pathlib import Path
from typing import Any

import pytest
from _support import NO_CORPUS
from test_windows_powershell import HERE, UTILS, run_work

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost, _overrides
from lab import content, paths


def shipped(folder: Path) -> Path:
    path = folder / "shipped.config"
    text = content.shipped_template().read_bytes()
    path.write_bytes(re.sub(rb"@@secret:(\w+):[^@]*@@", rb"[enc:\1:AAAA:enc]", text).replace(b"@@sessionkey:", b"@@"))
    return path


def corpus(folder: Path) -> list[Path]:
    """Every configuration at hand that is one."""
    found = [shipped(folder)]
    for path in sorted((paths.CORPUS / "applicationHost").glob("*.config")):
        try:
            _apphost.load(path)
        except _apphost.ConfigurationError:
            continue
        found.append(path)
    return found


def windows(folder: Path, **work: Any) -> Any:
    csharp = [HERE / "key_container_stub.cs", UTILS / "_Configuration.cs", UTILS / "_Fit.cs"]
    return run_work("fit.ps1", folder, csharp, **work)


def test_an_override_changes_nothing_but_its_value(tmp_path: Path) -> None:
    chance = random.Random(20261125)
    values = ["D:\\logs", "10.1.2.3:80:", "a & b <c> \"d\" 'e'", "Grüße 日本", ""]
    work: list[dict[str, Any]] = []
    expected: list[tuple[Path, str, str]] = []
    for path in corpus(tmp_path):
        file = _apphost.load(path)
        names = chance.sample(file.paths(), min(4, len(file.paths())))
        changes = [{"path": name, "value": chance.choice(values)} for name in names]
        work.append({"file": str(path), "changes": changes})
        expected += [(path, change["path"], change["value"]) for change in changes]
    answers = windows(tmp_path, findings=[], overrides=work)["overrides"]
    assert len(answers) == len(expected)
    applied = refused = 0
    for (path, name, value), answer in zip(expected, answers, strict=True):
        before = path.read_bytes()
        try:
            after = _overrides.apply(before, path.name, {name: value})
        except _overrides.OverrideError as error:
            assert answer.startswith("refused: "), (path.name, name)
            assert error.reason in answer
            refused += 1
            continue
        assert (
            base64.b64decode(answer) == after or _apphost.parse(base64.b64decode(answer), path.name).get(name) == value
        )
        old, new = _apphost.parse(before, path.name), _apphost.parse(after, path.name)
        assert new.get(name) == value
        differing = [a.path for a, b in zip(old._attributes, new._attributes, strict=True) if a.value != b.value]
        assert differing in ([name], [])
        # Everything outside the value is the same bytes; a second time nothing changes, in both implementations.
        same = 0
        while same < min(len(before), len(after)) and before[same] == after[same]:
            same += 1
        rest = 0
        while (
            rest < min(len(before), len(after)) - same
            and before[len(before) - 1 - rest] == after[len(after) - 1 - rest]
        ):
            rest += 1
        removed, put = before[same : len(before) - rest], after[same : len(after) - rest]
        assert b"<" not in removed and b"<" not in put and b"\n" not in removed and b"\n" not in put, (path.name, name)
        assert _overrides.apply(after, path.name, {name: value}) == after
        applied += 1
    assert applied > 30 and refused > 3


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("system.applicationHost/sites/site/@nam", "x", "no such attribute"),
        (
            "system.applicationHost/sites/site[@name='Gone']/bindings/binding/@bindingInformation",
            "x",
            "site[@name='Portal']/bindings/binding/@bindingInformation",
        ),
        (
            "system.applicationHost/applicationPools/add[@name='Shop']/processModel/@password",
            "x",
            "webfarm.iis.secret",
        ),
        ("configProtectedData/providers/add[@name='AesProvider']/@sessionKey", "x", "key set"),
        ("system.applicationHost/sites/site[@name='Shop']/@name", "x", "tells its element apart"),
        ("system.applicationHost/configHistory/@maxHistories", "[enc:AesProvider:AAAA:enc]", "protected value"),
        ("system.applicationHost/configHistory/@maxHistories", ["x"], "a text, a number"),
        ("system.applicationHost/configHistory/@maxHistories", None, "a text, a number"),
    ],
)
def test_what_is_refused_says_why(tmp_path: Path, path: str, value: Any, words: str) -> None:
    with pytest.raises(_overrides.OverrideError) as caught:
        _overrides.apply(shipped(tmp_path).read_bytes(), "shipped.config", {path: value})
    assert words in str(caught.value) and "overrides" in str(caught.value) and path in str(caught.value)


def test_numbers_and_booleans_become_what_iis_writes(tmp_path: Path) -> None:
    before = shipped(tmp_path).read_bytes()
    base = "system.applicationHost/configHistory"
    after = _overrides.apply(before, "x", {f"{base}/@maxHistories": 7, f"{base}/@enabled": False})
    file = _apphost.parse(after, "x")
    assert (file.get(f"{base}/@maxHistories"), file.get(f"{base}/@enabled")) == ("7", "false")
    assert _overrides.apply(before, "x", {}) == before


def test_real_files_against_their_own_schema(tmp_path: Path) -> None:
    folder = paths.CORPUS / "schema"
    if not folder.is_dir():
        pytest.skip(NO_CORPUS)
    files = paths.CORPUS / "applicationHost"

    def schema(name: str) -> list[str]:
        return [str(folder / part) for part in ("RedHatSE_FX_schema.xml", "RedHatSE_Ftp_schema.xml", name)]

    ten = files / "RedHatSE_windowcontainertest.config"
    older = files / "c1982_IIS-SharedGitConfig.config"
    express = files / "Jexus_Resources_original.config"
    hosting = files / "aspnet_IISIntegration_HWC.config"
    work = [
        {"file": str(ten), "present": str(ten), "schema": schema("RedHatSE_IIS_schema.xml")},
        {"file": str(older), "present": str(ten), "schema": schema("RedHatSE_IIS_schema.xml")},
        {"file": str(express), "present": str(ten), "schema": schema("RedHatSE_IIS_schema.xml")},
        {"file": str(hosting), "present": str(ten), "schema": schema("RedHatSE_IIS_schema.xml")},
        {"file": str(ten), "present": str(older), "schema": schema("c1982_IIS_schema.xml")},
    ]
    found = [
        {line for line in lines if line.startswith("error") and "/webdav/" not in line}
        for lines in windows(tmp_path, findings=work, overrides=[])["findings"]
    ]
    declared = "error section_without_schema configSections/"
    found = [{line for line in lines if not line.startswith(declared)} for lines in found]
    assert found[0] == set()
    assert found[1] == {"error older_generation "}
    assert {line.split()[1] for line in found[2]} == {"iis_express"}
    assert found[3] == {"error section_without_schema system.webServer/aspNetCore"}
    assert found[4] == {"error newer_generation "}


@pytest.mark.parametrize("with_corpus", [True, False], ids=["corpus", "shipped"])
def test_the_configurations_of_the_lab_fit_its_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_corpus: bool
) -> None:
    if not with_corpus:
        monkeypatch.setattr(paths, "CORPUS", tmp_path / "none")
    elif not paths.CORPUS.is_dir():
        pytest.skip(NO_CORPUS)
    drive = tmp_path / "drive_c"
    (drive / content.INETSRV / "config/schema").mkdir(parents=True)
    (drive / "inetpub/wwwroot").mkdir(parents=True)
    content.write_static_files(drive)
    schema = sorted(str(path) for path in (drive / content.INETSRV / "config/schema").glob("*.xml"))
    work = []
    for name, text in (
        ("golden", content.golden_text()),
        ("default", content.default_text()),
        ("shipped", content.shipped_text()),
    ):
        path = tmp_path / f"{name}.config"
        path.write_text(re.sub(r"@@(secret|sessionkey):(\w+)[^@]*@@", r"[enc:\2:AAAA:enc]", text), encoding="utf-8")
        work.append({"file": str(path), "present": str(path), "schema": schema})
    assert windows(tmp_path, findings=work, overrides=[])["findings"] == [[], [], []]
