# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive on the controller: judged step by step, with its own keys or those of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from _support import filled_configuration
from test_action_flows import Target, bundle, custodian, folder, run, trust

from ansible_collections.webfarm.iis.plugins.plugin_utils import _action, _archive

__all__ = ["bundle", "custodian", "folder"]  # fixtures
OVERRIDE = {"system.applicationHost/sites/siteDefaults/logFile/@directory": "D:\\logs"}


def write(folder: Path, *, sealed: bool, marks: dict[str, str] | None = None) -> None:
    archive = _archive.Archive(
        name="20261120T073200",
        host="WEB1",
        machine_guid="guid-of-web1",
        created="2026-11-20T07:32:00Z",
        files={"applicationHost.config": filled_configuration(), "administration.config": b"<configuration />"},
        key_fingerprints=marks or {},
        bundle=(folder / "shop.keyset.json").read_bytes() if sealed else None,
    )
    (folder / "web1.tar").write_bytes(archive.to_bytes())


def without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


@pytest.mark.parametrize("sealed", [True, False], ids=["its own keys", "a bundle"])
def test_verified_without_the_server(folder: Path, bundle: dict[str, str], sealed: bool) -> None:
    accepted = [{"path": path, "reason": "CNG"} for path in cng_paths(folder, bundle)]
    write(folder, sealed=sealed)
    options = without(trust(bundle), "bundle") if sealed else trust(bundle)
    target = Target()
    result = run(
        "config_backup", target, folder, state="verified", src="web1.tar", accept_undecryptable=accepted, **options
    )
    assert not result.get("failed") and result["proof"]["proven"] > 0, result
    assert result["backup"]["host"] == "WEB1" and target.calls == []


def cng_paths(folder: Path, bundle: dict[str, str]) -> list[str]:
    """What no bundle opens: the paths of the values that the proof leaves."""
    write(folder, sealed=True)
    result = run(
        "config_backup", Target(), folder, state="verified", src="web1.tar", **without(trust(bundle), "bundle")
    )
    return [str(one["path"]) for one in result["protected_values"] if one["verdict"] != "ok"]


def test_what_was_good_before_a_failure_is_in_the_result(folder: Path, bundle: dict[str, str]) -> None:
    write(folder, sealed=True)
    other = without(trust(dict.fromkeys(bundle, "0" * 64)), "bundle")
    result = run("config_backup", Target(), folder, state="verified", src="web1.tar", **other)
    assert result["failed"] and result["archive"]["sha256"] and "proof" not in result, result
    write(folder, sealed=True, marks=dict.fromkeys(bundle, "1" * 64))
    result = run("config_backup", Target(), folder, state="verified", src="web1.tar")
    assert result["failed"] and "not the one its configuration was proven with" in result["msg"] and result["archive"]
    result = run("config_backup", Target(), folder, state="verified", src="absent.tar")
    assert result["failed"] and "archive" not in result


def test_the_target_gets_the_values_of_this_server_and_where_they_come_from(
    folder: Path, bundle: dict[str, str]
) -> None:
    write(folder, sealed=False)
    target = Target({"_pending": [], "changed": True})
    result = run(
        "config_backup",
        target,
        folder,
        check=True,
        state="restored",
        src="web1.tar",
        restore_keys=True,
        overrides=OVERRIDE,
        **trust(bundle),
    )
    assert not result.get("failed"), result
    (call,) = target.calls
    assert call["_machine_guid"] == "guid-of-web1" and len(call["_planned"]) == len(bundle)
    sent = _action.unpack(call["_content"], "it")
    assert b'directory="D:\\logs"' in sent and sent != filled_configuration()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"state": "present", "overrides": OVERRIDE}, "overrides: it has no meaning"),
        ({"state": "verified", "bundle": "shop.keyset.json"}, "bundle: it has no meaning"),
        ({"state": "restored", "restore_keys": True}, "give one of them"),
        ({"state": "restored", "src": "web1.tar", "bundle": "shop.keyset.json"}, "restore_keys=true only"),
        ({"state": "restored", "src": "web1.tar", "overrides": {"no/@such": "x"}}, "no/@such"),
    ],
)
def test_options_that_make_no_sense_together(
    folder: Path, bundle: dict[str, str], options: dict[str, Any], words: str
) -> None:
    write(folder, sealed=False)
    target = Target()
    result = run("config_backup", target, folder, **options)
    assert result["failed"] and words in result["msg"] and target.calls == [], result
