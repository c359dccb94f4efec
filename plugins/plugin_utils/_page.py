# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""The report as one HTML page that needs nothing else: no server, no network, no other file.

The data lies in the page as JSON, packed with gzip when it is large, each distinct text and access list once; the
script draws only the rows that are visible. So ten thousand hosts open as quickly as ten.
"""

from __future__ import annotations

import base64
import gzip
import json
import typing as t
from pathlib import Path

import jinja2
from markupsafe import Markup

from ansible_collections.webfarm.iis.plugins.plugin_utils import _record
from ansible_collections.webfarm.iis.plugins.plugin_utils._facts import Container, View
from ansible_collections.webfarm.iis.plugins.plugin_utils._report import HostResult, Report, rule_data
from ansible_collections.webfarm.iis.plugins.plugin_utils._rules import HOST_STATUSES, RULES, STATUSES

PACK_FROM = 256 * 1024
_PARTS = Path(__file__).with_name("_page_parts")


class _Table:
    """Gives equal things one number."""

    def __init__(self) -> None:
        self._numbers: dict[t.Any, int] = {}

    def __call__(self, value: t.Any) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    def rows(self) -> list[t.Any]:
        return list(self._numbers)


class _Tables:
    def __init__(self) -> None:
        self.farms, self.verdicts, self.acls, self.problems = _Table(), _Table(), _Table(), _Table()
        self.lists, self.texts = _Table(), _Table()


def _container(one: Container, tables: _Tables) -> list[t.Any]:
    text = tables.texts
    return [
        text(one.name),
        text(one.store),
        text(one.state),
        one.bits,
        one.exportable,
        one.fingerprint,
        text(one.owner),
        one.created,
        one.modified,
        tables.acls(one.acl),
        tables.problems(one.problems),
        one.file,
        text(one.message),
        text(one.fix),
        list(one.foreign_files),
    ]


def _details(view: View, tables: _Tables) -> list[t.Any]:
    return [
        view.state,
        view.message,
        view.recorded,
        view.computer,
        view.machine_guid,
        tables.texts(view.os_version),
        tables.texts(view.iis_version),
        tables.texts(view.powershell_version),
        view.redirection,
        tables.lists(view.groups),
        [_container(one, tables) for one in view.containers],
        tables.lists(view.sessions),
        tables.lists(view.values),
        [
            [
                one.name,
                one.exists,
                one.sha256,
                one.digest,
                one.size,
                one.modified,
                one.message,
                one.encoding,
                one.locations,
            ]
            for one in view.files
        ],
        tables.lists(view.services),
        tables.lists(view.pools),
        tables.lists(view.sites),
        view.history,
        view.backups,
        view.generation,
        tables.lists(view.stored),
        view.problems,
        tables.lists(view.unprotected),
        tables.lists(view.shared),
        tables.lists(view.machine_keys),
        tables.lists(view.sections),
    ]


def _row(one: HostResult, rules: t.Sequence[str], tables: _Tables) -> list[t.Any]:
    verdicts = [tables.verdicts(one.verdicts[rule]) if rule in one.verdicts else -1 for rule in rules]
    return [
        one.view.name,
        tables.farms(one.view.farm),
        HOST_STATUSES.index(one.status),
        verdicts,
        _details(one.view, tables),
    ]


def page_data(report: Report) -> dict[str, t.Any]:
    """What the script draws from."""
    tables = _Tables()
    rules = [rule.id for rule in report.rules]
    hosts = [_row(one, rules, tables) for one in report.hosts]
    policy = report.policy.to_dict()
    return {
        "title": report.title,
        "generated": report.generated,
        "policy": {name: policy[name] for name in ("name", "overrides", "waivers")},
        "rules": [
            {
                **rule_data(RULES[rule]),
                "options": policy["rules"][rule] or {},
                "totals": {status: report.totals()[rule][status] for status in STATUSES},
            }
            for rule in rules
        ],
        "statuses": list(HOST_STATUSES),
        "summary": report.summary(),
        "bundles": [[one.farm, one.generation, dict(one.fingerprints)] for one in report.fleet.known],
        "drift": report.drift,
        "hosts": hosts,
        "farms": tables.farms.rows(),
        "verdicts": tables.verdicts.rows(),
        "acls": tables.acls.rows(),
        "problems": tables.problems.rows(),
        "lists": tables.lists.rows(),
        "texts": tables.texts.rows(),
    }


def _embedded(data: dict[str, t.Any]) -> tuple[str, str]:
    """The data as it stands in the page, and its kind."""
    text = _record.mask(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    if len(text) < PACK_FROM:
        # So that no text can end the element that holds it.
        return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace(
            "\u2029", "\\u2029"
        ), "application/json"
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 6, mtime=0)).decode("ascii"), "application/gzip"


def render(report: Report) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PARTS), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    data, kind = _embedded(page_data(report))
    return environment.get_template("page.html.j2").render(
        title=report.title,
        generated=report.generated,
        summary=report.summary(),
        statuses=HOST_STATUSES,
        verdicts=STATUSES,
        rules=[(rule.title, report.totals()[rule.id]) for rule in report.rules],
        data=Markup(data),
        kind=kind,
        style=Markup((_PARTS / "page.css").read_text(encoding="utf-8")),
        script=Markup((_PARTS / "page.js").read_text(encoding="utf-8")),
    )
