# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""The report of a fleet: a folder of host records and a policy in, verdicts as JSON, JUnit XML and CSV out; and drift.

The page for people is made by ``_page``. The JSON is documented in the compliance guide; ``version`` grows when a
field changes its meaning or goes away. It has one line per host, so that two reports can be compared as text.
"""

from __future__ import annotations

import csv
import datetime
import gc
import json
import re
import typing as t
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.webfarm.iis.plugins.plugin_utils import _canonical, _junit, _record
from ansible_collections.webfarm.iis.plugins.plugin_utils._facts import (
    Fact,
    Pool,
    View,
    missing_view,
    view_of,
)
from ansible_collections.webfarm.iis.plugins.plugin_utils._policy import Policy, host_status, violations
from ansible_collections.webfarm.iis.plugins.plugin_utils._rules import (
    FAIL,
    HOST_STATUSES,
    NOT_APPLICABLE,
    PASS,
    STATUSES,
    UNKNOWN,
    UNREACHABLE,
    WAIVED,
    WARN,
    Fleet,
    KeySet,
    Rule,
    Verdict,
)

FORMAT = "webfarm.iis compliance report"
VERSION = 1

Data = dict[str, t.Any]


class ReportError(ValueError):
    """A report that cannot be made or read. The message names the file."""


@dataclass(frozen=True, slots=True)
class HostResult:
    """One host with its verdicts, by rule."""

    view: View
    verdicts: t.Mapping[str, Verdict]
    status: str


@dataclass
class Report:
    """Every host of a fleet, judged."""

    title: str
    generated: str
    policy: Policy
    hosts: list[HostResult]
    fleet: Fleet
    drift: Data | None = None
    _totals: dict[str, Counter[str]] = field(default_factory=dict, repr=False)

    @property
    def rules(self) -> list[Rule]:
        return self.policy.active

    def summary(self) -> dict[str, int]:
        """Number of hosts, in all and by status."""
        counts = Counter(one.status for one in self.hosts)
        return {"hosts": len(self.hosts), **{status: counts[status] for status in HOST_STATUSES}}

    def totals(self) -> dict[str, Counter[str]]:
        """Number of hosts by rule and verdict."""
        if not self._totals:
            self._totals = {rule.id: Counter() for rule in self.rules}
            for one in self.hosts:
                for rule, verdict in one.verdicts.items():
                    self._totals[rule][verdict.status] += 1
        return self._totals

    def violations(self, fail_on: t.Collection[str]) -> dict[str, list[str]]:
        """The rules for which the run has to fail, by host."""
        found = {one.view.name: violations(one.view, one.verdicts, fail_on) for one in self.hosts}
        return {name: rules for name, rules in found.items() if rules}


# --- judging --------------------------------------------------------------------------------------------------------


_OPAQUE = ("hmac:", "sha256:", "[")  # stands for a value, and shows none


def _without_keyed(attributes: dict[str, str]) -> dict[str, str]:
    return {path: "[secret]" if value.startswith("hmac:") else value for path, value in attributes.items()}


def _difference(path: str, here: str | None, there: str | None) -> str:
    """An attribute with its values, where they may be shown."""
    if here is None or there is None:
        return f"{path} ({'only there' if here is None else 'only here'})"
    if here.startswith(_OPAQUE) or there.startswith(_OPAQUE):
        return f"{path} (another value)"
    return f"{path} ('{here}', there '{there}')"


class _Attributes:
    """Reads the differing attributes of two hosts' files again from their records."""

    def __init__(self) -> None:
        self._examples: dict[tuple[str, str], dict[str, str] | None] = {}

    @staticmethod
    def _read(view: View, name: str) -> dict[str, str] | None:
        if view.source is None:
            return None
        try:
            facts = _record.read(Path(view.source)).get("facts")
        except _record.RecordError:
            return None
        for file in (facts or {}).get(Fact.FILES) or []:
            if str(file.get("name")).casefold() == name.casefold():
                found = file.get(Fact.ATTRIBUTES)
                if isinstance(found, str):
                    try:
                        return _canonical.unpack(found)
                    except _canonical.CanonicalError:
                        return None
                return found if isinstance(found, dict) else None
        return None

    def __call__(self, view: View, example: View, name: str) -> list[str] | None:
        key = (example.name, name)
        if key not in self._examples:
            self._examples[key] = self._read(example, name)
        wanted, found = self._examples[key], self._read(view, name)
        if wanted is None or found is None:
            return None
        if view.run_key != example.run_key:
            # HMACs under two keys differ whatever they stand for.
            wanted, found = _without_keyed(wanted), _without_keyed(found)
        paths = sorted(path for path in {*wanted, *found} if wanted.get(path) != found.get(path))
        return [_difference(path, found.get(path), wanted.get(path)) for path in paths]


def _views(folder: Path, policy: Policy, now: datetime.datetime, pool: Pool) -> dict[str, View]:
    newest: dict[str, View] = {}
    for path in _record.files(folder):
        try:
            record = _record.read(path)
            farm, groups = str(record.get("farm") or ""), [str(one) for one in record.get("groups") or ()]
            limit = policy.max_age(str(record["host"]), farm, groups)
            view = view_of(record, pool, now=now, max_age_hours=limit, source=str(path))
        except _record.RecordError as error:
            name = urllib.parse.unquote(path.name.removesuffix(_record.SUFFIX))
            view = View(name, "", state="failed", message=str(error))
        other = newest.get(view.name)
        if other is None or (view.recorded or "") >= (other.recorded or ""):
            newest[view.name] = view
    return newest


def evaluate(
    folder: Path,
    policy: Policy,
    *,
    known: t.Sequence[KeySet] = (),
    expected: t.Iterable[str] = (),
    title: str = "Compliance of the IIS fleet",
    now: datetime.datetime | None = None,
) -> Report:
    """Judge every host of a folder of records. Raises RecordError where the folder cannot be read."""
    now = now or datetime.datetime.now(datetime.UTC)
    pool = Pool()
    # Ten thousand records make millions of objects and no cycles: the collector would only look at them in vain.
    collecting = gc.isenabled()
    gc.disable()
    try:
        views = _views(folder, policy, now, pool)
        for name in expected:
            if name not in views:
                views[name] = missing_view(name)
        fleet = Fleet(now, tuple(known), differing=_Attributes())
        ordered = sorted(views.values(), key=lambda one: (one.farm, natural(one.name)))
        for view in ordered:
            fleet.add(view)
        hosts = []
        for view in ordered:
            verdicts = {name: pool(verdict) for name, verdict in policy.judge(view, fleet).items()}
            hosts.append(HostResult(view, verdicts, host_status(view, verdicts)))
    finally:
        if collecting:
            gc.enable()
    return Report(title, now.strftime("%Y-%m-%dT%H:%M:%SZ"), policy, hosts, fleet)


def natural(name: str) -> list[tuple[int, int | str]]:
    """Sorts web2 before web10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name.casefold()) if part]


# --- JSON -----------------------------------------------------------------------------------------------------------


def _host_data(one: HostResult) -> Data:
    view = one.view
    return {
        "host": view.name,
        "farm": view.farm,
        "groups": list(view.groups),
        "status": one.status,
        "state": view.state,
        "message": view.message,
        "recorded": view.recorded,
        "computer": view.computer,
        "machine_guid": view.machine_guid,
        "os_version": view.os_version,
        "iis_version": view.iis_version,
        "keys": {key.name: key.fingerprint for key in view.containers if key.fingerprint},
        "files": {file.name: file.digest or file.sha256 for file in view.files if file.exists},
        "verdicts": {rule: verdict._asdict() for rule, verdict in one.verdicts.items()},
    }


def rule_data(rule: Rule) -> Data:
    """A rule as reports show it."""
    return {
        "id": rule.id,
        "title": rule.title,
        "short": rule.short,
        "description": rule.description,
        "references": list(rule.references),
    }


def write_json(report: Report, stream: t.TextIO) -> None:
    """The report as JSON, one line per host."""
    head: Data = {
        "format": FORMAT,
        "version": VERSION,
        "title": report.title,
        "generated": report.generated,
        "policy": report.policy.to_dict(),
        "rules": [rule_data(rule) for rule in report.rules],
        "bundles": [
            {"farm": one.farm, "generation": one.generation, "fingerprints": dict(one.fingerprints)}
            for one in report.fleet.known
        ],
        "summary": report.summary(),
        "totals": {rule: {status: counts[status] for status in STATUSES} for rule, counts in report.totals().items()},
        "drift": report.drift,
    }
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    stream.write("{\n")
    for name, value in head.items():
        stream.write(f"{encode(name)}:{_record.mask(encode(value))},\n")
    stream.write('"hosts":[\n')
    for number, one in enumerate(report.hosts):
        stream.write((",\n" if number else "") + _record.mask(encode(_host_data(one))))
    stream.write("\n]}\n")


def read_json(path: Path) -> Data:
    """An earlier report. Raises :class:`ReportError`."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ReportError(f"{path} is not JSON") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ReportError(f"{path} is not a compliance report (its format is not '{FORMAT}')")
    if data.get("version") != VERSION:
        raise ReportError(f"{path} has version {data.get('version')!r}, this release reads version {VERSION}")
    return data


# --- drift ----------------------------------------------------------------------------------------------------------


def drift(previous: Data, report: Report) -> Data:
    """What changed since an earlier report: hosts, verdicts, keys, files."""
    before = {str(one["host"]): one for one in previous["hosts"]}
    after = {one.view.name: one for one in report.hosts}
    verdicts: list[Data] = []
    keys: list[Data] = []
    files: list[Data] = []
    for name, now in after.items():
        old = before.get(name)
        if old is None:
            continue
        for rule, verdict in now.verdicts.items():
            was = (old["verdicts"].get(rule) or {}).get("status")
            if was is not None and was != verdict.status:
                verdicts.append(
                    {"host": name, "rule": rule, "before": was, "after": verdict.status, "reason": verdict.reason}
                )
        # A host that did not answer has no keys to compare, which is not the same as having lost them.
        if now.view.state != "answered" or old["state"] != "answered":
            continue
        new_keys = {key.name: key.fingerprint for key in now.view.containers if key.fingerprint}
        new_files = {file.name: file.digest or file.sha256 for file in now.view.files if file.exists}
        keys += _changes(name, "container", old["keys"], new_keys)
        files += _changes(name, "file", old["files"], new_files)
    order = {status: number for number, status in enumerate((PASS, NOT_APPLICABLE, WAIVED, WARN, UNKNOWN, FAIL))}
    worse = sum(1 for one in verdicts if order[one["after"]] > order.get(one["before"], 0))
    return {
        "since": previous["generated"],
        "added": [name for name in after if name not in before],
        "removed": [name for name in before if name not in after],
        "worse": worse,
        "better": len(verdicts) - worse,
        "verdicts": sorted(verdicts, key=lambda one: -order[one["after"]]),
        "keys": keys,
        "files": files,
    }


def _changes(host: str, kind: str, old: t.Mapping[str, str], new: t.Mapping[str, str | None]) -> list[Data]:
    return [
        {"host": host, kind: name, "before": old.get(name), "after": new.get(name)}
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


# --- JUnit XML ------------------------------------------------------------------------------------------------------


def write_junit(report: Report, stream: t.BinaryIO, fail_on: t.Collection[str] = ()) -> None:
    """One test suite per host, one test case per rule.

    What fails is a failure, a host that did not answer an error. Unknown and flagged verdicts are skipped tests with
    the reason, or an error and a failure where ``fail_on`` names them; so are waived and not applicable ones.
    """
    details: dict[Verdict, _junit.Detail] = {}
    suites = []
    for one in report.hosts:
        cases = []
        for rule, verdict in one.verdicts.items():
            kind = _junit_kind(rule, verdict, fail_on)
            detail = None
            if kind:
                detail = details.get(verdict)
                if detail is None:
                    detail = _junit.Detail(f"{verdict.status}: {verdict.reason}", verdict.status, verdict.fix)
                    details[verdict] = detail
            cases.append(_junit.Case(rule, kind, detail))
        view = one.view
        suites.append(
            _junit.Suite(
                name=view.name,
                hostname=view.computer or view.name,
                classname=f"{view.farm}.{view.name}",
                timestamp=view.recorded or report.generated,
                cases=cases,
            )
        )
    _junit.write(stream, report.title, suites)


def _junit_kind(rule: str, verdict: Verdict, fail_on: t.Collection[str]) -> str:
    status = verdict.status
    asked = status in fail_on or rule in fail_on
    if status == FAIL:
        return _junit.ERROR if rule == "reachable" else _junit.FAILURE
    if status == UNKNOWN:
        return _junit.ERROR if asked else _junit.SKIPPED
    if status == WARN:
        return _junit.FAILURE if asked else _junit.SKIPPED
    return "" if status == PASS else _junit.SKIPPED


# --- CSV ------------------------------------------------------------------------------------------------------------

CSV_HEAD = ("host", "farm", "groups", "status", "rule", "verdict", "reason", "fix", "references", "recorded")


def _cell(text: str) -> str:
    """A spreadsheet would take these for formulas."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_csv(report: Report, stream: t.TextIO) -> None:
    """One line per host and rule."""
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(CSV_HEAD)
    texts: dict[Verdict, tuple[str, str]] = {}
    references = {rule.id: "; ".join(rule.references) for rule in report.rules}
    for one in report.hosts:
        view = one.view
        left = (_cell(view.name), _cell(view.farm), _cell(" ".join(view.groups)), one.status)
        for rule, verdict in one.verdicts.items():
            if verdict not in texts:
                texts[verdict] = (_cell(_record.mask(verdict.reason)), _cell(_record.mask(verdict.fix)))
            writer.writerow((*left, rule, verdict.status, *texts[verdict], references[rule], view.recorded or ""))


# --- for people at a terminal ---------------------------------------------------------------------------------------


def lines(report: Report, shown: int = 20) -> list[str]:
    """The summary of a run, as a few lines of text."""
    summary = report.summary()
    counted = ", ".join(f"{summary[status]} {status}" for status in HOST_STATUSES if summary[status])
    result = [f"{summary['hosts']} hosts: {counted or 'none'}."]
    width = max((len(rule.id) for rule in report.rules), default=0)
    for rule in report.rules:
        counts = report.totals()[rule.id]
        words = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        result.append(f"  {rule.id.ljust(width)}  {words}")
    bad = [one for one in report.hosts if one.status != PASS]
    for one in bad[:shown]:
        names = [rule for rule, verdict in one.verdicts.items() if verdict.status in (FAIL, UNKNOWN, WARN)]
        if one.status == UNREACHABLE:
            names = [one.view.state]
        result.append(f"  {one.view.name}: {one.status} ({', '.join(names)})")
    if len(bad) > shown:
        result.append(f"  and {len(bad) - shown} more, see the report")
    return result
