# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The public keys of a farm, as config_rewrap takes them."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping

from ansible.errors import AnsibleFilterError

NEEDED = ("container", "fingerprint", "public_key")


def rewrap_targets(
    hosts: Iterable[Mapping[str, t.Any]], folder: str, register: str = "provision_public_keys"
) -> list[dict[str, t.Any]]:
    """One target for each host that registered key_info (or server_info) and did not fail."""
    if isinstance(hosts, (str, bytes, Mapping)) or not isinstance(hosts, Iterable):
        raise AnsibleFilterError(
            "rewrap_targets takes a list of host variables, such as groups['farm'] | map('extract', hostvars)."
        )
    targets: list[dict[str, t.Any]] = []
    for host in hosts:
        facts = host.get(register)
        if not isinstance(facts, Mapping) or facts.get("failed") or not facts.get("key_containers"):
            continue
        name = str(host.get("inventory_hostname", "?"))
        target: dict[str, t.Any] = {
            "name": name,
            "dest": f"{folder}/{name}/applicationHost.config",
            "public_keys": [
                {part: one[part] for part in NEEDED} for one in facts["key_containers"] if one.get("public_key")
            ],
        }
        pins = host.get("provision_expected_fingerprints")
        if pins:
            target["expected_fingerprints"] = dict(pins)
        targets.append(target)
    return targets


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"rewrap_targets": rewrap_targets}
