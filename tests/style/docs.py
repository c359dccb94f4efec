# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation, changelog and licence checks of a published collection, each in a few seconds.

antsibull-changelog lint, reuse lint, and antsibull-docs lint-collection-docs: the last one checks guides, links and the
documentation of every plugin and role, with its markup and its references.

  docs.py --site    the documentation as a site, with antsibull-docs and Sphinx, in .build/docs. A warning is a failure,
                    but for references into the documentation of Ansible and other collections, which is not at hand.
                    antsibull-docs takes no pictures along; they are put beside the guides here.
"""

from __future__ import annotations

import re
import shutil
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

SITE = ROOT / ".build" / "docs"
ELSEWHERE = re.compile(
    r"undefined label: '(?:action_plugins|ansible_configuration_settings|common_return_values"
    r"|ansible_collections\.(?:ansible\.builtin|community\.crypto)\.\w+)'"
)


def site() -> int:
    shutil.rmtree(SITE, ignore_errors=True)
    SITE.mkdir(mode=0o755, parents=True)
    start = ["sphinx-init", "--use-current", "--dest-dir", str(SITE), "--sphinx-theme", "basic", "webfarm.iis"]
    subprocess.run(["antsibull-docs", *start], check=True, stdout=subprocess.DEVNULL)
    pages = SITE / "rst"
    pages.chmod(0o755)
    write = ["collection", "--use-current", "--cleanup", "everything", "--squash-hierarchy", "--dest-dir", str(pages)]
    config = ["--config-file", str(SITE / "antsibull-docs.cfg")]
    subprocess.run(["antsibull-docs", *config, *write, "--fail-on-error", "webfarm.iis"], check=True)
    shutil.copytree(ROOT / "docs" / "docsite" / "rst" / "images", pages / "docsite" / "images")
    with (SITE / "conf.py").open("a", encoding="utf-8") as settings:
        settings.write("\nintersphinx_mapping = {}\n")
    command = ["sphinx-build", "-q", "-b", "html", "-c", str(SITE), str(pages), str(SITE / "build")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    warnings = [line for line in done.stderr.splitlines() if line.strip() and not ELSEWHERE.search(line)]
    for line in warnings:
        print(line)
    return 1 if warnings or done.returncode else 0


def main() -> int:
    if sys.argv[1:] == ["--site"]:
        return site()
    failed = [" ".join(check) for check in CHECKS if subprocess.run(check, cwd=ROOT, check=False).returncode]
    for check in failed:
        print(f"docs: failed: {check}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
