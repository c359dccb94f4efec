# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""config_proof runs on the controller alone: does this file decrypt with this bundle?"""

from __future__ import annotations

from ansible_collections.webfarm.iis.plugins.plugin_utils import _custody
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import ActionFailure, Options, Result, WebfarmAction


class ActionModule(WebfarmAction):
    _requires_connection = False

    MODULE = "webfarm.iis.config_proof"
    SPEC = {
        **_custody.TRUST_SPEC,
        "accept_undecryptable": _custody.ACCEPT_SPEC,
        "allow_needs_target": {"type": "bool", "default": False},
        "bundle": {"type": "path", "required": True},
        "src": {"type": "path", "required": True},
    }

    def work(self, options: Options) -> Result:
        self.refuse_unsafe_surroundings(allow_unencrypted=True, needs_target=False)
        source = self.find_source(options["src"])
        if source is None:
            raise ActionFailure(f"src: there is no file {self.controller_path(options['src'])} on the controller.")
        content = self.read_file(source, "src")
        custody = _custody.Custody.load(self, options)
        proof = custody.prove(content, source)
        for path in proof.unused_accepted:
            self.warn(
                f"accept_undecryptable: '{path}' is not needed, there is no such value in this file or it decrypts; "
                "remove the entry."
            )
        result: Result = {
            "changed": False,
            "key_containers": [
                {"container": name, "fingerprint": key.key.fingerprint} for name, key in custody.open().items()
            ],
            "protected_values": proof.protected_values,
            "session_keys": proof.session_keys,
            "proven": proof.proven,
            "failed_values": [item["path"] for item in proof.failed],
            "needs_target": [item["path"] for item in proof.needs_target],
        }
        total = len(proof.protected_values)
        if proof.failed:
            first = proof.failed[0]
            raise ActionFailure(
                f"{len(proof.failed)} of {total} protected values in {source} do not decrypt with {options['bundle']}. "
                f"The first, line {first['line']}: {first['path']} ({first['provider']}, container "
                f"{first['container']}): {first['verdict']}. {first['fix'] or ''} "
                "What is known to be broken and not needed can be listed with a reason in accept_undecryptable.",
                result,
            )
        if proof.needs_target and not options["allow_needs_target"]:
            paths = ", ".join(result["needs_target"][:5])
            raise ActionFailure(
                f"{len(proof.needs_target)} of {total} protected values in {source} depend on CNG keys, "
                f"which only a server can open: {paths}. "
                "Make them portable with config_rewrap (cng: portable), or set allow_needs_target: true.",
                result,
            )
        return result
