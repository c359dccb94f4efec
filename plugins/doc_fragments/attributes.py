# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes that ansible-core does not describe, and the notes every module of the collection shares."""

from __future__ import annotations


class ModuleDocFragment:
    """A module extends C(webfarm.iis.attributes) beside C(ansible.builtin.action_common_attributes)."""

    DOCUMENTATION = r"""
attributes:
  idempotent:
    description:
      - When run twice in a row outside check mode with the same options, the second run does not change anything.
requirements:
  - IIS 10 on Windows Server 2016 or later, 64-bit
  - Windows PowerShell 5.1 or PowerShell 7 in a 64-bit, elevated process
notes:
  - The module refuses to work in a 32-bit process on 64-bit Windows, and without an elevated token, because both would
    take a key that they cannot see for a missing one.
"""
