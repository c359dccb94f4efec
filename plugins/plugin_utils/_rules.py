# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""The rules: each judges one host, some against the rest of the fleet, and says why and what to do.

Two passes: every host is first counted into the :class:`Fleet` (which keys, configurations and machine GUIDs there
are, and where), then each host is judged against it. A rule that lacks a fact says *unknown*; only a fact that was
looked at can pass.

Verdicts: ``pass``, ``warn`` (to be looked at), ``fail``, ``unknown``, ``waived`` (would not pass, an exception says
why), ``na`` (nothing to judge here).
"""

from __future__ import annotations

import datetime
import typing as t
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from ansible_collections.webfarm.iis.plugins.plugin_utils._facts import Backup, Container, Fact, View, age, parse_time

PASS: t.Final = "pass"
WARN: t.Final = "warn"
FAIL: t.Final = "fail"
UNKNOWN: t.Final = "unknown"
WAIVED: t.Final = "waived"
NOT_APPLICABLE: t.Final = "na"
STATUSES: t.Final = (FAIL, UNKNOWN, WARN, WAIVED, PASS, NOT_APPLICABLE)

# How a host as a whole stands; the first word that applies.
UNREACHABLE: t.Final = "unreachable"
HOST_STATUSES: t.Final = (UNREACHABLE, FAIL, UNKNOWN, WARN, PASS)

_SHOWN = 3  # paths, accounts and hosts named in a reason
_DETAILED = 200  # hosts of a report whose differing attributes are read and named

Params = dict[str, t.Any]


# --- the fleet ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeySet:
    """Fingerprints that a bundle states for a farm."""

    farm: str
    generation: int
    fingerprints: t.Mapping[str, str]
    source: str = ""


@dataclass
class Fleet:
    """Everything that one host can only be judged by in comparison with the others."""

    now: datetime.datetime
    known: tuple[KeySet, ...] = ()
    # Reads the differing attributes of two hosts' files; None where the facts do not have them.
    differing: t.Callable[[View, View, str], list[str] | None] | None = None
    fingerprints: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    holders: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    guids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    digests: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    # The secrets in clear of a file, by farm, file and run key.
    secrets: dict[tuple[str, str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    examples: dict[tuple[str, str, str], View] = field(default_factory=dict)
    # The machineKeys of an application, by farm, application and run key.
    machine_keys: dict[tuple[str, str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    generations: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    sizes: Counter[str] = field(default_factory=Counter)
    _detailed: int = 0
    _current: dict[str, KeySet] = field(default_factory=dict)
    _by_farm: dict[str, list[KeySet]] = field(default_factory=lambda: defaultdict(list))
    _owners: dict[str, list[KeySet]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for one in self.known:
            self._by_farm[one.farm].append(one)
            best = self._current.get(one.farm)
            if best is None or one.generation > best.generation:
                self._current[one.farm] = one
            for fingerprint in one.fingerprints.values():
                self._owners[fingerprint].append(one)

    def add(self, view: View) -> None:
        """Count a host in."""
        self.sizes[view.farm] += 1
        if view.state != "answered":
            return
        for one in view.containers:
            if one.fingerprint:
                self.fingerprints[view.farm, one.name.casefold()][one.fingerprint] += 1
                self.holders[one.fingerprint][view.farm] += 1
        if view.machine_guid:
            self.guids[view.machine_guid.casefold()].append(view.name)
        for file in view.files:
            if file.digest:
                key = (view.farm, file.name.casefold())
                self.digests[key][file.digest] += 1
                self.examples.setdefault((*key, file.digest), view)
                if file.keyed and view.run_key:
                    self.secrets[(*key, view.run_key)][file.keyed] += 1
                    self.examples.setdefault((*key, file.keyed), view)
        for used in view.machine_keys or ():
            if used.fingerprint and view.run_key:
                self.machine_keys[view.farm, used.application.casefold(), view.run_key][used.fingerprint] += 1
        generation, dummy = self.generation(view)
        if generation:
            self.generations[view.farm][generation] += 1

    def current(self, farm: str) -> KeySet | None:
        """The newest known key set of a farm."""
        return self._current.get(farm)

    def owners(self, fingerprint: str) -> list[KeySet]:
        """The known key sets that hold that key."""
        return self._owners.get(fingerprint, [])

    def generation(self, view: View) -> tuple[int | None, str | None]:
        """Which generation of its farm's keys a host has (0: several), and why that cannot be said.

        Without a bundle of the farm there are no generations to speak of: None, None.
        """
        if view.generation is not None:
            return view.generation, None
        sets = self._by_farm.get(view.farm)
        if not sets:
            return None, None
        found: dict[str, set[int]] = {}
        for one in view.containers:
            if one.fingerprint and any(_holds(known, one.name) for known in sets):
                found[one.name] = {
                    known.generation for known in self.owners(one.fingerprint) if known.farm == view.farm
                }
        if not found:
            return None, "it holds no key that a bundle of its farm names"
        strange = sorted(name for name, numbers in found.items() if not numbers)
        if strange:
            return None, f"{', '.join(strange)} is of no known generation"
        # A key may be part of several generations, when only the other one was replaced.
        shared = set.intersection(*found.values())
        if not shared:
            return 0, "; ".join(f"{name} is of generation {max(found[name])}" for name in sorted(found))
        return max(shared), None

    def attributes(self, view: View, file: str, digest: str) -> str:
        """What differs from the members of the group that have that digest; empty when it cannot be said."""
        example = self.examples.get((view.farm, file.casefold(), digest))
        if self.differing is None or example is None:
            return ""
        if self._detailed >= _DETAILED:
            return f" The differing attributes are named for the first {_DETAILED} hosts only."
        self._detailed += 1
        found = self.differing(view, example, file)
        if found is None:
            return " The facts do not say which attributes."
        if not found:
            return f" Compared with {example.name}, elements stand in another order where the order counts."
        return f" Compared with {example.name}: {_some(found, 10)}."


def _holds(known: KeySet, container: str) -> bool:
    wanted = container.casefold()
    return any(name.casefold() == wanted for name in known.fingerprints)


# --- rules ----------------------------------------------------------------------------------------------------------


class Verdict(t.NamedTuple):
    status: str
    reason: str
    fix: str = ""


@dataclass(frozen=True)
class Param:
    type: type | tuple[type, ...]
    default: t.Any
    description: str


@dataclass(frozen=True)
class Rule:
    id: str
    title: str
    short: str
    description: str
    check: t.Callable[[View, Params, Fleet], Verdict]
    params: t.Mapping[str, Param] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    enabled: bool = True


def _short(fingerprint: str | None) -> str:
    return f"{fingerprint[:12]}..." if fingerprint else "none"


def _some(names: t.Sequence[str], shown: int = _SHOWN) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _state_problem(one: Container | None, name: str) -> Verdict | None:
    """A verdict where a container cannot be judged because it is not there or not open."""
    if one is None:
        return Verdict(UNKNOWN, f"server_info did not look at {name}.", f"Add {name} to compliance_containers.")
    if one.state == "present":
        return None
    message = one.message or f"Key container {name} is {one.state}."
    if one.state == "denied":
        return Verdict(UNKNOWN, message, one.fix or "Run with an account that may open the key.")
    return Verdict(FAIL, message, one.fix or "Import the key from a server that has it (key_export and key_import).")


def _worst(verdicts: t.Sequence[Verdict], otherwise: str) -> Verdict:
    """One verdict from several: the worst status, the reasons and fixes of all that share it."""
    for status in (FAIL, UNKNOWN, WARN):
        same = [one for one in verdicts if one.status == status]
        if same:
            reasons = " ".join(dict.fromkeys(one.reason for one in same))
            return Verdict(status, reasons, " ".join(dict.fromkeys(one.fix for one in same if one.fix)))
    passed = [one for one in verdicts if one.status == PASS]
    if passed:
        return Verdict(PASS, " ".join(dict.fromkeys(one.reason for one in passed)))
    return Verdict(NOT_APPLICABLE, otherwise)


def _reachable(view: View, params: Params, fleet: Fleet) -> Verdict:
    if view.state == "answered":
        return Verdict(PASS, f"Answered at {view.recorded}.")
    message = (view.message or "no reason was recorded").rstrip(".")
    if view.state == "unreachable":
        return Verdict(
            FAIL,
            f"The host could not be reached: {message}.",
            "Check power, network, WinRM or SSH and the credentials; then run again with --limit for this host.",
        )
    if view.state == "failed":
        return Verdict(
            FAIL,
            f"The host answered, but its facts could not be gathered: {message}.",
            "Correct what the message names.",
        )
    if view.state == "stale":
        return Verdict(FAIL, f"The record is out of date: {message}.", "Record this host again.")
    return Verdict(
        FAIL, f"The host was expected, but {message}.", "Run again with --limit for this host, with fewer forks."
    )


def _keys_expected(view: View, params: Params, fleet: Fleet) -> Verdict:
    pins: t.Mapping[str, str] = params["fingerprints"] or {}
    source = "the policy"
    if not pins:
        known = fleet.current(view.farm)
        if known is None:
            return Verdict(
                NOT_APPLICABLE, f"Neither the policy nor a bundle says which keys the farm '{view.farm}' should have."
            )
        pins, source = known.fingerprints, known.source or f"the bundle of generation {known.generation}"
    found: list[Verdict] = []
    good = []
    for name, wanted in pins.items():
        one = view.container(name)
        problem = _state_problem(one, name)
        if problem or one is None:
            found.append(problem or Verdict(UNKNOWN, f"{name} was not looked at."))
        elif one.fingerprint is None:
            found.append(Verdict(UNKNOWN, f"The fingerprint of {name} is not known.", "Run with an elevated account."))
        elif one.fingerprint != wanted.lower():
            found.append(
                Verdict(
                    FAIL,
                    f"{name} is {_short(one.fingerprint)}, {source} says {_short(wanted.lower())}.",
                    "Give this server the farm's keys (playbook webfarm.iis.provision).",
                )
            )
        else:
            good.append(name)
    if good:
        found.append(Verdict(PASS, f"{', '.join(good)} as {source} says."))
    return _worst(found, "No key is expected.")


def _keys_equal(view: View, params: Params, fleet: Fleet) -> Verdict:
    found: list[Verdict] = []
    for name in params["containers"]:
        counts = fleet.fingerprints.get((view.farm, name.casefold()), Counter())
        total = counts.total()
        one = view.container(name)
        if total == 0 and (one is None or one.state == "missing"):
            continue
        problem = _state_problem(one, name)
        if problem or one is None or one.fingerprint is None:
            found.append(problem or Verdict(UNKNOWN, f"The fingerprint of {name} is not known."))
            continue
        same = counts[one.fingerprint]
        if total == 1:
            # Nobody to compare with says nothing about being equal.
            if fleet.sizes[view.farm] > 1:
                found.append(
                    Verdict(UNKNOWN, f"No other host of the group '{view.farm}' has a readable {name} to compare with.")
                )
            continue
        if same == total:
            found.append(Verdict(PASS, f"{name} is equal on {total} hosts."))
            continue
        (most, size), *dummy = counts.most_common(1)
        if most == one.fingerprint and size * 2 > total:
            found.append(Verdict(PASS, f"{name} is equal to {size - 1} of {total - 1} other hosts."))
        elif size * 2 > total:
            found.append(
                Verdict(
                    FAIL,
                    f"{name} is {_short(one.fingerprint)}, "
                    f"{size} of {total} hosts of '{view.farm}' have {_short(most)}.",
                    "Give this server the farm's keys (playbook webfarm.iis.provision).",
                )
            )
        else:
            found.append(
                Verdict(
                    FAIL,
                    f"{total} hosts of '{view.farm}' have {len(counts)} different keys in {name}, no majority.",
                    "Choose the golden server and give its keys to the others (playbook webfarm.iis.provision).",
                )
            )
    return _worst(found, f"There is no other host in the group '{view.farm}' to compare with.")


def _key_generation(view: View, params: Params, fleet: Fleet) -> Verdict:
    number, why = fleet.generation(view)
    if number == 0:
        return Verdict(
            FAIL, f"The keys of this host are of different generations: {why}.", "Bring it to the newest generation."
        )
    if number is None and why is None:
        return Verdict(
            NOT_APPLICABLE, f"No bundle of the farm '{view.farm}' is known, so its generations have no numbers."
        )
    if number is None:
        return Verdict(
            UNKNOWN,
            f"The generation is not known: {why}.",
            "Name the farm's bundles, old ones as well, in compliance_bundles.",
        )
    known = fleet.current(view.farm)
    wanted = known.generation if known else max(fleet.generations[view.farm], default=number)
    if number != wanted:
        return Verdict(
            FAIL,
            f"The keys are of generation {number}, the farm '{view.farm}' is at {wanted}.",
            "Bring it to the newest generation (playbook webfarm.iis.provision or webfarm.iis.rotate).",
        )
    return Verdict(PASS, f"Generation {number}, as the farm '{view.farm}'.")


def _cloned_image(view: View, params: Params, fleet: Fleet) -> Verdict:
    found: list[Verdict] = []
    fix = (
        "A cloned image carries its keys along. Make new keys for one of the farms, or, where sharing is wanted, "
        "export them to a bundle (key_export) and name it in compliance_bundles."
    )
    if view.machine_guid:
        twins = [name for name in fleet.guids.get(view.machine_guid.casefold(), []) if name != view.name]
        if twins:
            found.append(
                Verdict(
                    FAIL,
                    f"The machine GUID is also that of {_some(twins)}: one is a clone of the other.",
                    "Run Sysprep on the clone, then give it the farm's keys.",
                )
            )
    for one in view.containers:
        if one.foreign_files:
            found.append(
                Verdict(
                    WARN,
                    f"{_count(len(one.foreign_files), 'key file')} of {one.name} belong to another machine GUID.",
                    "Make sure that the machine was not cloned or its machine GUID changed; then move the files away.",
                )
            )
        if not one.fingerprint:
            continue
        owners = fleet.owners(one.fingerprint)
        if any(known.farm == view.farm for known in owners):
            continue
        farms = fleet.holders.get(one.fingerprint, Counter())
        others = sorted(farm for farm in farms if farm != view.farm)
        if owners:
            names = sorted({known.farm for known in owners})
            found.append(
                Verdict(FAIL, f"{one.name} is the key of the farm '{_some(names)}', this is '{view.farm}'.", fix)
            )
        elif others:
            found.append(Verdict(FAIL, f"{one.name} is the same as on hosts of '{_some(others)}', another farm.", fix))
        elif farms[view.farm] > 1:
            found.append(
                Verdict(
                    WARN,
                    f"{one.name} is shared by {farms[view.farm]} hosts of '{view.farm}', and no known bundle holds it: "
                    "keys from one image, or synchronised by hand.",
                    fix,
                )
            )
    if found:
        return _worst(found, "")
    if not any(one.fingerprint for one in view.containers):
        return Verdict(UNKNOWN, "No key of this host could be read.")
    return Verdict(PASS, "Its keys are its own, or those of its farm's bundle.")


def _key_size(view: View, params: Params, fleet: Fleet) -> Verdict:
    missing = _not_gathered(view, "keys")
    if missing:
        return missing
    minimum = params["minimum"]
    found: list[Verdict] = []
    good = []
    for one in view.containers:
        if one.store != "cryptoapi" or one.state != "present":
            continue
        if one.bits is None:
            found.append(Verdict(UNKNOWN, f"The size of {one.name} is not known.", "Run with an elevated account."))
        elif one.bits < minimum:
            found.append(
                Verdict(
                    FAIL,
                    f"{one.name} has {one.bits} bits, at least {minimum} are required.",
                    "Make larger keys on the golden server and give them to the farm (playbook webfarm.iis.rotate).",
                )
            )
        else:
            good.append(f"{one.name} {one.bits}")
    if good:
        found.append(Verdict(PASS, f"Bits: {', '.join(good)}."))
    denied = [_state_problem(one, one.name) for one in view.containers if one.state in ("denied", "damaged")]
    return _worst([*found, *(one for one in denied if one)], "There is no RSA key on this host.")


def _key_exportable(view: View, params: Params, fleet: Fleet) -> Verdict:
    found: list[Verdict] = []
    for name in params["containers"]:
        one = view.container(name)
        if one is not None and one.state == "missing":
            continue
        problem = _state_problem(one, name)
        if problem or one is None:
            found.append(problem or Verdict(UNKNOWN, f"{name} was not looked at."))
        elif one.exportable is None:
            found.append(Verdict(UNKNOWN, f"Whether {name} can be exported is not known."))
        elif one.exportable is not params["exportable"]:
            found.append(
                Verdict(
                    FAIL,
                    f"The private key of {name} can{'' if one.exportable else 'not'} be exported.",
                    "Import it again from the bundle as non-exportable (key_import or config with exportable: false)."
                    if one.exportable
                    else "Import it again from the bundle as exportable (exportable: true).",
                )
            )
        else:
            found.append(Verdict(PASS, f"{name} is {'' if one.exportable else 'not '}exportable."))
    return _worst(found, "None of these containers is on this host.")


_SYSTEM, _ADMINISTRATORS, _IIS_IUSRS = "S-1-5-18", "S-1-5-32-544", "S-1-5-32-568"
_LOCAL_SERVICE, _NETWORK_SERVICE = "S-1-5-19", "S-1-5-20"
_READERS: t.Final[dict[str, list[str]]] = {
    "iisWasKey": [_SYSTEM, _ADMINISTRATORS, _LOCAL_SERVICE],
    "iisConfigurationKey": [_SYSTEM, _ADMINISTRATORS, _LOCAL_SERVICE, _NETWORK_SERVICE, _IIS_IUSRS],
    "iisCngWasKey": [_SYSTEM, _ADMINISTRATORS, _LOCAL_SERVICE],
    "iisCngConfigurationKey": [_SYSTEM, _ADMINISTRATORS, _LOCAL_SERVICE, _NETWORK_SERVICE, _IIS_IUSRS],
}


def _key_access(view: View, params: Params, fleet: Fleet) -> Verdict:
    missing = _not_gathered(view, "keys")
    if missing:
        return missing
    found: list[Verdict] = []
    for name, allowed in params["readers"].items():
        one = view.container(name)
        if one is None or one.state == "missing":
            continue
        if one.state != "present":
            problem = _state_problem(one, name)
            if problem:
                found.append(problem)
            continue
        if not one.acl:
            found.append(Verdict(UNKNOWN, f"The access list of {name} is not known.", "Run with an elevated account."))
            continue
        for item in one.problems:
            found.append(Verdict(FAIL, item.message, item.fix))
        wanted = {str(sid).casefold() for sid in (*allowed, *params["allow"])}
        strange = [
            ace.account
            for ace in one.acl
            if ace.type == "allow" and ace.sid.casefold() not in wanted and ace.account.casefold() not in wanted
        ]
        if strange:
            accounts = list(dict.fromkeys(strange))
            found.append(
                Verdict(
                    FAIL,
                    f"{name} may be read by {_some(accounts)}, which the policy does not allow.",
                    f"Remove the entries from the key, or add the accounts to 'allow' of this rule: {_some(accounts)}.",
                )
            )
        if not one.problems and not strange:
            found.append(Verdict(PASS, f"{name}: the right accounts and no others."))
    return _worst(found, "None of these containers is on this host.")


# Parts of server_info that a subset rests on. Where one could not be gathered, its lists are empty and prove nothing.
_PARTS: t.Final[dict[str, tuple[str, ...]]] = {
    "keys": ("keys", "inventory", "key_containers"),
    "values": ("keys", "inventory", "values", "configuration_files", "redirection", "certificate_store", "*.config"),
    "files": ("files", "redirection"),
}


def _not_gathered(view: View, subset: str) -> Verdict | None:
    """A verdict where the facts of that subset are not there to be judged."""
    if not view.has(subset):
        return Verdict(
            UNKNOWN, f"The subset '{subset}' was not gathered.", f"Add {subset} to compliance_gather_subset."
        )
    if subset == "values" and view.redirection:
        return Verdict(
            UNKNOWN,
            f"IIS reads its configuration from {view.redirection}, which was not looked at.",
            "Check the shared configuration where it lies.",
        )
    problem = view.problem(*_PARTS[subset])
    if problem:
        return Verdict(UNKNOWN, f"This could not be looked at: {problem}")
    if subset == "keys" and not view.containers:
        return Verdict(UNKNOWN, "server_info returned no key container.", "Use a release that returns them.")
    return None


def _values_open(view: View, params: Params, fleet: Fleet) -> Verdict:
    missing = _not_gathered(view, "values")
    if missing:
        return missing
    accepted = {str(one["path"]): str(one["reason"]) for one in params["accepted"]}
    everything = (*view.sessions, *view.values, *view.stored)
    bad = [one for one in everything if one.verdict not in ("ok", "untested", "not_checked")]
    open_now = [one for one in bad if one.path not in accepted]
    if open_now:
        shown = _some([f"{one.path} ({one.provider or 'no provider'}: {one.verdict})" for one in open_now])
        return Verdict(
            FAIL,
            f"{len(open_now)} of {_count(len(everything), 'value')} cannot be decrypted: {shown}.",
            open_now[0].fix or "Give this server the keys of the server that the configuration comes from.",
        )
    untested = [one for one in everything if one.verdict in ("untested", "not_checked")]
    if untested:
        return Verdict(
            UNKNOWN, f"{_count(len(untested), 'value')} not tested.", "Gather with decrypt: all (compliance_decrypt)."
        )
    noted = f" Accepted: {_some([f'{one.path} ({accepted[one.path]})' for one in bad])}." if bad else ""
    if not everything:
        return Verdict(PASS, "The configuration holds no protected value.")
    return Verdict(PASS, f"{len(everything) - len(bad)} of {_count(len(everything), 'value')} decrypt.{noted}")


def _providers_allowed(view: View, params: Params, fleet: Fleet) -> Verdict:
    missing = _not_gathered(view, "values")
    if missing:
        return missing
    allowed = {str(name).casefold() for name in params["providers"]}
    strange = [one for one in view.values if (one.provider or "").casefold() not in allowed]
    if not strange:
        return Verdict(PASS, f"{_count(len(view.values), 'value')}, all under allowed providers.")
    cng = any(one.kind == "cng" for one in strange)
    shown = _some([f"{one.path} ({one.provider or 'no provider'})" for one in strange])
    return Verdict(
        FAIL,
        f"{_count(len(strange), 'value')} under other providers: {shown}.",
        "An edit with IIS Manager or appcmd brings CNG values back: make the configuration portable again "
        "(provision_cng: portable)."
        if cng
        else "Encrypt these values again under an allowed provider, or add the provider to this rule.",
    )


def _configuration_sound(view: View, params: Params, fleet: Fleet) -> Verdict:
    missing = _not_gathered(view, "files")
    if missing:
        return missing
    found: list[Verdict] = []
    for file in view.files:
        if file.message:
            found.append(Verdict(FAIL, file.message, file.fix or ""))
    for name in params["files"]:
        present = view.file(name)
        if present is None or not present.exists:
            found.append(
                Verdict(FAIL, f"{name} is not there.", "Restore it from a backup, or provision the server again.")
            )
    if view.redirection:
        found.append(
            Verdict(WARN, f"IIS reads its configuration from {view.redirection}; the local files are not in use.")
        )
    return _worst(found or [Verdict(PASS, f"{_count(len(view.files), 'file')} read without a finding.")], "")


def _secrets_differ(view: View, name: str, fleet: Fleet) -> Verdict | None:
    """A verdict where secrets that stand in clear text are not those of the others that mean the same otherwise."""
    file = view.file(name)
    if file is None or not file.keyed or not view.run_key:
        return None
    counts = fleet.secrets[view.farm, name.casefold(), view.run_key]
    total = counts.total()
    (most, size), *dummy = counts.most_common(1)
    if counts[file.keyed] == total or (most == file.keyed and size * 2 > total):
        return None
    if len(fleet.digests[view.farm, name.casefold()]) > 1:
        return None  # Then they differ anyhow, and the attributes are named there.
    named = fleet.attributes(view, name, most) if most != file.keyed else ""
    return Verdict(
        FAIL,
        f"{name} holds other values in clear text (passwords, settings) than "
        f"{f'{size} of {total} hosts' if size * 2 > total else 'the other hosts'} of '{view.farm}'.{named}",
        "Provision this server with the farm's configuration, or correct the attributes.",
    )


def _secrets_encrypted(view: View, params: Params, fleet: Fleet) -> Verdict:
    missing = _not_gathered(view, "files")
    if missing:
        return missing
    problem = view.problem("schema")
    if view.unprotected is None or problem:
        return Verdict(
            UNKNOWN,
            problem or f"server_info did not return {Fact.ENCRYPTED}.",
            "Gather the subset files with a release that returns it.",
        )
    broken = [file.name for file in view.files if file.exists and file.digest is None and file.message]
    accepted = {str(one["path"]): str(one["reason"]) for one in params["accepted"]}
    bad = [one for one in view.unprotected if one.path not in accepted]
    if bad:
        shown = _some([f"{one.path} ({one.file}: {one.state})" for one in bad])
        return Verdict(
            FAIL,
            f"{_count(len(bad), 'attribute')} not encrypted as the schema of this server wants: {shown}.",
            "Set it again with the module webfarm.iis.secret, and change the password: it was readable.",
        )
    if broken:
        return Verdict(UNKNOWN, f"{_some(broken)} could not be read.", "Mend the file.")
    noted = [f"{one.path} ({accepted[one.path]})" for one in view.unprotected]
    return Verdict(
        PASS,
        "Nothing that the schema declares as encrypted stands in clear."
        f"{f' Accepted: {_some(noted)}.' if noted else ''}",
    )


def _configuration_equal(view: View, params: Params, fleet: Fleet) -> Verdict:
    missing = _not_gathered(view, "files")
    if missing:
        return missing
    found: list[Verdict] = []
    for name in params["files"]:
        file = view.file(name)
        if file is None or not file.exists:
            found.append(Verdict(FAIL, f"{name} is not there."))
            continue
        if file.digest is None:
            found.append(
                Verdict(
                    UNKNOWN, f"server_info did not return {Fact.DIGEST} of {name}.", "Use a release that returns it."
                )
            )
            continue
        counts = fleet.digests[view.farm, name.casefold()]
        total = counts.total()
        if total == 1:
            if fleet.sizes[view.farm] > 1:
                found.append(Verdict(UNKNOWN, f"No other host of '{view.farm}' has {name} to compare with."))
            continue
        (most, size), *dummy = counts.most_common(1)
        secrets = _secrets_differ(view, name, fleet)
        if secrets:
            found.append(secrets)
        elif counts[file.digest] == total:
            found.append(Verdict(PASS, f"{name} says the same on {total} hosts."))
        elif most == file.digest and size * 2 > total:
            found.append(Verdict(PASS, f"{name} says the same as on {size - 1} of {total - 1} other hosts."))
        else:
            majority = size * 2 > total
            others = (
                f"{size} of {total} hosts of '{view.farm}' agree on another" if majority else "there is no majority"
            )
            found.append(
                Verdict(
                    FAIL,
                    f"{name} differs: {others}.{fleet.attributes(view, name, most) if most != file.digest else ''}",
                    "Provision this server with the farm's configuration, or correct the attributes.",
                )
            )
    return _worst(found, f"There is no other host in the group '{view.farm}' to compare with.")


_WEB_FIX: t.Final = "Set compliance_web_configurations to sites, and record again."


def _no_web(view: View, found: t.Any) -> Verdict | None:
    if found is not None:
        return None
    if view.redirection:
        return Verdict(
            UNKNOWN,
            f"IIS reads its configuration from {view.redirection}, so its applications are not known here.",
            "Check the shared configuration where it lies.",
        )
    problem = view.problem("web_configurations", "configuration_files", "applicationHost.config")
    return Verdict(UNKNOWN, problem or "The web.config files of the applications were not looked at.", _WEB_FIX)


def _unread(view: View) -> list[Verdict]:
    return [Verdict(UNKNOWN, f"{path}: {why}", "Look at that file where it lies.") for path, why in view.unread]


def _machine_key_set(view: View, params: Params, fleet: Fleet) -> Verdict:
    missing = _no_web(view, view.machine_keys)
    if missing:
        return missing
    if fleet.sizes[view.farm] < 2:
        return Verdict(NOT_APPLICABLE, f"'{view.farm}' has one host: a generated machineKey does no harm.")
    ignored = {str(one).casefold() for one in params["except"]}
    managed = [
        one for one in view.machine_keys or () if one.state != "unmanaged" and one.application.casefold() not in ignored
    ]
    found = _unread(view)
    generated = [one.application for one in managed if one.state == "generated"]
    closed = [f"{one.application} ({one.source})" for one in managed if one.state == "closed"]
    if generated:
        found.append(
            Verdict(
                FAIL,
                f"The machineKey is generated, so other on every host of '{view.farm}': {_some(generated)}.",
                "Set validationKey and decryptionKey in web.config, the same on all hosts: else forms cookies and view "
                "state of one host are refused by the next. Name applications without these in 'except'.",
            )
        )
    if closed:
        found.append(
            Verdict(
                UNKNOWN,
                f"The machineKey is encrypted and was not opened: {_some(closed)}.",
                "See 'Sections open'; gather with decrypt: all.",
            )
        )
    explicit = sum(one.state == "explicit" for one in managed)
    if explicit:
        found.append(Verdict(PASS, f"{_count(explicit, 'application')} with a machineKey that is set."))
    return _worst(found, "No application runs managed code.")


def _machine_key_equal(view: View, params: Params, fleet: Fleet) -> Verdict:
    missing = _no_web(view, view.machine_keys)
    if missing:
        return missing
    found = _unread(view)
    equal = 0
    for one in view.machine_keys or ():
        if one.state == "closed":
            found.append(
                Verdict(
                    UNKNOWN,
                    f"The machineKey of {one.application} was not opened ({one.source}).",
                    "See 'Sections open'.",
                )
            )
        if one.state != "explicit":
            continue
        if not one.fingerprint or not view.run_key:
            found.append(Verdict(UNKNOWN, "The machineKeys were recorded without a run key.", _WEB_FIX))
            continue
        counts = fleet.machine_keys[view.farm, one.application.casefold(), view.run_key]
        total = counts.total()
        (most, size), *dummy = counts.most_common(1)
        if total == 1:
            if fleet.sizes[view.farm] > 1:
                found.append(
                    Verdict(
                        UNKNOWN,
                        f"No other host of '{view.farm}' has a machineKey of {one.application} with the same run key.",
                        "Record the hosts of a farm in one run, or give the runs the same compliance_run_key.",
                    )
                )
        elif counts[one.fingerprint] == total or (most == one.fingerprint and size * 2 > total):
            equal += 1
        else:
            others = f"{size} of {total} hosts agree on another" if size * 2 > total else "there is no majority"
            found.append(
                Verdict(
                    FAIL,
                    f"The machineKey of {one.application} ({one.source}) is not that of '{view.farm}': {others}.",
                    "Set the same validationKey, decryptionKey, validation and decryption on all hosts.",
                )
            )
    if equal:
        found.append(Verdict(PASS, f"The machineKeys of {_count(equal, 'application')} are those of the farm."))
    return _worst(found, "No application has a machineKey to compare.")


def _sections_open(view: View, params: Params, fleet: Fleet) -> Verdict:
    missing = _no_web(view, view.sections)
    if missing:
        return missing
    found = _unread(view)
    good = []
    for one in view.sections or ():
        place = f"{one.path} of {one.file} ({one.provider}{f', {one.container}' if one.container else ''})"
        if one.verdict == "untested":
            found.append(
                Verdict(
                    UNKNOWN,
                    f"{place} was not tried{f': {one.message}' if one.message else ''}.",
                    "Gather with decrypt: all (compliance_decrypt).",
                )
            )
        elif one.verdict != "ok":
            found.append(
                Verdict(
                    FAIL,
                    f"{place} does not open: {one.verdict}{f', {one.message}' if one.message else ''}.",
                    one.fix or "Give this server the key of the server that encrypted the section.",
                )
            )
        elif one.kind == "dpapi" and fleet.sizes[view.farm] > 1:
            found.append(
                Verdict(
                    WARN,
                    f"{place} is bound to this machine: the file cannot be copied to another host.",
                    "Encrypt it with an RSA provider whose container the farm shares.",
                )
            )
        else:
            good.append(one.container or one.provider)
    if good:
        names = ", ".join(sorted(set(good)))
        found.append(Verdict(PASS, f"{_count(len(good), 'encrypted section')} open, with {names}."))
    return _worst(found, "No web.config of an application holds an encrypted section.")


def _history_on(view: View, params: Params, fleet: Fleet) -> Verdict:
    if view.history is None or view.history.enabled is None:
        why = view.problem("history") or (view.history.message if view.history else None)
        return Verdict(
            UNKNOWN,
            f"server_info did not return {Fact.HISTORY}{f': {why}' if why else '.'}",
            "Gather the subset history with a release that returns it.",
        )
    if not view.history.enabled:
        return Verdict(
            FAIL,
            "The configuration history is off.",
            "Set enabled of system.applicationHost/configHistory to true and start the service AppHostSvc.",
        )
    service = next((state for name, state, dummy in view.services if name.casefold() == "apphostsvc"), None)
    if service not in (None, "running"):
        return Verdict(
            FAIL, f"The configuration history is on, but the service AppHostSvc is {service}.", "Start AppHostSvc."
        )
    return Verdict(PASS, f"On{f', in {view.history.path}' if view.history.path else ''}.")


def _newest_backup(view: View) -> Backup | Verdict:
    if view.backups is None:
        return Verdict(
            UNKNOWN, f"server_info did not return {Fact.BACKUPS}.", "Gather it with a release that returns it."
        )
    if not view.backups:
        return Verdict(FAIL, "There is no backup of the configuration.", "Make one (module webfarm.iis.config_backup).")
    return view.backups[0]


def _backup_recent(view: View, params: Params, fleet: Fleet) -> Verdict:
    newest = _newest_backup(view)
    if isinstance(newest, Verdict):
        return newest
    taken = parse_time(newest.created)
    if taken is None:
        return Verdict(UNKNOWN, f"When the backup {newest.name} was made is not known.")
    passed = fleet.now - taken
    if passed.total_seconds() > params["days"] * 86400:
        return Verdict(
            FAIL,
            f"The newest backup, {newest.name}, is {age(passed)} old; at most {params['days']:g} days are allowed.",
            "Make a new one (module webfarm.iis.config_backup) and schedule it.",
        )
    return Verdict(PASS, f"{newest.name} is {age(passed)} old.")


def _backup_proven(view: View, params: Params, fleet: Fleet) -> Verdict:
    newest = _newest_backup(view)
    if isinstance(newest, Verdict):
        return newest
    if newest.proven is None:
        return Verdict(UNKNOWN, f"Whether the backup {newest.name} decrypts was not tested.")
    if not newest.proven:
        return Verdict(
            FAIL,
            f"The newest backup, {newest.name}, does not decrypt with its own keys"
            f"{f': {newest.message}' if newest.message else ''}.",
            "Make a new one now (module webfarm.iis.config_backup); this one would not bring the server back.",
        )
    return Verdict(PASS, f"{newest.name} decrypts with its own keys.")


_CORE: t.Final = ["iisWasKey", "iisConfigurationKey"]
_CIS_KEYS: t.Final = "CIS Microsoft IIS 10 3.11 (encryption providers are locked down)"
_STIG_BASELINE: t.Final = "STIG IIS 10.0 Server V-218806 / IIST-SV-000136 (re-creation to a stable and known baseline)"
_STIG_ACCESS: t.Final = "STIG IIS 10.0 Server V-218814 / IIST-SV-000144 (minimum file permissions)"

RULES: t.Final[dict[str, Rule]] = {
    rule.id: rule
    for rule in (
        Rule(
            "reachable",
            "Host answered",
            "Answered",
            "The host was reached, and its facts were gathered and are recent. Who cannot be reached is not compliant.",
            _reachable,
            {"max_age_hours": Param((int, float), 24, "Facts that are older count as no answer.")},
        ),
        Rule(
            "keys_expected",
            "Expected keys",
            "Expected keys",
            "The keys have the fingerprints that the policy, or else the newest bundle of the host's farm, states.",
            _keys_expected,
            {"fingerprints": Param(dict, {}, "Fingerprint by container. Empty means those of the farm's bundle.")},
            (_CIS_KEYS,),
        ),
        Rule(
            "keys_equal",
            "Keys equal in the group",
            "Equal keys",
            "All hosts of a farm hold the same keys. Else the minority fails, or all when there is no majority.",
            _keys_equal,
            {"containers": Param(list, _CORE, "Key containers that are compared.")},
            (_STIG_BASELINE,),
        ),
        Rule(
            "key_generation",
            "Same key generation",
            "Generation",
            "The keys of the host are of the newest generation of its farm, by the farm's bundles.",
            _key_generation,
            {},
            (_STIG_BASELINE,),
        ),
        Rule(
            "cloned_image",
            "No cloned keys",
            "Not cloned",
            "Keys that several hosts share are those of their farm's bundle. Keys equal across farms and a doubled "
            "machine GUID fail; keys shared in a farm that no bundle holds, and files of another GUID, are flagged.",
            _cloned_image,
            {},
            (_CIS_KEYS,),
        ),
        Rule(
            "key_size",
            "Key size",
            "Key size",
            "Every RSA key has the minimum size.",
            _key_size,
            {"minimum": Param(int, 2048, "Bits.")},
            (_CIS_KEYS,),
        ),
        Rule(
            "key_exportable",
            "Private keys not exportable",
            "Exportable",
            "The private keys can, or cannot, be exported from the server.",
            _key_exportable,
            {
                "exportable": Param(bool, False, "What is required."),
                "containers": Param(list, _CORE, "Key containers that are judged."),
            },
            (_CIS_KEYS,),
            enabled=False,
        ),
        Rule(
            "key_access",
            "Access to the keys",
            "Access",
            "Those who need a key can read it, and nobody else. Worker processes cannot read the keys of WAS.",
            _key_access,
            {
                "readers": Param(dict, _READERS, "By container, the SIDs (or account names) that may have an entry."),
                "allow": Param(list, [], "SIDs or account names that are allowed on every container besides."),
            },
            (_CIS_KEYS, _STIG_ACCESS),
        ),
        Rule(
            "values_open",
            "Every value decrypts",
            "Decrypts",
            "Each protected value and session key opens with the keys of this host and is text by every known rule.",
            _values_open,
            {"accepted": Param(list, [], "Values that may stay unreadable, each with path and reason.")},
            (_STIG_BASELINE,),
        ),
        Rule(
            "secrets_encrypted",
            "Secrets encrypted",
            "Encrypted",
            "No attribute that a schema file of the server, third parties' too, declares encrypted holds clear text.",
            _secrets_encrypted,
            {"accepted": Param(list, [], "Attributes that may hold clear text, each with path and reason.")},
            (_CIS_KEYS,),
        ),
        Rule(
            "providers_allowed",
            "Allowed providers only",
            "Providers",
            "No value stands under a provider that is not allowed. By default the CNG providers are not: their keys "
            "cannot be moved, and an edit with IIS Manager or appcmd brings such values back.",
            _providers_allowed,
            {
                "providers": Param(
                    list,
                    ["AesProvider", "IISWASOnlyAesProvider", "IISRsaProvider", "IISWASOnlyRsaProvider"],
                    "Names of the allowed providers.",
                )
            },
        ),
        Rule(
            "configuration_sound",
            "Configuration files sound",
            "Files sound",
            "The configuration files are there, can be read and parsed, and nothing is left over from a broken change.",
            _configuration_sound,
            {"files": Param(list, ["applicationHost.config"], "Files that must be there.")},
            (_STIG_BASELINE,),
        ),
        Rule(
            "configuration_equal",
            "Configuration equal in the group",
            "Same config",
            "The configuration says the same on all hosts of a farm, whatever its keys; what differs is named.",
            _configuration_equal,
            {"files": Param(list, ["applicationHost.config"], "Files that are compared.")},
            (_STIG_BASELINE,),
        ),
        Rule(
            "machine_key_set",
            "machineKey set",
            "machineKey",
            "In a farm of several hosts no ASP.NET application leaves its machineKey to be generated by each host.",
            _machine_key_set,
            {"except": Param(list, [], "Applications, such as Shop/, that need none.")},
        ),
        Rule(
            "machine_key_equal",
            "machineKey equal in the group",
            "Equal machineKey",
            "An ASP.NET application has the same machineKey on all hosts of a farm, by a fingerprint of the run.",
            _machine_key_equal,
        ),
        Rule(
            "sections_open",
            "Encrypted sections open",
            "Sections open",
            "The sections of web.config that ASP.NET encrypted open on this host, and are not bound to it by DPAPI.",
            _sections_open,
            {},
            (_STIG_BASELINE,),
        ),
        Rule(
            "history_on",
            "Configuration history on",
            "History",
            "IIS keeps a history of its configuration and the service that does it runs.",
            _history_on,
            {},
            (_STIG_BASELINE,),
        ),
        Rule(
            "backup_recent",
            "Recent backup",
            "Backup age",
            "The newest backup of the configuration is not too old.",
            _backup_recent,
            {"days": Param((int, float), 7, "Days.")},
            (_STIG_BASELINE,),
        ),
        Rule(
            "backup_proven",
            "Backup decrypts",
            "Backup proof",
            "The newest backup was proven against the keys that it belongs to.",
            _backup_proven,
            {},
            (_STIG_BASELINE,),
        ),
    )
}
