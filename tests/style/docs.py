# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation, changelog and licence checks of a published collection, each in a few seconds.

antsibull-changelog lint, reuse lint, and antsibull-docs lint-collection-docs: the last one checks guides, links and the
documentation of every plugin and role, with its markup and its references.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKS = (
    ("antsibull-changelog", "lint"),
    ("reuse", "lint", "--quiet"),
    (
        "antsibull-docs",
        "lint-collection-docs",
        "--plugin-docs",
        "--check-extra-docs-refs",
        "--validate-collection-refs",
        "self",
        ".",
    ),
)


def main() -> int:
    failed = [" ".join(check) for check in CHECKS if subprocess.run(check, cwd=ROOT, check=False).returncode]
    for check in failed:
        print(f"docs: failed: {check}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
