# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events as servers have recorded them: what is asked for, what is understood, what the diagnosis makes of them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from _support import CORPUS, NO_CORPUS, ROOT

from ansible_collections.webfarm.iis.plugins.plugin_utils._diagnosis import diagnose, load_table

PLUGINS = ROOT / "plugins"
EVENTS = CORPUS / "logs" / "events_was.txt"
STAND_IN = ROOT / "tests/lab/files/modules/LabEventLog/LabEventLog.psm1"
WAS, WORKER, SCM = "Microsoft-Windows-WAS", "Microsoft-Windows-IIS-W3SVC-WP", "Service Control Manager"
# As servers wrote them; the four bytes are the data field.
RECORDED: list[dict[str, Any]] = [
    {
        "source": WORKER,
        "id": 2307,
        "message": "The worker process for application pool 'Shop' encountered an error 'Failed to decrypt "
        "attribute 'password'' trying to read configuration data from file "
        "'\\\\?\\C:\\inetpub\\temp\\apppools\\Shop\\Shop.config', "
        "line number '150'. The data field contains the error code.",
        "texts": ["Shop", "Failed to decrypt attribute 'password'"],
        "data": "05000980",
    },
    {
        "source": WAS,
        "id": 5005,
        "message": "Windows Process Activation Service (WAS) is stopping because it encountered an error. The data "
        "field contains the error number.",
        "data": "0D000780",
    },
    {
        "source": WAS,
        "id": 5215,
        "message": "The Windows Process Activation Service (WAS) failed to execute initialization for offline setup. "
        "The data field contains the error number.",
        "data": "50000780",
    },
    {
        "source": WAS,
        "id": 5021,
        "message": "The identity of application pool Shop is invalid.",
        "data": "2E050780",
    },
    {
        "source": SCM,
        "id": 7023,
        "message": "The Windows Process Activation Service service terminated with the following error: The data is "
        "invalid.",
        "texts": ["Windows Process Activation Service", "%%13"],
    },
    {
        "source": SCM,
        "id": 7024,
        "message": "The IIS Admin Service service terminated with the following service-specific error: Invalid "
        "Signature.",
        "texts": ["IIS Admin Service", "%%2148073478"],
    },
]
CODES = ["0x80090005", "0x8007000D", "0x80070050", "0x8007052E", "0x8007000D", "0x80090006"]


def ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="milliseconds")


@pytest.fixture(scope="module")
def read(pwsh_linux: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, Any]]]:
    """read(case, ...) -> what Get-WebfarmEventFact returned for each."""

    def run(*cases: dict[str, Any]) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("events")
        plan = []
        for number, case in enumerate(cases):
            file = folder / f"{number}.jsonl"
            lines = [event | {"time": ago(event.get("hours_ago", 1))} for event in case.get("events", [])]
            lines += [{"source": source, "failure": name} for source, name in case.get("failures", {}).items()]
            file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            plan.append({"events": str(file), "hours": case.get("hours", 24), "limit": case.get("limit", 50)})
        libraries = [str(PLUGINS / "module_utils" / f"_{name}.psm1") for name in ("Diagnosis", "Facts", "EventLog")]
        path = folder / "plan.json"
        path.write_text(json.dumps({"libraries": [*libraries, str(STAND_IN)], "cases": plan}), encoding="utf-8")
        script = Path(__file__).resolve().parent / "powershell" / "event_recordings.ps1"
        done = subprocess.run(
            [str(pwsh_linux), "-NoProfile", "-NonInteractive", "-File", str(script), str(path)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return list(json.loads(done.stdout.strip().splitlines()[-1]))

    return run


def corpus_events() -> list[dict[str, Any]]:
    """The lines of the corpus that carry a number: identifier, text, data field."""
    found = []
    for line in EVENTS.read_text(encoding="utf-8").splitlines():
        match = re.match(r"(?:\(SCM )?(\d{4})\b\)? ?(.*)", line)
        if not match:
            continue
        number, text = int(match[1]), match[2]
        source = WORKER if text.startswith("(W3SVC-WP)") else SCM if line.startswith("(SCM") else WAS
        binary = re.search(r"(?:Binary[ =]|\[)([0-9A-F]{8})\b", text)
        found.append(
            {
                "source": source,
                "id": number,
                "message": text,
                "data": binary[1] if binary else "",
            }
        )
    return found


def test_recorded_events(read: Callable[..., list[dict[str, Any]]]) -> None:
    old = RECORDED[1] | {"hours_ago": 30}
    other = RECORDED[1] | {"id": 5186}
    noisy = [RECORDED[3] | {"hours_ago": number / 100} for number in range(80, 0, -1)]
    answers = read(
        {"events": [old, other] + [one | {"hours_ago": number} for number, one in enumerate(RECORDED, 1)][::-1]},
        {"events": [old], "hours": 48},
        {"events": noisy, "limit": 50},
        {},
        {
            "failures": {
                WAS: "NoMatchingProvidersFound",
                WORKER: "LogsAndProvidersDontOverlap",
                SCM: "NoMatchingEventsFound",
            }
        },
        {"failures": dict.fromkeys((WAS, WORKER, SCM), "System.UnauthorizedAccessException")},
        {"events": RECORDED[:1], "failures": {WAS: "System.UnauthorizedAccessException"}},
    )
    facts = answers
    assert [(one["source"], one["id"], one["hresult"]) for one in facts[0]["entries"]] == [
        (one["source"], one["id"], code) for one, code in zip(RECORDED, CODES, strict=True)
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one["time"]) for one in facts[0]["entries"])
    assert facts[0]["readable"] and facts[0]["message"] is None and facts[0]["hours"] == 24
    assert [one["id"] for one in facts[1]["entries"]] == [5005] and facts[1]["hours"] == 48
    assert len(facts[2]["entries"]) == 50
    assert facts[2]["entries"][0]["time"] >= facts[2]["entries"][-1]["time"]
    for empty in facts[3:5]:
        assert empty["readable"] and empty["entries"] == [] and empty["message"] is None
    assert not facts[5]["readable"] and "System log cannot be read" in facts[5]["message"]
    # one log that can be read is better than none, and what cannot be read is said
    assert facts[6]["readable"] and [one["id"] for one in facts[6]["entries"]] == [2307]
    assert "System log cannot be read" in facts[6]["message"]


def test_the_events_of_the_corpus(read: Callable[..., list[dict[str, Any]]]) -> None:
    if not EVENTS.is_file():
        pytest.skip(NO_CORPUS)
    events = corpus_events()
    assert len(events) >= 8
    (answer,) = read({"events": events})
    known = {(one.source, one.id) for one in load_table().events}
    assert {(one["source"], one["id"]) for one in events} <= known, "the table does not know an event of the corpus"
    found = {(one["id"], one["hresult"]) for one in answer["entries"]}
    assert {(5005, "0x8007000D"), (5189, "0x8007000D"), (5215, "0x80070050"), (5057, None), (2297, None)} <= found


def server(**more: Any) -> dict[str, Any]:
    """The facts of a server on which nothing is wrong now."""
    return {"key_containers": [], "session_keys": [], "protected_values": [], "services": [], "app_pools": []} | more


def test_what_the_diagnosis_makes_of_them(read: Callable[..., list[dict[str, Any]]]) -> None:
    answers = read(*({"events": [one]} for one in RECORDED))
    first = [diagnose(server(events=answer), "web1")["causes"] for answer in answers]
    names = [causes[0]["id"] if causes else None for causes in first]
    # 5005 says that WAS stopped and its code why; of the events of the services only the code speaks
    assert names == [
        "foreign_key",
        "data_invalid",
        "leftover_tmp",
        "pool_identity",
        "data_invalid",
        "signature_invalid",
    ]
    assert all("event " in causes[0]["evidence"][0] for causes in first)
    # what is broken now takes the event as its evidence, and stays the cause
    key = {
        "container": "iisWasKey",
        "state": "missing",
        "store": "cryptoapi",
        "file_expected": "x",
        "foreign_files": [],
    }
    value = {"container": "iisWasKey", "verdict": "missing_key", "provider": "IISWASOnlyAesProvider", "path": "p"}
    broken = server(key_containers=[key], protected_values=[value], events=answers[3])
    causes = diagnose(broken, "web1")["causes"]
    assert causes[0]["id"] == "key_missing" and any("event 5021" in line for line in causes[0]["evidence"]), causes
