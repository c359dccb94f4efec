# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""config_backup: what appcmd sees of it, what is left when it is interrupted, the archive, and the way back from it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from lab import Host

CONTAINERS = ("iisWasKey", "iisConfigurationKey")
Module = Callable[..., dict[str, Any]]
Unchanged = Callable[..., AbstractContextManager[None]]


def appcmd(host: Host, *words: str) -> str:
    done = host.run(["C:\\windows\\system32\\inetsrv\\appcmd.exe", *words])
    assert done.returncode in (0, 1), done
    return bytes(done.stdout).decode().replace("\r\n", "\n").strip()


def folder(host: Host, name: str = "") -> Path:
    return host.config_dir.parent / "backup" / name


def fingerprints(host: Host) -> dict[str, str]:
    return {name: host.oracle("fingerprint", name) for name in CONTAINERS}


def members(path: Path) -> dict[str, bytes]:
    """What another reader of tar files finds in an archive."""
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def serves(host: Host) -> int:
    return host.http("/", "", 80)[0]


@pytest.fixture(scope="module")
def custody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("custody")
    command = (
        "openssl req -x509 -newkey rsa:2048 -days 10 -nodes -subj /CN=custody -keyout custody.key -out custody.crt"
    )
    subprocess.run(command.split(), cwd=place, check=True, capture_output=True)
    return place


def test_made_listed_restored_with_appcmd(ansible_module: Module, web2: Host, unchanged: Unchanged) -> None:
    live = web2.config.read_bytes()
    with unchanged(web2):
        plan = ansible_module(web2, "config_backup", check=True, diff=True, name="before release")
    assert plan["changed"] is True and plan["backup"]["planned"] is True, plan
    made = ansible_module(web2, "config_backup", name="before release")
    assert made["changed"] is True, made
    assert made["backup"]["proven"] and made["backup"]["intact"] and made["backup"]["origin"] == "webfarm"
    assert made["backup"]["key_fingerprints"].items() >= fingerprints(web2).items()
    assert {path.name for path in folder(web2, "before release").iterdir()} == {
        "administration.config",
        "applicationHost.config",
        "redirection.config",
    }
    assert 'BACKUP "before release"' in appcmd(web2, "list", "backups").splitlines()
    with unchanged(web2):
        again = ansible_module(web2, "config_backup", name="before release")
    assert again["changed"] is False, again

    # appcmd restores what we made, and we list what appcmd made.
    assert appcmd(web2, "add", "backup", "by-hand") == 'BACKUP object "by-hand" added'
    (folder(web2) / "half").mkdir()
    web2.write_file(web2.config, live.replace(b"</configuration>", b"<!-- edited --></configuration>"))
    assert "Restored" in appcmd(web2, "restore", "backup", "before release")
    assert web2.config.read_bytes() == live
    (folder(web2, "before release") / "administration.config").write_bytes(b"<configuration />")
    listed = ansible_module(web2, "server_info", gather_subset=["backups"])
    found = {one["name"]: one for one in listed["backups"]}
    assert set(found) == {"before release", "by-hand", "half"}
    assert (found["by-hand"]["origin"], found["by-hand"]["proven"], found["by-hand"]["intact"]) == (
        "appcmd",
        True,
        None,
    )
    assert found["by-hand"]["total"] > 0
    assert found["before release"]["intact"] is False and found["before release"]["proven"] is False
    assert found["half"]["complete"] is False and "no applicationHost.config" in found["half"]["message"]
    refused = ansible_module(web2, "config_backup", state="verified", name="before release")
    assert refused["failed"] and "Its files are not the ones" in refused["msg"], refused
    gone = ansible_module(web2, "config_backup", state="absent", name="before release")
    assert gone["changed"] is True and not folder(web2, "before release").exists(), gone
    assert not list((web2.drive_c / "ProgramData/webfarm.iis").rglob("*.json"))


def test_interrupted_nothing_bears_the_name(ansible_module: Module, web2: Host) -> None:
    partial = web2.config_dir.parent / "webfarm-backup.partial"
    web2.fault("kill", marker="windows/system32/inetsrv/webfarm-backup.partial/applicationHost.config")
    lost = ansible_module(web2, "config_backup", name="broken-off")
    web2.clear_faults()
    assert lost.get("failed") or lost.get("unreachable"), lost
    assert not folder(web2, "broken-off").exists() or len(list(folder(web2, "broken-off").iterdir())) == 3
    interrupted = not folder(web2, "broken-off").exists()
    done = ansible_module(web2, "config_backup", name="broken-off")
    assert done["changed"] is interrupted, done
    assert done["backup"]["proven"] and not partial.exists()


def test_a_full_disk_leaves_nothing(ansible_module: Module, web2: Host) -> None:
    web2.fault("full_disk", folder="windows/system32/inetsrv", free_kb=0)
    failed = ansible_module(web2, "config_backup", name="no-room")
    names = {path.name for path in (web2.config_dir.parent).iterdir()}
    backups = set(folder(web2).iterdir()) if folder(web2).exists() else set()
    web2.clear_faults()
    assert failed["failed"] and "was not made" in failed["msg"], failed
    assert "webfarm-backup.partial" not in names and not {path for path in backups if path.name == "no-room"}


def test_retention_never_takes_the_last_good_one(ansible_module: Module, web2: Host) -> None:
    first = ansible_module(web2, "config_backup")
    assert first["changed"] is True and len(first["backup"]["name"]) == 15, first
    # What a transaction made expires by a rule of its own, and is not taken for a backup of the server as it is.
    prior = folder(web2, "webfarm-20260101T000000Z-0123abcd")
    subprocess.run(["cp", "-a", str(folder(web2, first["backup"]["name"])), str(prior)], check=True)
    records = web2.drive_c / "ProgramData/webfarm.iis/backups"
    record = json.loads((records / f"{first['backup']['name']}.json").read_text()) | {"prior": True}
    (records / f"{prior.name}.json").write_text(json.dumps(record | {"created": record["created"] + 100}))
    same = ansible_module(web2, "config_backup")
    assert same["changed"] is False and same["backup"]["name"] == first["backup"]["name"], same
    named = folder(web2, "kept-by-hand")
    for name in ("20200101T000000", "20200102T000000", named.name):
        subprocess.run(["cp", "-a", str(folder(web2, first["backup"]["name"])), str(folder(web2, name))], check=True)
        (folder(web2, name)).touch()
    # The present configuration does not prove: nothing is made and nothing is deleted.
    live = web2.config.read_bytes()
    web2.stop_services("W3SVC", "WAS", "AppHostSvc")
    web2.write_file(web2.config, live[:-30])
    refused = ansible_module(web2, "config_backup", keep=1)
    assert refused["failed"] and "not well-formed" in refused["msg"], refused
    assert len(list(folder(web2).iterdir())) == 5
    web2.write_file(web2.config, live.replace(b"</configuration>", b"<!-- edited --></configuration>"))
    done = ansible_module(web2, "config_backup", keep=1, diff=True)
    assert sorted(done["deleted"]) == sorted(["20200101T000000", "20200102T000000", first["backup"]["name"]]), done
    assert {path.name for path in folder(web2).iterdir()} == {"kept-by-hand", prior.name, done["backup"]["name"]}


def test_fetched_lost_and_brought_back(
    ansible_module: Module, web2: Host, custody: Path, tmp_path: Path, unchanged: Unchanged
) -> None:
    """The whole circle: archive with sealed keys, a server without configuration and keys, and back."""
    pins, live = fingerprints(web2), web2.config.read_bytes()
    options = {"dest": f"{tmp_path}/", "recipients": [str(custody / "custody.crt")], "farm": "shop"}
    made = ansible_module(web2, "config_backup", name="golden", **options)
    assert made["changed"] is True, made
    path = Path(made["archive"]["path"])
    assert path.name == "web2.golden.backup.tar" and path.stat().st_mode & 0o777 == 0o600
    held = members(path)
    assert held["backup/applicationHost.config"] == live
    manifest = json.loads(held["manifest.json"])
    for entry in manifest["entries"]:
        assert entry["sha256"] == hashlib.sha256(held[entry["path"]]).hexdigest()
    bundle = json.loads(held["keys/keyset.json"])
    assert {key["container"]: key["fingerprint"] for key in bundle["containers"]} == pins
    before = path.read_bytes()
    with unchanged(web2):
        again = ansible_module(web2, "config_backup", name="golden", **options)
    assert again["changed"] is False and path.read_bytes() == before, again
    assert [one.name for one in tmp_path.iterdir() if one.suffix in (".tar", ".new")] == [path.name]

    opening = {"expected_fingerprints": pins, "opening_file": str(custody / "custody.key")}
    proof = ansible_module(web2, "config_backup", state="verified", src=str(path), **opening)
    assert not proof.get("failed") and proof["proof"]["method"] == "bundle", proof
    assert proof["proof"]["proven"] == proof["proof"]["total"] > 0
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(before.replace(b"</configuration>", b"</configuratioN>", 1))
    refused = ansible_module(web2, "config_backup", state="verified", src=str(damaged))
    assert refused["failed"] and "has another hash" in refused["msg"], refused

    # The keys are lost, the file is torn, and what served is down.
    web2.stop_services("WMSVC", "FTPSVC", "W3SVC", "WAS", "AppHostSvc")
    web2.oracle_batch([["delete", name] for name in CONTAINERS])
    web2.write_file(web2.config, live[: len(live) // 2])
    restore = {"state": "restored", "src": str(path), "start_services": "automatic", "stop_timeout": 20}
    with unchanged(web2):
        refused = ansible_module(web2, "config_backup", **restore)
    assert refused["failed"] and "Nothing was changed" in refused["msg"], refused
    with unchanged(web2):
        plan = ansible_module(web2, "config_backup", check=True, restore_keys=True, **restore, **opening)
    assert plan["changed"] is True and plan["proof"]["method"] == "bundle", plan
    done = ansible_module(web2, "config_backup", restore_keys=True, **restore, **opening)
    assert done["changed"] is True and done["transaction"]["outcome"] == "committed", done
    assert web2.config.read_bytes() == live and fingerprints(web2) == pins
    assert serves(web2) == 200
    with unchanged(web2):
        again = ansible_module(web2, "config_backup", restore_keys=True, **restore, **opening)
    assert again["changed"] is False, again


def test_a_restore_that_does_not_come_back_is_undone(ansible_module: Module, web2: Host) -> None:
    made = ansible_module(web2, "config_backup", name="good")
    assert made["changed"] is True, made
    edited = web2.config.read_bytes().replace(b"</configuration>", b"<!-- edited --></configuration>")
    web2.write_file(web2.config, edited)
    web2.fault("service", name="refuse-start-W3SVC", times=1)
    options = {"state": "restored", "name": "good", "stop_timeout": 20, "start_timeout": 30}
    failed = ansible_module(web2, "config_backup", **options)
    web2.clear_faults()
    assert failed["failed"] and failed["transaction"]["outcome"] == "rolled_back", failed
    assert web2.config.read_bytes() == edited and web2.services()["W3SVC"] == "running"
    # Torn while it serves, then missing altogether: both are brought back.
    web2.write_file(web2.config, edited[:-40])
    done = ansible_module(web2, "config_backup", **options)
    assert done["changed"] is True and serves(web2) == 200, done
    web2.stop_services("W3SVC", "WAS", "AppHostSvc")
    web2.config.unlink()
    done = ansible_module(web2, "config_backup", **options, start_services="automatic")
    assert done["changed"] is True and serves(web2) == 200, done
