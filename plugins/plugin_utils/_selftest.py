# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""The report of a self-test: JSON for machines, a short text for people.

It is made to be handed on, so it is searched for what must not be in it before it is written.
"""

from __future__ import annotations

import json
import re
import textwrap
import typing as t

FORMAT = "webfarm.iis selftest report"
VERSION = 1
VERDICTS = ("confirmed", "contradicted", "recorded", "open")

# The longest run of hexadecimal digits that a report holds is the name of a key file; no key and no value is as short.
_MATERIAL = re.compile(r"[A-Za-z0-9+/]{40,}|<RSAKeyValue|\[enc:|PRIVATE KEY-----", re.IGNORECASE)

Report = dict[str, t.Any]


class SelftestError(ValueError):
    """The answers of a server that are no report, or that must not be written."""


def make(server: t.Mapping[str, t.Any], answers: t.Sequence[t.Mapping[str, t.Any]], *, recorded: str) -> Report:
    """The report of one server."""
    for answer in answers:
        if answer.get("verdict") not in VERDICTS:
            raise SelftestError(
                f"the server's answer to '{answer.get('id')}' has the verdict '{answer.get('verdict')}'"
            )
    report: Report = {
        "format": FORMAT,
        "version": VERSION,
        "recorded": recorded,
        "server": dict(server),
        "summary": {verdict: sum(answer["verdict"] == verdict for answer in answers) for verdict in VERDICTS},
        "answers": [dict(answer) for answer in answers],
    }
    for place, text in _texts(report):
        if _MATERIAL.search(text):
            raise SelftestError(f"{place} holds what looks like a key or a value; the report is not written")
    return report


def _texts(value: t.Any, place: str = "report") -> t.Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, t.Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{place}.{name}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _texts(item, f"{place}[{number}]")


def to_json(report: Report) -> bytes:
    """The file for machines."""
    return (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def to_text(report: Report) -> bytes:
    """The file for people: the server, then one paragraph a question."""
    server = report["server"]
    lines = [
        f"Self-test of webfarm.iis, {report['recorded']}",
        "",
        f"Server: {server.get('name') or '(not named)'}",
        f"Windows: {server.get('os')}, build {server.get('build')}, {server.get('installation')}, "
        f"language {server.get('language') or 'unknown'}",
        f"IIS: {server.get('iis') or 'not installed'}",
        f".NET Framework release {server.get('dotnet_framework') or 'unknown'}, runtime {server.get('dotnet')}, "
        f"PowerShell {server.get('powershell')}, FIPS policy {'on' if server.get('fips_policy') else 'off'}",
        "",
        ", ".join(f"{count} {verdict}" for verdict, count in report["summary"].items()),
    ]
    for answer in report["answers"]:
        lines += ["", f"[{answer['verdict'].upper()}] {answer['id']} (point {answer['point']})"]
        for label, name in (("Question", "question"), ("Done", "done"), ("Expected", "expected"), ("Result", "text")):
            lines += textwrap.wrap(f"{label}: {answer[name]}", 110, initial_indent="  ", subsequent_indent="    ")
        for place, value in _leaves(answer["observed"]):
            lines.append(f"    {place}: {value}")
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _leaves(value: t.Any, place: str = "") -> t.Iterator[tuple[str, t.Any]]:
    if isinstance(value, t.Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{place}.{name}" if place else str(name))
    elif isinstance(value, (list, tuple)) and value and isinstance(value[0], t.Mapping):
        for item in value:
            yield place, ", ".join(f"{name} {content}" for name, content in item.items())
    elif isinstance(value, (list, tuple)):
        yield place, ", ".join(map(str, value)) or "none"
    elif place:
        yield place, value
