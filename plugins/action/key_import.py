# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of key_import: the keys of a bundle, sealed again to the target, only where they differ."""

from __future__ import annotations

from ansible_collections.webfarm.iis.plugins.plugin_utils import _custody
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import Options, Result, WebfarmAction


class ActionModule(WebfarmAction):
    MODULE = "webfarm.iis.key_import"
    SPEC = {
        **_custody.TRANSFER_SPEC,
        "accept_undecryptable": _custody.ACCEPT_SPEC,
        "allow_running": {"type": "bool", "default": False},
        "bundle": {"type": "path", "required": True},
        "deadman_minutes": {"type": "int", "default": 15},
        "dependents": {"type": "str", "choices": ["fail", "reencrypt"], "default": "fail"},
        "prior_backups": {"type": "int", "default": 10},
    }
    CONTROLLER_ONLY = _custody.TRANSFER_CONTROLLER_ONLY

    def work(self, options: Options) -> Result:
        self.refuse_unsafe_surroundings(options["allow_unencrypted_transport"])
        custody = _custody.Custody.load(self, options)
        # The target half declares bundle as required, as it is documented; it gets the path and never opens it.
        arguments = self.target_options(options) | {"bundle": options["bundle"], "_planned": custody.planned()}
        return _custody.exchange(self, "compare", arguments, custody)
