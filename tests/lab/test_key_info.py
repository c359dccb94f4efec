# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""key_info and the libraries under it: what is there, what opens, who may read it, and why not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import Farm, Host

ROOT = Path(__file__).resolve().parents[2]
UTILS = ROOT / "plugins" / "module_utils"
Module = Callable[..., dict[str, Any]]
FIVE = ["iisWasKey", "iisConfigurationKey", "NetFrameworkConfigurationKey", "iisCngWasKey", "iisCngConfigurationKey"]


def by(items: list[dict[str, Any]], field: str) -> dict[str, dict[str, Any]]:
    return {item[field]: item for item in items}


def test_everything_on_the_golden_server_opens(
    ansible_module: Module, web1: Host, unchanged: Callable[..., Any]
) -> None:
    with unchanged(web1):
        result = ansible_module(web1, "key_info")
    assert not result.get("failed"), result
    assert result["changed"] is False
    assert result["machine_guid"] == web1.machine_guid
    containers = by(result["key_containers"], "container")
    assert list(containers)[:5] == FIVE
    for name in ("iisWasKey", "iisConfigurationKey"):
        fact = containers[name]
        assert fact["state"] == "present" and fact["file_found"] is True
        assert fact["bits"] == 2048
        assert fact["fingerprint"] == web1.oracle("fingerprint", name)
        assert fact["file_expected"] == web1.key_file(name).name
        assert fact["access_problems"] == [] and fact["access_missing"] == []
        assert {entry["sid"] for entry in fact["acl"]} >= {"S-1-5-18", "S-1-5-32-544"}
    assert containers["iisCngWasKey"]["state"] == containers["iisCngConfigurationKey"]["state"] == "present"
    assert containers["iisCngWasKey"]["fingerprint"] is None
    assert {item["verdict"] for item in result["session_keys"]} == {"ok"}
    values = result["protected_values"]
    assert {item["verdict"] for item in values} == {"ok"}
    assert {item["kind"] for item in values} == {"rsa", "aes", "cng"}
    assert all(item["line"] > 0 and item["path"] for item in values)
    assert "Pa55" not in json.dumps(result)


def test_without_its_key_a_server_says_what_is_missing(
    ansible_module: Module, web3: Host, unchanged: Callable[..., Any]
) -> None:
    with unchanged(web3):
        result = ansible_module(web3, "key_info", check=True, decrypt="session")
    assert not result.get("failed"), result
    fact = by(result["key_containers"], "container")["iisWasKey"]
    assert fact["state"] == "missing" and fact["file_found"] is False
    assert fact["hresult"] == "0x80090016"
    assert "iisWasKey" in fact["cause"] and "key_import" in fact["fix"]
    session = by(result["session_keys"], "container")
    assert session["iisWasKey"]["verdict"] == "missing_key"
    assert session["iisConfigurationKey"]["verdict"] == "ok"
    assert {item["verdict"] for item in result["protected_values"]} <= {"untested"}
    assert any("iisWasKey is missing" in text for text in result["warnings"])


def test_states_of_a_container(ansible_module: Module, web2: Host) -> None:
    web2.oracle("create", "webfarmLabDamaged", "1024", "nonexportable")
    try:
        web2.key_file("webfarmLabDenied").write_bytes(b"a key file that does not open")
        web2.key_file("webfarmLabEmpty").write_bytes(b"")
        foreign = web2.machine_keys / f"{web2.key_file('webfarmLabForeign').name.split('_')[0]}_another-machine"
        foreign.write_bytes(b"x")
        names = [
            "webfarmLabDamaged",
            "webfarmLabDenied",
            "webfarmLabEmpty",
            "webfarmLabForeign",
            "webfarmLabNever",
            "IISWASKEY",
        ]
        result = ansible_module(web2, "key_info", containers=names, decrypt="none")
        assert not result.get("failed"), result
        facts = by(result["key_containers"], "container")
        assert "IISWASKEY" not in facts
        assert facts["webfarmLabDamaged"]["state"] == "present"
        assert facts["webfarmLabDamaged"]["exportable"] is False and facts["webfarmLabDamaged"]["bits"] == 1024
        assert facts["webfarmLabDenied"]["state"] == "denied"
        assert facts["webfarmLabEmpty"]["state"] == "damaged"
        assert facts["webfarmLabForeign"]["state"] == "missing"
        assert facts["webfarmLabForeign"]["foreign_files"] == [foreign.name]
        assert "machine GUID" in facts["webfarmLabForeign"]["cause"]
        assert facts["webfarmLabNever"]["state"] == "missing"
        assert all(facts[name]["cause"] and facts[name]["fix"] for name in names[1:5])
        # decrypt: none lists without trying
        assert {item["verdict"] for item in result["protected_values"] + result["session_keys"]} == {"untested"}
        assert web2.oracle("exists", "webfarmLabNever") == "no"
    finally:
        web2.oracle("delete", "webfarmLabDamaged")
        web2.reset()


def test_active_redirection_is_refused_with_the_share(
    ansible_module: Module, web2: Host, unchanged: Callable[..., Any]
) -> None:
    redirect(web2, r"\\files\iis")
    with unchanged(web2):
        refused = ansible_module(web2, "key_info")
        containers = ansible_module(web2, "key_info", decrypt="none")
    assert refused["failed"] and r"\\files\iis" in refused["msg"] and "decrypt: none" in refused["msg"]
    assert not containers.get("failed"), containers
    assert containers["redirection"] == {"enabled": True, "path": r"\\files\iis"}
    assert containers["protected_values"] == [] and len(containers["key_containers"]) == 5


def redirect(host: Host, share: str) -> None:
    """Turn the shared configuration on."""
    path = host.config_dir / "redirection.config"
    text = path.read_text(encoding="utf-8-sig")
    assert "<configurationRedirection />" in text
    element = f'<configurationRedirection enabled="true" path="{share}" userName="FARM\\svc" password="" />'
    path.write_text(text.replace("<configurationRedirection />", element), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda data: data.replace(b"</applicationPools>", b"</applicationPool>", 1),
            ["applicationHost.config, line ", "not well-formed"],
        ),
        (lambda data: data.decode("utf-8-sig").encode("utf-16"), ["UTF-16", "save it as UTF-8"]),
        (None, ["applicationHost.config", "does not exist"]),
    ],
    ids=["malformed", "utf16", "absent"],
)
def test_a_file_that_cannot_be_read_is_named(ansible_module: Module, web2: Host, damage: Any, words: list[str]) -> None:
    if damage is None:
        web2.config.unlink()
    else:
        web2.config.write_bytes(damage(web2.config.read_bytes()))
    result = ansible_module(web2, "key_info")
    assert result["failed"], result
    assert all(word in result["msg"] for word in words), result["msg"]


# --- the libraries, many cases in one process -------------------------------------------------------------------

FULL = "(A;;FA;;;SY)(A;;FA;;;BA)"
IUSRS = "S-1-5-32-568"
ACCESS = [
    # container, SDDL, Management Service installed, expected kind and SID
    ("iisWasKey", f"D:{FULL}", False, []),
    ("iisWasKey", f"D:{FULL}", True, ["missing S-1-5-19"]),
    ("iisWasKey", f"D:{FULL}(A;;FR;;;LS)", True, []),
    ("iisWasKey", f"D:{FULL}(A;;FR;;;{IUSRS})", False, [f"forbidden {IUSRS}"]),
    ("iisWasKey", f"D:{FULL}(A;;GR;;;WD)", True, [f"forbidden {IUSRS}"]),
    ("iisCngWasKey", f"D:{FULL}(A;;FR;;;AU)", False, [f"forbidden {IUSRS}"]),
    ("iisCngWasKey", f"D:{FULL}", True, []),
    ("iisConfigurationKey", f"D:{FULL}", False, [f"missing {IUSRS}"]),
    ("iisConfigurationKey", f"D:PAI(A;;0xd01f01ff;;;SY)(A;;0xd01f01ff;;;BA)(A;;0x80120089;;;{IUSRS})", False, []),
    ("iisConfigurationKey", f"D:{FULL}(A;;GR;;;WD)", True, []),
    ("iisConfigurationKey", f"D:{FULL}(A;;GR;;;AU)", True, []),
    ("iisConfigurationKey", f"D:(D;;FR;;;{IUSRS}){FULL}(A;;GR;;;WD)", False, [f"missing {IUSRS}"]),
    (
        "iisConfigurationKey",
        f"D:(D;;0x1;;;WD){FULL}(A;;FR;;;{IUSRS})",
        False,
        ["missing S-1-5-18", "missing S-1-5-32-544", f"missing {IUSRS}"],
    ),
    # an entry that comes too late changes nothing
    ("iisConfigurationKey", f"D:{FULL}(A;;FR;;;{IUSRS})(D;;FR;;;{IUSRS})", False, []),
    # write alone is no reading, and neither is what only children inherit
    ("iisConfigurationKey", f"D:{FULL}(A;;0x116;;;{IUSRS})", False, [f"missing {IUSRS}"]),
    ("iisConfigurationKey", f"D:{FULL}(A;OICIIO;FR;;;{IUSRS})", False, [f"missing {IUSRS}"]),
    ("iisCngConfigurationKey", f"D:{FULL}", True, [f"missing {IUSRS}"]),
    ("NetFrameworkConfigurationKey", f"D:{FULL}", True, []),
    ("NetFrameworkConfigurationKey", "D:(A;;FA;;;BA)", True, []),
    ("NetFrameworkConfigurationKey", "D:(A;;FA;;;SY)", False, ["missing S-1-5-32-544"]),
    ("iisWasKey", "D:", False, ["missing S-1-5-18", "missing S-1-5-32-544"]),
    ("iisWasKey", "O:BAG:SY", False, [f"forbidden {IUSRS}"]),
    ("iisWasKey", "", False, ["unreadable "]),
    ("iisWasKey", "D:(nonsense)", False, ["unreadable "]),
]


def test_who_may_read_a_key(pwsh_farm: Farm, web2: Host) -> None:
    script = "".join(
        f"(@(Get-WebfarmAccessProblem -Container '{container}' -Sddl '{sddl}'{' -WmsvcInstalled' if wmsvc else ''} | "
        "ForEach-Object -Process { \"$($_.kind) $($_.sid)\" }) -join ',') + '.'\n"
        for container, sddl, wmsvc, _expected in ACCESS
    )
    lines = run_with(web2, "_Access", script).split()
    text = " ".join(lines)
    found = [part.strip() for part in text.split(".")[: len(ACCESS)]]
    expected = [",".join(problems).strip() for *_rest, problems in ACCESS]
    wrong = [(case, got) for case, got, want in zip(ACCESS, found, expected, strict=False) if got != want]
    assert found == expected, wrong


DIAGNOSES = [
    # arguments, expected code, part of the cause, part of the fix
    (
        "-Code 2148073494 -Verdict missing -Container iisWasKey",
        "0x80090016",
        "iisWasKey is not on this server",
        "Import the key",
    ),
    (
        "-Code 2148073494 -Verdict missing_key -Context cng -Container iisCngWasKey",
        "0x80090016",
        "iisCngWasKey is not",
        "portable",
    ),
    ("-Code 2148073494 -Verdict denied", "0x80090016", "may not read it", "elevated"),
    ("-Code 2148073494 -Verdict damaged", "0x80090016", "cannot be used", "Restore the key file"),
    (
        "-Code 2148073494 -Context worker -Container iisConfigurationKey",
        "0x80090016",
        "IIS_IUSRS may not read",
        "Grant IIS_IUSRS",
    ),
    ("-Code 2148073494 -Context wmsvc", "0x80090016", "LOCAL SERVICE may not read", "Grant LOCAL SERVICE"),
    ("-Code 5 -Verdict denied", "0x80070005", "may not read it", "elevated"),
    ("-Code 2148073483 -Context export", "0x8009000B", "not exportable", "exportable"),
    ("-Code 2148073483 -Verdict damaged", "0x8009000B", "DPAPI", "Restore"),
    ("-Code 2148073477 -Verdict bad_data -Provider AesProvider", "0x80090005", "AesProvider", "Import the key"),
    ("-Verdict garbage -Provider AesProvider", "", "another session key of AesProvider", "Enter the secret again"),
    ("-Verdict unknown_provider -Provider Nobody", "", "Nobody is missing", "providers section"),
    ("-Code 1234 -Container X", "0x800704D2", "Not known for X", "-vvv"),
    ("-Verdict ok", "", "", ""),
]


def test_codes_are_explained(pwsh_farm: Farm, web2: Host) -> None:
    script = "".join(
        f"Get-WebfarmDiagnosis {arguments} | ConvertTo-Json -Compress\n" for arguments, *_rest in DIAGNOSES
    )
    script += "$entries = (Get-WebfarmDiagnosisTable).entries\n"
    script += "$told = @($entries | ForEach-Object -Process { [bool]($_.cause -and $_.fix) })\n"
    script += "ConvertTo-Json -Compress -InputObject $told\n"
    *lines, complete = [line for line in run_with(web2, "_Diagnosis", script).splitlines() if line.strip()]
    for (arguments, code, cause, fix), line in zip(DIAGNOSES, lines, strict=True):
        found = json.loads(line)
        assert (found["hresult"] or "") == code, arguments
        assert cause in (found["cause"] or "") and fix in (found["fix"] or ""), (arguments, found)
        assert "{" not in line[1:-1], line
    assert set(json.loads(complete)) == {True}


def run_with(host: Host, name: str, script: str) -> str:
    """Run statements with a psm1 loaded as Ansible does it; by standard input, a command line would be too short."""
    text = (UTILS / f"{name}.psm1").read_text(encoding="utf-8")
    encoded = base64.b64encode(text.encode("utf-8")).decode("ascii")
    whole = (
        "Set-StrictMode -Version 2.0\n$ErrorActionPreference = 'Stop'\n"
        f"$text = [System.Text.Encoding]::UTF8.GetString([System.Convert]::FromBase64String('{encoded}'))\n"
        f"New-Module -Name {name} -ScriptBlock ([ScriptBlock]::Create($text)) | Import-Module\n{script}"
    )
    return host.pwsh("& ([ScriptBlock]::Create(@($input) -join [char]10))", whole.encode("ascii"))
