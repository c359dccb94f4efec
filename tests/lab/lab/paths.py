# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where things are. Everything that is generated lies under BUILD, which git ignores."""

from __future__ import annotations

import os
from pathlib import Path

LAB = Path(__file__).resolve().parent.parent
REPO = LAB.parent.parent
FILES = LAB / "files"
SOURCES = LAB / "src"

BUILD = Path(os.environ.get("LAB_BUILD") or REPO / ".build").resolve()
BIN = BUILD / "bin"
PWSH = BUILD / "pwsh"
TEMPLATE = BUILD / "template"
FARMS = BUILD / "farm"

SHARED = Path(os.environ.get("LAB_SHARED") or REPO.parent / "shared")
CORPUS = SHARED / "corpus"
