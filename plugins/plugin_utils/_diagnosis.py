# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""From the facts of a broken server to a ranked list of causes, each with its evidence and what to run next.

The texts come from the table in module_utils/_Diagnosis.psm1, the one that the modules use on the server. What is
decided here is only which entry the facts point at, what is a symptom and what a cause, and the order.
"""

from __future__ import annotations

import functools
import json
import re
import typing as t
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PLUGINS: t.Final = Path(__file__).resolve().parent.parent
TABLE: t.Final = PLUGINS / "module_utils" / "_Diagnosis.psm1"
COLLECTION: t.Final = PLUGINS.parent

# What a finding means for the server: something does not work, something will or may not, something to know.
BROKEN: t.Final = "broken"
RISK: t.Final = "risk"
NOTE: t.Final = "note"
_ORDER: t.Final = {BROKEN: 0, RISK: 1, NOTE: 2}

# The CNG twin of a container, and who reads what: the same rule as in _Access.psm1.
_IIS_IUSRS: t.Final = "S-1-5-32-568"
_LOCAL_SERVICE: t.Final = "S-1-5-19"
_SERVICES: t.Final = ("WAS", "W3SVC", "AppHostSvc", "WMSVC", "FTPSVC", "IISADMIN")
_NEIGHBOURS: t.Final = {
    "microsoft internet information server",
    "wmsvc certificate key container",
    "ms iis dcom server",
    "tsseckeyset1",
}
# A stopped service with one of these codes met a key or value that does not open.
_KEY_CODES: t.Final = {f"0x8009{number:04X}" for number in (5, 6, 0xB, 0xD, 0xF, 0x10, 0x16, 0x1A, 0x20, 0x26)} | {
    "0x80070002",
    "0x80070005",
    "0x80070006",
    "0x80070008",
    "0x8007000D",
}
# What can keep WAS from starting: a stopped service is then a symptom.
_STOPPERS: t.Final = {
    "access_denied",
    "config_malformed",
    "config_missing",
    "folder_access",
    "foreign_guid",
    "key_corrupt",
    "key_damaged",
    "key_missing",
    "key_undecryptable",
    "leftover_tmp",
    "no_exchange_key",
    "redirected",
    "signature_invalid",
}
# What the field reports and what it comes from: the message of the one is shown where the others are the cause.
_FACES: t.Final[Mapping[str, frozenset[str]]] = {
    "file_not_found": frozenset({"key_missing", "cng_key_missing", "foreign_guid", "cng_library", "config_missing"}),
    "handle_invalid": frozenset({"foreign_guid", "key_missing", "several_files"}),
    "not_enough_storage": frozenset(
        {"key_undecryptable", "key_damaged", "key_corrupt", "no_exchange_key", "access_denied", "folder_access"}
    ),
    "service_timeout": frozenset({"access_denied", "folder_access", "folder_bloat"}),
}
_REFUSED: t.Final = (
    # The beginning of a message or of a PowerShell error, and the entry that explains it.
    (r"ConstrainedLanguage", "constrained_language"),
    (r"ScriptNotTrusted|is not trusted to run|Cannot run untrusted PowerShell script", "constrained_language"),
    (r"MethodInvocationNotSupportedInConstrainedLanguage|CannotDefineNewType", "constrained_language"),
    (r"only on core types in this language mode|not supported in this language mode", "constrained_language"),
    (r"runs without administrator rights", "not_elevated"),
    (r"32-bit PowerShell on 64-bit Windows", "process_32bit"),
)


class Entry(t.NamedTuple):
    """An entry of the table."""

    id: str
    codes: tuple[str, ...]
    verdicts: tuple[str, ...]
    context: str
    message: str
    cause: str
    confirm: str
    fix: str
    plays: tuple[str, ...]

    def text(self, which: str, container: str = "", provider: str = "") -> str:
        """One of its texts with the names filled in, as the modules do it."""
        raw = str(getattr(self, which))
        filled = raw.replace("{container}", container or "the key container").replace(
            "{provider}", provider or "the provider"
        )
        return "T" + filled[1:] if filled.startswith("the ") else filled


class Event(t.NamedTuple):
    """What an event of the logs points at; entry is empty when it is only a symptom."""

    source: str
    id: int
    entry: str
    text: str


@dataclass(frozen=True)
class Table:
    """Codes and verdicts, causes and fixes."""

    names: Mapping[str, str]
    entries: tuple[Entry, ...]
    events: tuple[Event, ...]

    def entry(self, name: str) -> Entry:
        """The entry with that id."""
        for one in self.entries:
            if one.id == name:
                return one
        raise KeyError(f"the table of causes has no entry {name}")

    def explain(self, code: str | None = None, verdict: str | None = None, context: str = "") -> Entry | None:
        """The entry for a code or verdict, by the rule of Get-WebfarmDiagnosis."""
        found, rank = None, 0
        for entry in self.entries:
            if entry.context and entry.context != context:
                continue
            fits = 0
            if code and code in entry.codes:
                fits = 3 if verdict == "damaged" and not entry.verdicts else 1
            if verdict and verdict in entry.verdicts:
                fits = max(fits, 2)
            if fits and entry.context:
                fits += 3
            if fits > rank:
                found, rank = entry, fits
        return found


def _joined(value: t.Any) -> str:
    return value if isinstance(value, str) else " ".join(value)


@functools.lru_cache(maxsize=4)
def load_table(path: Path = TABLE) -> Table:
    """Read the table out of the PowerShell library."""
    found = re.search(r"(?ms)^\$script:diagnosisTable = @'\n(.*?)\n'@$", path.read_text(encoding="utf-8"))
    if not found:
        raise ValueError(f"{path} holds no table of causes; is the collection installed completely?")
    content = json.loads(found[1])
    entries = tuple(
        Entry(
            one["id"],
            tuple(one["codes"]),
            tuple(one["verdicts"]),
            one["context"],
            _joined(one["message"]),
            _joined(one["cause"]),
            _joined(one["confirm"]),
            _joined(one["fix"]),
            tuple(one.get("plays", ())),
        )
        for one in content["entries"]
    )
    events = tuple(Event(one["source"], int(one["id"]), one["entry"], one["text"]) for one in content["events"])
    return Table(content["names"], entries, events)


def installed(collection: Path = COLLECTION) -> frozenset[str]:
    """The playbooks and modules that this collection has: only what exists is recommended."""
    playbooks = {f"playbook {path.stem}" for path in (collection / "playbooks").glob("*.yml")}
    modules = {
        f"module {path.stem}"
        for suffix in ("yml", "ps1", "py")
        for path in (collection / "plugins" / "modules").glob(f"*.{suffix}")
    }
    return frozenset(playbooks | modules)


@dataclass
class Finding:
    """One possible cause."""

    id: str
    score: int
    severity: str = BROKEN
    container: str = ""
    provider: str = ""
    title: str = ""
    evidence: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    accounts: list[tuple[str, str, str]] = field(default_factory=list)  # sid, container, path of the key file
    # container -> the option access of the module key
    access: dict[str, dict[str, list[dict[str, str]]]] = field(default_factory=dict)
    pools: list[str] = field(default_factory=list)
    services: list[str] = field(default_factory=list)

    def add(self, *lines: str) -> None:
        """Add evidence, each line once."""
        for line in lines:
            if line and line not in self.evidence:
                self.evidence.append(line)


Facts = Mapping[str, t.Any]


def _list(facts: Facts, name: str) -> list[dict[str, t.Any]]:
    found = facts.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _dict(facts: Facts, name: str) -> dict[str, t.Any]:
    found = facts.get(name)
    return found if isinstance(found, dict) else {}


def _same(one: t.Any, other: t.Any) -> bool:
    return str(one or "").casefold() == str(other or "").casefold()


def _some(items: Iterable[str], limit: int = 5) -> str:
    listed = list(dict.fromkeys(items))
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


class _Diagnosis:
    """Collects the findings of one server."""

    def __init__(self, facts: Facts, table: Table) -> None:
        self.facts = facts
        self.table = table
        self.findings: list[Finding] = []
        self.containers = _list(facts, "key_containers")
        self.sessions = _list(facts, "session_keys")
        self.values = _list(facts, "protected_values")
        self.services = _list(facts, "services")
        self.history = _dict(facts, "history")
        self.guid = str(_dict(facts, "host").get("machine_guid") or "")
        self.redirected = bool(_dict(facts, "redirection").get("enabled"))

    # --- small things ---

    def found(self, name: str, score: int, severity: str = BROKEN, container: str = "", provider: str = "") -> Finding:
        """The finding with that id, a new one unless it is there."""
        one = next((known for known in self.findings if known.id == name), None)
        if one is None:
            one = Finding(name, score, severity, container, provider)
            self.findings.append(one)
        one.score = max(one.score, score)
        if _ORDER[severity] < _ORDER[one.severity]:
            one.severity = severity
        for subject in (container, provider):
            if subject and subject not in one.subjects:
                one.subjects.append(subject)
        return one

    def container(self, name: t.Any) -> dict[str, t.Any]:
        for one in self.containers:
            if _same(one.get("container"), name):
                return one
        return {}

    def used(self, name: t.Any) -> list[dict[str, t.Any]]:
        """Session keys and values that need a container."""
        return [one for one in self.sessions + self.values if _same(one.get("container"), name)]

    def state(self, service: str) -> str:
        for one in self.services:
            if one.get("name") == service:
                return str(one.get("state") or "")
        return ""

    def file_of(self, container: t.Any) -> str:
        fact = self.container(container)
        return str(fact.get("file_path") or fact.get("file_expected") or "")

    # --- what the facts show ---

    def look(self) -> None:
        self._files()
        self._folders()
        self._containers()
        self._sessions_and_values()
        self._access()
        self._certificate_store()
        self._services()
        self._pools()
        self._events()
        self._history()

    def _files(self) -> None:
        if self.redirected:
            one = self.found("redirected", 82 if self._down() else 30, BROKEN if self._down() else NOTE)
            one.add(f"redirection.config sends IIS to '{_dict(self.facts, 'redirection').get('path')}'")
            one.add("values and files of this server were not judged, IIS does not read them")
        for file in _list(self.facts, "configuration_files"):
            name, message = str(file.get("name")), str(file.get("message") or "")
            if name == "applicationHost.config.tmp":
                if file.get("exists"):
                    # WAS that runs does not mind; the next start fails.
                    one = self.found("leftover_tmp", 95 if self._down() else 45, BROKEN if self._down() else RISK)
                    one.add(f"{file.get('path')} exists")
            elif name == "applicationHost.config" and not file.get("exists"):
                self.found("config_missing", 100).add(message or f"{file.get('path')} does not exist")
            elif message:
                important = name == "applicationHost.config"
                score = (60 if self.redirected else 100) if important else 70
                self.found("config_malformed", score, BROKEN if important else RISK).add(message)
        if not _list(self.facts, "configuration_files"):
            for problem in _list(self.facts, "gathering_problems"):
                if problem.get("part") == "applicationHost.config":
                    self.found("config_malformed", 100).add(str(problem.get("message")))

    def _down(self) -> bool:
        """Does IIS itself not run although it should?"""
        for name in ("WAS", "W3SVC"):
            for one in self.services:
                if one.get("name") == name and one.get("state") not in ("running", "absent"):
                    return True
        return False

    def _folders(self) -> None:
        for folder in _list(self.facts, "key_folders"):
            problems = _list(folder, "access_problems")
            message = str(folder.get("message") or "")
            if problems or (message and not folder.get("bloated")):
                one = self.found("folder_access", 93)
                one.add(*(str(problem.get("message")) for problem in problems))
                one.add(message)
            elif folder.get("bloated"):
                self.found("folder_bloat", 30, RISK).add(message)

    def _containers(self) -> None:
        for fact in self.containers:
            name, state = str(fact.get("container")), str(fact.get("state"))
            users = self.used(name)
            if state == "present":
                self._present(fact, users)
                continue
            if not users and (state == "missing" or name.casefold() in _NEIGHBOURS):
                continue
            foreign = [str(file) for file in fact.get("foreign_files") or ()]
            entry = self.table.explain(
                fact.get("hresult"), state, "cng" if fact.get("store") == "cng" else "open"
            ) or self.table.entry("key_missing")
            name_of = "foreign_guid" if state == "missing" and foreign else entry.id
            score = 92 if name_of == "foreign_guid" else 90
            if fact.get("store") == "cng":
                score -= 6
            one = self.found(name_of, score if users else 25, BROKEN if users else RISK, container=name)
            one.add(str(fact.get("message") or f"key container {name} is {state}"))
            if state == "missing":
                one.add(f"no file {fact.get('file_expected')}")
            if foreign:
                one.add(f"the machine GUID is {self.guid}, the key file there is {_some(foreign)}")
            failing = [item for item in users if item.get("verdict") not in ("ok", "untested")]
            if failing:
                one.add(f"{len(failing)} session keys and values need {name} and do not open")
            elif users:
                one.add(f"{len(users)} session keys and values need {name}")

    def _present(self, fact: dict[str, t.Any], users: list[dict[str, t.Any]]) -> None:
        if fact.get("files_message"):
            failing = [item for item in users if item.get("verdict") in ("bad_data", "garbage")]
            one = self.found(
                "several_files", 89 if failing else 12, BROKEN if failing else NOTE, container=str(fact["container"])
            )
            one.add(str(fact["files_message"]))
            if not failing and users:
                one.add("every value of this container opens: the other files are left-overs")

    def _sessions_and_values(self) -> None:
        for item in self.sessions + self.values:
            verdict = str(item.get("verdict"))
            if verdict in ("ok", "untested", "missing_key", "denied", "damaged") or item.get("accepted"):
                continue
            context = "cng" if item.get("kind") == "cng" else "decrypt"
            entry = self.table.explain(item.get("hresult"), verdict, context)
            name = entry.id if entry else "data_invalid"
            # A session key that does not open takes every value of its provider along.
            session = str(item.get("path")).endswith("@sessionKey")
            one = self.found(
                name,
                88 if session else 70,
                container=str(item.get("container") or ""),
                provider=str(item.get("provider") or ""),
            )
            bits = self.container(item.get("container")).get("bits")
            if session:
                one.add(
                    f"the session key of {item.get('provider')} in {item.get('file')} does not open with "
                    f"{item.get('container')} ({verdict})"
                )
                if bits and item.get("key_bits") and bits != item["key_bits"]:
                    one.add(
                        f"it was wrapped for a key of {item['key_bits']} bits, {item.get('container')} has {bits}: "
                        "it comes from another server"
                    )
        for one in self.findings:
            paths = [
                f"{item.get('path')} (line {item.get('line')})"
                for item in self.values
                if not item.get("accepted") and self._entry_of(item) == one.id
            ]
            if paths:
                one.add(f"{len(paths)} values do not open: {_some(paths, 3)}")
        for one in self.findings:
            if one.id == "foreign_key" and self.sessions:
                bad = {item.get("provider") for item in self.sessions if item.get("verdict") == "bad_data"}
                if len(bad) == len({item.get("provider") for item in self.sessions}) and len(bad) > 1:
                    one.add("no session key opens: the whole file comes from another server, or all keys were replaced")
                if any(other.id == "several_files" and other.severity == BROKEN for other in self.findings):
                    one.score = min(one.score, 80)

    def _entry_of(self, item: dict[str, t.Any]) -> str:
        verdict = str(item.get("verdict"))
        if verdict in ("ok", "untested", "missing_key", "denied", "damaged"):
            return ""
        entry = self.table.explain(item.get("hresult"), verdict, "cng" if item.get("kind") == "cng" else "decrypt")
        return entry.id if entry else "data_invalid"

    def _access(self) -> None:
        for fact in self.containers:
            name = str(fact.get("container"))
            for problem in _list(fact, "access_problems"):
                kind, sid = problem.get("kind"), str(problem.get("sid") or "")
                if kind == "forbidden":
                    one = self.found("forbidden_access", 28, RISK, container=name)
                elif kind != "missing":
                    continue
                elif sid == _IIS_IUSRS:
                    one = self.found("worker_access", 80 if self.used(name) else 40, container=name)
                    if not self.used(name):
                        one.severity = RISK
                elif sid == _LOCAL_SERVICE:
                    one = self.found("wmsvc_access", 75, container=name)
                else:
                    one = self.found("access_denied", 78, container=name)
                one.add(str(problem.get("message")))
                if kind == "missing":
                    one.accounts.append((sid, name, self.file_of(name)))
                # What SYSTEM and Administrators lack, the module gives them without being asked.
                if fact.get("store") == "cryptoapi" and sid not in ("", "S-1-5-18", "S-1-5-32-544"):
                    verb = "add" if kind == "missing" else "remove"
                    wanted = one.access.setdefault(name, {}).setdefault(verb, [])
                    if {"account": sid} not in wanted:
                        wanted.append({"account": sid})

    def _certificate_store(self) -> None:
        store = _dict(self.facts, "certificate_store")
        for value in _list(store, "protected_values"):
            verdict = value.get("verdict")
            if verdict in ("ok", "untested"):
                continue
            if verdict in ("missing_key", "denied", "damaged"):
                # The state of the container is the cause; nothing else may need it on this server.
                entry = self.table.explain(value.get("hresult"), str(verdict), "open")
                one = self.found(entry.id if entry else "key_missing", 68, container="iisWasKey")
            else:
                one = self.found("certificate_store", 68, container="iisWasKey")
            one.add(f"Centralized Certificate Store: {value.get('path')} does not open ({verdict})")

    def _roots(self) -> list[Finding]:
        """The findings that can keep a service from starting."""
        roots = [one for one in self.findings if one.id in _STOPPERS and one.severity == BROKEN]
        return sorted(roots, key=lambda one: -one.score)

    def _services(self) -> None:
        roots = self._roots()
        for service in self.services:
            name, state, mode = str(service.get("name")), str(service.get("state")), service.get("start_mode")
            code = service.get("hresult")
            if state in ("running", "absent") or name not in _SERVICES:
                continue
            wanted = mode == "auto" or (name == "WAS" and self.state("W3SVC") != "absent")
            if mode == "disabled":
                if name in ("WAS", "W3SVC"):
                    self.found("service_disabled", 85).add(f"the service {name} is disabled")
                continue
            if not wanted and not code:
                continue
            line = f"the service {name} is {state}" + (f", it ended with {code}" if code else "")
            if state in ("start_pending", "stop_pending"):
                line = f"the service {name} hangs ({state})"
            root = self._root_for(name, code, roots)
            if root:
                root.add(line)
                continue
            entry = self.table.explain(code, None, "service") if code else None
            if state in ("start_pending", "stop_pending"):
                entry = self.table.entry("service_timeout")
            if entry is None:
                one = self.found("service_failed", 48)
            else:
                one = self.found(entry.id, 47 if entry.id == "dependency_failed" else 64)
            one.add(line)
            one.services.append(name)

    @staticmethod
    def _root_for(service: str, code: t.Any, roots: list[Finding]) -> Finding | None:
        if not roots or service not in ("WAS", "W3SVC", "WMSVC", "IISADMIN"):
            return None
        if code in _KEY_CODES:
            keyed = [one for one in roots if one.id not in ("leftover_tmp",)]
            return keyed[0] if keyed else None
        return roots[0]

    def _pools(self) -> None:
        for pool in _list(self.facts, "app_pools"):
            name = str(pool.get("name"))
            if pool.get("state") != "stopped" or not pool.get("auto_start"):
                continue
            line = f"application pool {name} starts automatically and is stopped"
            mine = [
                value
                for value in self.values
                if f"add[@name='{name}']/processModel/@password" in str(value.get("path"))
                or f'add[@name="{name}"]/processModel/@password' in str(value.get("path"))
            ]
            failing = [value for value in mine if value.get("verdict") not in ("ok", "untested")]
            if failing:
                verdict = str(failing[0].get("verdict"))
                entry = self.table.explain(failing[0].get("hresult"), verdict, "decrypt")
                cause = next(
                    (one for one in self.findings if one.id in ((entry.id if entry else ""), "foreign_guid")), None
                )
                if cause:
                    cause.add(f"{line}: its password does not open")
                    continue
            if pool.get("identity_type") == "SpecificUser" and not failing:
                one = self.found("pool_identity", 72)
                one.pools.append(name)
                one.add(f"{line}; its identity is {pool.get('user_name')}")
                if mine:
                    one.add(f"its encrypted password opens: the key is right ({mine[0].get('path')})")
            else:
                self.found("pool_stopped", 50).add(line)

    def _events(self) -> None:
        events = _dict(self.facts, "events")
        known = {(one.source, one.id): one for one in self.table.events}
        for event in _list(events, "entries"):
            meaning = known.get((str(event.get("source")), int(event.get("id") or 0)))
            if meaning is None:
                continue
            code = event.get("hresult")
            context = "worker" if meaning.source.endswith("W3SVC-WP") else "service"
            entry = self.table.explain(code, None, context) if code else None
            wanted = {meaning.entry, entry.id if entry else ""} - {""}
            if context == "worker" and code in ("0x80090016", "0x80070005"):
                wanted |= {"key_missing", "cng_key_missing", "foreign_guid", "access_denied"}
            line = f"event {meaning.id} at {event.get('time')}: {meaning.text}" + (f" ({code})" if code else "")
            matches = [one for one in self.findings if one.id in wanted and one.severity == BROKEN]
            if meaning.entry == "pool_identity" and not matches:
                # The password that does not open is the cause of the invalid identity.
                matches = [one for one in self.findings if one.severity == BROKEN and one.score >= 70]
            if matches:
                max(matches, key=lambda one: one.score).add(line)
            elif wanted and not (meaning.source == "Service Control Manager" and self.findings):
                name = entry.id if entry and context == "worker" else meaning.entry or (entry.id if entry else "")
                self.found(name, 42, RISK).add(line)

    def _history(self) -> None:
        last = self.last_good()
        for one in self.findings:
            if one.severity != BROKEN or not {"history", "history_copy"}.intersection(self.table.entry(one.id).plays):
                continue
            if last:
                one.add(
                    f"{last['name']} ({last.get('created')}) is the newest history file that this server's keys open"
                )
            elif self.history.get("snapshots"):
                one.add("no file of the configuration history opens with this server's keys")

    def last_good(self) -> dict[str, t.Any] | None:
        """The newest history file that proves and is not the file in force."""
        name = self.history.get("last_proven")
        current = next(
            (
                one.get("sha256")
                for one in _list(self.facts, "configuration_files")
                if one.get("name") == "applicationHost.config"
            ),
            None,
        )
        for one in _list(self.history, "snapshots"):
            if one.get("name") == name and one.get("sha256") != current:
                return one
        return None


# --- what the user saw ------------------------------------------------------------------------------------------------

_CODE = re.compile(r"(?i)(?:\b0x|hresult:\s*|\b)([89a-f][0-9a-f]{7})\b")
_WIN32 = re.compile(r"(?i)\b(?:error|fehler|erreur|code)\s*:?\s*(\d{1,5})\b")


def codes_of(text: str) -> list[str]:
    """The error codes in a message, event or log line, as HRESULTs in the spelling of the table."""
    found = [f"0x{match.upper()}" for match in _CODE.findall(text)]
    # 2148073494 is what event 7024 prints.
    found += [f"0x{int(match):08X}" for match in re.findall(r"(?<![\w.])(2[12]\d{8})(?![\w.])", text)]
    found += [f"0x8007{int(match):04X}" for match in _WIN32.findall(text) if 0 < int(match) < 0x10000]
    return list(dict.fromkeys(found))


def _symptom(work: _Diagnosis, symptom: str) -> list[str]:
    """Let what the user saw decide between the findings; answers lines about it."""
    table = work.table
    codes = codes_of(symptom)
    folded = symptom.casefold()
    context = next(
        (
            name
            for name, words in {
                "export": ("export", "-px"),
                "wmsvc": ("wmsvc", "management service", "remote iis manager"),
                "worker": ("500.19", "worker", "w3wp", "2307"),
                "service": ("service", "was ", "w3svc"),
            }.items()
            if any(word in folded for word in words)
        ),
        "",
    )
    entries = [entry for code in codes if (entry := table.explain(code, None, context))]
    entries += [
        entry
        for entry in table.entries
        if entry.codes and len(entry.message) > 8 and entry.message.casefold().rstrip(".") in folded
        if entry.context in ("", context)
    ]
    if "invalid identity" in folded or "identity" in folded and "invalid" in folded:
        entries.append(table.entry("pool_identity"))
    if "guid" in folded:
        entries.append(table.entry("foreign_guid"))
    if "several" in folded and "file" in folded:
        entries.append(table.entry("several_files"))
    wanted = list(dict.fromkeys(entry.id for entry in entries))
    lines = [f"{code} is {table.names[code]}" for code in codes if code in table.names]
    if "not_exportable" in wanted:
        for fact in work.containers:
            if fact.get("exportable") is False and (work.used(fact.get("container"))):
                one = work.found("not_exportable", 60, container=str(fact["container"]))
                one.add(f"{fact['container']} is present and not exportable")
    shown = {code for entry in entries for code in entry.codes}
    for one in work.findings:
        matches = one.id in wanted or bool(shown.intersection(table.entry(one.id).codes))
        matches = matches or any(one.id in _FACES.get(name, ()) for name in wanted)
        if matches and one.severity != NOTE:
            one.score += 20
            one.add(f"it fits what was seen: {symptom.strip()[:200]}")
    if wanted and not any(one.id in wanted or one.severity == BROKEN for one in work.findings):
        work.found(wanted[0], 35, RISK).add(
            f"what was seen: {symptom.strip()[:200]}", "nothing on the server shows it now"
        )
    return lines


# --- what to run ------------------------------------------------------------------------------------------------------


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _step(kind: str, name: str, command: str, why: str) -> dict[str, str]:
    return {"kind": kind, "name": name, "command": command, "why": why}


def _steps(one: Finding, work: _Diagnosis, host: str, have: Collection[str]) -> list[dict[str, str]]:
    """What mends a finding, of what exists, the best first."""
    steps: list[dict[str, str]] = []
    containers = [name for name in one.subjects if work.container(name).get("store") == "cryptoapi"]
    listed = f" containers={','.join(containers)}" if containers else ""
    # Forward slashes: a backslash would be an escape in arguments of the form name=value.
    live = "C:/Windows/System32/inetsrv/config/applicationHost.config"
    for name in containers:
        path = str(work.container(name).get("file_path") or "")
        if path and work.container(name).get("state") == "damaged":
            # The modules do not put a key into a container that cannot be read.
            script = f'Move-Item -LiteralPath "{path}" -Destination "{path}.damaged"'
            steps.append(
                _step(
                    "command",
                    "Move-Item",
                    f"ansible {host} -m ansible.builtin.raw -a {_quote(script)}",
                    f"moves the key file of {name} aside, so that a key can be imported; this comes first",
                )
            )
    for play in work.table.entry(one.id).plays:
        last = work.last_good()
        if play == "history" and last and "module config" in have:
            path = str(last["path"]).replace("\\", "/")
            arguments = f"src={path} remote_src=true start_services=automatic"
            steps.append(
                _step(
                    "module",
                    "webfarm.iis.config",
                    f"ansible {host} -m webfarm.iis.config -a {_quote(arguments)}",
                    f"puts {last['name']} back, which this server's keys open, and starts the services",
                )
            )
        elif play == "history_copy" and last:
            # The module config takes a file over from another one; without a present one it refuses.
            script = (
                f'Copy-Item -Force -LiteralPath "{last["path"]}" -Destination "{live}"; Start-Service -Name WAS, W3SVC'
            )
            steps.append(
                _step(
                    "command",
                    "Copy-Item",
                    f"ansible {host} -m ansible.builtin.raw -a {_quote(script)}",
                    f"copies {last['name']} over it, which this server's keys open, and starts the services",
                )
            )
        elif play == "leftover" and "module config" in have:
            arguments = f"src={live} remote_src=true"
            steps.append(
                _step(
                    "module",
                    "webfarm.iis.config",
                    f"ansible {host} -m webfarm.iis.config -a {_quote(arguments)}",
                    "changes nothing in the file and moves the left-over one away; then start WAS and W3SVC",
                )
            )
        elif play == "provision" and "playbook provision" in have:
            steps.append(
                _step(
                    "playbook",
                    "webfarm.iis.provision",
                    f"ansible-playbook webfarm.iis.provision --limit golden,{host} "
                    "-e provision_start_services=automatic",
                    "gives the server the keys and the configuration of the farm, proven first, in one transaction",
                )
            )
        elif f"playbook {play}" in have:
            why = {
                "sync_keys": "gives the server the keys of the farm and keeps its own configuration",
                "restore": "puts a backup of this server back, keys and configuration",
                "rotate": "makes new keys for the farm, and encrypts every value anew",
            }.get(play, "")
            name = f"webfarm.iis.{play}"
            steps.append(_step("playbook", name, f"ansible-playbook {name} --limit {host}", why))
        elif play == "key_import" and "module key_import" in have:
            arguments = f"bundle=FARM.keyset.json opening_file=CUSTODY.key{listed}"
            steps.append(
                _step(
                    "module",
                    "webfarm.iis.key_import",
                    f"ansible {host} -m webfarm.iis.key_import -a {_quote(arguments)}",
                    "imports the key alone, where the bundle holds the one that the configuration was written with",
                )
            )
        elif play == "key" and one.access and "module key" in have:
            for container, change in one.access.items():
                arguments = json.dumps({"container": container, "access": change})
                why = "sets the access list of the key, and proves it"
                steps.append(
                    _step(
                        "module",
                        "webfarm.iis.key",
                        f"ansible {host} -m webfarm.iis.key -a {_quote(arguments)}",
                        why,
                    )
                )
        elif play == "secret" and one.pools and "module secret" in have:
            for pool in one.pools:
                arguments = json.dumps({"app_pool": pool, "value": "{{ the_password }}"})
                command = f"ansible {host} -m webfarm.iis.secret"
                steps.append(
                    _step(
                        "module",
                        "webfarm.iis.secret",
                        f"{command} -a {_quote(arguments)} -e @VAULTED.yml",
                        "enters the current password (the_password in VAULTED.yml), encrypted on the server",
                    )
                )
        elif play == "start" and one.services:
            script = f"Start-Service -Name {', '.join(one.services)}"
            steps.append(
                _step(
                    "command",
                    "Start-Service",
                    f"ansible {host} -m ansible.builtin.raw -a {_quote(script)}",
                    "starts what is stopped, once its cause is mended",
                )
            )
        elif f"module {play}" in have:
            why = {
                "key": "sets the access list of the key",
                "secret": "enters the secret again, encrypted on the server",
                "config_rewrap": "with cng: portable, on the server the values come from: makes them readable here",
            }.get(play, "")
            steps.append(_step("module", f"webfarm.iis.{play}", f"ansible-doc webfarm.iis.{play}", why))
    if one.id in ("worker_access", "wmsvc_access", "access_denied"):
        for sid, container, path in one.accounts:
            if path:
                right = "F" if sid in ("S-1-5-18", "S-1-5-32-544") else "R"
                steps.append(
                    _step("command", "icacls", f'icacls "{path}" /grant "*{sid}:{right}"', f"by hand, for {container}")
                )
    return steps


# --- the whole --------------------------------------------------------------------------------------------------------


def _refused(result: Facts, table: Table) -> Finding:
    """What keeps the modules from running at all."""
    text = " ".join(
        str(result.get(name) or "") for name in ("msg", "module_stdout", "module_stderr", "exception", "language_mode")
    )
    if result.get("unreachable"):
        one = Finding("unreachable", 100)
    else:
        one = next((Finding(name, 100) for pattern, name in _REFUSED if re.search(pattern, text)), Finding("", 100))
    if not one.id:
        entry = next((found for code in codes_of(text) if (found := table.explain(code))), None)
        one.id = entry.id if entry else "failed"
    one.add(str(result.get("msg") or "the module gave no answer").strip()[:600])
    return one


def diagnose(
    result: Facts, host: str = "HOST", symptom: str = "", have: Collection[str] | None = None
) -> dict[str, t.Any]:
    """Rank the causes of a broken server.

    *result* is what server_info returned, or failed with; *symptom* a message, event or code that somebody saw.
    """
    table = load_table()
    work = _Diagnosis(result, table)
    notes: list[str] = []
    # A result that was not allowed to fail has its message all the same.
    if result.get("msg") or result.get("unreachable") or not isinstance(result.get("key_containers"), list):
        work.findings.append(_refused(result, table))
    else:
        work.look()
        events = _dict(result, "events")
        if events and not events.get("readable"):
            notes.append(f"The event log was not readable: {events.get('message')}")
        if not events:
            notes.append("The event log was not asked.")
        notes += [
            f"{problem.get('part')}: {problem.get('message')}"
            for problem in _list(result, "gathering_problems")
            if not str(problem.get("part")).endswith(".config")
        ]
        if _dict(result, "host").get("fips_policy"):
            notes.append("The FIPS policy is on: the modules work under it, .NET programs that use MD5 do not.")
    if symptom.strip():
        notes = _symptom(work, symptom) + notes
    available = installed() if have is None else have
    ordered = sorted(work.findings, key=lambda one: (_ORDER[one.severity], -one.score))
    causes = [_cause(rank, one, work, host, available) for rank, one in enumerate(ordered, 1)]
    broken = [one for one in ordered if one.severity == BROKEN]
    first = causes[0] if causes else None
    if not ordered:
        summary = "Nothing wrong was found."
    elif not broken:
        summary = "Nothing that is broken was found; see the remarks."
    else:
        summary = f"Most likely: {first['title'] if first else ''}"
    return {
        "host": host,
        "healthy": not broken,
        "summary": summary,
        "causes": causes,
        "notes": notes,
        "lines": _lines(host, summary, causes, notes),
    }


def _cause(rank: int, one: Finding, work: _Diagnosis, host: str, have: Collection[str]) -> dict[str, t.Any]:
    if one.id == "failed":
        return {
            "rank": rank,
            "id": "failed",
            "severity": one.severity,
            "title": "The facts of the server could not be gathered.",
            "subjects": [],
            "evidence": one.evidence,
            "cause": "The module failed; its message says where.",
            "confirm": "Run it again with -vvv.",
            "fix": "Mend what the message names, then diagnose again.",
            "next": [],
        }
    entry = work.table.entry(one.id)
    container = " and ".join(name for name in one.subjects if work.container(name)) or one.container
    return {
        "rank": rank,
        "id": one.id,
        "severity": one.severity,
        "title": entry.message + (f" ({container})" if container else ""),
        "subjects": one.subjects,
        "evidence": one.evidence,
        "cause": entry.text("cause", container, one.provider),
        "confirm": entry.text("confirm", container, one.provider),
        "fix": entry.text("fix", container, one.provider),
        "next": _steps(one, work, host, have),
    }


def _lines(host: str, summary: str, causes: list[dict[str, t.Any]], notes: list[str]) -> list[str]:
    """The same as text, for people."""
    lines = [f"{host}: {summary}"]
    for cause in causes:
        lines.append(f"{cause['rank']}. [{cause['severity']}] {cause['title']}")
        lines.append(f"   Cause:    {cause['cause']}")
        lines += [f"   Evidence: {line}" for line in cause["evidence"]]
        lines.append(f"   Confirm:  {cause['confirm']}")
        lines.append(f"   Fix:      {cause['fix']}")
        lines += [f"   Run:      {step['command']}   ({step['why']})" for step in cause["next"]]
    return lines + [f"Note: {note}" for note in notes]
