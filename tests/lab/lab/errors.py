# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's exceptions."""

from __future__ import annotations


class LabError(Exception):
    """Something in the lab failed; the text says what and what to do."""


class LabUnavailable(LabError):
    """A part that the lab stands on cannot be had here (Wine, PowerShell, root): tests skip with this reason."""
