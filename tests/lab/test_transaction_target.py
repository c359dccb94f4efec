# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transaction's library on a host: crashes at every point of its journal, the lock, transport keys, access lists.

Everything runs in one PowerShell process; configuration and keys come from the golden server through the C oracle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible
import pytest
from dependents import TEXTS, Dependents

from lab import Farm, Host

HERE = Path(__file__).resolve().parent
UTILS = HERE.parents[1] / "plugins" / "module_utils"
SOURCES = (
    "_KeyContainer",
    "_Configuration",
    "_Protection",
    "_ProtectedFolder",
    "_ServiceControl",
    "_Health",
    "_Fit",
    "_Logon",
)
LIBRARIES = (
    "_Host",
    "_Diagnosis",
    "_Access",
    "_Facts",
    "_EventLog",
    "_Appcmd",
    "_Service",
    "_KeyAccess",
    "_KeyPlan",
    "_BackupFolder",
    "_Deadman",
    "_Journal",
    "_Dependent",
    "_LogonTest",
    "_Transaction",
    "_Change",
    "_OwnKey",
)
KEYS = {"iisWasKey": "webfarmTestWas", "iisConfigurationKey": "webfarmTestConfiguration"}
DELETED = {"webfarmTestDeleted": "exportable", "webfarmTestFixed": "nonexportable"}
UNDONE = ("stopping", "writing", "between keys", "between files", "before written")
COMPLETED = ("written", "starting")
DOMAIN = "S-1-5-21-1004336348-1177238915-682003330-1009"
ACCESS = [
    {
        "container": "iisWasKey",
        "wmsvc": True,
        "sddl": f"D:(A;;FA;;;SY)(A;;FR;;;S-1-5-32-568)(A;;FR;;;WD)(A;;FR;;;NS)(A;;FR;;;{DOMAIN})(A;;GA;;;CO)",
    },
    {"container": "iisConfigurationKey", "wmsvc": False, "sddl": "D:(D;;FR;;;BG)(A;;FR;;;S-1-5-82-1-2-3-4-5)"},
    {"container": "NetFrameworkConfigurationKey", "wmsvc": True, "sddl": ""},
]


MAIN, WAS = "iisConfigurationKey", "iisWasKey"
BASE = "(A;;FA;;;SY)(A;;FA;;;BA)(A;;FR;;;S-1-5-32-568)"
NETWORK = {"account": "NT AUTHORITY\\Network Service", "rights": "read"}
IUSRS = {"account": "iis_iusrs", "rights": "read"}
# container, access list, option, expected list or a part of the message
WANTED: list[tuple[str, str, dict[str, Any], str]] = [
    (MAIN, f"D:{BASE}", {"add": [IUSRS]}, "unchanged"),
    (MAIN, f"D:{BASE}", {"add": [{**IUSRS, "rights": "full"}]}, "D:(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;S-1-5-32-568)"),
    (MAIN, f"D:{BASE}", {"add": [NETWORK]}, f"D:{BASE}(A;;FR;;;S-1-5-20)"),
    (MAIN, f"D:{BASE}(A;;FA;;;NS)", {"add": [NETWORK]}, "unchanged"),
    (MAIN, f"D:P(D;;FR;;;NS)(D;;FR;;;BG){BASE}", {"add": [NETWORK]}, f"D:P(D;;FR;;;BG){BASE}(A;;FR;;;S-1-5-20)"),
    (MAIN, f"D:{BASE}(A;;0x120116;;;NS)", {"add": [NETWORK]}, f"D:{BASE}(A;;0x12019f;;;S-1-5-20)"),
    (MAIN, f"D:{BASE}(A;;FR;;;NS)(A;;FR;;;LS)", {"remove": [NETWORK]}, f"D:{BASE}(A;;FR;;;LS)"),
    (MAIN, f"D:{BASE}", {"remove": [NETWORK]}, "unchanged"),
    (MAIN, f"D:{BASE}", {"set": [IUSRS]}, "unchanged"),
    (MAIN, "D:(A;;GA;;;SY)(A;;GA;;;BA)(A;;GR;;;S-1-5-32-568)", {"set": [IUSRS]}, "unchanged"),
    (
        MAIN,
        f"D:{BASE}(A;;FR;;;NS)",
        {"set": [IUSRS, {"account": "SYSTEM", "rights": "read"}]},
        "D:P(A;;FA;;;S-1-5-18)(A;;FA;;;S-1-5-32-544)(A;;FR;;;S-1-5-32-568)",
    ),
    (MAIN, f"D:{BASE}", {"set": []}, "D:P(A;;FA;;;S-1-5-18)(A;;FA;;;S-1-5-32-544)"),
    (MAIN, f"D:{BASE}", {"set": [], "add": [NETWORK]}, "one or the other"),
    (MAIN, f"D:{BASE}", {"remove": [{"account": "BUILTIN\\Administrators"}]}, "keeps its access"),
    (MAIN, f"D:{BASE}", {"remove": [{"account": "LocalSystem"}]}, "keeps its access"),
    (MAIN, f"D:{BASE}", {"add": [NETWORK], "remove": [NETWORK]}, "both added and removed"),
    (MAIN, f"D:{BASE}(A;ID;FR;;;NS)", {"remove": [NETWORK]}, "by its folder"),
    (MAIN, f"D:{BASE}", {"add": [{"account": "Everyone", "rights": "read"}]}, "too many"),
    (MAIN, f"D:{BASE}", {"set": [{"account": "S-1-5-11", "rights": "read"}]}, "too many"),
    (MAIN, f"D:{BASE}", {"add": [{"account": "NOWHERE\\nobody", "rights": "read"}]}, "not known on this host"),
    (WAS, "D:(A;;FA;;;SY)(A;;FA;;;BA)", {"add": [IUSRS]}, "for WAS alone"),
    (WAS, "D:(A;;FA;;;SY)(A;;FA;;;BA)", {"set": [IUSRS]}, "for WAS alone"),
    (
        WAS,
        "D:(A;;FA;;;SY)(A;;FA;;;BA)",
        {"add": [{**IUSRS, "account": "S-1-5-82-1-2-3-4-5"}]},
        "for WAS alone",
    ),
]
ACCOUNTS = [
    ("BUILTIN\\IIS_IUSRS", "S-1-5-32-568"),
    ("IIS_IUSRS", "S-1-5-32-568"),
    ("nt authority\\system", "S-1-5-18"),
    ("LocalService", "S-1-5-19"),
    # as other languages call them, on an English Windows
    ("VORDEFINIERT\\Administratoren", "S-1-5-32-544"),
    ("NT-AUTORIT\u00c4T\\Lokaler Dienst", "S-1-5-19"),
    ("AUTORITE NT\\Syst\u00e8me", "S-1-5-18"),
    ("AUTORITE NT\\SERVICE R\u00c9SEAU", "S-1-5-20"),
    ("AUTORIDADE NT\\Servi\u00e7o local", "S-1-5-19"),
    ("NT AUTHORITY\\Servicio de red", "S-1-5-20"),
    ("NT AUTHORITY\\LOCAL SERVICE", "S-1-5-19"),
    (" Administrators ", "S-1-5-32-544"),
    ("S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1001"),
    ("S-1-x", "is not a SID"),
    ("NOWHERE\\nobody", "not known on this host"),
]
# of a key that is missing, damaged, other than wanted, as wanted; community.crypto's openssl_privatekey does the same
REGENERATION = {
    "never": ["generate", "fail", "keep", "keep"],
    "fail": ["generate", "fail", "fail", "keep"],
    "partial_idempotence": ["generate", "fail", "generate", "keep"],
    "full_idempotence": ["generate", "generate", "generate", "keep"],
    "always": ["generate", "generate", "generate", "generate"],
}


def windows(path: Path) -> str:
    return "Z:" + str(path).replace("/", "\\")


def library_job() -> dict[str, Any]:
    """The libraries that a script of the lab loads."""
    add_type = Path(ansible.__file__).parent / "module_utils" / "powershell" / "Ansible.ModuleUtils.AddType.psm1"
    return {
        "add_type": windows(add_type),
        "sources": [windows(UTILS / f"{name}.cs") for name in SOURCES],
        "modules": [windows(UTILS / f"{name}.psm1") for name in LIBRARIES],
    }


def staged_job(golden: Host, host: Host, folder: Path) -> dict[str, Any]:
    """Both hosts anew, FTPSVC stopped, the golden keys beside the host's own: what a script of the lab is told."""
    golden.reset()
    host.reset()
    folder.mkdir(parents=True, exist_ok=True)
    planned = []
    for container, name in KEYS.items():
        host.oracle("import", name, "exportable", stdin=golden.oracle("export", container, "private"))
        planned.append(
            {
                "container": container,
                "source": name,
                "fingerprint": golden.oracle("fingerprint", container),
                "bits": 2048,
                "sddl": "",
            }
        )
    for container in ("iisCngWasKey", "iisCngConfigurationKey"):
        # The stand-in's CNG keys are files that may be copied; so the golden file is good here as it is.
        host.key_file(container, cng=True).write_bytes(golden.key_file(container, cng=True).read_bytes())
    candidate = folder / "candidate.config"
    candidate.write_bytes(golden.config.read_bytes())
    host.stop_services("FTPSVC")
    staged = Dependents(host).stage()
    assert staged.read() == TEXTS
    return library_job() | {
        "candidate": "C:\\" + str(candidate.relative_to(host.drive_c)).replace("/", "\\"),
        "keys": planned,
    }


def outcome_of(host: Host, script: str, folder: Path, job: dict[str, Any], timeout: float) -> dict[str, Any]:
    """What the script printed; the file output.json beside the job keeps it."""
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    output = host.pwsh(f"& '{windows(HERE / script)}' -Job '{windows(folder / 'job.json')}'", timeout=timeout)
    (folder / "output.json").write_text(output, encoding="utf-8")
    return dict(json.loads(output[output.index("{") :]))


@pytest.fixture(scope="module")
def results(pwsh_farm: Farm) -> Iterator[dict[str, Any]]:
    """What the one process printed."""
    host = pwsh_farm.host("web2")
    folder = host.drive_c / "lab" / "transaction"
    job = staged_job(pwsh_farm.host("web1"), host, folder) | {
        "crashes": [*UNDONE, *COMPLETED],
        "deleted": list(DELETED),
        "access": ACCESS,
        "wanted": [{"container": name, "sddl": sddl, "access": access} for name, sddl, access, dummy in WANTED],
        "accounts": [name for name, dummy in ACCOUNTS],
    }
    for container, exportable in DELETED.items():
        host.oracle("create", container, "2048", exportable)
        host.oracle("setsddl", container, "D:(A;;FA;;;SY)(A;;FA;;;BA)(A;;FR;;;NS)")
    yield outcome_of(host, "transaction.ps1", folder, job, timeout=300)
    host.reset()


def test_the_old_state_is_what_the_test_believes(results: dict[str, Any]) -> None:
    start = results["start"]
    assert start["services"] == {
        "AppHostSvc": "running",
        "WAS": "running",
        "W3SVC": "running",
        "FTPSVC": "stopped",
        "WMSVC": "running",
    }
    assert not start["journal"] and start["undo_sets"] == 0
    assert all(text.startswith("present ") for text in start["keys"].values())


@pytest.mark.parametrize("point", [*UNDONE, *COMPLETED])
def test_a_crash_leaves_a_journal_and_an_undo_set(results: dict[str, Any], point: str) -> None:
    case = results[point]
    assert case["said"] == "crash"
    assert case["left"]["journal"] and case["left"]["undo_sets"] == 1
    # FTPSVC did not run; a crash while starting leaves all of them down
    if point != "stopping":
        assert set(case["left"]["services"].values()) == {"stopped"}


@pytest.mark.parametrize("point", UNDONE)
def test_the_next_run_undoes_what_was_not_complete(results: dict[str, Any], point: str) -> None:
    case, start = results[point], results["start"]
    assert case["settled"]["outcome"] == "undone", case["settled"]
    kept = 1 if case["found"] else 0
    assert case["now"] == {**start, "undo_sets": kept}
    assert case["again"]["outcome"] == "none"


def test_content_that_somebody_saved_meanwhile_is_kept(results: dict[str, Any]) -> None:
    text = " ".join(results["before written"]["settled"]["warnings"])
    assert "had been edited" in text
    assert results["before written"]["found"], "the undo set with the found content must stay"


@pytest.mark.parametrize("point", COMPLETED)
def test_the_next_run_completes_what_was_written(results: dict[str, Any], point: str) -> None:
    case, start = results[point], results["start"]
    assert case["settled"]["outcome"] == "completed", case["settled"]
    assert case["now"]["services"] == start["services"]
    assert not case["now"]["journal"] and case["now"]["undo_sets"] == 1
    for container, before in start["keys"].items():
        state, fingerprint, exportable, sddl = before.split(" ", 3)
        now = case["now"]["keys"][container].split(" ", 3)
        assert now[0] == state and now[1] != fingerprint and now[2:] == [exportable, sddl]


def test_a_crash_between_two_files_leaves_a_mixture(results: dict[str, Any]) -> None:
    start = dict(text.split() for text in results["start"]["others"])
    left = dict(text.split() for text in results["between files"]["left"]["others"])
    assert len(start) == 4
    changed = {name for name, mark in left.items() if mark != start[name]}
    assert changed == {"administration.config"} and results["between files"]["left"]["file"] != results["start"]["file"]


def test_a_completed_run_has_written_every_place(results: dict[str, Any]) -> None:
    assert not set(results["starting"]["now"]["others"]) & set(results["start"]["others"])
    assert len(results["reencrypted"]) == len(TEXTS) and results["lost"] == []


@pytest.mark.parametrize("number", range(len(WANTED)))
def test_wanted_access_lists(results: dict[str, Any], number: int) -> None:
    expected = WANTED[number][3]
    found = results["wanted"][number]
    if expected.startswith("D:") or expected == "unchanged":
        assert found == expected
    else:
        assert expected in found and "Nothing was changed" in found


@pytest.mark.parametrize("number", range(len(ACCOUNTS)))
def test_accounts(results: dict[str, Any], number: int) -> None:
    assert ACCOUNTS[number][1] in results["accounts"][number]


def test_regenerate_means_what_it_means_elsewhere(results: dict[str, Any]) -> None:
    assert results["regeneration"] == REGENERATION


def test_afterwards_the_host_is_as_before(results: dict[str, Any]) -> None:
    assert results["middle"]["others"] == results["start"]["others"]
    assert results["middle"]["keys"] == results["start"]["keys"]
    assert results["middle"]["file"] == results["start"]["file"]


def test_deleted_containers_come_back_when_the_run_dies(results: dict[str, Any]) -> None:
    case = results["deletion"]
    assert all(text.split()[1] == "present" for text in case["before"])
    assert case["said"] == "crash" and all(text.split()[1] == "missing" for text in case["left"])
    assert case["settled"]["outcome"] == "undone", case["settled"]
    assert case["now"] == case["before"]
    assert case["outcome"] == "committed" and all(text.split()[1] == "missing" for text in case["gone"])


def test_which_backups_precede_a_change_and_which_are_kept(results: dict[str, Any]) -> None:
    first, same, third, fourth = results["backups"]
    assert same == first and first.endswith("Z-00000001")
    assert third.endswith("-00000003") and fourth.endswith("-00000004")
    strange = ["mine", "webfarm-20200101T000000Z-00000000"]
    assert results["all_backups"] == results["none_deleted"] == sorted([*strange, first, third, fourth])
    assert results["kept_backups"] == sorted([*strange, third, fourth])
    assert results["records"] == sorted(["mine", third, fourth])
    none, unreadable, warning = results["no_backup"]
    assert (none, unreadable) == ("none wanted: ", "no configuration: ") and "is no configuration" in warning


def marks(*texts: str) -> list[str]:
    return [hashlib.sha256(text.encode("utf-16-le")).hexdigest() for text in texts]


def test_an_account_is_tried_once_and_with_its_own_password(results: dict[str, Any]) -> None:
    found = results["logon"]
    tried = {entry["account"]: entry["password"] for entry in found["tried"]}
    names = ["FARM\\svc-local", "FARM\\svc-away", "FARM\\svc-batch", ".\\web"]
    assert list(tried) == names and len(found["tried"]) == len(names)
    assert list(tried.values()) == marks("Local-Pa55", "Local-Pa55", "Local-Pa55", "Clear-1")
    (problem,) = found["problems"]
    assert problem.startswith("FARM\\svc-local, the account of the application pool Local, does not log on")
    assert "(1326)" in problem
    (warning,) = found["warnings"]
    assert "FARM\\svc-away" in warning and "could not be tried" in warning and "(1311)" in warning
    assert "Pa55" not in json.dumps(found) and "Clear-1" not in json.dumps(found)


def test_a_refused_logon_undoes_the_change_before_anything_is_started(results: dict[str, Any]) -> None:
    found = results["refused_logon"]
    assert found["outcome"] == "rolled_back" and "FARM\\svc-orders, the account of" in found["message"]
    assert "Started" not in found["message"].split("State:")[0], found["message"]
    accounts = [entry["account"] for entry in found["tried"]]
    assert sorted(accounts) == ["FARM\\svc-legacy", "FARM\\svc-orders", "FARM\\svc-shop"]
    assert marks("Orders<Pa55>")[0] in [entry["password"] for entry in found["tried"]]
    assert found["now"] == results["start"]
    assert "Pa55" not in json.dumps(found)


def test_a_damaged_journal_stops_the_run(results: dict[str, Any]) -> None:
    assert results["damaged_journal"]["outcome"] == "error"
    assert (
        "cannot be read" in results["damaged_journal"]["message"]
        and "journal.json" in results["damaged_journal"]["message"]
    )
    assert results["repaired_journal"]["outcome"] == "undone"


def test_one_run_per_host(results: dict[str, Any]) -> None:
    assert "Another run" in results["locked"]["message"]
    assert results["unlocked"]["outcome"] == "none"


def test_transport_keys_are_deleted_when_old_and_nothing_else_is(results: dict[str, Any]) -> None:
    assert (results["transport"], results["young"], results["old"], results["transport_after"]) == (
        "present",
        0,
        1,
        "missing",
    )
    assert "not the name of a transport container" in results["wrong_name"]


def test_access_lists_of_new_containers(results: dict[str, Any]) -> None:
    was, configuration, other = results["access"]
    system = "(A;;FA;;;S-1-5-18)(A;;FA;;;S-1-5-32-544)"
    assert was["sddl"] == f"D:P{system}(A;;FR;;;S-1-5-19)(A;;0x00120089;;;S-1-5-20)"
    assert [text.split(":")[0] for text in was["dropped"]] == ["S-1-5-32-568", "S-1-1-0", DOMAIN]
    assert (
        configuration["sddl"]
        == f"D:P(D;;0x00120089;;;S-1-5-32-546){system}(A;;FR;;;S-1-5-32-568)(A;;0x00120089;;;S-1-5-82-1-2-3-4-5)"
    )
    assert configuration["dropped"] == []
    assert other["sddl"] == f"D:P{system}"


def test_the_process_is_judged(results: dict[str, Any]) -> None:
    narrow, plain, good = results["host"]
    assert "32-bit PowerShell on 64-bit Windows" in narrow
    assert "WEB\\joe" in plain and "elevated" in plain
    assert good == "good"
