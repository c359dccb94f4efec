# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""selftest: interrupted, planned, run; nothing of it stays, IIS is not touched, the report holds no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import Host

Module = Callable[..., dict[str, Any]]
FOLDER = "ProgramData/webfarm.iis-selftest"
ASKED = [
    "cng_key",
    "cng_transfer",
    "cng_value",
    "cng_iis_keys",
    "regiis_exit",
    "regiis_size",
    "regiis_access",
    "regiis_public_only",
    "library",
    "access_lists",
]


def own(host: Host) -> set[str]:
    return {name for name in host.containers() if name.startswith("webfarm.iis-selftest-")}


def test_interrupted_planned_and_run(
    ansible_module: Module, playbook: Callable[..., Any], web2: Host, tmp_path: Path
) -> None:
    web2.wait_until_read()
    with web2.history_paused():
        before = web2.snapshot()
        reports = tmp_path / "reports"

        # Killed while the private key of a scratch container lies in its file.
        web2.fault("kill", marker=f"{FOLDER}/one.xml")
        killed = ansible_module(web2, "selftest", report_dir=str(reports))
        assert killed.get("failed") or killed.get("unreachable"), killed
        left = own(web2)
        assert {"webfarm.iis-selftest-1", "webfarm.iis-selftest-2"} <= left
        assert (web2.drive_c / FOLDER).is_dir() and not reports.exists()

        plan = ansible_module(web2, "selftest", check=True, report_dir=str(reports))
        assert plan["changed"] is True and not plan.get("failed"), plan
        assert set(plan["leftovers"]) == left | {"C:\\" + FOLDER.replace("/", "\\")}
        assert [answer["id"] for answer in plan["answers"]] == ASKED
        assert {answer["verdict"] for answer in plan["answers"]} == {"planned"}
        assert own(web2) == left and not reports.exists()

        extra = {"target_hosts": "web2", "selftest_report_dir": str(reports), "selftest_describe_iis_keys": True}
        done = playbook("webfarm.iis.selftest", extra_vars=extra)
        assert done.rc == 0 and done.changed == 1, done.text
        assert own(web2) == set() and not (web2.drive_c / FOLDER).exists()
        differences = before.differences(web2.snapshot())
        assert not differences, "\n".join(differences)

    (path,) = reports.glob("*.json")
    report = json.loads(path.read_text("utf-8"))
    verdicts = {answer["id"]: answer["verdict"] for answer in report["answers"]}
    by_name = {answer["id"]: answer for answer in report["answers"]}
    assert list(verdicts) == ASKED
    for name in ("regiis_exit", "regiis_size", "regiis_access", "regiis_public_only", "library"):
        assert verdicts[name] == "confirmed", by_name[name]
    # Files of the lab have the list of the machine that it runs on: everybody reads them. The self-test has to object.
    assert verdicts["access_lists"] == "contradicted"
    objections = ["iisWasKey: forbidden S-1-5-32-568", "iisCngWasKey: forbidden S-1-5-32-568"]
    assert by_name["access_lists"]["observed"]["problems"] == objections
    # Wine has no such CNG keys, and says so.
    for name in ("cng_key", "cng_transfer", "cng_value", "cng_iis_keys"):
        assert verdicts[name] == "open", by_name[name]
    assert by_name["cng_key"]["observed"]["create"] == "0x80090029"
    assert len(by_name["regiis_exit"]["observed"]["cases"]) == 16
    assert by_name["regiis_access"]["observed"]["import_without_exp_is_exportable"] is False
    assert by_name["library"]["observed"]["checks"]["not_exportable_is_refused"] is True
    assert report["server"]["name"] is None and report["server"]["build"].startswith("20348")
    assert report["summary"] == {"confirmed": 5, "contradicted": 1, "recorded": 0, "open": 4}

    for one in reports.iterdir():
        text = one.read_text("utf-8")
        assert one.stat().st_mode & 0o777 == 0o600
        assert web2.machine_guid not in text and not re.search(rf"\b{web2.name}\b", text, re.IGNORECASE)
        assert not re.search(r"[A-Za-z0-9+/]{40}", text) and "RSAKeyValue" not in text
        assert not re.search(r"S-1-5-21-\d", text)
    (text_path,) = reports.glob("*.txt")
    assert "[CONFIRMED] regiis_size (point 2)" in text_path.read_text("utf-8")
