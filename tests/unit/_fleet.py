# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Host records without hosts: what server_info returned in the lab, changed as a test or a large fleet needs it."""

from __future__ import annotations

import copy
import datetime
import functools
import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.webfarm.iis.plugins.plugin_utils import _record

NOW = datetime.datetime(2026, 11, 23, 18, 0, tzinfo=datetime.UTC)
RECORDED = "2026-11-23T17:55:00Z"

Facts = dict[str, Any]
Change = Callable[[Facts], None]


@functools.cache
def _recorded() -> str:
    return (Path(__file__).parent / "data" / "server_info.json").read_text(encoding="utf-8")


def digest(*words: object) -> str:
    """Stands for a fingerprint or the hash of a file."""
    return hashlib.sha256("/".join(str(word) for word in words).encode()).hexdigest()


def container(facts: Facts, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in facts["key_containers"] if one["container"] == name)
    return found


def facts(host: str = "web1", farm: str = "shop", generation: int = 1, full: bool = True) -> Facts:
    """A server in order: the farm's keys, every value opens, all under portable providers.

    full: with the facts of history, backups and canonical digest.
    """
    data: Facts = json.loads(_recorded())
    guid = str(uuid.uuid5(uuid.NAMESPACE_DNS, host))
    data["host"].update(name=host.upper()[:15], machine_guid=guid)
    for one in data["key_containers"]:
        for name in ("file_expected", "file_path"):
            if one[name]:
                one[name] = one[name].rpartition("_")[0] + "_" + guid
        if one["fingerprint"]:
            one["fingerprint"] = digest(farm, one["container"], generation)
    for one in data["protected_values"]:
        if one["kind"] == "cng":
            was = one["container"] == "iisCngWasKey"
            one.update(
                provider="IISWASOnlyAesProvider" if was else "AesProvider",
                kind="aes",
                container="iisWasKey" if was else "iisConfigurationKey",
            )
    data["configuration_files"][0]["sha256"] = digest(host, "applicationHost.config")
    if full:
        attributes = {f"system.applicationHost/sites/site[@name='{farm}']/@id": "1", "system.webServer/@x": "2"}
        set_configuration(data, attributes)
        data.update(format_version="1.2", encrypted_attributes=[], run_key_id="run")
        one = {"site": "Shop", "application": "/", "runtime": "v4.0", "bits": 64, "state": "explicit"}
        data["machine_keys"] = [
            one | {"source": r"C:\inetpub\shop\web.config", "fingerprint": digest(farm, "machineKey")}
        ]
        section = {"path": "connectionStrings", "provider": "RsaProtectedConfigurationProvider", "kind": "rsa"}
        section |= {"container": "NetFrameworkConfigurationKey", "verdict": "ok", "message": None, "fix": None}
        data["web_configurations"] = [{"path": r"C:\inetpub\shop\web.config", "message": None, "sections": [section]}]
        data["history"] = {"enabled": True, "path": r"C:\inetpub\history", "snapshots": 10, "newest": RECORDED}
        data["backups"] = [{"name": "daily", "created": "2026-11-23T02:00:00Z", "proven": True}]
    return data


def set_configuration(data: Facts, attributes: Mapping[str, str]) -> None:
    """Make applicationHost.config say this."""
    data["configuration_files"][0].update(
        canonical_digest=digest(json.dumps(dict(attributes), sort_keys=True)),
        canonical_keyed_digest="same",
        canonical_attributes=dict(attributes),
    )


def record(host: str = "web1", farm: str = "shop", change: Change | None = None, **more: Any) -> dict[str, Any]:
    """A record of a host in order, or of what *change* makes of its facts."""
    data = facts(host, farm)
    if change:
        change(data)
    given = {"farm": farm, "groups": [f"farm_{farm}"], "facts": data, "recorded": RECORDED, **more}
    return _record.make(host, given.pop("outcome", "answered"), **given)


def unreachable(host: str, farm: str = "shop") -> dict[str, Any]:
    return _record.make(
        host, "unreachable", farm=farm, groups=[f"farm_{farm}"], message="connection refused", recorded=RECORDED
    )


def write(folder: Path, records: Iterable[dict[str, Any]]) -> Path:
    for one in records:
        _record.write(folder, one)
    return folder


# --- every kind of trouble ------------------------------------------------------------------------------------------


def _set(name: str, **values: Any) -> Change:
    def change(data: Facts) -> None:
        container(data, name).update(values)

    return change


def _missing_key(data: Facts) -> None:
    container(data, "iisWasKey").update(
        state="missing",
        bits=None,
        fingerprint=None,
        exportable=None,
        acl=[],
        hresult="0x80090016",
        message="Key container iisWasKey is missing: 0x80090016 NTE_BAD_KEYSET Keyset does not exist.",
        fix="Import the key from a server that has it (key_export and key_import).",
    )
    for one in data["protected_values"]:
        if one["container"] == "iisWasKey":
            one.update(verdict="missing_key", hresult="0x80090016", message="Keyset does not exist.")


def _bad_values(data: Facts) -> None:
    data["protected_values"][0].update(
        verdict="bad_data",
        hresult="0x80090005",
        message="Bad Data.",
        cause="The value was encrypted for another key than the one in iisWasKey.",
        fix="Import the key of the server that the configuration comes from.",
    )


def _cng(data: Facts) -> None:
    data["protected_values"][1].update(provider="IISWASOnlyCngProvider", kind="cng", container="iisCngWasKey")


def _access(data: Facts) -> None:
    one = container(data, "iisWasKey")
    sid = "S-1-5-32-568"
    one["acl"] = [
        *one["acl"],
        {
            "sid": sid,
            "account": r"BUILTIN\IIS_IUSRS",
            "type": "allow",
            "rights": "read",
            "mask": "0x00120089",
            "inherited": False,
        },
    ]
    one["access_problems"] = [
        {
            "kind": "forbidden",
            "sid": sid,
            "account": r"BUILTIN\IIS_IUSRS",
            "message": "Worker processes (IIS_IUSRS) can read iisWasKey, which opens the passwords of all pools.",
            "fix": "Remove the entry of IIS_IUSRS from the key iisWasKey.",
        }
    ]


def _changed_configuration(data: Facts) -> None:
    attributes = dict(data["configuration_files"][0]["canonical_attributes"])
    attributes["system.webServer/@x"] = "3"
    attributes["system.applicationHost/applicationPools/add[@name='Debug']/@name"] = "4"
    set_configuration(data, attributes)


def _leftover(data: Facts) -> None:
    data["configuration_files"].append(
        {
            **copy.deepcopy(data["configuration_files"][0]),
            "name": "applicationHost.config.tmp",
            "message": "A left-over applicationHost.config.tmp makes WAS fail with event 5215.",
            "fix": "Delete it.",
        }
    )


def _clear_password(data: Facts) -> None:
    one = {
        "file": "applicationHost.config",
        "path": "contoso/gate/@pin",
        "line": 9,
        "provider": None,
        "container": None,
    }
    data["encrypted_attributes"].append(one | {"state": "clear", "schema": "contoso.xml"})


def _clear_setting(data: Facts) -> None:
    path = "system.applicationHost/applicationPools/environmentVariables/add[@name='X']/@value"
    attributes = dict(data["configuration_files"][0]["canonical_attributes"])
    data["configuration_files"][0].update(
        canonical_keyed_digest="other", canonical_attributes=attributes | {path: "hmac:1234"}
    )


TROUBLE: dict[str, Change] = {
    "other_key": _set("iisWasKey", fingerprint=digest("somebody else")),
    "small_key": _set("iisConfigurationKey", bits=1024),
    "missing_key": _missing_key,
    "denied": _set(
        "iisWasKey", state="denied", fingerprint=None, bits=None, acl=[], message="Access to iisWasKey is denied."
    ),
    "bad_values": _bad_values,
    "cng": _cng,
    "access": _access,
    "configuration": _changed_configuration,
    "clear_password": _clear_password,
    "clear_setting": _clear_setting,
    "generated_machine_key": lambda data: data["machine_keys"][0].update(state="generated", fingerprint=None),
    "other_machine_key": lambda data: data["machine_keys"][0].update(fingerprint=digest("other")),
    "closed_machine_key": lambda data: data["machine_keys"][0].update(state="closed", fingerprint=None),
    "closed_section": lambda data: data["web_configurations"][0]["sections"][0].update(verdict="bad_data"),
    "dpapi": lambda data: data["web_configurations"][0]["sections"][0].update(kind="dpapi", container=None),
    "on_a_share": lambda data: data["web_configurations"][0].update(message="It lies on a share."),
    "without_web": lambda data: data.update(web_configurations=None, machine_keys=None),
    "leftover": _leftover,
    "history_off": lambda data: data["history"].update(enabled=False),
    "old_backup": lambda data: data["backups"][0].update(created="2026-10-01T02:00:00Z"),
    "bad_backup": lambda data: data["backups"][0].update(proven=False),
    # what a transaction kept of the state before is none, however new it is
    "prior_backup": lambda data: data.update(
        backups=[
            {"name": "webfarm-20261123T080000Z-0123abcd", "created": "2026-11-23T08:00:00Z", "origin": "transaction"}
            | {"proven": False}
        ]
    ),
    "no_backup": lambda data: data.update(backups=[]),
    "without_new_facts": lambda data: [data.pop(name) for name in ("history", "backups")] and None,
    "clone": lambda data: data["host"].update(machine_guid=str(uuid.uuid5(uuid.NAMESPACE_DNS, "web1"))),
}


def troubled(farm: str = "shop", good: int = 6) -> list[dict[str, Any]]:
    """A farm with some servers in order and one of each kind of trouble."""
    records = [record(f"web{number}", farm) for number in range(1, good + 1)]
    records += [record(f"bad-{name.replace('_', '-')}", farm, change) for name, change in TROUBLE.items()]
    records.append(unreachable("bad-unreachable", farm))
    records.append(
        _record.make(
            "bad-failed",
            "failed",
            farm=farm,
            groups=[],
            message="The module needs an elevated token.",
            recorded=RECORDED,
        )
    )
    records.append(record("bad-stale", farm, recorded="2026-11-20T12:00:00Z"))
    return records


def large(folder: Path, hosts: int, farm_size: int = 20) -> Path:
    """A large fleet: farms of that size, about one host in twenty with some trouble. Fast to write."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = list(TROUBLE.items())
    for number in range(hosts):
        farm = f"farm{number // farm_size + 1:03d}"
        change = kinds[number // 20 % len(kinds)][1] if number % 20 == 7 else None
        name = f"web{number + 1:05d}.example.net"
        one = record(name, farm, change) if number % 250 != 99 else unreachable(name, farm)
        (folder / _record.file_name(name)).write_bytes(_record.to_bytes(one))
    return folder
