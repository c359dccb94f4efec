# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table at the end of a provisioning run."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping

from ansible.errors import AnsibleFilterError

Row = tuple[str, str, str, str, str, str, str]

HEAD: Row = ("HOST", "KEY CONTAINER", "BEFORE", "AFTER", "VALUES PROVEN", "RESULT", "SERVICES")
SHOWN_DIGITS = 12


def provision_summary(hosts: Iterable[Mapping[str, t.Any]]) -> list[str]:
    """Lines of a table made from the variables of the hosts: what the provision role registered on each."""
    if isinstance(hosts, (str, bytes, Mapping)) or not isinstance(hosts, Iterable):
        raise AnsibleFilterError(
            "provision_summary takes a list of host variables, such as ansible_play_hosts | map('extract', hostvars)."
        )
    rows: list[Row] = [HEAD]
    notes: list[str] = []
    for host in hosts:
        name = str(host.get("inventory_hostname", "?"))
        if _said(host.get("provision_export")):
            rows += _golden_rows(name, host)
            notes += _golden_notes(name, host)
        elif _answered(host.get("provision_rewrap")):
            rows += _source_rows(name, host["provision_rewrap"])
            notes += _golden_notes(name, host)
        if _said(host.get("provision_config")):
            rows += _member_rows(name, host["provision_config"])
        elif _answered(host.get("provision_config")) and _said(host.get("provision_public_keys")):
            rows += _own_key_rows(name, host["provision_config"], host["provision_public_keys"])
        if isinstance(host.get("provision_config"), Mapping):
            notes += _accepted_notes(name, host["provision_config"].get("protected_values"))
    if len(rows) == 1:
        return ["No server was provisioned in this run."]
    return [*_table(rows), f"Fingerprints: the first {SHOWN_DIGITS} digits of the SHA-256 of the public key.", *notes]


def _said(result: t.Any) -> bool:
    return isinstance(result, Mapping) and bool(result.get("key_containers")) and not result.get("failed")


def _answered(result: t.Any) -> bool:
    return (
        isinstance(result, Mapping) and bool(result.get("proof") or result.get("targets")) and not result.get("failed")
    )


def _short(fingerprint: t.Any) -> str:
    return str(fingerprint)[:SHOWN_DIGITS] if fingerprint else "-"


def _golden_rows(name: str, host: Mapping[str, t.Any]) -> list[Row]:
    export = host["provision_export"]
    rewrap = host.get("provision_rewrap") or {}
    values = rewrap.get("protected_values") or export.get("protected_values") or []
    proven = f"{sum(1 for value in values if value.get('verdict') == 'ok')} of {len(values)}"
    result = "golden, " + ("bundle changed" if export.get("changed") else "bundle unchanged")
    rows: list[Row] = []
    for item in export["key_containers"]:
        mark = _short(item.get("fingerprint"))
        rows.append((name, str(item["container"]), mark, mark, proven, result, "not touched"))
    return rows


def _source_rows(name: str, rewrap: Mapping[str, t.Any]) -> list[Row]:
    """The golden server where no key is exported: each of its containers was used and stayed."""
    values = rewrap.get("protected_values") or []
    proven = f"{sum(1 for value in values if value.get('verdict') == 'ok')} of {len(values)}"
    made = sum(1 for target in rewrap["targets"] if target.get("changed"))
    result = f"golden, {made} of {len(rewrap['targets'])} files made anew"
    names = dict.fromkeys(str(item["container"]) for item in rewrap.get("session_keys") or [])
    return [(name, container, "own key", "own key", proven, result, "not touched") for container in names]


def _golden_notes(name: str, host: Mapping[str, t.Any]) -> list[str]:
    rewrap = host.get("provision_rewrap") or {}
    conversions = rewrap.get("conversions") or []
    notes = _accepted_notes(name, rewrap.get("protected_values"))
    if conversions:
        many = "value" if len(conversions) == 1 else "values"
        notes.append(
            f"{name}: {len(conversions)} {many} under CNG keys made portable in the candidate, not in its own file."
        )
    return notes


def _member_rows(name: str, config: Mapping[str, t.Any]) -> list[Row]:
    proof = config.get("proof") or {}
    proven = f"{proof.get('proven', '?')} of {proof.get('total', '?')} ({proof.get('method', '?')})"
    result = "changed" if config.get("changed") else "unchanged"
    services = _services(config.get("services") or []) if config.get("changed") else "not touched"
    rows: list[Row] = []
    for item in config["key_containers"]:
        before, after = item.get("before") or {}, item.get("after") or {}
        rows.append((name, str(item["container"]), _state(before), _state(after), proven, result, services))
    return rows


def _own_key_rows(name: str, config: Mapping[str, t.Any], public: Mapping[str, t.Any]) -> list[Row]:
    """A member that keeps its own keys."""
    used = {str(value.get("container")).casefold() for value in config.get("protected_values") or []}
    keys = [
        {"container": one["container"], "before": one, "after": one}
        for one in public["key_containers"]
        if str(one["container"]).casefold() in used
    ]
    return _member_rows(name, {**config, "key_containers": keys})


def _state(side: Mapping[str, t.Any]) -> str:
    if side.get("fingerprint"):
        return _short(side["fingerprint"])
    return str(side.get("state") or "-")


def _services(services: Iterable[Mapping[str, t.Any]]) -> str:
    groups: dict[str, list[str]] = {}
    for service in services:
        state = service.get("after") or service.get("state") or service.get("before") or "?"
        groups.setdefault(str(state).lower(), []).append(str(service.get("name")))
    return "; ".join(f"{state}: {' '.join(names)}" for state, names in sorted(groups.items())) or "-"


def _accepted_notes(name: str, values: t.Any) -> list[str]:
    return [
        f"{name}: accepted although it cannot be read: {value.get('path')} ({value.get('reason') or 'no reason given'})"
        for value in values or []
        if value.get("accepted")
    ]


def _table(rows: list[Row]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines: list[str] = []
    previous = ""
    for row in rows:
        # The cells that belong to the whole host stand in its first line only.
        cells = row if row[0] != previous else ("", *row[1:4], "", "", "")
        previous = row[0]
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"provision_summary": provision_summary}
