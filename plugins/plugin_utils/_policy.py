# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""Policy as data: which rules are on with which options, for which hosts, and what is waived.

A policy is a dictionary: ``name``, ``rules`` (true, false, or options by rule), ``overrides`` (``hosts``, ``groups``,
``farms`` and the rules that differ for them; later ones win) and ``waivers`` (``rule``, ``hosts``/``groups``/``farms``,
``reason``, ``until``).
"""

from __future__ import annotations

import datetime
import fnmatch
import typing as t
from dataclasses import dataclass, field

from ansible_collections.webfarm.iis.plugins.plugin_utils._facts import View
from ansible_collections.webfarm.iis.plugins.plugin_utils._rules import (
    FAIL,
    PASS,
    RULES,
    UNKNOWN,
    UNREACHABLE,
    WAIVED,
    WARN,
    Fleet,
    Params,
    Rule,
    Verdict,
)


class PolicyError(ValueError):
    """A policy that cannot be understood. The message names the place, what is wrong and what is possible."""


@dataclass(frozen=True)
class Selector:
    """Hosts by name pattern, inventory group and farm. Every kind that is given has to match; none means all."""

    hosts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    farms: tuple[str, ...] = ()

    def matches(self, view: View) -> bool:
        if self.hosts and not any(fnmatch.fnmatchcase(view.name, pattern) for pattern in self.hosts):
            return False
        if self.groups and not set(self.groups).intersection(view.groups):
            return False
        return not self.farms or any(fnmatch.fnmatchcase(view.farm, pattern) for pattern in self.farms)


@dataclass(frozen=True)
class Override:
    selector: Selector
    rules: t.Mapping[str, Params | None]


@dataclass(frozen=True)
class Waiver:
    selector: Selector
    rule: str
    reason: str
    until: datetime.date | None

    def text(self) -> str:
        return f"{self.reason}{f' (until {self.until.isoformat()})' if self.until else ''}"


@dataclass(frozen=True)
class Policy:
    """Rules with their options, exceptions for some hosts, and waivers with a reason and an end."""

    name: str
    rules: t.Mapping[str, Params | None]
    overrides: tuple[Override, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    _cache: dict[tuple[int, ...], dict[str, Params]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def active(self) -> list[Rule]:
        """The rules that are on for some host, in their fixed order."""
        on = {name for name, params in self.rules.items() if params is not None}
        for one in self.overrides:
            on |= {name for name, params in one.rules.items() if params is not None}
        return [rule for rule in RULES.values() if rule.id in on]

    def rules_for(self, view: View) -> dict[str, Params]:
        """The rules of one host: later overrides win, option by option."""
        matching = tuple(number for number, one in enumerate(self.overrides) if one.selector.matches(view))
        if matching not in self._cache:
            chosen: dict[str, Params | None] = dict(self.rules)
            for number in matching:
                for name, params in self.overrides[number].rules.items():
                    if params is None:
                        chosen[name] = None
                    else:
                        chosen[name] = {**(chosen.get(name) or _defaults(RULES[name])), **params}
            self._cache[matching] = {name: params for name, params in chosen.items() if params is not None}
        return self._cache[matching]

    def to_dict(self) -> dict[str, t.Any]:
        """The policy with every default filled in, as report and evidence show it."""
        return {
            "name": self.name,
            "rules": {name: (False if params is None else params) for name, params in self.rules.items()},
            "overrides": [
                {
                    **_selector_dict(one.selector),
                    "rules": {n: (False if p is None else p) for n, p in one.rules.items()},
                }
                for one in self.overrides
            ],
            "waivers": [
                {
                    **_selector_dict(one.selector),
                    "rule": one.rule,
                    "reason": one.reason,
                    "until": one.until.isoformat() if one.until else None,
                }
                for one in self.waivers
            ],
        }

    def max_age(self, name: str, farm: str, groups: t.Sequence[str]) -> float | None:
        """How old the facts of that host may be."""
        params = self.rules_for(View(name, farm, tuple(groups))).get("reachable")
        return None if params is None else float(params["max_age_hours"])

    def judge(self, view: View, fleet: Fleet) -> dict[str, Verdict]:
        """A verdict for each rule that is on for this host."""
        found: dict[str, Verdict] = {}
        silent = None
        if view.state != "answered":
            silent = Verdict(
                UNKNOWN, f"Not judged: the host has no current facts ({view.state}).", "See 'Host answered'."
            )
        for name, params in self.rules_for(view).items():
            if silent is not None and name != "reachable":
                verdict = silent
            else:
                verdict = RULES[name].check(view, params, fleet)
            if self.waivers and verdict.status in (FAIL, WARN, UNKNOWN):
                verdict = self._waived(view, name, verdict, fleet.now.date())
            found[name] = verdict
        return found

    def _waived(self, view: View, rule: str, verdict: Verdict, today: datetime.date) -> Verdict:
        for one in self.waivers:
            if one.rule != rule or not one.selector.matches(view):
                continue
            if one.until is not None and today > one.until:
                return verdict._replace(reason=f"{verdict.reason} The waiver ended on {one.until.isoformat()}.")
            return Verdict(WAIVED, f"{verdict.reason} Waived: {one.text()}.", verdict.fix)
        return verdict


def host_status(view: View, verdicts: t.Mapping[str, Verdict]) -> str:
    """How the host as a whole stands. One without current facts never passes, even where a waiver covers that."""
    if view.state != "answered":
        return UNREACHABLE
    states = {one.status for one in verdicts.values()}
    return next((status for status in (FAIL, UNKNOWN, WARN) if status in states), PASS)


def violations(view: View, verdicts: t.Mapping[str, Verdict], fail_on: t.Collection[str]) -> list[str]:
    """The rules of this host for which the run has to fail."""
    found = []
    for name, verdict in verdicts.items():
        if name == "reachable":
            hit = verdict.status == FAIL and (UNREACHABLE in fail_on or name in fail_on)
        elif view.state != "answered":
            # One cause, one violation: it is the host that did not answer.
            hit = False
        else:
            hit = verdict.status in fail_on or (name in fail_on and verdict.status in (FAIL, WARN, UNKNOWN))
        if hit:
            found.append(name)
    return found


def check_fail_on(words: t.Iterable[str]) -> list[str]:
    """fail_on, checked."""
    known = (FAIL, WARN, UNKNOWN, UNREACHABLE)
    result = []
    for word in words:
        if word not in known and word not in RULES:
            raise PolicyError(
                f"fail_on: '{word}' is neither a verdict ({', '.join(known)}) nor a rule ({', '.join(RULES)})."
            )
        result.append(word)
    return result


# --- reading a policy -----------------------------------------------------------------------------------------------


def _defaults(rule: Rule) -> Params:
    return {name: param.default for name, param in rule.params.items()}


def _selector_dict(selector: Selector) -> dict[str, list[str]]:
    kinds = (("hosts", selector.hosts), ("groups", selector.groups), ("farms", selector.farms))
    return {name: list(given) for name, given in kinds if given}


def _mapping(data: t.Any, where: str) -> dict[str, t.Any]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise PolicyError(f"{where} has to be a dictionary, not {type(data).__name__}.")
    return {str(name): value for name, value in data.items()}


def _only(data: t.Mapping[str, t.Any], known: t.Iterable[str], where: str) -> None:
    names = list(known)
    for name in data:
        if name not in names:
            raise PolicyError(f"{where} has the unknown field '{name}'; known are: {', '.join(names)}.")


def _strings(data: t.Any, where: str) -> tuple[str, ...]:
    if data is None:
        return ()
    if isinstance(data, str):
        return (data,)
    if not isinstance(data, list) or not all(isinstance(one, str) for one in data):
        raise PolicyError(f"{where} has to be a list of names.")
    return tuple(str(one) for one in data)


def _selector(data: t.Mapping[str, t.Any], where: str) -> Selector:
    return Selector(*(_strings(data.get(kind), f"{where}.{kind}") for kind in ("hosts", "groups", "farms")))


def _params(rule: Rule, data: t.Any, where: str, base: Params | None) -> Params | None:
    """Options of a rule: false turns it off, true takes the defaults, a dictionary sets options."""
    if data is False:
        return None
    given = {} if data is True or data is None else _mapping(data, where)
    if not rule.params and given:
        raise PolicyError(f"{where}: the rule takes no options; write true or false.")
    _only(given, rule.params, where)
    result: Params = dict(base or {})
    for name, value in given.items():
        param = rule.params[name]
        good = isinstance(value, param.type) and (not isinstance(value, bool) or param.type is bool)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
            good = False
        if not good:
            kinds = param.type if isinstance(param.type, tuple) else (param.type,)
            raise PolicyError(f"{where}.{name} has to be of the kind {' or '.join(kind.__name__ for kind in kinds)}.")
        result[name] = _plain(value)
    for one in result.get("accepted") or []:
        if not isinstance(one, dict) or not one.get("path") or not one.get("reason"):
            raise PolicyError(f"{where}.accepted: each entry needs a path and a reason.")
    return result


def _plain(value: t.Any) -> t.Any:
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return str(value) if isinstance(value, str) else value


def _rule_table(data: t.Any, where: str, with_defaults: bool) -> dict[str, Params | None]:
    given = _mapping(data, where)
    _only(given, RULES, where)
    table: dict[str, Params | None] = {}
    for name, rule in RULES.items():
        if with_defaults:
            value = given.get(name, rule.enabled)
            table[name] = _params(rule, value, f"{where}.{name}", _defaults(rule))
        elif name in given:
            table[name] = _params(rule, given[name], f"{where}.{name}", None)
    return table


def _date(value: t.Any, where: str) -> datetime.date | None:
    if value is None or value == "":
        return None
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, datetime.date):
        return value
    try:
        return datetime.date.fromisoformat(str(value))
    except ValueError:
        raise PolicyError(f"{where} has to be a date such as 2026-12-31, not '{value}'.") from None


def _waiver(data: t.Any, where: str) -> Waiver:
    given = _mapping(data, where)
    _only(given, ("rule", "hosts", "groups", "farms", "reason", "until"), where)
    if given.get("rule") not in RULES:
        raise PolicyError(f"{where}.rule is '{given.get('rule')}'; it must be one of {', '.join(RULES)}.")
    if not str(given.get("reason") or "").strip():
        raise PolicyError(f"{where}.reason is empty; say why this is acceptable.")
    selector = _selector(given, where)
    if selector == Selector():
        raise PolicyError(f"{where} names no hosts, groups or farms; to turn a rule off for all, set it to false.")
    return Waiver(
        selector, str(given["rule"]), str(given["reason"]).strip(), _date(given.get("until"), f"{where}.until")
    )


def load_policy(data: t.Mapping[str, t.Any] | None) -> Policy:
    """A policy from its data. Raises :class:`PolicyError`."""
    given = _mapping(dict(data or {}), "policy")
    _only(given, ("name", "rules", "overrides", "waivers"), "policy")
    rules = _rule_table(given.get("rules"), "policy.rules", with_defaults=True)
    overrides = []
    for number, one in enumerate(given.get("overrides") or []):
        where = f"policy.overrides[{number}]"
        entry = _mapping(one, where)
        _only(entry, ("hosts", "groups", "farms", "rules"), where)
        overrides.append(
            Override(_selector(entry, where), _rule_table(entry.get("rules"), f"{where}.rules", with_defaults=False))
        )
    waivers = [_waiver(one, f"policy.waivers[{number}]") for number, one in enumerate(given.get("waivers") or [])]
    return Policy(str(given.get("name") or "default"), rules, tuple(overrides), tuple(waivers))
