# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the facts of a broken server to a ranked list of causes."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.webfarm.iis.plugins.plugin_utils._diagnosis import diagnose


def diagnosis(facts: Mapping[str, t.Any], host: str = "HOST", symptom: str = "") -> dict[str, t.Any]:
    """Rank what may be wrong with a server."""
    if not isinstance(facts, Mapping):
        raise AnsibleFilterError("diagnosis takes the registered result of webfarm.iis.server_info.")
    return diagnose(facts, str(host), str(symptom or ""))


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"diagnosis": diagnosis}
