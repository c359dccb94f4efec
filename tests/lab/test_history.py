# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""history_restore: the right snapshot, from where the history is, under the keys that the server holds now."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lab import Host

CONTAINERS = ("iisWasKey", "iisConfigurationKey")
Module = Callable[..., dict[str, Any]]
Unchanged = Callable[..., AbstractContextManager[None]]
QUICK = {"stop_timeout": 20, "start_timeout": 40}


def snapshot(host: Host, number: int, content: bytes, below: str = "inetpub/history") -> Path:
    folder = host.drive_c / below / f"CFGHISTORY_{number:010d}"
    folder.mkdir(parents=True)
    (folder / "applicationHost.config").write_bytes(content)
    return folder


def serves(host: Host) -> int:
    return host.http("/", "", 80)[0]


def test_number_difference_and_a_torn_file(ansible_module: Module, web2: Host, unchanged: Unchanged) -> None:
    live = web2.config.read_bytes()
    older = live.replace(b"</configuration>", b"<!-- older --></configuration>")
    changed = re.sub(rb'(<add name="DefaultAppPool")', rb'\1 queueLength="4321"', live, count=1)
    assert changed != live
    web2.stop_services("AppHostSvc")  # it would keep the present file once more
    snapshot(web2, 7, changed)
    snapshot(web2, 8, older)
    snapshot(web2, 9, b"<configuration>")
    facts = ansible_module(web2, "server_info", gather_subset=["history"], decrypt="none")
    found = {one["number"]: one for one in facts["history"]["snapshots"]}
    assert found[8]["difference_count"] == 0 and found[9]["differences"] is None, found
    (only,) = found[7]["differences"]
    assert only["path"].endswith("[@name='DefaultAppPool']/@queueLength"), only
    assert (only["change"], only["before"], only["after"]) == ("removed", "4321", None)
    with unchanged(web2):
        plan = ansible_module(web2, "history_restore", check=True, diff=True, number=7)
    assert plan["changed"] is True and plan["snapshot"]["number"] == 7, plan
    assert [(one["change"], one["after"]) for one in plan["differences"]] == [("added", "4321")]
    with unchanged(web2):
        refused = ansible_module(web2, "history_restore", number=12)
    assert refused["failed"] and "no snapshot 12" in refused["msg"] and "8 (" in refused["msg"], refused
    with unchanged(web2):
        refused = ansible_module(web2, "history_restore", number=9)
    assert refused["failed"] and "Nothing was changed" in refused["msg"], refused

    # Torn while it serves. The newest snapshot is torn as well, so the one before it comes back.
    web2.write_file(web2.config, live[: len(live) // 3])
    done = ansible_module(web2, "history_restore", select="last_proven", start_services="automatic", **QUICK)
    assert done["changed"] is True and done["snapshot"]["number"] == 8, done
    assert web2.config.read_bytes() == older and serves(web2) == 200
    with unchanged(web2):
        again = ansible_module(web2, "history_restore", number=8, **QUICK)
    assert again["changed"] is False, again


def test_settings_stay_byte_exact_and_a_folder_of_its_own(
    ansible_module: Module, web2: Host, unchanged: Unchanged
) -> None:
    before = web2.config.read_bytes()
    with unchanged(web2):
        refused = ansible_module(web2, "history_restore", path="%SystemDrive%\\keep\\history")
    assert refused["failed"] and "AppHostSvc does not create it" in refused["msg"], refused
    (web2.drive_c / "inetpub/own").mkdir()
    options = {"path": "%SystemDrive%\\inetpub\\own", "max_histories": 33, "period": "00:05:00"}
    done = ansible_module(web2, "history_restore", **options)
    assert done["changed"] is True, done
    after = web2.config.read_bytes()
    element = re.search(rb"<configHistory[^>]*>", after)
    assert element is not None
    for text in (b'path="%SystemDrive%\\inetpub\\own"', b'maxHistories="33"', b'period="00:05:00"'):
        assert text in element[0], element[0]
    # Apart from the element, and the white space before a new one, nothing moved.
    bare = re.sub(rb"\s*<configHistory[^>]*>", b"", after)
    assert bare == re.sub(rb"\s*<configHistory[^>]*>", b"", before)
    # AppHostSvc took the setting up: its next snapshot lies there, and is what comes back when the file is torn behind
    # the setting. Until then the folder is missing, which is said.
    own = web2.drive_c / "inetpub/own"
    end = time.monotonic() + 120
    while not list(own.glob("CFGHISTORY_*/applicationHost.config")):
        assert time.monotonic() < end, web2.events()[-3:]
        time.sleep(1)
    with unchanged(web2):
        again = ansible_module(web2, "history_restore", **options)
    assert again["changed"] is False, again
    web2.stop_services("W3SVC", "WAS", "AppHostSvc")
    web2.write_file(web2.config, after[: element.end() + 200])
    own.rename(own.with_name("away"))
    options = {"time": "2100-01-01T00:00:00Z", "start_services": "automatic", **QUICK}
    with unchanged(web2):
        none = ansible_module(web2, "history_restore", **options)
    assert none["failed"] and "'C:\\inetpub\\own' does not exist" in none["msg"], none
    own.with_name("away").rename(own)
    seen = ansible_module(web2, "server_info", gather_subset=["history"])["history"]
    assert seen["path"] == "C:\\inetpub\\own" and seen["last_proven"], seen
    done = ansible_module(web2, "history_restore", **options)
    assert done["changed"] is True and "own" in done["snapshot"]["path"], done
    assert web2.config.read_bytes() == after and serves(web2) == 200


def test_a_snapshot_of_an_older_key_generation(
    ansible_module: Module, web2: Host, unchanged: Unchanged, tmp_path: Path
) -> None:
    """The keys were made anew: what the history holds opens with the old bundle only."""
    command = (
        "openssl req -x509 -newkey rsa:2048 -days 10 -nodes -subj /CN=custody -keyout custody.key -out custody.crt"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    live = web2.config.read_bytes()
    old = {name: web2.oracle("fingerprint", name) for name in CONTAINERS}
    values = set(re.findall(rb"\[enc:[^\]]+:enc\]", live))
    made = ansible_module(
        web2,
        "key_export",
        dest=str(tmp_path / "old.keyset.json"),
        farm="shop",
        recipients=[str(tmp_path / "custody.crt")],
    )
    assert made["changed"] is True, made
    web2.stop_services("WMSVC", "FTPSVC", "W3SVC", "WAS", "AppHostSvc")
    access = {name: web2.oracle("getsddl", name) for name in CONTAINERS}
    web2.oracle_batch(
        [
            command
            for name in CONTAINERS
            for command in (["delete", name], ["create", name, "2048", "exportable"], ["setsddl", name, access[name]])
        ]
    )
    new = {name: web2.oracle("fingerprint", name) for name in CONTAINERS}
    assert all(new[name] != old[name] for name in CONTAINERS)
    restore = {"select": "last_proven", "start_services": "automatic", **QUICK}
    with unchanged(web2):
        refused = ansible_module(web2, "history_restore", **restore)
    assert refused["failed"] and "opens with the keys of this server" in refused["msg"], refused
    restore |= {
        "bundle": str(tmp_path / "old.keyset.json"),
        "expected_fingerprints": old,
        "opening_file": str(tmp_path / "custody.key"),
    }
    with unchanged(web2):
        plan = ansible_module(web2, "history_restore", check=True, diff=True, **restore)
    assert plan["changed"] is True and plan["snapshot"]["rewrapped"] is True, plan
    assert "[enc:" not in json.dumps(plan)
    done = ansible_module(web2, "history_restore", **restore)
    assert done["changed"] is True and done["proof"]["proven"] == done["proof"]["total"] > 0, done
    after = web2.config.read_bytes()
    # The values are the old ones, under session keys that the present keys open.
    assert set(re.findall(rb"\[enc:[^\]]+:enc\]", after)) == values and after != live
    assert {name: web2.oracle("fingerprint", name) for name in CONTAINERS} == new
    assert serves(web2) == 200
