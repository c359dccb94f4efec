# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ranking of causes where no server is needed: events, symptoms, refusals, and that both sides read one table."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.webfarm.iis.plugins.plugin_utils._diagnosis import (
    codes_of,
    diagnose,
    installed,
    load_table,
)

ROOT = Path(__file__).resolve().parents[2]
CONTEXTS = ("", "open", "cng", "decrypt", "export", "import", "configure", "service", "worker", "wmsvc")
PATH = "system.applicationHost/applicationPools/add[@name='Shop']/processModel/@password"


def pool(name: str, state: str, identity: str = "SpecificUser", auto: bool = True) -> dict[str, Any]:
    return {"name": name, "auto_start": auto, "identity_type": identity, "user_name": "FARM\\s", "state": state}


def container(name: str, **more: Any) -> dict[str, Any]:
    return {"container": name, "store": "cryptoapi", "state": "present", "bits": 2048, "exportable": True, **more}


def service(name: str, state: str, code: str | None = None) -> dict[str, Any]:
    return {"name": name, "state": state, "start_mode": "auto", "hresult": code}


def value(verdict: str, **more: Any) -> dict[str, Any]:
    return {
        "file": "applicationHost.config",
        "path": PATH,
        "line": 7,
        "provider": "IISWASOnlyAesProvider",
        "kind": "aes",
        "container": "iisWasKey",
        "verdict": verdict,
        **more,
    }


def facts(**more: Any) -> dict[str, Any]:
    """A server that is well, with changes."""
    base: dict[str, Any] = {
        "host": {"name": "WEB7", "machine_guid": "aaaa"},
        "redirection": {"enabled": False, "path": ""},
        "key_containers": [container("iisWasKey"), container("iisConfigurationKey")],
        "session_keys": [],
        "protected_values": [value("ok")],
        "configuration_files": [{"name": "applicationHost.config", "exists": True, "sha256": "1" * 64}],
        "services": [
            {"name": "WAS", "state": "running", "start_mode": "manual", "hresult": None},
            {"name": "W3SVC", "state": "running", "start_mode": "auto", "hresult": None},
        ],
        "app_pools": [
            {
                "name": "Shop",
                "auto_start": True,
                "identity_type": "SpecificUser",
                "user_name": "F\\s",
                "state": "started",
            }
        ],
        "events": {"readable": True, "entries": []},
    }
    return base | more


def first(result: dict[str, Any]) -> str:
    return str(result["causes"][0]["id"]) if result["causes"] else ""


def event(number: int, source: str = "Microsoft-Windows-WAS", code: str | None = None) -> dict[str, Any]:
    return {"time": "2026-11-23T10:00:00Z", "source": source, "id": number, "hresult": code, "message": "..."}


def test_a_healthy_server_has_no_cause() -> None:
    result = diagnose(facts())
    assert result["healthy"] and result["causes"] == [] and result["notes"] == []
    assert result["lines"] == ["HOST: Nothing wrong was found."]


def test_every_finding_of_the_ranking_is_in_the_table() -> None:
    source = (ROOT / "plugins" / "plugin_utils" / "_diagnosis.py").read_text(encoding="utf-8")
    ids = {entry.id for entry in load_table().entries}
    named = set(re.findall(r'self\.found\(\s*"(\w+)"', source)) | set(re.findall(r'table\.entry\("(\w+)"\)', source))
    assert len(named) > 15 and named <= ids


def test_events_belong_to_the_cause_that_they_show() -> None:
    worker = "Microsoft-Windows-IIS-W3SVC-WP"
    missing = facts(
        key_containers=[container("iisWasKey", state="missing", hresult="0x80090016", file_expected="7694_aaaa")],
        protected_values=[value("missing_key", hresult="0x80090016")],
        events={"readable": True, "entries": [event(2307, worker, "0x80090016"), event(5021), event(5057)]},
    )
    result = diagnose(missing)
    assert [cause["id"] for cause in result["causes"]] == ["key_missing"]
    told = "\n".join(result["causes"][0]["evidence"])
    assert all(f"event {number}" in told for number in (2307, 5021, 5057))
    # alone, an event is a reason to look, not a proof
    alone = diagnose(facts(events={"readable": True, "entries": [event(2307, worker, "0x80090016")]}))
    assert first(alone) == "worker_access" and alone["healthy"]
    failures = diagnose(facts(events={"readable": True, "entries": [event(5002)]}))
    assert first(failures) == "pool_failures"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"protected_values": [value("garbage")]}, "garbage"),
        ({"protected_values": [value("malformed")]}, "malformed_value"),
        ({"protected_values": [value("unsupported")]}, "unsupported_provider"),
        ({"protected_values": [value("bad_data", hresult="0x80090005", accepted=True)]}, ""),
        ({"key_containers": [container("iisWasKey", state="denied", hresult="0x80070005")]}, "access_denied"),
        ({"key_containers": [container("iisWasKey", state="damaged", hresult="0x8009000B")]}, "key_undecryptable"),
        ({"key_containers": [container("iisWasKey", state="damaged", hresult="0x8009001A")]}, "key_corrupt"),
        ({"key_containers": [container("Other", state="missing", hresult="0x80090016")]}, ""),
        ({"configuration_files": [{"name": "applicationHost.config", "exists": False, "path": "x"}]}, "config_missing"),
        (
            {"key_folders": [{"access_problems": [{"message": "SYSTEM"}], "bloated": False, "message": None}]},
            "folder_access",
        ),
        ({"key_folders": [{"access_problems": [], "bloated": True, "message": "6000 files"}]}, "folder_bloat"),
        ({"services": [{"name": "W3SVC", "state": "start_pending", "start_mode": "auto"}]}, "service_timeout"),
        ({"services": [{"name": "W3SVC", "state": "stopped", "start_mode": "disabled"}]}, "service_disabled"),
        (
            {"services": [{"name": "WAS", "state": "stopped", "start_mode": "auto", "hresult": "0x8007042D"}]},
            "service_logon",
        ),
        ({"services": [service("IISADMIN", "stopped", "0x80090006")]}, "signature_invalid"),
        ({"app_pools": [pool("X", "stopped", "NetworkService")]}, "pool_stopped"),
        ({"app_pools": [pool("X", "stopped", auto=False)]}, ""),
    ],
)  # fmt: skip
def test_one_thing_wrong(change: dict[str, Any], expected: str) -> None:
    result = diagnose(facts(**change))
    assert first(result) == expected, result["lines"]


def test_a_pool_that_cannot_be_decrypted_is_no_wrong_password() -> None:
    stopped = pool("Shop", "stopped")
    result = diagnose(facts(app_pools=[stopped], protected_values=[value("bad_data", hresult="0x80090005")]))
    assert [cause["id"] for cause in result["causes"]] == ["foreign_key"]
    assert "application pool Shop" in "\n".join(result["causes"][0]["evidence"])
    # stopped, and its password opens
    assert first(diagnose(facts(app_pools=[stopped]))) == "pool_identity"


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("ERROR ( hresult:80090016, message:Keyset does not exist )", ["0x80090016"]),
        ("Error: 0x8009000b on export", ["0x8009000B"]),
        ("service-specific error 2148073478 (0x80090006)", ["0x80090006"]),
        ("terminated with service-specific error 2148073494", ["0x80090016"]),
        ("System error 1053 has occurred", ["0x8007041D"]),
        ("at line 150, port 8080", []),
    ],
)
def test_codes_in_messages(text: str, codes: list[str]) -> None:
    assert codes_of(text) == codes


@pytest.mark.parametrize(
    ("symptom", "expected"),
    [
        ("The system cannot find the file specified.", "file_not_found"),
        ("The handle is invalid", "handle_invalid"),
        ("The service did not respond to the start or control request in a timely fashion.", "service_timeout"),
        ("Not enough storage is available to process this command", "not_enough_storage"),
        ("GUID stored in the registry got changed", "foreign_guid"),
        ("several c23 files in MachineKeys", "several_files"),
        ("Keyset does not exist", "key_missing"),
        ("Bad Data.", "foreign_key"),
        ("Invalid Identity", "pool_identity"),
        ("Value does not fall within the expected range.", "value_range"),
        ("0x8009000B when aspnet_regiis -px exports", "not_exportable"),
        ("IISADMIN service-specific error 2148073478", "signature_invalid"),
        ("500.19 hresult:80070005", "worker_access"),
        ("remote IIS Manager (WMSVC): Keyset does not exist 0x80090016", "wmsvc_access"),
    ],
)
def test_the_classic_list_is_explained_where_nothing_shows_it(symptom: str, expected: str) -> None:
    result = diagnose(facts(), symptom=symptom)
    assert result["healthy"] and first(result) == expected, result["lines"]
    assert result["causes"][0]["cause"] and result["causes"][0]["confirm"] and result["causes"][0]["fix"]


MISSING = {"state": "missing", "hresult": "0x80090016", "file_expected": "x"}


@pytest.mark.parametrize(
    ("change", "symptom", "expected"),
    [
        (MISSING, "The system cannot find the file specified", "key_missing"),
        (MISSING | {"foreign_files": ["x_old"]}, "The handle is invalid", "foreign_guid"),
        (MISSING | {"state": "damaged", "hresult": "0x8009000D"}, "Not enough storage", "no_exchange_key"),
        (MISSING | {"state": "denied", "hresult": "0x80090010"}, "Not enough storage", "access_denied"),
    ],
)
def test_an_old_message_is_told_to_be_the_face_of_the_cause(change: Any, symptom: str, expected: str) -> None:
    broken = facts(key_containers=[container("iisWasKey", **change)], protected_values=[value("missing_key")])
    text = symptom if symptom != "Not enough storage" else "error 8: Not enough storage is available"
    cause = diagnose(broken, symptom=text)["causes"][0]
    assert cause["id"] == expected
    assert f"it fits what was seen: {text}" in cause["evidence"]


def command(result: dict[str, Any], number: int = 0) -> str:
    return str(result["causes"][0]["next"][number]["command"])


def test_commands_that_need_nothing_more() -> None:
    """Access lists, passwords and services: the command of the first step does it."""
    problems = [
        {"kind": "missing", "sid": "S-1-5-32-568", "message": "IIS_IUSRS may not read iisConfigurationKey"},
        {"kind": "missing", "sid": "S-1-5-32-568", "message": "the same again"},
    ]
    reader = facts(key_containers=[container("iisConfigurationKey", access_problems=problems, file_path="C:\\k")])
    reader["protected_values"] = [value("ok", container="iisConfigurationKey")]
    arguments = shlex.split(command(diagnose(reader, "web7")))
    assert arguments[:4] == ["ansible", "web7", "-m", "webfarm.iis.key"]
    assert json.loads(arguments[5]) == {
        "container": "iisConfigurationKey",
        "access": {"add": [{"account": "S-1-5-32-568"}]},
    }
    wide = [{"kind": "forbidden", "sid": "S-1-1-0", "message": "Everyone may read iisWasKey"}]
    found = diagnose(facts(key_containers=[container("iisWasKey", access_problems=wide)]), "web7")
    assert json.loads(shlex.split(command(found))[5])["access"] == {"remove": [{"account": "S-1-1-0"}]}
    # nobody has to be asked to let SYSTEM in: that the module does by itself
    system = [{"kind": "missing", "sid": "S-1-5-18", "message": "SYSTEM may not read iisWasKey"}]
    found = diagnose(facts(key_containers=[container("iisWasKey", access_problems=system)]), "web7")
    assert "access" not in command(found)

    stopped = facts(app_pools=[pool("Shop", "stopped")])
    arguments = shlex.split(command(diagnose(stopped, "web7")))
    assert arguments[3] == "webfarm.iis.secret" and arguments[-1] == "@VAULTED.yml"
    assert json.loads(arguments[5]) == {"app_pool": "Shop", "value": "{{ the_password }}"}

    broken = container(
        "iisWasKey", **MISSING | {"state": "damaged", "hresult": "0x8009000D", "file_path": r"C:\keys\k"}
    )
    found = diagnose(facts(key_containers=[broken], protected_values=[value("damaged")]), "web7")
    assert 'Move-Item -LiteralPath "C:\\keys\\k"' in command(found) and "webfarm.iis.provision" in command(found, 1)

    hung = facts(services=[service("WAS", "running"), service("W3SVC", "stopped", "0x8007041D")])
    assert shlex.split(command(diagnose(hung, "web7")))[-1] == "Start-Service -Name W3SVC"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"unreachable": True, "msg": "certificate verify failed"}, "unreachable"),
        (
            {"msg": "failure during exec_wrapper: Provided script for 'module_wrapper.ps1' is not trusted to run."},
            "constrained_language",
        ),
        (
            {"msg": "Cannot invoke method. Method invocation is supported only on core types in this language mode."},
            "constrained_language",
        ),
        ({"msg": "x", "module_stderr": "FullyQualifiedErrorId : CannotDefineNewType"}, "constrained_language"),
        ({"msg": "MODULE FAILURE", "language_mode": "ConstrainedLanguage\r\n"}, "constrained_language"),
        ({"msg": "This is a 32-bit PowerShell on 64-bit Windows: it sees another"}, "process_32bit"),
        ({"msg": "something else"}, "failed"),
        ({"msg": "failed: 0x80090016", "key_containers": []}, "key_missing"),
    ],
)  # fmt: skip
def test_what_keeps_the_modules_from_running(result: dict[str, Any], expected: str) -> None:
    found = diagnose(result)
    assert first(found) == expected and not found["healthy"]


def test_only_what_exists_is_recommended() -> None:
    missing = facts(
        key_containers=[container("iisWasKey", state="missing", hresult="0x80090016", file_expected="x")],
        protected_values=[value("missing_key", hresult="0x80090016")],
    )
    assert diagnose(missing, have=())["causes"][0]["next"] == []
    some = diagnose(missing, "web7", have=("playbook restore", "module key_import"))["causes"][0]["next"]
    assert [step["name"] for step in some] == ["webfarm.iis.key_import", "webfarm.iis.restore"]
    assert "web7" in some[0]["command"] and "containers=iisWasKey" in some[0]["command"]
    assert {"playbook provision", "playbook diagnose", "module config", "module server_info"} <= installed()


def test_both_sides_read_the_table_alike(pwsh_linux: Path, tmp_path: Path) -> None:
    """The same entry for every code and verdict in every context, in Python and in PowerShell."""
    table = load_table()
    codes = [*sorted({code for entry in table.entries for code in entry.codes}), "0x80041234", ""]
    verdicts = ["", *sorted({word for entry in table.entries for word in entry.verdicts})]
    queries = [[code, verdict, context] for code in codes for verdict in verdicts for context in CONTEXTS]
    (tmp_path / "queries.json").write_text(json.dumps(queries), encoding="utf-8")
    module = ROOT / "plugins" / "module_utils" / "_Diagnosis.psm1"
    script = f"""
$ErrorActionPreference = 'Stop'
Import-Module -Name '{module}'
$queries = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText('{tmp_path / "queries.json"}'))
$answers = foreach ($query in $queries) {{
    $code = [uint32]0
    if ($query[0]) {{ $code = [System.Convert]::ToUInt32($query[0], 16) }}
    "$((Get-WebfarmDiagnosis -Code $code -Verdict $query[1] -Context $query[2] -Container C -Provider P).cause)"
}}
ConvertTo-Json -InputObject @($answers) -Compress
"""
    done = subprocess.run(
        [str(pwsh_linux), "-NoProfile", "-NonInteractive", "-Command", "-"],
        input=script + "\n",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(answers) == len(queries) > 3000
    for (code, verdict, context), answer in zip(queries, answers, strict=True):
        entry = table.explain(code or None, verdict or None, context)
        expected = entry.text("cause", "C", "P") if entry else ("Not known for C." if code else "")
        assert answer == expected, (code, verdict, context)
