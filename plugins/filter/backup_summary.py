# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines at the end of a backup run."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping

from ansible.errors import AnsibleFilterError


def backup_summary(hosts: Iterable[Mapping[str, t.Any]]) -> list[str]:
    """One line per host, from the variables of the hosts: what the role backup registered. Failures first."""
    if isinstance(hosts, (str, bytes, Mapping)) or not isinstance(hosts, Iterable):
        raise AnsibleFilterError(
            "backup_summary takes a list of host variables, such as ansible_play_hosts_all | map('extract', hostvars)."
        )
    good, bad = [], []
    for host in hosts:
        name = str(host.get("inventory_hostname", "?"))
        result = host.get("backup_result")
        if not isinstance(result, Mapping):
            bad.append(f"{name}: not reached, no backup")
        elif result.get("unreachable"):
            bad.append(f"{name}: UNREACHABLE, no backup: {result.get('msg')}")
        elif result.get("failed"):
            bad.append(f"{name}: FAILED, {result.get('msg')}")
        else:
            good.append(_line(name, result))
    return [*sorted(bad), *sorted(good), f"{len(good)} of {len(good) + len(bad)} servers have a proven backup."]


def _line(name: str, result: Mapping[str, t.Any]) -> str:
    backup = result.get("backup") or {}
    if backup.get("planned"):
        state = "would be made"
    elif result.get("changed") and backup.get("created"):
        state = f"made {backup['created']}"
    else:
        state = f"unchanged since {backup.get('created')}"
    words = [f"{name}: {backup.get('name')} {state}"]
    archive = result.get("archive")
    if archive:
        words.append(f"fetched to {archive.get('path')}" + ("" if archive.get("changed") else " before"))
    if result.get("deleted"):
        words.append(f"deleted {', '.join(map(str, result['deleted']))}")
    return "; ".join(words)


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"backup_summary": backup_summary}
