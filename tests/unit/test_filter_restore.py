# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore chooses, and what a backup run says at its end."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.webfarm.iis.plugins.filter.backup_summary import backup_summary
from ansible_collections.webfarm.iis.plugins.filter.restore_choice import restore_choice

LIVE = {"path": "C:\\Windows\\System32\\inetsrv\\config\\applicationHost.config", "sha256": "live"}
TORN = {"part": "applicationHost.config", "message": "line 3: not well-formed"}


def snapshot(number: int, time: str, proven: bool | None = True, sha256: str = "old") -> dict[str, Any]:
    return {"number": number, "created": time, "proven": proven, "sha256": sha256}


def backup(name: str, time: str, proven: bool | None = True, sha256: str = "older") -> dict[str, Any]:
    files = [{"name": "applicationHost.config", "sha256": sha256}]
    return {"name": name, "created": time, "proven": proven, "files": files}


def facts(**more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "gathering_problems": [],
        "session_keys": [{"provider": "AesProvider", "verdict": "ok"}],
        "protected_values": [{"path": "a/@password", "verdict": "ok"}],
        "configuration_files": [LIVE],
        "history": {"snapshots": []},
        "backups": [],
    }
    return values | more


def test_a_good_server_is_left_alone_unless_forced() -> None:
    good = facts(backups=[backup("one", "2026-01-01T00:00:00Z")])
    assert restore_choice(good)["needed"] is False
    assert restore_choice(good)["source"] == "none"
    forced = restore_choice(good, force=True)
    assert (forced["source"], forced["name"]) == ("backup", "one")


@pytest.mark.parametrize(
    "broken",
    [
        {"gathering_problems": [TORN]},
        {"protected_values": [{"path": "a/@password", "verdict": "wrong_key"}]},
        {"session_keys": [{"provider": "AesProvider", "verdict": "missing_key"}]},
    ],
    ids=["torn", "foreign", "keyless"],
)
def test_the_newest_that_opens_is_chosen(broken: dict[str, Any]) -> None:
    history = {
        "snapshots": [
            snapshot(9, "2026-01-09T00:00:00Z", proven=False),
            snapshot(8, "2026-01-08T00:00:00Z", sha256="live"),
            snapshot(5, "2026-01-05T00:00:00Z"),
            snapshot(4, "2026-01-04T00:00:00Z", proven=None),
        ]
    }
    backups = [backup("mine", "2026-01-06T00:00:00Z"), backup("bad", "2026-01-07T00:00:00Z", proven=False)]
    choice = restore_choice(facts(history=history, backups=backups, **broken), archive="x.tar")
    assert (choice["source"], choice["name"]) == ("backup", "mine")
    assert any("snapshot 5" in line for line in choice["lines"])
    only = restore_choice(facts(history=history, backups=backups, **broken), source="history")
    assert (only["source"], only["number"]) == ("history", 5)


def test_what_is_left_when_nothing_opens() -> None:
    lost = facts(gathering_problems=[TORN], history={"snapshots": [snapshot(1, "2026-01-01T00:00:00Z", False)]})
    assert restore_choice(lost, archive="x.tar", bundle="b.json")["source"] == "archive"
    assert restore_choice(lost, bundle="b.json")["source"] == "bundle"
    none = restore_choice(lost)
    assert (none["source"], none["needed"]) == ("none", True)
    assert "1 snapshots" in none["why"] and "restore_archive" in none["why"]
    assert "only the backup" in restore_choice(lost, source="backup", archive="x.tar")["why"]


def test_other_facts_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="gather_subset"):
        restore_choice({"history": {}})


def test_the_summary_says_what_failed_first() -> None:
    made = {"changed": True, "backup": {"name": "20260101T000000", "created": "2026-01-01T00:00:00Z"}, "deleted": ["x"]}
    lines = backup_summary(
        [
            {
                "inventory_hostname": "web1",
                "backup_result": made | {"archive": {"path": "/b/web1.tar", "changed": True}},
            },
            {"inventory_hostname": "web2", "backup_result": {"failed": True, "msg": "torn"}},
            {"inventory_hostname": "web3", "backup_result": {"unreachable": True, "msg": "down"}},
            {"inventory_hostname": "web4"},
        ]
    )
    assert lines == [
        "web2: FAILED, torn",
        "web3: UNREACHABLE, no backup: down",
        "web4: not reached, no backup",
        "web1: 20260101T000000 made 2026-01-01T00:00:00Z; fetched to /b/web1.tar; deleted x",
        "1 of 4 servers have a proven backup.",
    ]
