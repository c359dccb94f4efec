# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""web.config: which machineKey an application gets, and encrypted sections. Opening them is shown in the lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_windows_powershell import UTILS, run_work

RSA, DPAPI = "RsaProtectedConfigurationProvider", "DataProtectionConfigurationProvider"
CLOSED = (
    "<EncryptedData><KeyInfo><EncryptedKey><KeyInfo><KeyName>Rsa Key</KeyName>"
    "</KeyInfo></EncryptedKey></KeyInfo></EncryptedData>"
)
FILES = {
    "windows/Microsoft.NET/Framework/v4.0.30319/Config/machine.config": "<configuration />",
    "windows/Microsoft.NET/Framework/v4.0.30319/Config/web.config": (
        "<configuration><configProtectedData><providers>"
        '<add name="Farm" type="System.Configuration.RsaProtectedConfigurationProvider, x" keyContainerName="FarmKey"/>'
        '<add name="Mine" type="System.Configuration.RsaProtectedConfigurationProvider" useMachineContainer="false" />'
        "</providers></configProtectedData></configuration>"
    ),
    "shop/web.config": (
        '<configuration xmlns="http://schemas.microsoft.com/.NetConfiguration/v2.0"><location path="." '
        'inheritInChildApplications="false"><system.web><machineKey validationKey="abcd" decryptionKey="1234" '
        f'validation="SHA1" /></system.web></location><a configProtectionProvider="Farm">{CLOSED}</a>'
        f'<b configProtectionProvider="Mine">{CLOSED}</b><c configProtectionProvider="Odd">{CLOSED}</c>'
        f'<d configProtectionProvider="{DPAPI}">{CLOSED}</d><e x="[enc:AesProvider:QUJD:enc]" /></configuration>'
    ),
    "api/web.config": '<configuration><system.web><machineKey decryption="AES" /></system.web></configuration>',
    "other/web.config": (
        f'<configuration><system.web><machineKey configProtectionProvider="{RSA}">{CLOSED}</machineKey></system.web>'
        '<location path="below"><system.web><machineKey validationKey="AutoGenerate" /></system.web></location>'
        "</configuration>"
    ),
    "broken/web.config": '<!DOCTYPE a [<!ENTITY b "c">]><configuration />',
}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("web")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    def application(path: str, place: str, pool: str = "Old") -> str:
        return (
            f'<application path="{path}" applicationPool="{pool}"><virtualDirectory path="/" physicalPath="{place}" />'
            "</application>"
        )

    applications = {
        "Shop": application("/api", f"{folder}/api") + application("/", f"{folder}/shop"),
        "Other": application("/", f"{folder}/other"),
        "Plain": application("/", f"{folder}/plain"),
        "Static": application("/", f"{folder}/static", "Native"),
        "Broken": application("/", f"{folder}/broken"),
        "Share": application("/", "//files/x"),
    }
    sites = "".join(f'<site name="{name}">{text}</site>' for name, text in applications.items())
    (folder / "applicationHost.config").write_text(
        '<configuration><system.applicationHost><applicationPools><add name="Old" enable32BitAppOnWin64="true" />'
        f'<add name="Native" managedRuntimeVersion="" /></applicationPools><sites>{sites}</sites>'
        "</system.applicationHost></configuration>",
        encoding="utf-8",
    )
    csharp = ("_KeyContainer", "_Configuration", "_Protection", "_Canonical", "_WebConfig", "_CngKey")
    powershell = ("_Facts", "_Diagnosis", "_ServerFacts", "_FileFacts", "_WebFacts")
    found: list[dict[str, Any]] = run_work(
        "web_facts.ps1",
        folder,
        [UTILS / f"{name}.cs" for name in csharp],
        powershell=[str(UTILS / f"{name}.psm1") for name in powershell],
        configuration=str(folder / "applicationHost.config"),
        windows=str(folder / "windows"),
        run_keys=["0f" * 32, "0e" * 32, None, "not a key"],
    )
    return found


def keys(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["site"] + one["application"]: one for one in result["MachineKeys"]}


def test_the_machine_key_that_an_application_gets(facts: list[dict[str, Any]]) -> None:
    found = keys(facts[0])
    assert {name: one["state"] for name, one in found.items()} == {
        "Shop/": "explicit",
        "Shop/api": "explicit",
        "Other/": "closed",
        "Plain/": "generated",
        "Static/": "unmanaged",
        "Broken/": "unread",
        "Share/": "unread",
    }
    assert found["Shop/"]["source"].endswith("shop/web.config") and found["Shop/"]["bits"] == 32
    # One attribute of its own, the rest from the application above it.
    assert (found["Shop/api"]["validation"], found["Shop/api"]["decryption"]) == ("SHA1", "AES")
    assert found["Plain/"]["source"] is None


def test_fingerprints_are_those_of_a_run(facts: list[dict[str, Any]]) -> None:
    first, second, without, refused = facts
    one, other = (keys(result)["Shop/"]["fingerprint"] for result in (first, second))
    assert len(one) == len(other) == 64 and one != other
    assert keys(first)["Shop/api"]["fingerprint"] != one
    assert {item["fingerprint"] for item in without["MachineKeys"]} == {None}
    assert "run_key" in refused["error"] and "not a key" not in refused["error"]
    text = json.dumps(facts).lower()
    assert "abcd" not in text and '"1234' not in text


def test_sections_with_their_containers(facts: list[dict[str, Any]]) -> None:
    files = {Path(one["path"]).parent.name: one for one in facts[0]["Files"]}
    assert set(files) == {"Config", "shop", "api", "other", "broken", "x"}
    sections = {one["path"]: one for one in files["shop"]["sections"]}
    assert {name: (one["kind"], one["container"], one["verdict"]) for name, one in sections.items()} == {
        "a": ("rsa", "FarmKey", "untested"),
        "b": ("rsa", "NetFrameworkConfigurationKey", "untested"),
        "c": ("unsupported", None, "unknown_provider"),
        "d": ("dpapi", None, "untested"),
    }
    assert sections["a"]["key_name"] == "Rsa Key" and sections["a"]["machine"] and not sections["b"]["machine"]
    assert files["shop"]["protected_values"] == 1
    assert "share" in files["x"]["message"] and "cannot be used" in files["broken"]["message"]
