# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rule for a key-encryption password, and reading a folder without another account."""

from __future__ import annotations

import base64
from pathlib import Path

from test_windows_powershell import HERE, UTILS, run_work

LACKS = {
    "Farm-2026": "",
    "Übung 2026": "",
    "Ab1-": "8 characters",
    "farm-2026": "an upper-case letter",
    "FARM-2026": "a lower-case letter",
    "Farm-Farm": "a digit",
    "Farm20261": "a symbol",
    "": "8 characters, an upper-case letter, a lower-case letter, a digit, a symbol",
}
# of LogonUser: https://learn.microsoft.com/windows/win32/debug/system-error-codes
JUDGED = {
    0: "ok",
    # the password is right, the kind of logon is not granted
    1385: "ok",
    1326: "refused",
    1330: "refused",
    1331: "refused",
    1909: "refused",
    # no domain controller answers, no trust, access denied, a number that nobody knows
    1311: "unknown",
    1355: "unknown",
    5: "unknown",
    4711: "unknown",
}


def test_passwords_and_files(tmp_path: Path) -> None:
    (tmp_path / "here.config").write_bytes(b"\xff\xfe<\x00")
    found = run_work(
        "logon.ps1",
        tmp_path,
        [HERE / "key_container_stub.cs", UTILS / "_Logon.cs"],
        passwords=list(LACKS),
        folder=str(tmp_path),
        names=["here.config", "absent.config"],
        errors=list(JUDGED),
    )
    assert dict(zip(LACKS, found["lacks"], strict=True)) == LACKS
    assert found["contents"] == [base64.b64encode(b"\xff\xfe<\x00").decode(), "missing"]
    assert found["secure"] == "System.Security.SecureString 1 True"
    assert found["nothing"] is True
    assert dict(zip(JUDGED, found["judged"], strict=True)) == JUDGED
