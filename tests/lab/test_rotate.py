# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sync_keys and rotate on the simulated farm, also interrupted; the oracle says who can read what."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rotation import (
    CONTAINERS,
    JOURNAL,
    bundle,
    declared,
    fingerprints,
    healthy,
    held,
    opened,
    statuses,
    variables,
)

from lab import Farm, Host


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The variables of a farm of two: web1 golden, web2 with a configuration of its own."""
    return variables(tmp_path_factory.mktemp("project"), "web2")


def killed_controller(farm: Farm, host: Host, extra: Path) -> None:
    """Start rotate and kill the controller, all of it, as soon as the host's transaction has begun to write."""
    command = ["ansible-playbook", "-i", str(farm.inventory), "webfarm.iis.rotate", "-e", f"@{extra}"]
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}
    journal = host.drive_c / JOURNAL
    with subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        end = time.monotonic() + 240
        while not journal.exists():
            assert process.poll() is None, "the run ended before the transaction began"
            assert time.monotonic() < end
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)


def test_the_life_of_the_farms_keys(
    farm: Farm,
    web1: Host,
    web2: Host,
    playbook: Callable[..., Any],
    project: dict[str, Any],
    unchanged: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Sync, sync again, rotate, rotate with two interruptions, and the way back, one after the other."""

    def run(name: str, *arguments: str, **more: Any) -> Any:
        return playbook(f"webfarm.iis.{name}", *arguments, extra_vars=project | more)

    hosts = (web1, web2)
    pages = {host.name: statuses(host) for host in hosts}
    assert set(pages["web1"]) == {200}
    texts = {host.name: opened(host, host.config.read_text("utf-8-sig")) for host in hosts}
    assert all(texts.values()), "both servers need values that tell something"

    # --- sync: the golden server's keys come, the configuration stays
    golden, own = fingerprints(web1), web2.config.read_text("utf-8-sig")
    assert fingerprints(web2) != golden
    with unchanged(web1):
        done = run("sync_keys")
    assert done.rc == 0, done.text
    assert {name: recap["changed"] for name, recap in done.recap.items()} == {"web1": 1, "web2": 1}
    assert fingerprints(web2) == golden
    synced = web2.config.read_text("utf-8-sig")
    hide = re.compile(r'(\[enc:\w+:)[^:"]+|(sessionKey=")[^"]+')
    assert hide.sub(r"\1\2", synced) == hide.sub(r"\1\2", own)
    assert opened(web2, synced) == texts["web2"]
    healthy(web2, pages["web2"])
    with unchanged(web1, web2):
        again = run("sync_keys")
    assert again.rc == 0 and again.changed == 0, again.text

    # --- rotate: whoever held the old keys and files reads nothing of the new ones
    old_files = {host.name: host.config.read_text("utf-8-sig") for host in hosts}
    for name in CONTAINERS:
        blob = web1.oracle("export", name, "private")
        web1.oracle("import", f"thief-{name}", "exportable", stdin=blob)
    done = run("rotate", rotate_size=3072)
    assert done.rc == 0, done.text
    assert bundle(project)["generation"] == 2
    assert {item["bits"] for item in bundle(project)["containers"]} == {3072}
    second = held(project)
    assert not set(second.values()) & set(golden.values())
    thief = {name: f"thief-{name}" for name in CONTAINERS}
    for host in hosts:
        new = host.config.read_text("utf-8-sig")
        assert fingerprints(host) == second
        assert opened(host, new) == texts[host.name]
        healthy(host, pages[host.name])
        before, after = declared(old_files[host.name]), declared(new)
        assert not {key for _name, key in before.values() if key} & {key for _name, key in after.values() if key}
        # the old keys with the new session keys, and with those of the old file
        for sessions in (None, old_files[host.name]):
            stolen = opened(web1, new, thief, sessions, check=False)
            assert not set(stolen) & set(texts[host.name])
    # the thief's keys are the old ones indeed
    assert opened(web1, old_files["web1"], thief) == texts["web1"]
    for name in thief.values():
        web1.oracle("delete", name)
    work = Path(project["provision_work_dir"])
    assert json.loads((work / "shop.gen1.keyset.json").read_text())["generation"] == 1

    # --- the controller is killed while the golden server writes
    extra = tmp_path / "variables.json"
    extra.write_text(json.dumps(project))
    killed_controller(farm, web1, extra)
    assert bundle(project)["generation"] == 3
    third = held(project)
    # web2 next: its process is killed and the connection cut in the middle of the transaction
    # skip: the first call only looks
    web2.fault("kill", marker=JOURNAL, drop=True, skip=1)
    second_try = run("rotate")
    assert second_try.rc != 0, second_try.text
    assert bundle(project)["generation"] == 3
    assert fingerprints(web1) == third
    healthy(web1, pages["web1"])
    assert opened(web1, web1.config.read_text("utf-8-sig")) == texts["web1"]
    assert (web2.drive_c / JOURNAL).exists()
    web2.clear_faults()
    finished = run("rotate")
    assert finished.rc == 0, finished.text
    assert bundle(project)["generation"] == 3 and held(project) == third
    for host in hosts:
        assert fingerprints(host) == third
        assert opened(host, host.config.read_text("utf-8-sig")) == texts[host.name]
        healthy(host, pages[host.name])

    # --- the way back
    back = run("rotate", rotate_generation=2)
    assert back.rc == 0, back.text
    assert bundle(project)["generation"] == 2
    for host in hosts:
        assert fingerprints(host) == second
        assert opened(host, host.config.read_text("utf-8-sig")) == texts[host.name]
        healthy(host, pages[host.name])
    assert json.loads((work / "shop.gen3.keyset.json").read_text())["generation"] == 3
