# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks backup and restore: from a staged disaster to sites that answer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lab import Host

CONTAINERS = ("iisWasKey", "iisConfigurationKey")
Unchanged = Callable[..., AbstractContextManager[None]]


def serves(host: Host) -> int:
    return host.http("/", "", 80)[0]


def down(host: Host) -> None:
    host.stop_services("WMSVC", "FTPSVC", "W3SVC", "WAS", "AppHostSvc")


def test_backed_up_broken_in_three_ways_and_restored(
    web1: Host, web2: Host, playbook: Callable[..., Any], unchanged: Unchanged, tmp_path: Path
) -> None:
    command = (
        "openssl req -x509 -newkey rsa:2048 -days 10 -nodes -subj /CN=custody -keyout custody.key -out custody.crt"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    live = web2.config.read_bytes()
    pins = {name: web2.oracle("fingerprint", name) for name in CONTAINERS}
    target = {"target_hosts": "web2"}
    settings = target | {
        "backup_dest": f"{tmp_path}/archives/",
        "backup_recipients": [str(tmp_path / "custody.crt")],
        "backup_farm": "shop",
    }
    run = playbook("webfarm.iis.backup", extra_vars=settings)
    assert run.rc == 0, run.text
    assert "1 of 1 servers have a proven backup." in run.text
    (archive,) = (tmp_path / "archives").iterdir()
    with unchanged(web2):
        run = playbook("webfarm.iis.backup", extra_vars=settings)
    assert run.rc == 0 and run.changed == 0, run.text

    options = target | {"restore_start_timeout": 60, "restore_stop_timeout": 30}
    with unchanged(web2):
        run = playbook("webfarm.iis.restore", extra_vars=options)
    assert run.rc == 0 and run.changed == 0 and "nothing is restored" in run.text, run.text

    # Malformed: dry run, then back. A backup run says so and ends with an exit code.
    down(web2)
    web2.write_file(web2.config, live[: len(live) // 2])
    with unchanged(web2):
        run = playbook("webfarm.iis.backup", extra_vars=settings)
    assert run.rc != 0 and "0 of 1 servers have a proven backup." in run.text, run.text
    with unchanged(web2):
        run = playbook("webfarm.iis.restore", "--check", extra_vars=options)
    assert run.rc == 0 and run.changed == 1, run.text
    run = playbook("webfarm.iis.restore", extra_vars=options)
    assert run.rc == 0 and "is the newest that opens with the keys of this server" in run.text, run.text
    assert web2.config.read_bytes() == live and serves(web2) == 200

    # The configuration of another server.
    down(web2)
    web2.write_file(web2.config, web1.config.read_bytes())
    run = playbook("webfarm.iis.restore", extra_vars=options)
    assert run.rc == 0 and "do not open" in run.text, run.text
    assert web2.config.read_bytes() == live and serves(web2) == 200

    # The keys are lost: nothing on the server helps, the archive does.
    down(web2)
    web2.oracle_batch([["delete", name] for name in CONTAINERS])
    with unchanged(web2):
        run = playbook("webfarm.iis.restore", extra_vars=options)
    assert run.rc != 0 and "restore_archive" in run.text, run.text
    run = playbook(
        "webfarm.iis.restore",
        extra_vars=options
        | {
            "restore_archive": str(archive),
            "restore_expected_fingerprints": pins,
            "restore_opening_file": str(tmp_path / "custody.key"),
        },
    )
    assert run.rc == 0 and "brings its own keys" in run.text, run.text
    assert {name: web2.oracle("fingerprint", name) for name in CONTAINERS} == pins
    assert web2.config.read_bytes() == live and serves(web2) == 200
