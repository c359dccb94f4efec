# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table at the end of a run."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.webfarm.iis.plugins.filter.provision_summary import provision_summary

GOLDEN = {
    "inventory_hostname": "web1",
    "provision_export": {
        "changed": True,
        "key_containers": [
            {"container": "iisWasKey", "fingerprint": "a" * 64},
            {"container": "iisConfigurationKey", "fingerprint": "b" * 64},
        ],
    },
    "provision_rewrap": {
        "protected_values": [
            {"path": "one", "verdict": "ok"},
            {"path": "two", "verdict": "garbage", "accepted": True, "reason": "site is retired"},
        ],
        "conversions": [{"path": "one"}],
    },
}
MEMBER: dict[str, Any] = {
    "inventory_hostname": "web3",
    "provision_config": {
        "changed": True,
        "key_containers": [
            {
                "container": "iisWasKey",
                "before": {"state": "missing", "fingerprint": None},
                "after": {"state": "present", "fingerprint": "a" * 64},
            },
            {
                "container": "iisConfigurationKey",
                "before": {"fingerprint": "c" * 64},
                "after": {"fingerprint": "b" * 64},
            },
        ],
        "proof": {"method": "target", "proven": 12, "total": 13},
        "protected_values": [],
        "services": [
            {"name": "WAS", "before": "running", "after": "running"},
            {"name": "FTPSVC", "before": "stopped", "after": "stopped"},
            {"name": "W3SVC", "before": "running", "after": "running"},
        ],
    },
}


def test_one_line_for_each_container() -> None:
    lines = provision_summary([GOLDEN, MEMBER])
    assert lines[0].split() == ["HOST", "KEY", "CONTAINER", "BEFORE", "AFTER", "VALUES", "PROVEN", "RESULT", "SERVICES"]
    assert lines[2].startswith("web1  iisWasKey")
    assert "1 of 2" in lines[2]
    assert lines[4].split() == (
        [
            "web3",
            "iisWasKey",
            "missing",
            "aaaaaaaaaaaa",
            "12",
            "of",
            "13",
            "(target)",
            "changed",
            "running:",
            "WAS",
            "W3SVC;",
            "stopped:",
            "FTPSVC",
        ]
    )
    assert lines[5].split() == ["iisConfigurationKey", "cccccccccccc", "bbbbbbbbbbbb"]


def test_accepted_values_and_conversions_are_named() -> None:
    text = "\n".join(provision_summary([GOLDEN]))
    assert "web1: accepted although it cannot be read: two (site is retired)" in text
    assert "1 values under CNG keys" not in text
    assert "1 value under CNG keys" in text


def test_an_unchanged_server_was_not_touched() -> None:
    unchanged = MEMBER | {"provision_config": MEMBER["provision_config"] | {"changed": False, "services": []}}
    assert provision_summary([unchanged])[2].endswith("unchanged  not touched")


def test_failed_and_untouched_hosts_have_no_line() -> None:
    failed = {
        "inventory_hostname": "web2",
        "provision_config": {"failed": True, "key_containers": [{"container": "x"}]},
    }
    assert provision_summary([failed, {"inventory_hostname": "web4"}]) == ["No server was provisioned in this run."]


@pytest.mark.parametrize("wrong", ["web1", {"web1": {}}, 3])
def test_wrong_input_is_an_error(wrong: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="list of host variables"):
        provision_summary(wrong)


def test_with_own_keys() -> None:
    golden = {
        "inventory_hostname": "web1",
        "provision_export": {"skipped": True},
        "provision_rewrap": {
            **GOLDEN["provision_rewrap"],
            "session_keys": [
                {"container": "iisWasKey"},
                {"container": "iisWasKey"},
                {"container": "iisConfigurationKey"},
            ],
            "targets": [{"name": "web3", "changed": True}, {"name": "web4", "changed": False}],
        },
    }
    member = {
        "inventory_hostname": "web3",
        "provision_config": {
            **MEMBER["provision_config"],
            "key_containers": [],
            "protected_values": [{"container": "iisWasKey", "path": "x", "accepted": True, "reason": "retired"}],
        },
        "provision_public_keys": {
            "key_containers": [
                {"container": "iisWasKey", "fingerprint": "d" * 64},
                {"container": "TSSecKeySet1", "fingerprint": "e" * 64},
            ]
        },
    }
    lines = provision_summary([golden, member])
    assert lines[2].startswith("web1  iisWasKey")
    assert "golden, 1 of 2 files made anew" in lines[2]
    assert lines[4].split()[:4] == ["web3", "iisWasKey", "dddddddddddd", "dddddddddddd"]
    assert "TSSecKeySet1" not in "".join(lines)
    assert lines[-1] == "web3: accepted although it cannot be read: x (retired)"
