# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""What rules and report need of a host's facts: their names in one place, and a small view of each record."""

from __future__ import annotations

import datetime
import typing as t
from dataclasses import dataclass

from ansible_collections.webfarm.iis.plugins.plugin_utils._record import Record

FACTS_MAJOR: t.Final = "1"
_SNAPSHOTS = 20  # of a history that a report shows


class Fact:
    """Every name of a fact that rules and report read, in one place."""

    FORMAT_VERSION: t.Final = "format_version"
    HOST: t.Final = "host"
    REDIRECTION: t.Final = "redirection"
    CONTAINERS: t.Final = "key_containers"
    SESSION_KEYS: t.Final = "session_keys"
    VALUES: t.Final = "protected_values"
    FILES: t.Final = "configuration_files"
    PROVIDERS: t.Final = "configuration_providers"
    SERVICES: t.Final = "services"
    POOLS: t.Final = "app_pools"
    SITES: t.Final = "sites"
    # In configuration_files[]: digest of what the file says, whatever its keys, comments and white space; and per
    # attribute path a digest of its value.
    DIGEST: t.Final = "canonical_digest"
    ATTRIBUTES: t.Final = "canonical_attributes"
    # The secrets that stand in clear, under a key of the run, and which key that was.
    KEYED_DIGEST: t.Final = "canonical_keyed_digest"
    RUN_KEY: t.Final = "run_key_id"
    ENCRYPTED: t.Final = "encrypted_attributes"
    SHARED: t.Final = "shared_config"
    WEB: t.Final = "web_configurations"
    MACHINE_KEYS: t.Final = "machine_keys"
    # {enabled, path, ...} and [{name, created, proven, ...}]
    HISTORY: t.Final = "history"
    BACKUPS: t.Final = "backups"
    GENERATION: t.Final = "key_generation"
    # What could not be gathered, each with part and message.
    PROBLEMS: t.Final = "gathering_problems"
    CERTIFICATE_STORE: t.Final = "certificate_store"


class Ace(t.NamedTuple):
    sid: str
    account: str
    type: str
    rights: str
    mask: str
    inherited: bool


class Problem(t.NamedTuple):
    kind: str
    account: str
    message: str
    fix: str


class Container(t.NamedTuple):
    name: str
    store: str
    state: str
    bits: int | None
    exportable: bool | None
    fingerprint: str | None
    owner: str | None
    created: str | None
    modified: str | None
    acl: tuple[Ace, ...]
    problems: tuple[Problem, ...]
    foreign_files: tuple[str, ...]
    file: str | None
    message: str | None
    cause: str | None
    fix: str | None


class Value(t.NamedTuple):
    """A protected value, or a session key (its path ends with @sessionKey)."""

    file: str
    path: str
    line: int | None
    provider: str | None
    kind: str | None
    container: str | None
    verdict: str
    hresult: str | None
    message: str | None
    cause: str | None
    fix: str | None


class ConfigurationFile(t.NamedTuple):
    name: str
    exists: bool
    sha256: str | None
    digest: str | None
    size: int | None
    modified: str | None
    protected_values: int | None
    message: str | None
    fix: str | None
    keyed: str | None = None
    encoding: str | None = None
    locations: int = 0


class Encrypted(t.NamedTuple):
    """An attribute that is, or by the server's schema should be, encrypted."""

    file: str
    path: str
    line: int | None
    provider: str | None
    state: str
    schema: str | None


class MachineKey(t.NamedTuple):
    """What an ASP.NET application gets: generated, explicit, closed, unread, unmanaged; its fingerprint in the run."""

    application: str
    state: str
    source: str | None
    fingerprint: str | None


class WebSection(t.NamedTuple):
    """A section of a web.config that ASP.NET encrypted."""

    file: str
    path: str
    provider: str
    kind: str
    container: str | None
    verdict: str
    message: str | None
    fix: str | None


class Backup(t.NamedTuple):
    name: str
    created: str | None
    proven: bool | None
    message: str | None


class Snapshot(t.NamedTuple):
    name: str
    created: str | None
    proven: bool | None


class History(t.NamedTuple):
    enabled: bool | None
    path: str | None
    total: int | None
    newest: str | None
    message: str | None
    snapshots: tuple[Snapshot, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What rules and report need of a record, and nothing else."""

    name: str
    farm: str
    groups: tuple[str, ...] = ()
    # answered, unreachable, failed, stale, missing
    state: str = "answered"
    message: str | None = None
    recorded: str | None = None
    source: str | None = None
    computer: str | None = None
    machine_guid: str | None = None
    os_version: str | None = None
    iis_version: str | None = None
    powershell_version: str | None = None
    redirection: str | None = None
    subsets: frozenset[str] = frozenset({"all"})
    containers: tuple[Container, ...] = ()
    sessions: tuple[Value, ...] = ()
    values: tuple[Value, ...] = ()
    # Passwords of the Centralized Certificate Store: values without a provider, in the registry.
    stored: tuple[Value, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    files: tuple[ConfigurationFile, ...] = ()
    providers: tuple[tuple[str, str, str, int], ...] = ()
    services: tuple[tuple[str, str, str], ...] = ()
    pools: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    history: History | None = None
    backups: tuple[Backup, ...] | None = None
    generation: int | None = None
    run_key: str | None = None
    # Only those that are not encrypted as they should be; None where the facts do not say.
    unprotected: tuple[Encrypted, ...] | None = None
    # What redirection.config says: state, path, account, password.
    shared: tuple[str, str | None, str | None, str] | None = None
    machine_keys: tuple[MachineKey, ...] | None = None
    sections: tuple[WebSection, ...] | None = None
    # Files of ASP.NET that were not looked at: path and why.
    unread: tuple[tuple[str, str], ...] = ()

    def has(self, subset: str) -> bool:
        """Was that part of the facts gathered? An empty list says nothing when it was not."""
        return "all" in self.subsets or subset in self.subsets

    def problem(self, *parts: str) -> str | None:
        """Why one of these parts could not be gathered; None when all were."""
        for part, message in self.problems:
            if part in parts or (part.endswith(".config") and "*.config" in parts):
                return message
        return None

    def container(self, name: str) -> Container | None:
        wanted = name.casefold()
        for one in self.containers:
            if one.name.casefold() == wanted:
                return one
        return None

    def file(self, name: str) -> ConfigurationFile | None:
        wanted = name.casefold()
        for one in self.files:
            if one.name.casefold() == wanted:
                return one
        return None


class Pool:
    """Keeps one object of each value: a thousand hosts with the same access list hold it once."""

    def __init__(self) -> None:
        self._seen: dict[t.Any, t.Any] = {}

    def __call__(self, value: t.Any) -> t.Any:
        return self._seen.setdefault(value, value)


def parse_time(text: str | None) -> datetime.datetime | None:
    """A time of the facts (ISO 8601; without a zone it is UTC); None when it is none."""
    if not text:
        return None
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def age(delta: datetime.timedelta) -> str:
    """A time span in the unit that people use."""
    hours = delta.total_seconds() / 3600
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"


def _text(value: t.Any) -> str | None:
    return None if value is None else str(value)


def _int(value: t.Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _bool(value: t.Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _list(facts: t.Mapping[str, t.Any], name: str) -> list[dict[str, t.Any]]:
    found = facts.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _container(one: dict[str, t.Any], pool: Pool) -> Container:
    acl = tuple(
        Ace(
            str(ace.get("sid") or ""),
            str(ace.get("account") or ace.get("sid") or ""),
            str(ace.get("type") or ""),
            str(ace.get("rights") or ""),
            str(ace.get("mask") or ""),
            bool(ace.get("inherited")),
        )
        for ace in _list(one, "acl")
    )
    problems = tuple(
        Problem(
            str(item.get("kind") or ""),
            str(item.get("account") or ""),
            str(item.get("message") or ""),
            str(item.get("fix") or ""),
        )
        for item in _list(one, "access_problems")
    )
    get = one.get
    return Container(
        pool(str(get("container"))),
        pool(str(get("store") or "")),
        pool(str(get("state") or "")),
        _int(get("bits")),
        _bool(get("exportable")),
        pool(_text(get("fingerprint"))),
        pool(_text(get("owner"))),
        _text(get("created")),
        _text(get("modified")),
        pool(acl),
        pool(problems),
        tuple(str(name) for name in get("foreign_files") or ()),
        _text(get("file_path") or get("file_expected")),
        pool(_text(get("message"))),
        pool(_text(get("cause"))),
        pool(_text(get("fix"))),
    )


def _value(one: dict[str, t.Any], pool: Pool) -> Value:
    get = one.get
    return t.cast(
        Value,
        pool(
            Value(
                str(get("file") or ""),
                str(get("path") or ""),
                _int(get("line")),
                _text(get("provider")),
                _text(get("kind")),
                _text(get("container")),
                str(get("verdict") or "untested"),
                _text(get("hresult")),
                _text(get("message")),
                _text(get("cause")),
                _text(get("fix")),
            )
        ),
    )


def _configuration_file(one: dict[str, t.Any]) -> ConfigurationFile:
    get = one.get
    return ConfigurationFile(
        str(get("name") or ""),
        bool(get("exists")),
        _text(get("sha256")),
        _text(get(Fact.DIGEST)),
        _int(get("size")),
        _text(get("modified")),
        _int(get("protected_values")),
        _text(get("message")),
        _text(get("fix")),
        _text(get(Fact.KEYED_DIGEST)),
        _text(get("encoding")),
        len(_list(one, "locations")),
    )


def _unprotected(facts: t.Mapping[str, t.Any]) -> tuple[Encrypted, ...] | None:
    if not isinstance(facts.get(Fact.ENCRYPTED), list):
        return None
    return tuple(
        Encrypted(
            str(one.get("file") or ""),
            str(one.get("path") or ""),
            _int(one.get("line")),
            _text(one.get("provider")),
            str(one.get("state")),
            _text(one.get("schema")),
        )
        for one in _list(facts, Fact.ENCRYPTED)
        if one.get("state") not in ("encrypted", "empty")
    )


def _shared(facts: t.Mapping[str, t.Any]) -> tuple[str, str | None, str | None, str] | None:
    found = facts.get(Fact.SHARED)
    if not isinstance(found, dict):
        return None
    get = found.get
    return str(get("state") or ""), _text(get("path")), _text(get("user_name")), str(get("password") or "none")


def _machine_keys(facts: t.Mapping[str, t.Any]) -> tuple[MachineKey, ...] | None:
    if not isinstance(facts.get(Fact.MACHINE_KEYS), list):
        return None
    return tuple(
        MachineKey(
            f"{one.get('site') or ''}{one.get('application') or '/'}",
            str(one.get("state") or ""),
            _text(one.get("source")),
            _text(one.get("fingerprint")),
        )
        for one in _list(facts, Fact.MACHINE_KEYS)
    )


def _sections(facts: t.Mapping[str, t.Any]) -> tuple[WebSection, ...] | None:
    if not isinstance(facts.get(Fact.WEB), list):
        return None
    return tuple(
        WebSection(
            str(file.get("path") or ""),
            str(one.get("path") or ""),
            str(one.get("provider") or ""),
            str(one.get("kind") or ""),
            _text(one.get("container")),
            str(one.get("verdict") or "untested"),
            _text(one.get("message")),
            _text(one.get("fix")),
        )
        for file in _list(facts, Fact.WEB)
        for one in _list(file, "sections")
    )


def _history(facts: t.Mapping[str, t.Any]) -> History | None:
    found = facts.get(Fact.HISTORY)
    if not isinstance(found, dict):
        return None
    listed = found.get("snapshots")
    entries = sorted(
        (
            Snapshot(str(one.get("name") or ""), _text(one.get("created")), _bool(one.get("proven")))
            for one in _list(found, "snapshots")
        ),
        key=lambda one: one.created or "",
        reverse=True,
    )
    return History(
        _bool(found.get("enabled")),
        _text(found.get("path")),
        len(entries) if isinstance(listed, list) else _int(listed),
        _text(found.get("newest") or (entries[0].created if entries else None)),
        _text(found.get("message")),
        tuple(entries[:_SNAPSHOTS]),
    )


def _backups(facts: t.Mapping[str, t.Any]) -> tuple[Backup, ...] | None:
    if not isinstance(facts.get(Fact.BACKUPS), list):
        return None
    found = [
        Backup(
            str(one.get("name") or ""),
            _text(one.get("created") or one.get("modified")),
            _bool(one.get("proven")),
            _text(one.get("message")),
        )
        for one in _list(facts, Fact.BACKUPS)
        # What a transaction keeps of the state before is no backup of the server as it is.
        if one.get("origin") != "transaction"
    ]
    return tuple(sorted(found, key=lambda one: one.created or "", reverse=True))


def view_of(
    record: Record, pool: Pool, *, now: datetime.datetime, max_age_hours: float | None = None, source: str | None = None
) -> View:
    """Reduce a record to what is needed."""
    name = str(record["host"])
    common: dict[str, t.Any] = {
        "name": name,
        "farm": pool(str(record.get("farm") or "")),
        "groups": pool(tuple(str(group) for group in record.get("groups") or ())),
        "recorded": _text(record.get("recorded")),
        "source": source,
    }
    if record["outcome"] != "answered":
        return View(**common, state=str(record["outcome"]), message=_text(record.get("message")))
    facts = record.get("facts")
    if not isinstance(facts, dict):
        return View(**common, state="failed", message="the record holds no facts")
    problems = tuple((str(one.get("part") or ""), str(one.get("message") or "")) for one in _list(facts, Fact.PROBLEMS))
    if not isinstance(facts.get(Fact.HOST), dict):
        return View(**common, state="failed", message=problems[0][1] if problems else "the record holds no facts")
    version = str(facts.get(Fact.FORMAT_VERSION) or "")
    if version.partition(".")[0] != FACTS_MAJOR:
        return View(
            **common,
            state="failed",
            message=f"its facts have the format version {version or 'none'}, this release reads {FACTS_MAJOR}.x",
        )
    taken = parse_time(common["recorded"])
    state, message = "answered", None
    if taken is None:
        state, message = "stale", "the record does not say when it was taken"
    elif max_age_hours is not None and (now - taken).total_seconds() > max_age_hours * 3600:
        state, message = "stale", f"its facts are {age(now - taken)} old, at most {max_age_hours:g} hours are allowed"
    host = facts[Fact.HOST]
    store = facts.get(Fact.CERTIFICATE_STORE)
    store = store if isinstance(store, dict) else {}
    redirection = facts.get(Fact.REDIRECTION)
    redirected = redirection if isinstance(redirection, dict) and redirection.get("enabled") else None
    return View(
        **common,
        state=state,
        message=message,
        computer=_text(host.get("name")),
        machine_guid=_text(host.get("machine_guid")),
        os_version=pool(_text(host.get("os_version"))),
        iis_version=pool(_text(host.get("iis_version"))),
        powershell_version=pool(_text(host.get("powershell_version"))),
        redirection=str(redirected.get("path") or "?") if redirected else None,
        subsets=pool(frozenset(str(one) for one in record.get("gather_subset") or ("all",))),
        containers=tuple(_container(one, pool) for one in _list(facts, Fact.CONTAINERS)),
        sessions=pool(tuple(_value(one, pool) for one in _list(facts, Fact.SESSION_KEYS))),
        values=pool(tuple(_value(one, pool) for one in _list(facts, Fact.VALUES))),
        stored=pool(tuple(_value(one, pool) for one in _list(store, "protected_values"))),
        problems=problems,
        files=tuple(_configuration_file(one) for one in _list(facts, Fact.FILES)),
        providers=pool(
            tuple(
                (
                    str(one.get("file") or ""),
                    str(one.get("name") or ""),
                    str(one.get("container") or ""),
                    int(one.get("used_by") or 0),
                )
                for one in _list(facts, Fact.PROVIDERS)
            )
        ),
        services=pool(
            tuple(
                (str(one.get("name") or ""), str(one.get("state") or ""), str(one.get("start_mode") or ""))
                for one in _list(facts, Fact.SERVICES)
            )
        ),
        pools=pool(tuple(str(one.get("name") or "") for one in _list(facts, Fact.POOLS))),
        sites=pool(tuple(str(one.get("name") or "") for one in _list(facts, Fact.SITES))),
        history=_history(facts),
        backups=_backups(facts),
        generation=_int(facts.get(Fact.GENERATION)),
        run_key=pool(_text(facts.get(Fact.RUN_KEY))),
        unprotected=pool(_unprotected(facts)),
        shared=pool(_shared(facts)),
        machine_keys=pool(_machine_keys(facts)),
        sections=pool(_sections(facts)),
        unread=tuple(
            (str(one.get("path") or ""), str(one["message"])) for one in _list(facts, Fact.WEB) if one.get("message")
        ),
    )


def missing_view(name: str, farm: str = "") -> View:
    """A host that was expected and has no record."""
    return View(
        name,
        farm,
        state="missing",
        message="there is no record of it: the run ended before it, left it out, or skipped it silently (see forks)",
    )
