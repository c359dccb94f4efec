# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the servers of a farm were found to hold."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping

from ansible.errors import AnsibleFilterError


def keys_in_use(hosts: Iterable[Mapping[str, t.Any]]) -> list[dict[str, str]]:
    """Container and fingerprint for each host, as its run began; nothing for a host that was changed or not looked at.

    A server that had to be changed, be it only because an interrupted run was settled, did not simply hold those keys.
    """
    if isinstance(hosts, (str, bytes, Mapping)) or not isinstance(hosts, Iterable):
        raise AnsibleFilterError(
            "keys_in_use takes a list of host variables, such as ansible_play_hosts_all | map('extract', hostvars)."
        )
    return [_held(host.get("provision_config")) for host in hosts]


def _held(result: t.Any) -> dict[str, str]:
    if not isinstance(result, Mapping) or result.get("changed") or result.get("failed"):
        return {}
    return {
        str(item["container"]): str((item.get("before") or {}).get("fingerprint") or "")
        for item in result.get("key_containers") or []
    }


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"keys_in_use": keys_in_use}
