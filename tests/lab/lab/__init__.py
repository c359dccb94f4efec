# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulated farm: Wine prefixes laid out as IIS hosts behind a WS-Management endpoint on loopback."""

from __future__ import annotations

from .errors import LabError, LabUnavailable
from .farm import Farm, Host

__all__ = ["Farm", "Host", "LabError", "LabUnavailable"]
