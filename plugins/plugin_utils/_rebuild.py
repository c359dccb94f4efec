# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""What a rebuild checked, from what its three tasks said: a list of checks, the missing features, the JUnit file.

The tasks are config_backup with state=verified (on the controller), with state=restored in check mode, and with
state=restored. A check that was not reached says so; none is left out, so that a CI system always shows the same tests.
"""

from __future__ import annotations

import io
import typing as t
from collections.abc import Mapping

from ansible_collections.webfarm.iis.plugins.plugin_utils import _junit

Result = Mapping[str, t.Any]

PASSED = "passed"
FAILED = "failed"
ERROR = "error"  # nothing is known, because something did not answer
SKIPPED = "skipped"

# The checks in their order. Everything before "restored" is asked before the server is touched.
CHECKS = (
    "run",
    "archive",
    "keys",
    "proof",
    "reachable",
    "features",
    "certificates",
    "content",
    "fit",
    "ready",
    "restored",
    "serving",
)

# Findings by check. What is a warning for config fails a rebuild (_STRICT): a server that lacks it does not serve.
_CERTIFICATES = ("certificate_absent", "certificate_not_checked")
_CONTENT = ("folder_absent", "log_folder_absent", "share_not_checked")
_FEATURES = (
    "isapi_cgi_absent",
    "isapi_filter_absent",
    "module_dll_missing",
    "schema_unreadable",
    "section_without_schema",
)
_STRICT = ("certificate_absent", "folder_absent", "isapi_cgi_absent", "isapi_filter_absent")
_TITLES = {
    "certificates": "Bind the certificates first; bindings to certificates do not travel with a configuration.",
    "content": "Bring the content first, or give other folders for this server in rebuild_overrides.",
    "fit": "Make the server fit, or take the finding as it is in rebuild_accept_unfit, with the reason.",
}


class Check(t.NamedTuple):
    """One check: what became of it, what is wrong, what to do, and what was expected."""

    name: str
    status: str
    message: str = ""
    fix: str = ""
    output: str = ""


def evaluate(
    *,
    archive: Result | None = None,
    plan: Result | None = None,
    done: Result | None = None,
    dry_run: bool = False,
    failure: str = "",
    finished: bool = True,
    verify_urls: t.Sequence[Result] = (),
) -> list[Check]:
    """Every check in order. *failure* is what ended the run otherwise than by a check."""
    checks = [*_of_archive(archive), *_of_plan(plan), *_of_done(done, plan, dry_run, verify_urls)]
    bad = any(one.status in (FAILED, ERROR) for one in checks)
    if not finished:
        run = Check(
            "run",
            ERROR,
            "The run has not come to its end.",
            "Look at its output: the controller was interrupted, or it runs.",
        )
    elif failure and not bad:
        run = Check(
            "run", FAILED, failure, "Correct the variable or the playbook that the message names, and run again."
        )
    else:
        run = Check("run", PASSED, output="dry run: nothing is changed on the server" if dry_run else "")
    return [run, *checks]


# --- the archive, on the controller ---------------------------------------------------------------------------------


def _of_archive(result: Result | None) -> list[Check]:
    names = ("archive", "keys", "proof")
    if result is None or result.get("skipped"):
        return _not_reached(names)
    message = str(result.get("msg") or "")
    failed = bool(result.get("failed"))
    if not result.get("archive"):
        fix = "Name an archive that webfarm.iis.backup fetched in rebuild_archive."
        return [Check("archive", FAILED, message, fix), *_not_reached(names[1:])]
    backup = result.get("backup") or {}
    files = [f"{one.get('name')} {one.get('sha256')}" for one in backup.get("files") or []]
    text = "\n".join([f"{backup.get('name')} of {backup.get('host')}, made {backup.get('created')}", *files])
    found = [Check("archive", PASSED, output=text)]
    proof = result.get("proof")
    if not proof:
        if not failed:
            message = "No key was opened, so nothing is proven."
        fix = (
            "Give the key set (rebuild_bundle, or an archive with sealed keys), the key that opens it "
            "(rebuild_opening_file) and its pins (rebuild_expected_fingerprints) or its signer."
        )
        return [*found, Check("keys", FAILED, message, fix), *_not_reached(names[2:])]
    found.append(Check("keys", PASSED))
    counted = f"{proof.get('proven')} of {proof.get('total')} protected values open"
    if failed:
        fix = "Name the key set that the archive was made under, in rebuild_bundle."
        return [*found, Check("proof", FAILED, message, fix, counted)]
    return [*found, Check("proof", PASSED, output=counted)]


# --- the server, before anything is changed -----------------------------------------------------------------------


def _of_plan(result: Result | None) -> list[Check]:
    names = ("reachable", "features", "certificates", "content", "fit", "ready")
    if result is None or result.get("skipped"):
        return _not_reached(names)
    message = str(result.get("msg") or "")
    if result.get("unreachable"):
        fix = "Start the server, check its address, the connection and the account, and run again."
        return [Check("reachable", ERROR, message, fix), *_not_reached(names[1:])]
    checks = [Check("reachable", PASSED, output=str(result.get("host") or ""))]
    expects = result.get("expects")
    if not isinstance(expects, Mapping):
        # The candidate was refused before its fit was looked at.
        checks += _not_reached(names[1:5])
    else:
        findings = [one for one in result.get("fit") or [] if isinstance(one, Mapping)]
        checks += [
            _features(expects, findings, result.get("missing_features") or []),
            _group("certificates", findings, _listed(expects, "certificates", "https bindings")),
            _group("content", findings, _listed(expects, "content", "folders")),
            _group("fit", findings, ""),
        ]
    if not result.get("failed"):
        return [*checks, Check("ready", PASSED, output=_planned(result))]
    if any(one.status == FAILED for one in checks):
        return [*checks, *_not_reached(names[5:])]
    fix = "The message says what to do. Nothing was changed."
    return [*checks, Check("ready", FAILED, message, fix)]


def _check_of(finding: Result) -> str:
    code = finding.get("code")
    if code in _CERTIFICATES:
        return "certificates"
    if code in _CONTENT:
        return "content"
    return "features" if code in _FEATURES or finding.get("feature") else "fit"


def _fails(finding: Result) -> bool:
    if finding.get("accepted"):
        return False
    severity = finding.get("severity")
    return severity == "error" or (
        severity == "warning" and (finding.get("code") in _STRICT or bool(finding.get("feature")))
    )


def _line(finding: Result) -> str:
    place = f" {finding['path']}" if finding.get("path") else ""
    accepted = f" Accepted: {finding.get('reason')}." if finding.get("accepted") else ""
    return f"[{finding.get('code')}]{place}: {finding.get('message')}. {finding.get('fix')}{accepted}"


def _features(expects: Result, findings: list[Result], missing: list[str]) -> Check:
    expected = _listed(expects, "features", "Windows features")
    if expects.get("products"):
        expected += "\n" + _listed(expects, "products", "products")
    install = f"Install-WindowsFeature -Name {', '.join(map(str, missing))}" if missing else ""
    fix = install or "Install what brings these modules and sections, or take them out of the archive's configuration."
    return _group("features", findings, expected, fix, f"Missing Windows features: {install}. " if install else "")


def _group(name: str, findings: list[Result], expected: str, fix: str = "", head: str = "") -> Check:
    own = [one for one in findings if _check_of(one) == name]
    bad = [_line(one) for one in own if _fails(one)]
    told = [_line(one) for one in own if not _fails(one) and one.get("severity") != "note"]
    output = "\n".join(filter(None, [expected, *(_line(one) for one in own if one.get("severity") == "note")]))
    if bad:
        return Check(name, FAILED, head + " ".join(bad), fix or _TITLES[name], output)
    if told:
        return Check(name, SKIPPED, "Not a reason to stop: " + " ".join(told), "", output)
    return Check(name, PASSED, output=output)


def _listed(expects: Result, name: str, what: str) -> str:
    found = [str(one) for one in expects.get(name) or []]
    return f"expected {what}: {', '.join(found) or 'none'}"


def _planned(result: Result) -> str:
    lines = []
    for one in result.get("key_containers") or []:
        what = "is replaced" if one.get("changed") else "is there"
        lines.append(f"key {one.get('container')} {what}: {(one.get('after') or {}).get('fingerprint')}")
    for one in [result.get("configuration_file"), *(result.get("dependent_files") or [])]:
        if isinstance(one, Mapping):
            lines.append(
                f"{one.get('path')} {'is replaced' if one.get('changed') else 'stays'}: SHA-256 {one.get('after')}"
            )
    return "\n".join(lines)


# --- the rebuild itself -------------------------------------------------------------------------------------------


def _of_done(result: Result | None, plan: Result | None, dry_run: bool, urls: t.Sequence[Result]) -> list[Check]:
    names = ("restored", "serving")
    if result is None or result.get("skipped"):
        if dry_run and plan is not None and not plan.get("failed") and not plan.get("unreachable"):
            text = "Dry run: it would be changed." if plan.get("changed") else "Dry run: it is as it should be."
            return [Check(name, SKIPPED, text) for name in names]
        return _not_reached(names)
    message = str(result.get("msg") or "")
    if result.get("unreachable"):
        fix = "The server settles an interrupted change itself. Look at it with webfarm.iis.server_info, and run again."
        return [Check("restored", ERROR, message, fix), *_not_reached(names[1:])]
    outcome = str((result.get("transaction") or {}).get("outcome") or "none")
    if result.get("failed"):
        if result.get("health"):
            fix = "Start what is stopped, or find the cause with webfarm.iis.diagnose."
            return [
                Check("restored", PASSED, output="nothing was to be changed"),
                Check("serving", FAILED, message, fix),
            ]
        fix = {
            "rolled_back": "Keys, files and services are as they were before. Remove the cause, and run again.",
            "rollback_failed": "The server needs attention. Its old state lies in the undo folder, see the message.",
        }.get(outcome, "The message says what to do.")
        return [Check("restored", FAILED, message, fix), *_not_reached(names[1:])]
    text = "nothing was to be changed"
    if result.get("changed"):
        text = "\n".join([f"transaction: {outcome}", *map(str, result.get("steps") or [])])
    served = []
    for kind in ("services", "app_pools", "sites"):
        served += [f"{one.get('name')}: {one.get('after')}" for one in result.get(kind) or []]
    served += [f"{one.get('url')} answered as it should" for one in urls]
    return [Check("restored", PASSED, output=text), Check("serving", PASSED, output="\n".join(served))]


def _not_reached(names: t.Iterable[str]) -> list[Check]:
    return [Check(name, SKIPPED, "Not reached.") for name in names]


# --- out ----------------------------------------------------------------------------------------------------------


def problems(checks: t.Iterable[Check]) -> list[Check]:
    """The checks for which the run fails."""
    return [one for one in checks if one.status in (FAILED, ERROR)]


def lines(checks: t.Sequence[Check]) -> list[str]:
    """The checks as lines for a terminal."""
    width = max(len(one.name) for one in checks)
    shown = []
    for one in checks:
        text = one.message or one.output.replace("\n", "; ")
        fix = f" {one.fix}" if one.fix and one.fix not in text else ""
        shown.append(f"{one.name.ljust(width)}  {one.status.ljust(7)}  {text}{fix}".rstrip())
    return shown


def junit(checks: t.Sequence[Check], host: str, computer: str, timestamp: str) -> str:
    """The JUnit file of one host."""
    kinds = {PASSED: "", FAILED: _junit.FAILURE, ERROR: _junit.ERROR, SKIPPED: _junit.SKIPPED}
    cases = [
        _junit.Case(
            one.name, kinds[one.status], _junit.Detail(one.message, one.status, one.fix or one.message), one.output
        )
        for one in checks
    ]
    suite = _junit.Suite(
        name=host, hostname=computer or host, classname=f"rebuild.{host}", timestamp=timestamp, cases=cases
    )
    stream = io.BytesIO()
    _junit.write(stream, f"Rebuild of {host}", [suite])
    return stream.getvalue().decode("utf-8")
