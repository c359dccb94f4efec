# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scheduled task that settles an interrupted run without the controller: when due, and when the host starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from test_config import CONTAINERS, Material, kept, material, no_traces, serves, shop  # noqa: F401

from lab import Host, scheduler

TASK = f"{scheduler.FOLDER}/webfarm.iis-settle"
STATE = "ProgramData/webfarm.iis"
Module = Callable[..., dict[str, Any]]


def start_types(host: Host) -> dict[str, str]:
    return {name: values["start"] for name, values in host.service_details().items()}


def make_due(host: Host) -> None:
    """The time of the task has come: its definition is put into the past."""
    path = host.drive_c / TASK
    task = scheduler.read(path)
    assert task.due is not None and 0 < task.due - time.time() <= 15 * 60
    then = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(task.due)).encode("utf-16-le")
    data = path.read_bytes()
    assert then in data
    path.write_bytes(data.replace(then, "2020-01-01T00:00:00Z".encode("utf-16-le")))


def wait_for_task(host: Host, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while (host.drive_c / TASK).exists() and time.monotonic() < end:
        time.sleep(0.5)
    assert not (host.drive_c / TASK).exists(), (host.farm.folder / "endpoint.log").read_text(encoding="utf-8")[-600:]


def test_a_service_that_never_stops_is_not_killed_and_the_task_puts_things_right(
    shop: Material,  # noqa: F811
    ansible_module: Module,
    web2: Host,
) -> None:
    before, types, running = kept(web2), start_types(web2), web2.services()
    web2.fault("service", name="hang-stop-W3SVC")
    pid = web2.service_details()["W3SVC"]["pid"]
    failed = ansible_module(web2, "config", **shop.options(stop_timeout=5, start_timeout=5))
    assert failed["failed"] and failed["transaction"]["outcome"] == "rollback_failed", failed
    for word in ("W3SVC", "stop_timeout", "not killed", "were not touched", "scheduled task"):
        assert word in failed["msg"], failed["msg"]
    assert web2.service_details()["W3SVC"]["pid"] == pid and web2.services()["W3SVC"] == "stop_pending"
    assert (web2.drive_c / STATE / "journal.json").exists()
    task = scheduler.read(web2.drive_c / TASK)
    assert task.user == "S-1-5-18" and task.at_boot and task.interval == 300
    web2.clear_faults()
    make_due(web2)
    wait_for_task(web2)
    assert kept(web2) == before
    assert start_types(web2) == types and web2.services() == running
    no_traces(web2)
    assert not (web2.drive_c / STATE / "settle.ps1").exists()


def test_a_host_that_starts_again_settles_what_was_cut_off(
    shop: Material,  # noqa: F811
    ansible_module: Module,
    web2: Host,
) -> None:
    before, types, running = kept(web2), start_types(web2), web2.services()
    web2.fault("kill", marker=TASK, skip=1, drop=True)
    lost = ansible_module(web2, "config", **shop.options())
    web2.clear_faults()
    assert lost.get("failed") or lost.get("unreachable"), lost
    assert (web2.drive_c / STATE / "journal.json").exists() and (web2.drive_c / TASK).exists()
    web2.restart()
    assert not (web2.drive_c / TASK).exists()
    assert not (web2.drive_c / STATE / "journal.json").exists()
    assert start_types(web2) == types and web2.services() == running
    assert kept(web2) == before
    assert serves(web2) == [200, 200, 200]
    assert set(web2.containers()) == set(CONTAINERS)
    no_traces(web2)
    assert Path(shop.path("candidate.config")).is_file()
