# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""Python libraries that are missing on the controller, or too old: the task says so, instead of a traceback."""

from __future__ import annotations

import os
import sys

_REQUIREMENTS = os.path.normpath(os.path.join(os.path.dirname(__file__), "..", "..", "meta", "ee-requirements.txt"))
_missing: list[str] = []


def note(error: ImportError) -> None:
    """A library could not be imported."""
    _missing.append(str(error))


def problem() -> str | None:
    """What cannot be imported, and what to do; None when everything is there."""
    if not _missing:
        return None
    return (
        f"The Python that runs Ansible ({sys.executable}) lacks a library that this collection needs: {_missing[0]}. "
        f"Install the libraries with this Python: {sys.executable} -m pip install -r {_REQUIREMENTS}"
    )
