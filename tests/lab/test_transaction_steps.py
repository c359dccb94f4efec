# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The promise of the transaction, with a fault at every one of its steps.

The steps come from the code itself, see steps.ps1; a fault that would be the same as another one is left out. Each
time: what is left is the old state, the new state, or something that the journal settles; WAS never runs on a mixture
and would not be started on one by a restart of the host; afterwards the host is whole and serves, and nothing is left
over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from test_transaction_target import outcome_of, staged_job

from ansible_collections.webfarm.iis.plugins.plugin_utils._action import settler
from lab import Farm

Case = dict[str, Any]
INSTRUMENTED = ("_BackupFolder", "_Deadman", "_Journal", "_Service", "_Transaction")
# before: the process is killed before the step, by itself or with its connection. during: in the middle of it. once:
# the step fails. stays: it fails, and fails again while undoing. full: from there on no file can be written.
KINDS = ("before", "during", "once", "stays", "full")


@pytest.fixture(scope="module")
def results(pwsh_farm: Farm) -> Iterator[dict[str, Any]]:
    host = pwsh_farm.host("web2")
    folder = host.drive_c / "lab" / "steps"
    job = staged_job(pwsh_farm.host("web1"), host, folder) | {
        "instrumented": INSTRUMENTED,
        "settler": settler(),
        "kinds": KINDS,
    }
    yield outcome_of(host, "steps.ps1", folder, job, timeout=1500)
    host.reset()


def cases(results: dict[str, Any], *kinds: str) -> Iterator[tuple[str, Case]]:
    found = [case for case in results["cases"] if case["kind"] in kinds]
    assert found
    for case in found:
        yield f"{case['kind']} step {case['at']}, {case['step']}: {case['outcome']} {case['message']}", case


def state_of(case: Case, results: dict[str, Any]) -> str:
    """old, new or mixed."""
    for name in ("start", "new"):
        if case["parts"] == results[name]["parts"]:
            return name
    return "mixed"


def whole_backups(entries: list[str]) -> int:
    """How many backups there are; each has its record, and nothing else is there."""
    names = {entry.rsplit("\\", 1)[1].removesuffix(".json") for entry in entries}
    assert sorted(entries) == sorted(
        [f"\\inetsrv\\backup\\{name}" for name in names] + [f"\\backups\\{name}.json" for name in names]
    ), entries
    return len(names)


def test_a_backup_precedes_every_change(results: dict[str, Any]) -> None:
    assert whole_backups(results["new"]["backups"]) == 1 and not results["start"]["backups"]
    for name, case in cases(results, *KINDS):
        left = case["left"]
        if left["task"] or state_of(left, results) != "start":
            assert any("\\inetsrv\\backup\\webfarm-" in entry for entry in left["backups"]), name


def test_the_steps_are_the_whole_transaction(results: dict[str, Any]) -> None:
    assert results["outcome"] == "committed", results["message"]
    assert results["reset"]["parts"] == results["start"]["parts"]
    assert all(results["new"]["parts"][name] != mark for name, mark in results["start"]["parts"].items())
    trace = "\n".join(results["trace"])
    for part in (
        "Write-WebfarmBackup",
        "Save-WebfarmBackupRecord",
        "Set-WebfarmDeadman",
        "Save-WebfarmJournal",
        "WebfarmService.SetStartType",
        "WebfarmService.Stop",
        "WebfarmKeyContainer.ImportPrivate",
        "WebfarmConfiguration.WriteFile",
        "Set-ItemProperty",
        "WebfarmService.Start",
        "Remove-WebfarmJournal",
        "Clear-WebfarmDeadman",
    ):
        assert part in trace, trace
    assert len(results["trace"]) > 30


def test_whoever_lost_the_connection_is_told_to_wait_at_every_step(results: dict[str, Any]) -> None:
    # the run went on unseen and ended well, see above; nobody came between
    assert len(results["asked"]) == len(results["trace"])
    assert all("Another run changes keys or configuration of this host" in said for said in results["asked"])


def test_every_step_was_hit(results: dict[str, Any]) -> None:
    trace = results["trace"]
    hit = {kind: {case["step"] for case in results["cases"] if case["kind"] == kind} for kind in KINDS}
    assert hit["before"] == hit["once"] == set(trace)
    assert hit["during"] == hit["full"] == {step for step in trace if ".Write" in step}
    assert {step for step in trace if "WebfarmService" in step or "WebfarmKeyContainer" in step} < hit["stays"]
    for case in results["cases"]:
        assert case["step"] == trace[case["at"] - 1], case["at"]


def test_a_mixture_has_a_journal_and_nothing_runs_on_it(results: dict[str, Any]) -> None:
    mixed = 0
    for name, case in cases(results, *KINDS):
        left = case["left"]
        if state_of(left, results) == "mixed":
            mixed += 1
            assert left["journal"] and left["task"], name
            assert left["services"]["WAS"] == left["services"]["W3SVC"] == "stopped", name
            # a restart of the host would start none of them
            assert not [service for service, start in left["starts"].items() if start == "auto"], name
    assert mixed > 10


def test_a_run_that_ends_by_itself_leaves_the_old_or_the_new_state(results: dict[str, Any]) -> None:
    for name, case in cases(results, "once"):
        expected = {"committed": "new", "rolled_back": "start", "none": "start", "refused": "start"}
        if case["outcome"] == "rollback_failed":
            assert case["left"]["journal"], name
            continue
        assert state_of(case["left"], results) == expected[case["outcome"]], name
        assert not case["left"]["journal"], name


def test_afterwards_the_host_is_whole(results: dict[str, Any]) -> None:
    start = results["start"]
    for name, case in cases(results, *KINDS):
        now = case["now"]
        assert not case["healed"].startswith("error") and case["healed"] not in ("task 1", "task 3"), (
            f"{name} {case['healed']}"
        )
        state = state_of(now, results)
        assert state in ("start", "new"), name
        if case["healed"] == "completed":
            assert state == "new", name
        for part in ("services", "starts", "pools", "sites"):
            if state == "start" or part in ("services", "starts"):
                assert now[part] == start[part], f"{name}: {part}"
        assert not now["journal"] and not now["task"] and not now["state"], f"{name}: {now['state']} {now['task']}"
        assert now["beside"] == start["beside"], name
        assert whole_backups(now["backups"]) in (0, 1), f"{name}: {now['backups']}"
        # Killed between undo set and journal, a complete undo set of the old state stays until it expires.
        complete = case["outcome"] == "killed" and case["step"].startswith("Save-WebfarmJournal") and case["at"] < 16
        assert now["undo_sets"] == 1 if state == "new" else now["undo_sets"] <= int(complete), name
