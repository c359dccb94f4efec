# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The self-test: what it concludes from CNG keys as they might be, which names it refuses, what a report may hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_windows_powershell import MODULES, ROOT, UTILS, csharp_of, own, run_work

from ansible_collections.webfarm.iis.plugins.plugin_utils import _selftest

IIS = ["iisWasKey", "iisConfigurationKey", "NetFrameworkConfigurationKey", "iisCngWasKey", "iisCngConfigurationKey"]
OTHERS = ["", "IISWASKEY", "webfarm.iis-selftest-", "webfarm.iis-selftest-1 ", "WEBFARM.IIS-SELFTEST-1"]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"Field": "hmac", "Padding": "zero"},
    {"Field": "key", "Verify": False},
    {"Refuse": "create"},
    {"Refuse": "import"},
    {"Refuse": "delete"},
    {"Dll": False},
    {"Refuse": "secret"},
]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    module = next(path for path in MODULES if path.stem == "selftest")
    said = run_work(
        "cng_trial.ps1",
        tmp_path_factory.mktemp("trial"),
        own(csharp_of(module)),
        library=str(UTILS / "_Selftest.psm1"),
        variants=VARIANTS,
        names=IIS + OTHERS,
    )
    return dict(said)


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {answer["id"]: answer["verdict"] for answer in result["answers"]}


def test_no_key_of_iis_can_be_named(trial: dict[str, Any]) -> None:
    assert len(trial["refused"]) == len(IIS + OTHERS)
    for name, said in zip(IIS + OTHERS, trial["refused"], strict=True):
        assert said.startswith(f"'{name}' is not one of the self-test's own"), said
    for result in trial["variants"]:
        assert set(result["names"]) <= {f"webfarm.iis-selftest-cng-{number}" for number in (1, 2, 3)}
        # every handle is closed
        assert result["handles"] == 0


def test_what_is_concluded(trial: dict[str, Any]) -> None:
    plain, hmac, of_key, no_keys, no_import, no_delete, no_dll, no_secret = trial["variants"]
    confirmed = dict.fromkeys(("cng_key", "cng_transfer", "cng_value"), "confirmed")
    assert verdicts(plain) == confirmed
    found = plain["found"]
    assert found["field_is"] == "sha256_of_text" and found["padding"] == "pkcs7"
    assert found["field_equal_for_equal_text"] and found["field_equal_for_other_key"]
    assert not found["field_equal_for_other_text"] and found["iv_differs"]
    assert found["derive_as_sp800_108"] and found["opens_with_derived_key"]
    assert found["decrypt_with_changed_field"] == "0x80090005" and found["decrypt_with_copy_text"] is True
    assert found["export_default"] == "0x80090029" and found["blob_magic"] == "KDF1" and found["blob_key_bytes"] == 32
    assert found["blob_holds_secret"] and found["copy_is_equal"] and found["key_length"] == 256

    assert verdicts(hmac) == confirmed
    assert hmac["found"]["field_is"] == "hmac_with_derived_key_of_text_and_end" and hmac["found"]["padding"] == "zero"
    assert hmac["found"]["field_equal_for_equal_text"] and not hmac["found"]["field_equal_for_other_key"]

    assert of_key["found"]["field_is"] == "sha256_of_secret" and of_key["found"]["field_equal_for_other_text"]
    assert of_key["found"]["decrypt_with_changed_field"] == "0x00000000"

    assert set(verdicts(no_keys).values()) == {"open"} and "create: 0x80090029" in no_keys["answers"][0]["text"]
    assert verdicts(no_import) == confirmed | {"cng_transfer": "contradicted"}
    # without IIS the keys are tried, the values are not
    assert verdicts(no_dll) == {"cng_key": "confirmed", "cng_transfer": "recorded", "cng_value": "open"}

    # a secret that cannot be given is the one that the blob holds
    assert verdicts(no_secret) == confirmed and no_secret["found"]["create_secret"] == "0x80090029"
    assert no_secret["found"]["derive_as_sp800_108"] and "blob_holds_secret" not in no_secret["found"]

    for result in (plain, hmac, of_key, no_keys, no_import, no_dll, no_secret):
        assert result["still"] == [] and result["removed"] == result["left"]
    assert len(plain["left"]) == 3
    assert "could not be deleted: 0x80090010" in no_delete["removed"][0] and len(no_delete["still"]) == 3
    # nothing but yes, no, numbers, codes and words leaves the trial
    assert not re.search(r"[A-Za-z0-9+/]{40}", json.dumps(trial).replace("_", " "))


# --- the report ------------------------------------------------------------------------------------------------------

ANSWER = {
    "id": "regiis_size",
    "point": 2,
    "question": "Does it?",
    "done": "It was tried.",
    "expected": "No.",
    "observed": {"bits": 2048, "cases": [{"case": "pc", "exit": 0}], "none": []},
    "verdict": "confirmed",
    "text": "It does not.",
}
SERVER = {"name": None, "os": "Windows Server 2022", "build": "20348.1", "installation": "Server", "language": "en-US"}


def test_a_report_and_its_text() -> None:
    report = _selftest.make(SERVER, [ANSWER, ANSWER | {"verdict": "open"}], recorded="2026-01-01T00:00:00Z")
    assert json.loads(_selftest.to_json(report)) == report
    assert report["summary"] == {"confirmed": 1, "contradicted": 0, "recorded": 0, "open": 1}
    text = _selftest.to_text(report).decode()
    for line in (
        "Server: (not named)",
        "[CONFIRMED] regiis_size (point 2)",
        "  Result: It does not.",
        "    bits: 2048",
    ):
        assert line in text.splitlines(), text
    assert "    none: none" in text
    assert "    cases: case pc, exit 0" in text


@pytest.mark.parametrize(
    "observed",
    [
        {"text": "[enc:AesProvider:abc:enc]"},
        {"deep": [{"text": "<RSAKeyValue>"}]},
        {"text": "-----BEGIN PRIVATE KEY-----"},
        {"text": "A" * 43 + "="},
    ],
)
def test_what_looks_like_a_key_is_not_written(observed: dict[str, Any]) -> None:
    with pytest.raises(_selftest.SelftestError, match=r"report\.answers\[0\]\.observed"):
        _selftest.make(SERVER, [ANSWER | {"observed": observed}], recorded="x")


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(_selftest.SelftestError, match="planned"):
        _selftest.make(SERVER, [ANSWER | {"verdict": "planned"}], recorded="x")


# --- until a run is recorded -----------------------------------------------------------------------------------------

# Modules that change no server: they look, or work on the controller alone.
LOOKS = {"key_info", "server_info", "compliance_record", "config_proof", "fleet_report", "key_bundle"}
NOTE = re.compile(r"not verified on windows", re.IGNORECASE)


def module_notes() -> dict[str, str]:
    folder = ROOT / "plugins" / "modules"
    names = sorted({path.stem for path in folder.iterdir() if path.suffix in (".ps1", ".py", ".yml")})
    command = [str(Path(sys.executable).parent / "ansible-doc"), "--json", *(f"webfarm.iis.{name}" for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    docs = json.loads(done.stdout)
    assert len(docs) == len(names)
    return {name.rpartition(".")[2]: " ".join(entry["doc"].get("notes") or []) for name, entry in docs.items()}


def test_readme_and_every_module_that_writes_say_not_verified() -> None:
    assert NOTE.search((ROOT / "README.md").read_text(encoding="utf-8"))
    notes = module_notes()
    writes = set(notes) - LOOKS
    assert len(writes) >= 9 and set(notes) >= LOOKS
    silent = sorted(name for name in writes if not NOTE.search(re.sub(r"\s+", " ", notes[name])))
    assert not silent, f"notes without 'Not verified on Windows': {silent}"
