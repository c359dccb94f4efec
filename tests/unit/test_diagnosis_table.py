# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of causes and fixes can be read without PowerShell, and leaves no verdict unexplained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

# What may be recommended: playbooks and modules of the collection's plan, and three words of the ranking itself.
PLAYS = {"history", "history_copy", "leftover", "start"} | {
    *("provision", "sync_keys", "rotate", "restore"),
    *("key", "key_import", "config_rewrap", "secret"),
}
SOURCE = Path(__file__).resolve().parents[2] / "plugins" / "module_utils" / "_Diagnosis.psm1"
CONTEXTS = {"", "open", "cng", "decrypt", "export", "import", "configure", "service", "worker", "wmsvc"}


def table() -> dict[str, Any]:
    found = re.search(r"(?ms)^\$script:diagnosisTable = @'\n(.*?)\n'@$", SOURCE.read_text(encoding="utf-8"))
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def test_entries_are_complete() -> None:
    content = table()
    assert set(content) == {"names", "entries", "events"}
    ids = [entry["id"] for entry in content["entries"]]
    assert len(set(ids)) == len(ids)
    for entry in content["entries"]:
        assert set(entry) - {"plays"} == {"id", "codes", "verdicts", "context", "message", "cause", "confirm", "fix"}
        assert re.fullmatch(r"[a-z0-9_]+", entry["id"])
        assert set(entry.get("plays", ())) <= PLAYS
        assert entry["context"] in CONTEXTS
        for field in ("message", "cause", "confirm", "fix"):
            text = entry[field] if isinstance(entry[field], str) else " ".join(entry[field])
            assert text.endswith("."), text
            assert set(re.findall(r"\{(\w+)\}", text)) <= {"container", "provider"}, text
        for code in entry["codes"]:
            assert re.fullmatch(r"0x[0-9A-F]{8}", code), code
            assert code in content["names"], code


def test_every_verdict_and_every_code_of_the_field_is_explained() -> None:
    entries = table()["entries"]
    verdicts = {word for entry in entries for word in entry["verdicts"]}
    assert verdicts == {
        "bad_data",
        "damaged",
        "denied",
        "garbage",
        "malformed",
        "missing",
        "missing_key",
        "needs_target",
        "unknown_provider",
        "unsupported",
    }
    codes = {code for entry in entries for code in entry["codes"]}
    # those that CryptoAPI and IIS are known to report
    for number in (0x05, 0x06, 0x0A, 0x0B, 0x0D, 0x0F, 0x10, 0x16, 0x1A, 0x26, 0x29):
        assert f"0x8009{number:04X}" in codes
    assert {"0x80070002", "0x80070005", "0x80070006", "0x80070008", "0x8007000D", "0x80070057"} <= codes
    # 1053, 1068, 1326: what the service manager and WAS say
    assert {"0x8007041D", "0x8007042C", "0x8007052E"} <= codes


def test_every_event_of_the_field_is_known() -> None:
    content = table()
    ids = {entry["id"] for entry in content["entries"]}
    events = {(event["source"].rpartition("-")[2], event["id"]): event for event in content["events"]}
    assert {number for source, number in events if source == "WAS"} == {
        *(5002, 5005, 5009, 5021, 5036, 5053, 5057, 5059, 5172, 5189, 5191, 5215),
    }
    assert {number for source, number in events if source == "WP"} == {2276, 2297, 2307}
    assert {number for source, number in events if source == "Service Control Manager"} >= {7001, 7009, 7023, 7024}
    for event in events.values():
        assert event["entry"] == "" or event["entry"] in ids
        assert event["text"].endswith(".")


def test_no_two_entries_compete() -> None:
    seen: set[tuple[str, str]] = set()
    for entry in table()["entries"]:
        for word in entry["verdicts"]:
            assert (word, entry["context"]) not in seen, (word, entry["context"])
            seen.add((word, entry["context"]))


def test_the_page_of_the_documentation_is_the_table() -> None:
    import _error_codes

    assert _error_codes.PAGE.read_text(encoding="utf-8") == _error_codes.page(), (
        "the table changed: run python tests/unit/_error_codes.py"
    )
