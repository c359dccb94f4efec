# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""Values of a configuration that differ per server: attribute path to value, put in byte-exactly.

The same rules as the class WebfarmOverride of module_utils/_Fit.cs, which does it for a file on the target.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost

OPTION = "overrides"
_SHOWN = 5
_PREDICATE = re.compile(r"\[(?:[^\]'\"]|'[^']*'|\"[^\"]*\")*\]")


class OverrideError(ValueError):
    """An override that cannot be applied; the message names the path and what to do."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{OPTION}: {path}: {reason}")
        self.path = path
        self.reason = reason


def normalise(values: t.Mapping[t.Any, t.Any]) -> dict[str, str]:
    """The option as texts: IIS writes true and false in small letters."""
    texts = {}
    for path, value in values.items():
        if value is None or isinstance(value, (dict, list, tuple, set)):
            raise OverrideError(str(path), "give a text, a number or true and false")
        texts[str(path)] = str(value).lower() if isinstance(value, bool) else str(value)
    return texts


def apply(content: bytes, name: str, values: t.Mapping[t.Any, t.Any]) -> bytes:
    """*content* with the values of one server. Every other byte stays.

    Raises :class:`OverrideError` for a path that is not there or must not be set, and ``ConfigurationError`` for a
    file that cannot be used.
    """
    texts = normalise(values)
    if not texts:
        return content
    file = _apphost.parse(content, name)
    paths = file.paths()
    for path, value in texts.items():
        found = paths.count(path)
        if found == 0:
            raise OverrideError(path, f"there is no such attribute{_candidates(paths, path)}")
        if found > 1:
            raise OverrideError(path, "the path is not unique in the file")
        problem = _problem(path, file.get(path), value)
        if problem:
            raise OverrideError(path, problem)
    return file.replace(texts)


def _problem(path: str, present: str, value: str) -> str | None:
    owner, _slash, attribute = path.rpartition("@")
    name = attribute.lower()
    if path.startswith("configProtectedData/"):
        return "providers and session keys belong to the key set, use webfarm.iis.config with a bundle"
    if present.startswith("[enc:") or name.endswith("password") or name == "encryptedvalue":
        return "the attribute is encrypted or meant to be, set it with webfarm.iis.secret"
    if value.startswith("[enc:"):
        return "a protected value cannot be given, set it with webfarm.iis.secret"
    last = re.search(r"[^/\[]+\[@" + re.escape(attribute) + r"=('[^']*'|\"[^\"]*\")\](?:\[\d+\])?/$", owner)
    if last:
        return "this attribute tells its element apart from others, change it in the file itself"
    return None


def _plain(path: str) -> str:
    return _PREDICATE.sub("", path).casefold()


def _candidates(paths: list[str], path: str) -> str:
    plain, owner = _plain(path), path.rpartition("/@")[0]
    shown = [one for one in paths if _plain(one) == plain] or [one for one in paths if one.rpartition("/@")[0] == owner]
    if not shown:
        return ""
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return "; near to it: " + ", ".join(shown[:_SHOWN]) + more
