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
import json
import typing as t
from dataclasses import dataclass

from ansible_collections.webfarm.iis.plugins.plugin_utils._apphost import Configuration, ProtectedValue, Provider
from ansible_collections.webfarm.iis.plugins.plugin_utils._keyblob import KeyBlobError, RsaKey, read_public_key
from ansible_collections.webfarm.iis.plugins.plugin_utils._protection import (
    KeyRing,
    ProtectionError,
    SessionKey,
    encrypt_aes,
    format_value,
    judge_rsa_plaintext,
    new_session_key,
    open_data,
    rsa_decrypt,
    rsa_encrypt,
    seal_text,
    strict_base64,
    wrap_session_key,
)

MINIMUM_BITS = 1024


class RewrapError(ValueError):
    """The configuration cannot be carried over. The message names the server or the attribute path, and why."""


class NoKeyYet(RewrapError):
    """A server lacks a key that it needs. Nothing is wrong as long as somebody is going to make it."""


@dataclass(frozen=True)
class Conversion:
    """A value that changed its provider."""

    path: str
    from_provider: str
    to_provider: str


@dataclass(frozen=True)
class Portable:
    """The new file and what was done to it."""

    content: bytes
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


# --- for the keys of other servers ----------------------------------------------------------------------------------


def needed_containers(configuration: Configuration, left: t.Collection[str] = ()) -> dict[str, str]:
    """The containers whose public keys a server must give, each with the provider that needs it.

    *left* holds the paths of session keys and values that stay as they are.
    """
    found: dict[str, str] = {}
    for provider in configuration.providers:
        if provider.kind == "aes" and provider.session_key and f"{provider.path}/@sessionKey" not in left:
            found.setdefault(provider.container, provider.name)
    for value in configuration.values:
        direct = configuration.provider(value.provider)
        if direct is not None and direct.kind == "rsa" and value.path not in left:
            found.setdefault(direct.container, direct.name)
    return found


class Source:
    """The secrets of a configuration, opened once with a key ring and wrapped for any number of servers.

    The same as module_utils/_Rewrap.cs does on the source host: session keys are wrapped again, so that the values
    under them stay as they are, byte for byte; direct RSA values are encrypted again. *fresh*: every server gets
    session keys of its own, and the values under them are encrypted again as well. Paths in *accepted* stay as they
    are when they do not open. With *containers*, whatever is under other containers stays as it is, unopened. Raises
    :class:`RewrapError`.
    """

    def __init__(
        self,
        configuration: Configuration,
        keys: KeyRing,
        *,
        accepted: t.Collection[str] = (),
        fresh: bool = False,
        containers: t.Collection[str] | None = None,
    ) -> None:
        names = None if containers is None else {name.casefold() for name in containers}

        def concerned(provider: Provider | None) -> bool:
            return names is None or (provider is not None and provider.container.casefold() in names)

        self._name = configuration.name
        self._fresh = fresh
        self._sessions: dict[str, tuple[Provider, SessionKey]] = {}
        self._texts: list[tuple[ProtectedValue, Provider, str | bytes]] = []
        for provider in configuration.providers:
            path = f"{provider.path}/@sessionKey"
            if provider.kind != "aes" or not provider.session_key or not concerned(provider):
                continue
            try:
                self._sessions[provider.name] = (provider, keys.session(provider))
            except ProtectionError as error:
                if path not in accepted:
                    raise _fail(f"{self._name}: provider {provider.name}", provider.line, error) from None
        for value in configuration.values:
            found = configuration.provider(value.provider)
            if not concerned(found):
                continue
            if found is not None and found.kind == "aes" and not fresh and found.name in self._sessions:
                continue
            try:
                self._take(value, found, keys)
            except (ProtectionError, KeyBlobError) as error:
                if value.path not in accepted:
                    raise _fail(f"{self._name}: {value.path}", value.line, error) from None
        self.paths = tuple(
            [f"{provider.path}/@sessionKey" for provider, dummy in self._sessions.values()]
            + [value.path for value, *dummy in self._texts]
        )

    def __repr__(self) -> str:
        return f"<Source {self._name}: {len(self._sessions)} session keys, {len(self._texts)} values>"

    def _take(self, value: ProtectedValue, provider: Provider | None, keys: KeyRing) -> None:
        if provider is None or provider.kind not in ("aes", "rsa"):
            kind = (
                "depends on a CNG key" if provider is not None and provider.kind == "cng" else "cannot be opened here"
            )
            raise ProtectionError(
                "unsupported", f"the value {kind}: make it portable on its own server (cng: portable)"
            )
        data = strict_base64(value.data or "")
        if provider.kind == "aes":
            self._texts.append((value, provider, open_data(provider, data, keys)))
            return
        # Of a direct RSA value every byte is kept: its layout is IIS's own business.
        raw = rsa_decrypt(data, keys.require(provider.container))
        judge_rsa_plaintext(raw)
        self._texts.append((value, provider, raw))

    def wrap(self, new_keys: t.Mapping[str, RsaKey]) -> list[str]:
        """The new attribute values for the server with these public keys (by container), in the order of ``paths``."""
        targets = {container.casefold(): key for container, key in new_keys.items()}

        def target(provider: Provider) -> RsaKey:
            key = targets.get(provider.container.casefold())
            if key is None:
                raise _fail(
                    f"{self._name}: provider {provider.name}",
                    provider.line,
                    f"it needs container {provider.container}, and no public key was given for it",
                )
            return key

        result: list[str] = []
        sessions: dict[str, SessionKey] = {}
        for provider, old in self._sessions.values():
            session = new_session_key(old.algorithm) if self._fresh else old
            sessions[provider.name] = session
            try:
                blob = wrap_session_key(session, target(provider), oaep=provider.use_oaep)
            except ProtectionError as error:
                raise _fail(f"{self._name}: provider {provider.name}", provider.line, error) from None
            result.append(base64.b64encode(blob).decode("ascii"))
        for value, provider, text in self._texts:
            try:
                if isinstance(text, str):
                    data = encrypt_aes(text, sessions[provider.name])
                else:
                    data = rsa_encrypt(text, target(provider))
            except ProtectionError as error:
                raise _fail(f"{self._name}: {value.path}", value.line, error) from None
            result.append(format_value(value.provider or provider.name, data))
        return result


@dataclass(frozen=True)
class Target:
    """A server that is to get a configuration of its own: its name and its public keys by container."""

    name: str
    keys: dict[str, RsaKey]

    def fingerprints(self) -> dict[str, str]:
        return {container: key.fingerprint for container, key in sorted(self.keys.items())}


def read_target(
    name: str,
    key_containers: t.Iterable[t.Mapping[str, t.Any]],
    needed: t.Mapping[str, str],
    pins: t.Mapping[str, str] | None = None,
) -> Target:
    """The public keys of a server from the facts of key_info or server_info, checked. Raises :class:`RewrapError`.

    The fingerprint is computed from the key itself; the one in the facts and the one in *pins* must agree with it.
    """
    facts = {str(one.get("container") or "").casefold(): one for one in key_containers if one.get("public_key")}
    pinned = {container.casefold(): str(pin).lower() for container, pin in (pins or {}).items()}
    keys: dict[str, RsaKey] = {}
    for container, provider in needed.items():
        fact = facts.get(container.casefold())
        if fact is None:
            raise NoKeyYet(
                f"{name} has no public key for {container}, which provider {provider} needs. "
                "Make the key with the module key (state: present) and gather key_info again."
            )
        try:
            key = read_public_key(strict_base64(str(fact["public_key"])))
        except KeyBlobError as error:
            raise RewrapError(f"{name}: the public key of {container} cannot be used: {error}") from None
        said = str(fact.get("fingerprint") or "").lower()
        if said != key.fingerprint:
            raise RewrapError(
                f"{name}: the public key of {container} has the fingerprint {key.fingerprint}, but the facts say "
                f"{said or 'nothing'}. Gather key_info again."
            )
        if pinned.get(container.casefold(), said) != said:
            raise RewrapError(
                f"{name}: the public key of {container} has the fingerprint {said}, but expected_fingerprints says "
                f"{pinned[container.casefold()]}. Update the inventory if the key was changed on purpose; "
                "otherwise find out what answered in its place."
            )
        if key.bits < MINIMUM_BITS:
            raise RewrapError(f"{name}: the key of {container} has {key.bits} bits, less than {MINIMUM_BITS}.")
        keys[container] = key
    return Target(name, keys)


# --- which of them are still right ----------------------------------------------------------------------------------

RECORD_FORMAT = 1


def read_record(text: bytes | None, source: str, session_key: str) -> dict[str, dict[str, t.Any]]:
    """What an earlier run noted about the files of each server; nothing where it was for another copy or choice."""
    try:
        data = json.loads(text or b"")
        known = (data["format"], data["source_sha256"], data["session_key"]) == (RECORD_FORMAT, source, session_key)
        return dict(data["targets"]) if known else {}
    except (ValueError, KeyError, TypeError):
        return {}


def write_record(targets: t.Mapping[str, t.Mapping[str, t.Any]], source: str, session_key: str) -> bytes:
    """The record as it is kept beside the copy: hashes and public fingerprints, no secret."""
    data = {"format": RECORD_FORMAT, "source_sha256": source, "session_key": session_key, "targets": targets}
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode("utf-8")


# --- the same keys, without CNG -------------------------------------------------------------------------------------


def portable_target(configuration: Configuration, source: Provider) -> Provider | None:
    """The AES provider that takes the values of a CNG provider: WAS-only for WAS-only, never otherwise."""
    for provider in configuration.providers:
        if provider.kind == "aes" and provider.was_only == source.was_only:
            return provider
    return None


def reencrypt(configuration: Configuration, keys: KeyRing, *, skip: t.Collection[str] = ()) -> Portable:
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
    return Portable(configuration.replace(changes), tuple(conversions))
