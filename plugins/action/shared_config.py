# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of shared_config: hands the target the script that settles an interrupted run."""

from __future__ import annotations

from ansible_collections.webfarm.iis.plugins.plugin_utils._action import TransactionAction


class ActionModule(TransactionAction):
    MODULE = "webfarm.iis.shared_config"
