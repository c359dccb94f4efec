# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rebuild makes of what its tasks said: always the same tests, each reason with what to do."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.webfarm.iis.plugins.filter.rebuild_report import rebuild_report
from ansible_collections.webfarm.iis.plugins.plugin_utils._rebuild import CHECKS

BACKUP = {"name": "20261120T073200", "host": "WEB1", "created": "2026-11-20T07:32:00Z", "files": []}
ARCHIVE = {"archive": {"path": "web1.tar"}, "backup": BACKUP, "proof": {"proven": 3, "total": 3}}
EXPECTS = {
    "features": ["Web-Basic-Auth", "Web-WebServer"],
    "products": ["URL Rewrite"],
    "certificates": ["*:443: (site Shop)"],
    "content": ["D:\\shop"],
}
PLAN: dict[str, Any] = {"changed": True, "host": "WEB9", "expects": EXPECTS, "fit": [], "missing_features": []}
SKIPPED = {"skipped": True}


def finding(code: str, severity: str, **more: Any) -> dict[str, Any]:
    text = {"path": "a/@b", "message": f"no {code}", "fix": f"bring {code}", "feature": None, "accepted": False}
    return {"code": code, "severity": severity, "reason": None} | text | more


def report(archive: Any = None, plan: Any = None, done: Any = None, **options: Any) -> dict[str, Any]:
    found = rebuild_report({"archive": archive, "plan": plan, "done": done}, host="web9", **options)
    assert [one["name"] for one in found["checks"]] == list(CHECKS)
    top = ElementTree.fromstring(found["junit"].encode())
    marks = {case.get("name"): [one.tag for one in case if one.tag != "system-out"] for case in top.iter("testcase")}
    assert list(marks) == list(CHECKS)
    tags = {"passed": [], "failed": ["failure"], "error": ["error"], "skipped": ["skipped"]}
    assert all(marks[one["name"]] == tags[one["status"]] for one in found["checks"])
    for one in found["checks"]:
        assert one["status"] not in ("failed", "error") or (one["message"] and one["fix"]), one
    return found


def status(found: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["status"] for one in found["checks"]}


def text(found: dict[str, Any], name: str) -> str:
    (one,) = (one for one in found["checks"] if one["name"] == name)
    return f"{one['message']} {one['fix']} {one['output']}"


@pytest.mark.parametrize(
    ("archive", "failed", "passed"),
    [
        ({"failed": True, "msg": "src: no such file"}, "archive", ["run"]),
        ({"failed": True, "msg": "not pinned", "archive": {"path": "x"}, "backup": BACKUP}, "keys", ["run", "archive"]),
        ({**ARCHIVE, "proof": None}, "keys", ["run", "archive"]),
        ({**ARCHIVE, "failed": True, "msg": "1 would not open"}, "proof", ["run", "archive", "keys"]),
    ],
    ids=["no archive", "not believed", "no key", "other key"],
)
def test_the_archive_is_judged_step_by_step(archive: dict[str, Any], failed: str, passed: list[str]) -> None:
    found = report(archive, SKIPPED)
    assert found["failed"] == [failed]
    assert [name for name, what in status(found).items() if what == "passed"] == passed
    assert status(found)["reachable"] == "skipped"


def test_what_is_missing_is_said_with_a_ready_command() -> None:
    fit = [
        finding("module_dll_missing", "error", feature="Web-Basic-Auth"),
        finding("certificate_absent", "warning"),
        finding("folder_absent", "warning"),
        finding("share_not_checked", "note"),
        finding("pool_user_unknown", "error"),
    ]
    plan = PLAN | {"failed": True, "msg": "does not fit", "fit": fit, "missing_features": ["Web-Basic-Auth"]}
    found = report(ARCHIVE, plan)
    assert found["failed"] == ["features", "certificates", "content", "fit"]
    assert found["missing_features"] == ["Web-Basic-Auth"]
    assert "Install-WindowsFeature -Name Web-Basic-Auth" in text(found, "features")
    assert "expected Windows features: Web-Basic-Auth, Web-WebServer" in text(found, "features")
    assert "URL Rewrite" in text(found, "features")
    assert "share_not_checked" in text(found, "content") and "D:\\shop" in text(found, "content")
    assert status(found)["ready"] == "skipped"
    assert any("Install-WindowsFeature" in line for line in found["lines"])


@pytest.mark.parametrize(
    ("one", "check", "expected"),
    [
        (finding("certificate_absent", "warning", accepted=True, reason="central store"), "certificates", "skipped"),
        (finding("certificate_not_checked", "warning"), "certificates", "skipped"),
        (finding("log_folder_absent", "warning"), "content", "skipped"),
        (finding("address_absent", "warning"), "fit", "skipped"),
        (finding("section_without_schema", "warning"), "features", "skipped"),
        (finding("section_without_schema", "warning", feature="Web-AppInit"), "features", "failed"),
        (finding("isapi_cgi_absent", "warning"), "features", "failed"),
        (finding("share_not_checked", "note"), "content", "passed"),
        (finding("something_new", "error"), "fit", "failed"),
    ],
)
def test_what_stops_and_what_does_not(one: dict[str, Any], check: str, expected: str) -> None:
    found = report(ARCHIVE, PLAN | {"fit": [one]})
    assert status(found)[check] == expected
    assert (found["failed"] == [check]) == (expected == "failed")
    assert one["message"] in text(found, check)
    assert not one["accepted"] or "central store" in text(found, check)


def test_a_server_that_does_not_answer_is_an_error() -> None:
    found = report(ARCHIVE, {"unreachable": True, "msg": "connection refused"})
    assert status(found)["reachable"] == "error" and status(found)["features"] == "skipped"
    found = report(ARCHIVE, PLAN, {"unreachable": True, "msg": "connection lost"})
    assert status(found)["restored"] == "error" and status(found)["serving"] == "skipped"


def test_another_refusal_of_the_server() -> None:
    found = report(ARCHIVE, {"failed": True, "msg": "redirection is active"})
    assert found["failed"] == ["ready"] and status(found)["fit"] == "skipped"
    assert found["message"] == "ready: redirection is active"


def test_the_end() -> None:
    services = [{"name": "W3SVC", "before": "stopped", "after": "running"}]
    done = {"changed": True, "transaction": {"outcome": "committed"}, "steps": ["Started W3SVC."], "services": services}
    found = report(ARCHIVE, PLAN, done, verify_urls=[{"url": "http://shop.example/"}])
    assert found["failed"] == [] and status(found)["serving"] == "passed"
    assert "W3SVC: running" in text(found, "serving") and "http://shop.example/ answered" in text(found, "serving")
    again = report(ARCHIVE, PLAN, {"changed": False})
    assert "nothing was to be changed" in text(again, "restored")
    dry = report(ARCHIVE, PLAN, SKIPPED, dry_run=True)
    assert dry["failed"] == [] and status(dry)["restored"] == "skipped" and "would be changed" in text(dry, "restored")


@pytest.mark.parametrize(
    ("done", "failed", "words"),
    [
        ({"transaction": {"outcome": "rolled_back"}}, "restored", "as they were before"),
        ({"transaction": {"outcome": "rollback_failed"}}, "restored", "needs attention"),
        ({"health": ["the service W3SVC is stopped"]}, "serving", "webfarm.iis.diagnose"),
    ],
)
def test_a_rebuild_that_failed(done: dict[str, Any], failed: str, words: str) -> None:
    found = report(ARCHIVE, PLAN, {"failed": True, "msg": "it did not come back", **done})
    assert found["failed"] == [failed] and words in text(found, failed)


def test_a_run_that_ends_otherwise_never_looks_good() -> None:
    found = report(SKIPPED, SKIPPED, SKIPPED, failure="rebuild_start_timeout is no number")
    assert found["failed"] == ["run"] and "no number" in found["message"]
    begun = report(finished=False)
    assert status(begun)["run"] == "error" and "not come to its end" in begun["message"]
    # A check that failed says it better.
    both = report({"failed": True, "msg": "no such file"}, failure="refused")
    assert both["failed"] == ["archive"]


def test_secrets_and_control_characters_stay_out_of_the_file() -> None:
    found = report({"failed": True, "msg": "a\x00b [enc:AesProvider:c2VjcmV0:enc]"})
    assert "c2VjcmV0" not in found["junit"] and "a?b" in found["junit"]


def test_what_is_no_result_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="rebuild_report"):
        rebuild_report("text")  # type: ignore[arg-type]
