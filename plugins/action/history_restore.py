# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of history_restore: wraps the session keys of an old snapshot for the present keys of the server."""

from __future__ import annotations

import base64
import typing as t

from ansible_collections.webfarm.iis.plugins.action import config as _config
from ansible_collections.webfarm.iis.plugins.plugin_utils import (
    _apphost,
    _bundle,
    _custody,
    _keyblob,
    _proof,
    _rewrap,
)
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import (
    ActionFailure,
    Options,
    Result,
    WebfarmAction,
    pack,
    unpack,
)


class ActionModule(WebfarmAction):
    MODULE = "webfarm.iis.history_restore"
    SPEC = {
        **_custody.TRUST_SPEC,
        **{
            name: _config.ActionModule.SPEC[name]
            for name in (
                "accept_undecryptable",
                "backup",
                "containers",
                "deadman_minutes",
                "logon_test",
                "prior_backups",
                "start_services",
                "start_timeout",
                "stop_timeout",
                "undo_expiry_hours",
                "verify_urls",
                "warm_up",
                "without_undo",
            )
        },
        "enabled": {"type": "bool"},
        "max_histories": {"type": "int"},
        "number": {"type": "int"},
        "path": {"type": "str"},
        "period": {"type": "str"},
        "select": {"type": "str", "choices": ["last_proven"]},
        "time": {"type": "str"},
    }
    RULES = {
        "mutually_exclusive": [("number", "time", "select")],
        "required_one_of": [("number", "time", "select", "enabled", "path", "max_histories", "period")],
    }
    CONTROLLER_ONLY = frozenset(_custody.TRUST_SPEC) - {"bundle"}

    def work(self, options: Options) -> Result:
        custody = None
        if options["bundle"]:
            # No private key leaves the controller: the session keys are wrapped for the server's public keys here.
            self.refuse_unsafe_surroundings(True, needs_target=False)
            custody = _custody.Custody.load(self, options)
        arguments = self.target_options(options) | {"_phase": "plan"}
        result = self.call_target(arguments)
        candidates = result.get("_candidates") or []
        if not candidates:
            return result
        if custody is None:
            raise ActionFailure("The target asks for a key set although the task names none: update the collection.")
        number, content = self._wrapped(custody, options, result, candidates)
        again = self.call_target(arguments | {"_content": pack(content), "_number": number})
        again["warnings"] = [*(result.get("warnings") or []), *(again.get("warnings") or [])]
        if "settled" in result:
            again.setdefault("settled", result["settled"])
            again["changed"] = bool(again.get("changed")) or bool(result.get("changed"))
        return again

    def _wrapped(
        self, custody: _custody.Custody, options: Options, result: Result, candidates: list[dict[str, t.Any]]
    ) -> tuple[int, bytes]:
        """The first candidate that opens with the key set, its session keys wrapped for the present keys."""
        present = {
            str(name): _keyblob.read_public_blob(base64.b64decode(str(blob)))
            for name, blob in (result.get("_public") or {}).items()
        }
        held = {name.casefold(): key.fingerprint for name, key in present.items()}
        opened = custody.open()
        moved = {
            name: key
            for name, key in present.items()
            for old in opened
            if old.casefold() == name.casefold() and opened[old].key.fingerprint != held[name.casefold()]
        }
        if not moved:
            raise ActionFailure(
                f"bundle: the server holds none of the keys of {options['bundle']} in another generation, so nothing "
                f"can be wrapped for it. {result.get('_reason') or ''}".strip()
            )
        accepted = _custody.accepted_paths(options)
        ring = _bundle.key_ring(opened)
        problems = []
        for item in candidates:
            number = int(item["number"])
            content = unpack(str(item["content"]), f"snapshot {number}")
            try:
                return number, self._wrap(content, ring, moved, accepted)
            except (_apphost.ConfigurationError, _rewrap.RewrapError) as error:
                problems.append(f"{number}: {error}")
        raise ActionFailure(
            f"bundle: the keys of {options['bundle']} open no snapshot that was asked for ({'; '.join(problems[:5])}). "
            "Nothing was changed. Name the bundle of the generation that the server had then."
        )

    @staticmethod
    def _wrap(content: bytes, ring: t.Any, moved: dict[str, _keyblob.RsaKey], accepted: dict[str, str]) -> bytes:
        configuration = _apphost.parse(content, "applicationHost.config")
        names = {name.casefold() for name in moved}
        proof = _proof.prove([configuration], ring, accepted)
        for value in proof.failed:
            # What other keys open, the server judges.
            if str(value["container"] or "").casefold() in names:
                raise _rewrap.RewrapError(f"{value['path']} ({value['provider']}: {value['verdict']})")
        source = _rewrap.Source(configuration, ring, accepted=set(accepted), containers=moved)
        return configuration.replace(dict(zip(source.paths, source.wrap(moved), strict=True)))
