# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a broken server is restored from, and why."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

Facts = Mapping[str, t.Any]


def _list(facts: Facts, name: str) -> list[Facts]:
    return [item for item in facts.get(name) or [] if isinstance(item, Mapping)]


def _broken(facts: Facts) -> list[str]:
    """Why the present state is not a good one; empty when it is."""
    reasons = [
        str(item.get("message"))
        for item in _list(facts, "gathering_problems")
        if str(item.get("part")) in ("applicationHost.config", "configuration_files")
    ]
    for name, what in (("session_keys", "session keys"), ("protected_values", "protected values")):
        bad = [item for item in _list(facts, name) if item.get("verdict") not in ("ok", "untested", None)]
        if bad:
            first = bad[0]
            place = str(first.get("path") or first.get("provider"))
            reasons.append(
                f"{len(bad)} of {len(_list(facts, name))} {what} do not open ({place}: {first.get('verdict')})"
            )
    return reasons


def _candidates(facts: Facts, present: str | None) -> list[dict[str, t.Any]]:
    """What proves with the keys that the server holds, the newest first."""
    found: list[dict[str, t.Any]] = []
    for one in _list(facts.get("history") or {}, "snapshots"):
        if one.get("proven") is True and one.get("sha256") != present:
            found.append({"source": "history", "number": one["number"], "time": str(one.get("created"))})
    for one in _list(facts, "backups"):
        held = {str(item.get("name")): item.get("sha256") for item in _list(one, "files")}
        if one.get("proven") is True and held.get("applicationHost.config") != present:
            found.append({"source": "backup", "name": one["name"], "time": str(one.get("created"))})
    return sorted(found, key=lambda one: (one["time"], one["source"] == "backup"), reverse=True)


def _present(facts: Facts) -> str | None:
    for item in _list(facts, "configuration_files"):
        path = str(item.get("path") or item.get("file") or "")
        if path.lower().endswith("applicationhost.config"):
            return str(item.get("sha256") or "") or None
    return None


def _name(one: Mapping[str, t.Any]) -> str:
    if one["source"] == "history":
        return f"snapshot {one['number']} of the history ({one['time']})"
    return f"the backup {one['name']} ({one['time']})"


def restore_choice(
    facts: Facts, source: str = "auto", archive: str = "", bundle: str = "", force: bool = False
) -> dict[str, t.Any]:
    """From the facts of server_info: source (none, history, backup, archive, bundle), number, name, why, lines."""
    if not isinstance(facts, Mapping) or "backups" not in facts:
        raise AnsibleFilterError(
            "restore_choice takes the result of server_info with gather_subset keys, values, files, history, backups."
        )
    choice: dict[str, t.Any] = {"source": "none", "number": None, "name": None, "needed": True, "why": ""}
    broken = _broken(facts)
    found = _candidates(facts, _present(facts))
    lines = [f"State: {reason}" for reason in broken]
    if not broken and not force:
        choice.update(
            needed=False, why="The configuration can be read and every value of it opens: nothing is restored."
        )
        return choice | {
            "lines": [choice["why"], "Where it does not serve nevertheless, webfarm.iis.diagnose tells why."]
        }
    wanted = [one for one in found if source in ("auto", one["source"])]
    if source in ("auto", "history", "backup") and wanted:
        best = wanted[0]
        choice.update(source=best["source"], number=best.get("number"), name=best.get("name"))
        choice["why"] = (
            f"{_name(best)[0].upper()}{_name(best)[1:]} is the newest that opens with the keys of this server."
        )
        lines += [f"Good as well: {_name(one)}" for one in wanted[1:4]]
    elif source in ("auto", "archive") and archive:
        choice.update(source="archive", name=archive)
        choice["why"] = (
            f"The archive {archive} was asked for."
            if source == "archive"
            else "Neither history nor backups open with the keys of this server: "
            f"the archive {archive} brings its own keys."
        )
    elif source in ("auto", "history") and bundle and _list(facts.get("history") or {}, "snapshots"):
        choice.update(source="bundle", name=bundle)
        choice["why"] = (
            "No snapshot opens with the present keys: the newest one that the key set of "
            f"{bundle} opens is wrapped for the present ones."
        )
    else:
        choice["why"] = _nothing(facts, source, archive)
    return choice | {"lines": [*lines, choice["why"]]}


def _nothing(facts: Facts, source: str, archive: str) -> str:
    seen = len(_list(facts.get("history") or {}, "snapshots")), len(_list(facts, "backups"))
    text = f"There is no good state to go back to: {seen[0]} snapshots and {seen[1]} backups were looked at"
    if source not in ("auto", "archive"):
        return f"{text}, and only the {source} was allowed (restore_source)."
    if not archive:
        return f"{text}, none opens with the keys of this server, and no archive was named (restore_archive)."
    return f"{text}."


class FilterModule:
    """Filters of this collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"restore_choice": restore_choice}
