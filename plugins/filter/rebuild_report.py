# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rebuild found on a host, as data, as lines, and as a JUnit file."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence

from ansible.errors import AnsibleFilterError

from ansible_collections.webfarm.iis.plugins.plugin_utils import _rebuild, _record


def _result(results: Mapping[str, t.Any], name: str) -> Mapping[str, t.Any] | None:
    value = results.get(name)
    return value if isinstance(value, Mapping) else None


def rebuild_report(
    results: Mapping[str, t.Any],
    host: str = "HOST",
    dry_run: bool = False,
    failure: str = "",
    finished: bool = True,
    verify_urls: Sequence[Mapping[str, t.Any]] = (),
) -> dict[str, t.Any]:
    """The checks of a rebuild, from the results that the role registered."""
    if not isinstance(results, Mapping):
        raise AnsibleFilterError("rebuild_report takes a dictionary with the results archive, plan and done.")
    plan = _result(results, "plan") or {}
    checks = _rebuild.evaluate(
        archive=_result(results, "archive"),
        plan=_result(results, "plan"),
        done=_result(results, "done"),
        dry_run=bool(dry_run),
        failure=str(failure or ""),
        finished=bool(finished),
        verify_urls=verify_urls or (),
    )
    bad = _rebuild.problems(checks)
    return {
        "checks": [one._asdict() for one in checks],
        "failed": [one.name for one in bad],
        "message": " ".join(f"{one.name}: {one.message}" for one in bad),
        "lines": _rebuild.lines(checks),
        "expects": plan.get("expects"),
        "missing_features": list(plan.get("missing_features") or []),
        "junit": _rebuild.junit(checks, str(host), str(plan.get("host") or ""), _record.utc_now()),
    }


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"rebuild_report": rebuild_report}
