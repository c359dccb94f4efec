# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hardened hosts ask for: no managed cryptography, known file names as constants, NCrypt as recorded."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
FIPS_APPROVED = {
    ("_Canonical.cs", "System.Security.Cryptography"),
    ("_Canonical.cs", "SHA256.Create"),
    ("_Canonical.cs", "SHA256CryptoServiceProvider"),
    ("_Deadman.psm1", "System.Security.Cryptography"),
    ("_Deadman.psm1", "SHA256CryptoServiceProvider"),
    ("_WebConfig.cs", "System.Security.Cryptography"),
    ("_WebConfig.cs", "Aes.Create"),
}
EXPECTED = "597367cc37b886d7ee6c493e3befb421_bedd7e64-3711-428d-8c5a-8bdb1f491519"


def test_no_managed_cryptography_travels_to_a_target() -> None:
    """.NET's own algorithm classes throw under the FIPS policy; CryptoAPI and NCrypt do not.

    What FIPS_APPROVED names is made by CryptoAPI on .NET Framework (the CryptoServiceProvider classes, and Aes.Create
    and TripleDES.Create, which answer with them), or falls back to it under the policy (HMACSHA256).
    """
    files = [*PLUGINS.glob("module_utils/*.cs"), *PLUGINS.glob("module_utils/*.psm1"), *PLUGINS.glob("modules/*.ps1")]
    assert len(files) > 15
    forbidden = re.compile(
        r"System\.Security\.Cryptography(?!\.X509Certificates)|\b(?:MD5|SHA1|SHA256|Aes|Rijndael|RSA)\w*(?:Managed|CryptoServiceProvider|Cng)\b"
        r"|\b(?:MD5|SHA1|SHA256|Aes|RSA)\.Create\b|Get-FileHash|\bProtectedData\b"
    )
    found = {(path.name, match[0]) for path in files for match in forbidden.finditer(path.read_text(encoding="utf-8"))}
    assert found == FIPS_APPROVED
    # SHA256.Create() is the managed class on .NET Framework: for PowerShell 7 alone.
    canonical = (PLUGINS / "module_utils" / "_Canonical.cs").read_text(encoding="utf-8")
    assert canonical.count("SHA256.Create") == 1
    both = r"#if CORECLR\n[^#]*SHA256\.Create\(\)\)\n#else\n[^#]*SHA256CryptoServiceProvider\(\)\)\n#endif"
    assert re.search(both, canonical)


def test_known_file_names_are_constants_and_right() -> None:
    text = (PLUGINS / "module_utils" / "_KeyContainer.cs").read_text(encoding="utf-8")
    pairs = re.findall(r'\{ "(cryptoapi|cng) ([^"]+)", "([0-9a-f]{32})" \}', text)
    assert len(pairs) == 9
    for store, name, prefix in pairs:
        encoding = "utf-16-le" if store == "cng" else "ascii"
        digest = hashlib.md5((name.lower() + "\0").encode(encoding), usedforsecurity=False).digest()
        assert "".join(f"{word:08x}" for word in struct.unpack("<4I", digest)) == prefix, name


def utf16(text: str) -> str:
    return base64.b64encode((text + "\0").encode("utf-16-le")).decode("ascii")


def number(value: int) -> str:
    return base64.b64encode(value.to_bytes(4, "little")).decode("ascii")


KEY = {
    "Unique Name": utf16(EXPECTED),
    "Algorithm Name": utf16("SP800_108_CTR_HMAC"),
    "Export Policy": number(3),
    "Security Descr": base64.b64encode(bytes(20)).decode("ascii"),
}
CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"properties": KEY},
        {
            "state": "opened",
            "unique_name": EXPECTED,
            "algorithm": "SP800_108_CTR_HMAC",
            "policy": 3,
            "names": ["export", "plaintext_export"],
            "sddl": "parts 7, 20 bytes",
            "error": "0x00000000",
        },
    ),
    # a key that tells nothing about itself but its name
    (
        {"properties": {"Unique Name": KEY["Unique Name"]}},
        {"state": "opened", "policy": None, "names": [], "sddl": None},
    ),
    ({"properties": KEY | {"Export Policy": number(0)}}, {"state": "opened", "policy": 0, "names": []}),
    # NCrypt falls back to a CryptoAPI container of the same name
    ({"properties": KEY | {"Unique Name": utf16("76944fb3_x")}}, {"state": "other", "unique_name": "76944fb3_x"}),
    ({"properties": {}}, {"state": "unavailable", "unique_name": None}),
    ({"key": "80090016"}, {"state": "missing", "error": "0x80090016"}),
    ({"key": "80090011"}, {"state": "missing"}),
    ({"key": "80090010"}, {"state": "denied"}),
    ({"key": "00000005"}, {"state": "denied", "error": "0x80070005"}),
    ({"key": "80090005"}, {"state": "damaged"}),
    ({"key": "8009000B"}, {"state": "damaged"}),
    # what an NCrypt says that does not implement it (Wine)
    ({"key": "80090029"}, {"state": "unavailable", "error": "0x80090029"}),
    ({"provider": "80090029"}, {"state": "unavailable", "error": "0x80090029"}),
    ({"missing": "ncrypt.dll"}, {"state": "unavailable", "error": "0x00000000"}),
]


def test_answers_of_ncrypt(pwsh_linux: Path, tmp_path: Path) -> None:
    source = PLUGINS / "module_utils" / "_CngKey.cs"
    blank = {"provider": "0", "key": "0", "missing": None, "properties": {}}
    plan = {"source": str(source), "expected": EXPECTED.upper(), "cases": [blank | case for case, _expected in CASES]}
    (tmp_path / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    script = Path(__file__).resolve().parent / "powershell" / "cng_recordings.ps1"
    done = subprocess.run(
        [str(pwsh_linux), "-NoProfile", "-NonInteractive", "-File", str(script), str(tmp_path / "plan.json")],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    for (case, expected), answer in zip(CASES, answers, strict=True):
        assert {name: answer[name] for name in expected} == expected, (case, answer)
        if case.get("provider") or case.get("missing"):
            continue
        # a machine key, silently; whatever was opened is closed
        assert answer["flags"] == 0x60
        assert answer["freed"] == (1 if case.get("key") else 2)
