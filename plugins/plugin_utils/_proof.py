# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""The proof of a configuration with given keys, offline, in the same words as the target's.

What a verdict means in the field is read from the table that the target uses, module_utils/_Diagnosis.psm1.
"""

from __future__ import annotations

import functools
import json
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.webfarm.iis.plugins.plugin_utils._apphost import Configuration, Provider
from ansible_collections.webfarm.iis.plugins.plugin_utils._keyblob import KeyBlobError
from ansible_collections.webfarm.iis.plugins.plugin_utils._protection import (
    KeyRing,
    ProtectionError,
    Verdict,
    judge,
    session_key_bits,
)

_TABLE = Path(__file__).resolve().parent.parent / "module_utils" / "_Diagnosis.psm1"


@dataclass(frozen=True)
class Proof:
    """The outcome of a proof.

    ``protected_values`` has one dictionary per protected value: path, file, line, provider, kind, container, verdict,
    hresult ("0x80090005" or None), message, cause, fix, accepted (bool), reason. ``session_keys`` has one per AES
    provider: file, line, provider, container, verdict, algorithm, key_bits, hresult, message, cause, fix. Neither
    holds a plaintext.
    """

    protected_values: list[dict[str, t.Any]]
    session_keys: list[dict[str, t.Any]]
    unused_accepted: list[str]

    @property
    def proven(self) -> int:
        """Values that decrypt."""
        return sum(1 for value in self.protected_values if value["verdict"] == "ok")

    @property
    def failed(self) -> list[dict[str, t.Any]]:
        """Values that do not decrypt and are not accepted; those that need the target are not among them."""
        return [v for v in self.protected_values if v["verdict"] not in ("ok", "needs_target") and not v["accepted"]]

    @property
    def needs_target(self) -> list[dict[str, t.Any]]:
        """Values that only a server can judge (CNG keys), unless they are accepted."""
        return [v for v in self.protected_values if v["verdict"] == "needs_target" and not v["accepted"]]

    def summary(self) -> dict[str, int]:
        """Counts: total, proven, accepted, needs_target, failed."""
        return {
            "total": len(self.protected_values),
            "proven": self.proven,
            "accepted": sum(1 for value in self.protected_values if value["accepted"]),
            "needs_target": len(self.needs_target),
            "failed": len(self.failed),
        }


def format_code(code: int) -> str | None:
    """An HRESULT as Windows tools show it; None for 0."""
    return f"0x{code & 0xFFFFFFFF:08X}" if code else None


@functools.cache
def _table() -> t.Any:
    text = _TABLE.read_text(encoding="utf-8")
    return json.loads(text.split("@'", 1)[1].split("'@", 1)[0])


def diagnose(verdict: str, code: int, container: str | None, provider: str | None) -> dict[str, str | None]:
    """Cause and fix of a verdict, chosen as Get-WebfarmDiagnosis chooses without a context."""
    shown = format_code(code)
    best, rank = None, 0
    for entry in _table()["entries"]:
        if entry["context"]:
            continue
        by_code, by_verdict = shown in entry["codes"], verdict in entry["verdicts"]
        fits = 0
        if by_code:
            # A damaged container has many codes, each with its own story.
            fits = 3 if verdict == "damaged" else 2 if by_verdict else 1
        elif by_verdict:
            fits = 2
        if fits > rank:
            best, rank = entry, fits
    if best is None:
        return {"cause": None, "fix": None}
    found: dict[str, str | None] = {}
    for name in ("cause", "fix"):
        text = best[name] if isinstance(best[name], str) else " ".join(best[name])
        text = text.replace("{container}", container or "the key container").replace(
            "{provider}", provider or "the provider"
        )
        found[name] = "T" + text[1:] if text.startswith("the ") else text
    return found


def _outcome(
    verdict: Verdict, code: int, message: str, container: str | None, provider: str | None
) -> dict[str, t.Any]:
    shown: dict[str, str | None] = {"cause": None, "fix": None}
    if verdict != "ok":
        shown = diagnose(verdict, code, container, provider)
    return {"verdict": verdict, "hresult": format_code(code), "message": message or None, **shown}


def _prove_session(provider: Provider, file: str, keys: KeyRing) -> dict[str, t.Any]:
    verdict: Verdict = "ok"
    code, message, algorithm, bits = 0, "", None, None
    try:
        bits = session_key_bits(provider.session_key or "")
    except KeyBlobError:
        pass
    try:
        algorithm = f"AES-{len(keys.session(provider).key) * 8}"
    except ProtectionError as error:
        verdict, code, message = error.verdict, error.hresult, str(error)
    return {
        "file": file,
        "line": provider.line,
        "provider": provider.name,
        "container": provider.container,
        "algorithm": algorithm,
        "key_bits": bits,
        **_outcome(verdict, code, message, provider.container, provider.name),
    }


def prove(
    configurations: t.Iterable[Configuration], keys: KeyRing, accepted: t.Mapping[str, str] | None = None
) -> Proof:
    """Judge every protected value and session key. *accepted* maps attribute paths to reasons. Never raises."""
    reasons = dict(accepted or {})
    used: set[str] = set()
    values: list[dict[str, t.Any]] = []
    sessions: list[dict[str, t.Any]] = []
    for configuration in configurations:
        sessions += [_prove_session(p, configuration.name, keys) for p in configuration.providers if p.kind == "aes"]
        for value in configuration.values:
            provider = configuration.provider(value.provider)
            judged = judge(value.provider, value.data, provider, keys)
            takes = judged.verdict != "ok" and value.path in reasons
            if takes:
                used.add(value.path)
            name = provider.name if provider else value.provider
            container = provider.container if provider else None
            values.append(
                {
                    "path": value.path,
                    "file": configuration.name,
                    "line": value.line,
                    "provider": name,
                    "kind": provider.kind if provider else None,
                    "container": container,
                    **_outcome(judged.verdict, judged.hresult, judged.message, container, name),
                    "accepted": takes,
                    "reason": reasons[value.path] if takes else None,
                }
            )
    return Proof(values, sessions, [path for path in reasons if path not in used])
