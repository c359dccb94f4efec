# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""The same configuration for another key set, on the controller.

Session keys are wrapped again for the new public keys: the values under them stay as they are, byte for byte. Direct
RSA values are encrypted again. CNG values cannot be opened here without their raw key: they are refused, or moved
under AES providers where the raw key is given; values that only WAS may open stay under a provider that only WAS may
open.
"""

from __future__ import annotations

import base64
import typing as t
from dataclasses import dataclass

from ansible_collections.webfarm.iis.plugins.plugin_utils._apphost import Configuration, Provider
from ansible_collections.webfarm.iis.plugins.plugin_utils._keyblob import KeyBlobError, RsaKey
from ansible_collections.webfarm.iis.plugins.plugin_utils._protection import (
    KeyRing,
    ProtectionError,
    encrypt_rsa,
    format_value,
    open_data,
    rewrap_session_key,
    seal_text,
    strict_base64,
)


class RewrapError(ValueError):
    """The configuration cannot be carried over. The message names the first attribute path and why."""


@dataclass(frozen=True)
class Conversion:
    """A value that changed its provider."""

    path: str
    from_provider: str
    to_provider: str


@dataclass(frozen=True)
class Rewrapped:
    """The new file and what was done to it."""

    content: bytes
    session_keys: tuple[str, ...]
    reencrypted: tuple[str, ...]
    conversions: tuple[Conversion, ...]


def _fail(path: str, line: int, problem: object) -> RewrapError:
    return RewrapError(f"{path} (line {line}): {problem}")


def _open(
    configuration: Configuration, path: str, line: int, provider: Provider, data: str | None, keys: KeyRing
) -> str:
    try:
        return open_data(provider, strict_base64(data or ""), keys)
    except (ProtectionError, KeyBlobError) as error:
        raise _fail(f"{configuration.name}: {path}", line, error) from None


def rewrap(
    configuration: Configuration,
    keys: KeyRing,
    new_keys: t.Mapping[str, RsaKey],
    *,
    skip: t.Collection[str] = (),
) -> Rewrapped:
    """The configuration for other public keys (by container); containers that are not named stay as they are.

    *skip* holds paths of values that are known not to open; they stay untouched. Raises :class:`RewrapError`.
    """
    targets = {container.casefold(): key for container, key in new_keys.items()}
    changes: dict[str, str] = {}
    sessions: list[str] = []
    reencrypted: list[str] = []
    for provider in configuration.providers:
        new = targets.get(provider.container.casefold())
        if provider.kind != "aes" or new is None or not provider.session_key:
            continue
        where = f"{configuration.name}: provider {provider.name}"
        try:
            old = keys.require(provider.container)
            blob = rewrap_session_key(strict_base64(provider.session_key), old, new, oaep=provider.use_oaep)
        except (ProtectionError, KeyBlobError) as error:
            raise _fail(where, provider.line, error) from None
        changes[f"{provider.path}/@sessionKey"] = base64.b64encode(blob).decode("ascii")
        sessions.append(provider.name)
    for value in configuration.values:
        found = configuration.provider(value.provider)
        new = targets.get(found.container.casefold()) if found else None
        if found is None or found.kind != "rsa" or new is None or value.path in skip:
            continue
        text = _open(configuration, value.path, value.line, found, value.data, keys)
        try:
            changes[value.path] = format_value(value.provider or found.name, encrypt_rsa(text, new))
        except ProtectionError as error:
            raise _fail(f"{configuration.name}: {value.path}", value.line, error) from None
        reencrypted.append(value.path)
    return Rewrapped(configuration.replace(changes), tuple(sessions), tuple(reencrypted), ())


def portable_target(configuration: Configuration, source: Provider) -> Provider | None:
    """The AES provider that takes the values of a CNG provider: WAS-only for WAS-only, never otherwise."""
    for provider in configuration.providers:
        if provider.kind == "aes" and provider.was_only == source.was_only:
            return provider
    return None


def reencrypt(configuration: Configuration, keys: KeyRing, *, skip: t.Collection[str] = ()) -> Rewrapped:
    """Every CNG value moved under the AES provider of the same reach. Needs the raw CNG keys in *keys*.

    Raises :class:`RewrapError` for the first value that cannot be moved; nothing is left in clear text.
    """
    changes: dict[str, str] = {}
    conversions: list[Conversion] = []
    for value in configuration.values:
        source = configuration.provider(value.provider)
        if source is None or source.kind != "cng" or value.path in skip:
            continue
        where = f"{configuration.name}: {value.path}"
        target = portable_target(configuration, source)
        if target is None:
            reach = "WAS-only " if source.was_only else ""
            raise _fail(
                where, value.line, f"the file declares no {reach}AES provider to take the value of {source.name}"
            )
        text = _open(configuration, value.path, value.line, source, value.data, keys)
        try:
            changes[value.path] = seal_text(target, text, keys)
        except ProtectionError as error:
            raise _fail(where, value.line, error) from None
        conversions.append(Conversion(value.path, source.name, target.name))
    return Rewrapped(configuration.replace(changes), (), (), tuple(conversions))
