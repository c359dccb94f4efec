# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scheduled task that settles an interrupted run without the controller: when due, and when the host starts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from test_config import CONTAINERS, Material, fingerprints, kept, material, no_traces, serves, shop  # noqa: F401  # pylint: disable=unused-import

from lab import Host, scheduler, template

TASK = f"{scheduler.FOLDER}/webfarm.iis-settle"
STATE = "ProgramData/webfarm.iis"
CONFIG = "windows/system32/inetsrv/config/applicationHost.config"
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


def whole(host: Host, before: Any, types: dict[str, str], running: dict[str, str]) -> None:
    """The old state, complete and running, and nothing left over."""
    assert kept(host) == before
    assert start_types(host) == types and host.services() == running
    assert set(host.containers()) == set(CONTAINERS)
    no_traces(host)
    assert not list((host.drive_c / scheduler.FOLDER).iterdir())


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
    whole(web2, before, types, running)


def test_a_host_that_starts_again_undoes_a_mixture(
    shop: Material,  # noqa: F811
    ansible_module: Module,
    web2: Host,
) -> None:
    before, types, running, served = kept(web2), start_types(web2), web2.services(), serves(web2)
    # Somebody holds the file, so that writing it takes a while. By then the keys are the new ones.
    web2.fault("lock", path=CONFIG, seconds=300, readable=True)
    web2.fault("kill", marker=f"{CONFIG}.????????.webfarm", skip=1)
    lost = ansible_module(web2, "config", **shop.options())
    assert lost.get("failed") or lost.get("unreachable"), lost
    web2.clear_faults()
    assert fingerprints(web2) == shop.golden and web2.config.read_bytes() == before[0]
    assert json.loads((web2.drive_c / STATE / "journal.json").read_text())["phase"] == "writing"
    assert len(list(web2.config_dir.glob("*.webfarm"))) == 1
    assert {web2.services()[name] for name in template.SERVICES} == {"stopped"}
    assert "auto" not in {start_types(web2)[name] for name in template.SERVICES}
    web2.restart()
    whole(web2, before, types, running)
    assert serves(web2) == served


def test_the_time_comes_and_what_was_written_is_completed(
    shop: Material,  # noqa: F811
    ansible_module: Module,
    web2: Host,
) -> None:
    types, running = start_types(web2), web2.services()
    web2.fault("kill", marker=f"{STATE}/journal.json", contains='"phase": "starting"', skip=1, drop=True)
    lost = ansible_module(web2, "config", **shop.options())
    web2.clear_faults()
    assert lost.get("failed") or lost.get("unreachable"), lost
    assert (web2.drive_c / STATE / "journal.json").exists()
    make_due(web2)
    wait_for_task(web2)
    assert web2.config.read_bytes() == Path(shop.path("candidate.config")).read_bytes()
    assert fingerprints(web2) == shop.golden
    assert start_types(web2) == types and web2.services() == running
    assert serves(web2) == [200, 200, 200]
    left = sorted(path.name for path in (web2.drive_c / STATE).iterdir())
    assert left == ["backups", "undo"], left
