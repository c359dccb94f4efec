# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of config: content and sealed keys to the target, the offline proof of check mode."""

from __future__ import annotations

import hashlib
import os
import typing as t

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost, _custody, _overrides
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import (
    ActionFailure,
    Options,
    Result,
    WebfarmAction,
    pack,
)

Verdict = dict[str, t.Any]

FINDINGS = (
    "folder_user_unknown",
    "iis_express",
    "module_dll_missing",
    "newer_generation",
    "not_in_schema",
    "older_generation",
    "pending_reboot",
    "pool_user_unknown",
    "schema_unreadable",
    "section_without_schema",
    "address_absent",
    "certificate_absent",
    "certificate_not_checked",
    "folder_absent",
    "isapi_cgi_absent",
    "isapi_filter_absent",
    "log_folder_absent",
    "share_not_checked",
)


class ActionModule(WebfarmAction):
    MODULE = "webfarm.iis.config"
    SPEC = {
        **_custody.TRANSFER_SPEC,
        "accept_undecryptable": _custody.ACCEPT_SPEC,
        "accept_unfit": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "code": {"type": "str", "required": True, "choices": list(FINDINGS)},
                "path": {"type": "str"},
                "reason": {"type": "str", "required": True},
            },
        },
        "backup": {"type": "bool", "default": False},
        "deadman_minutes": {"type": "int", "default": 15},
        "dependents": {"type": "str", "choices": ["fail", "reencrypt"], "default": "fail"},
        "golden_verdicts": {"type": "list", "elements": "dict"},
        "logon_test": {"type": "bool", "default": False},
        "overrides": {"type": "dict"},
        "planned_fingerprints": {"type": "dict"},
        "planned_sha256": {"type": "str"},
        "prior_backups": {"type": "int", "default": 10},
        "remote_src": {"type": "bool", "default": False},
        "src": {"type": "path"},
        "start_services": {"type": "str", "choices": ["as_before", "automatic"], "default": "as_before"},
        "start_timeout": {"type": "int", "default": 180},
        "stop_timeout": {"type": "int", "default": 180},
        "verify_urls": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "url": {"type": "str", "required": True},
                "status": {"type": "list", "elements": "int", "default": [200]},
                "host_header": {"type": "str"},
            },
        },
        "warm_up": {"type": "bool", "default": True},
    }
    CONTROLLER_ONLY = _custody.TRANSFER_CONTROLLER_ONLY | {"golden_verdicts", "planned_fingerprints", "planned_sha256"}

    def work(self, options: Options) -> Result:
        if not options["src"] and (options["remote_src"] or not options["bundle"]):
            raise ActionFailure("src: give a configuration, or a bundle, or both. Without src only the keys change.")
        if options["overrides"] and not options["src"]:
            raise ActionFailure("overrides: they change a configuration, so src is needed.")
        source = self.find_source(options["src"]) if options["src"] and not options["remote_src"] else None
        if options["bundle"]:
            self.refuse_unsafe_surroundings(options["allow_unencrypted_transport"])
        content = self.read_file(source, "src") if source else None
        if options["src"] and self._stands_on_golden(options, content):
            return self._golden_result(options)
        if content is None and options["src"] and not options["remote_src"]:
            raise ActionFailure(
                f"src: there is no file {self.controller_path(options['src'])} on the controller. "
                "config_rewrap writes one."
            )

        if content is not None and options["overrides"]:
            content = self._override(content, options)
        custody = _custody.Custody.load(self, options) if options["bundle"] else None
        arguments = self.target_options(options)
        arguments["_planned"] = custody.planned() if custody else []
        if content is not None:
            arguments["_content"] = pack(content)
        result = _custody.exchange(self, "plan", arguments, custody)
        pending = result.get("_pending") or []
        if self.check_mode and pending:
            self._prove_offline(result, pending, options, content, custody)
        return result

    @staticmethod
    def _override(content: bytes, options: Options) -> bytes:
        """The values of this server; the target checks that they are in."""
        try:
            return _overrides.apply(content, os.path.basename(options["src"]), options["overrides"])
        except _overrides.OverrideError as error:
            raise ActionFailure(f"{error}. Nothing was changed.") from None
        except _apphost.ConfigurationError as error:
            raise ActionFailure(f"src cannot be used: {error}. Nothing was changed.") from None

    # --- check mode --------------------------------------------------------------------------------------------------

    @staticmethod
    def _prove_offline(
        result: Result,
        pending: list[str],
        options: Options,
        content: bytes | None,
        custody: _custody.Custody | None,
    ) -> None:
        """Fill in the verdicts that the target cannot give before it holds the keys."""
        if custody is None:
            raise ActionFailure(
                "The target left values unproven although no key changes: update the collection on the controller.",
                result,
            )
        if content is None:
            raise ActionFailure(
                "remote_src: check mode proves a file against keys of a bundle on the controller only. Use src there.",
                result,
            )
        proof = custody.prove(content, str(options["src"]))
        verdicts = {str(item["path"]): item for item in proof.protected_values}
        _merge(result, pending, verdicts, "bundle")
        _judge(result, options)

    def _stands_on_golden(self, options: Options, content: bytes | None) -> bool:
        """Check mode before an export: the files are not there yet, or older than what the golden server plans."""
        planned = options["planned_fingerprints"]
        if not (self.check_mode and planned and options["bundle"]):
            return False
        if content is None or hashlib.sha256(content).hexdigest() != options["planned_sha256"]:
            return True
        if not os.path.exists(self.controller_path(options["bundle"])):
            return True
        return _custody.read_bundle(self, options).fingerprints() != {
            name: str(mark).lower() for name, mark in planned.items()
        }

    def _golden_result(self, options: Options) -> Result:
        """What the transaction would do, from the golden server's verdicts and one look at the target."""
        planned: dict[str, str] = options["planned_fingerprints"]
        for name, pin in (options["expected_fingerprints"] or {}).items():
            if name in planned and str(pin).lower() != planned[name].lower():
                raise ActionFailure(
                    f"The golden server's {name} has the fingerprint {planned[name]}, "
                    f"expected_fingerprints says {pin}. "
                    "Use the right golden server, or update the inventory if the key was changed on purpose."
                )
        facts = self.call_target(
            {"gather_subset": ["keys", "files"], "containers": list(planned), "decrypt": "none"},
            "webfarm.iis.server_info",
        )
        redirection = facts.get("redirection") or {}
        if redirection.get("enabled"):
            raise ActionFailure(
                f"The server reads its configuration from {redirection.get('path')} (redirection.config): "
                "writing the local file would change nothing. "
                "Change the shared file, or turn shared configuration off first."
            )
        before = {str(item["container"]).lower(): item for item in facts.get("key_containers") or []}
        containers = [
            _planned_container(name, fingerprint, before.get(name.lower()) or {})
            for name, fingerprint in planned.items()
        ]
        live: Result = next((item for item in facts.get("configuration_files") or [] if _is_live(item)), {})
        file = {
            "path": live.get("path"),
            "before": live.get("sha256"),
            # With values of this server the file is another one, which nobody has made yet.
            "after": None if options["overrides"] else options["planned_sha256"],
            "changed": bool(options["overrides"]) or live.get("sha256") != options["planned_sha256"],
        }
        values = [dict(item) for item in options["golden_verdicts"] or []]
        result: Result = {
            "changed": file["changed"] or any(item["changed"] for item in containers),
            "key_containers": containers,
            "configuration_file": file,
            "expects": None,
            "fit": [],
            "missing_features": [],
            "protected_values": values,
            "services": [],
            "app_pools": [],
            "sites": [],
            "steps": [],
            "transaction": {"outcome": "none"},
        }
        if self._task.diff:
            result["diff"] = _diff(containers, file, values)
        _count(result, "golden")
        _judge(result, options)
        return result


def _merge(result: Result, pending: list[str], verdicts: dict[str, Verdict], method: str) -> None:
    for item in result.get("protected_values") or []:
        if item.get("path") in pending:
            found = verdicts.get(str(item["path"]))
            if found is None:
                item.update(verdict="unsupported", message="The controller did not find this value in the candidate.")
            else:
                item.update(
                    {key: found.get(key) for key in ("verdict", "hresult", "message", "cause", "fix") if key in found}
                )
    _count(result, method)


def _count(result: Result, method: str) -> None:
    values = result.get("protected_values") or []
    result["proof"] = {
        "method": method,
        "proven": sum(1 for item in values if item.get("verdict") == "ok"),
        "total": len(values),
        "accepted": sum(1 for item in values if item.get("verdict") != "ok" and item.get("accepted")),
    }


def _judge(result: Result, options: Options) -> None:
    """Fail when a value would not decrypt and nobody accepted that."""
    accepted = _custody.accepted_paths(options)
    bad = []
    for item in result.get("protected_values") or []:
        if item.get("verdict") == "ok":
            continue
        if str(item.get("path")) in accepted:
            item.update(accepted=True, reason=accepted[str(item["path"])])
        else:
            bad.append(f"{item.get('path')} ({item.get('provider')}: {item.get('verdict')})")
    result["proof"]["accepted"] = sum(
        1 for item in result["protected_values"] if item.get("accepted") and item.get("verdict") != "ok"
    )
    if bad:
        shown = "; ".join(bad[:5]) + (f"; and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise ActionFailure(
            f"The candidate would not decrypt on this server with the planned keys: {shown}. Nothing was changed. "
            "Export the keys that encrypted these values, or list the paths with a reason in accept_undecryptable.",
            result,
        )


def _planned_container(name: str, fingerprint: str, present: dict[str, t.Any]) -> dict[str, t.Any]:
    before = {key: present.get(key) for key in ("state", "fingerprint", "bits", "exportable")}
    changed = str(before["fingerprint"] or "").lower() != fingerprint.lower()
    after = {**before, "state": "present", "fingerprint": fingerprint}
    return {
        "container": name,
        "store": "cryptoapi",
        "before": before,
        "after": after,
        "changed": changed,
        "dropped_sids": [],
    }


def _is_live(item: dict[str, t.Any]) -> bool:
    return str(item.get("path") or item.get("file") or "").lower().endswith("applicationhost.config")


def _diff(containers: list[dict[str, t.Any]], file: dict[str, t.Any], values: list[Verdict]) -> Result:
    def side(which: str, paths: list[str]) -> Result:
        return {
            "key_containers": {item["container"]: item[which].get("fingerprint") or "" for item in containers},
            "configuration_file": {"sha256": file[which] or "", "protected_values": paths},
        }

    return {"before": side("before", []), "after": side("after", [str(item.get("path")) for item in values])}
