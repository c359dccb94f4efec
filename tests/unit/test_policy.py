# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule both ways, and what a policy may say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import _fleet
import pytest
from _fleet import NOW, TROUBLE, container, digest, facts, record, unreachable

from ansible_collections.webfarm.iis.plugins.plugin_utils import _policy, _record, _rules
from ansible_collections.webfarm.iis.plugins.plugin_utils._facts import Pool, missing_view, view_of
from ansible_collections.webfarm.iis.plugins.plugin_utils._rules import RULES, KeySet, Verdict

CORE = ("iisWasKey", "iisConfigurationKey")


def bundle(farm: str = "shop", generation: int = 1) -> KeySet:
    return KeySet(farm, generation, {name: digest(farm, name, generation) for name in CORE}, f"{farm}.keyset.json")


def judge(
    *records: dict[str, Any], policy: dict[str, Any] | None = None, known: tuple[KeySet, ...] = (), missing: str = ""
) -> dict[str, dict[str, Verdict]]:
    """The verdicts of all hosts; every rule is on."""
    rules = {"key_exportable": {"exportable": True}, **((policy or {}).get("rules") or {})}
    chosen = _policy.load_policy({**(policy or {}), "rules": rules})
    pool = Pool()
    views = [view_of(one, pool, now=NOW, max_age_hours=24) for one in records]
    views += [missing_view(missing)] if missing else []
    fleet = _rules.Fleet(NOW, known)
    for view in views:
        fleet.add(view)
    return {view.name: chosen.judge(view, fleet) for view in views}


def farm(change: Callable[[Any], None] | None = None, size: int = 4, **options: Any) -> dict[str, Verdict]:
    """The verdicts of web1, which *change* changed, in a farm whose other servers are in order."""
    records = [record(f"web{number}") for number in range(2, size + 1)]
    return judge(record("web1", change=change), *records, **options)["web1"]


def test_a_server_in_order_passes_every_rule() -> None:
    verdicts = farm(known=(bundle(),))
    assert {name: one.status for name, one in verdicts.items()} == dict.fromkeys(RULES, "pass")


# What is changed on the server, the rule that must see it, its verdict, and words of reason or fix.
CASES: list[tuple[str, str, str, str]] = [
    ("other_key", "keys_equal", "fail", "3 of 4 hosts of 'shop' have"),
    ("other_key", "keys_expected", "fail", "shop.keyset.json says"),
    ("other_key", "key_generation", "unknown", "no known generation"),
    ("missing_key", "keys_equal", "fail", "NTE_BAD_KEYSET"),
    ("missing_key", "keys_expected", "fail", "key_import"),
    ("clear_password", "secrets_encrypted", "fail", "contoso/gate/@pin (applicationHost.config: clear)"),
    ("clear_setting", "configuration_equal", "fail", "other values in clear text (passwords, settings) than 3 of 4"),
    ("generated_machine_key", "machine_key_set", "fail", "other on every host of 'shop': Shop/"),
    ("closed_machine_key", "machine_key_set", "unknown", "was not opened"),
    ("other_machine_key", "machine_key_equal", "fail", "3 of 4 hosts agree on another"),
    ("closed_machine_key", "machine_key_equal", "unknown", "was not opened"),
    ("closed_section", "sections_open", "fail", "does not open: bad_data"),
    ("dpapi", "sections_open", "warn", "bound to this machine"),
    ("on_a_share", "sections_open", "unknown", "on a share"),
    ("without_web", "sections_open", "unknown", "compliance_web_configurations"),
    ("without_web", "machine_key_set", "unknown", "compliance_web_configurations"),
    ("without_web", "machine_key_equal", "unknown", "compliance_web_configurations"),
    ("missing_key", "values_open", "fail", "missing_key"),
    ("denied", "keys_equal", "unknown", "denied"),
    ("denied", "keys_expected", "unknown", "denied"),
    ("denied", "key_size", "unknown", "denied"),
    ("denied", "key_access", "unknown", "denied"),
    ("denied", "key_exportable", "unknown", "denied"),
    ("small_key", "key_size", "fail", "1024 bits, at least 2048"),
    ("bad_values", "values_open", "fail", "bad_data"),
    ("cng", "providers_allowed", "fail", "portable"),
    ("access", "key_access", "fail", "IIS_IUSRS"),
    ("configuration", "configuration_equal", "fail", "3 of 4 hosts"),
    ("leftover", "configuration_sound", "fail", "Delete it"),
    ("history_off", "history_on", "fail", "configHistory"),
    ("old_backup", "backup_recent", "fail", "at most 7 days"),
    ("bad_backup", "backup_proven", "fail", "does not decrypt"),
    ("no_backup", "backup_recent", "fail", "no backup"),
    ("no_backup", "backup_proven", "fail", "no backup"),
    ("prior_backup", "backup_recent", "fail", "no backup"),
    ("without_new_facts", "history_on", "unknown", "did not return history"),
    ("without_new_facts", "backup_recent", "unknown", "did not return backups"),
    ("without_new_facts", "backup_proven", "unknown", "did not return backups"),
]


@pytest.mark.parametrize(("trouble", "rule", "status", "words"), CASES)
def test_a_rule_sees_its_trouble(trouble: str, rule: str, status: str, words: str) -> None:
    verdict = farm(TROUBLE[trouble], known=(bundle(),))[rule]
    assert verdict.status == status
    assert words in f"{verdict.reason} {verdict.fix}"
    assert verdict.fix


def test_every_rule_has_a_failing_case() -> None:
    elsewhere = {"reachable", "cloned_image", "key_generation", "key_exportable"}
    assert {rule for dummy, rule, status, dummy2 in CASES if status == "fail"} | elsewhere == set(RULES)


@pytest.mark.parametrize(("trouble", "rule"), sorted({(case[0], case[1]) for case in CASES}))
def test_the_other_servers_are_not_blamed(trouble: str, rule: str) -> None:
    others = judge(record("web1", change=TROUBLE[trouble]), *(record(f"web{n}") for n in (2, 3, 4)), known=(bundle(),))
    assert {others[name][rule].status for name in ("web2", "web3", "web4")} == {"pass"}


# --- reachable ------------------------------------------------------------------------------------------------------


def test_a_host_that_did_not_answer_fails_once_and_is_unknown_otherwise() -> None:
    verdicts = judge(unreachable("web1"), record("web2"))["web1"]
    assert verdicts.pop("reachable").status == "fail"
    assert {one.status for one in verdicts.values()} == {"unknown"}


def test_a_host_without_a_record_is_no_gap() -> None:
    verdict = judge(record("web1"), missing="web2")["web2"]["reachable"]
    assert verdict.status == "fail"
    assert "no record" in verdict.reason


def test_old_facts_are_no_facts() -> None:
    verdicts = judge(record("web1", recorded="2026-11-20T00:00:00Z"), record("web2"))["web1"]
    assert verdicts["reachable"].status == "fail"
    assert "4 days old" in verdicts["reachable"].reason
    assert verdicts["values_open"].status == "unknown"


def test_facts_of_another_major_version_are_refused() -> None:
    verdicts = judge(record("web1", change=lambda data: data.update(format_version="2.0")))["web1"]
    assert verdicts["reachable"].status == "fail"
    assert "2.0" in verdicts["reachable"].reason


def test_later_minor_versions_are_read() -> None:
    assert farm(lambda data: data.update(format_version="1.7"))["reachable"].status == "pass"


def test_a_failed_call_says_why() -> None:
    one = _record.make("web1", "failed", farm="shop", groups=[], message="no elevated token", recorded=_fleet.RECORDED)
    assert "no elevated token" in judge(one)["web1"]["reachable"].reason


# --- keys -----------------------------------------------------------------------------------------------------------


def test_without_majority_all_fail() -> None:
    def key(number: int) -> Callable[[Any], None]:
        return lambda data: container(data, "iisWasKey").update(fingerprint=digest(number))

    verdicts = judge(*(record(f"web{n}", change=key(n // 2)) for n in range(4)))
    assert {one["keys_equal"].status for one in verdicts.values()} == {"fail"}
    assert "no majority" in verdicts["web0"]["keys_equal"].reason


def test_a_single_host_has_nobody_to_equal() -> None:
    verdicts = judge(record("web1"))["web1"]
    assert verdicts["keys_equal"].status == "na"
    assert verdicts["configuration_equal"].status == "na"


def test_silent_neighbours_are_no_proof_of_equality() -> None:
    verdicts = judge(record("web1"), unreachable("web2"))["web1"]
    assert verdicts["keys_equal"].status == "unknown"
    assert verdicts["configuration_equal"].status == "unknown"


def test_farms_are_not_compared_with_each_other() -> None:
    verdicts = judge(*(record(f"web{n}", farm) for n, farm in enumerate(("a", "a", "b", "b"))))
    assert {one["keys_equal"].status for one in verdicts.values()} == {"pass"}


def test_pins_of_the_policy_come_before_the_bundle() -> None:
    pins = {"rules": {"keys_expected": {"fingerprints": {"iisWasKey": digest("pinned")}}}}
    assert farm(policy=pins, known=(bundle(),))["keys_expected"].status == "fail"
    pins["rules"]["keys_expected"]["fingerprints"]["iisWasKey"] = digest("shop", "iisWasKey", 1).upper()
    assert farm(policy=pins)["keys_expected"].status == "pass"


def test_nothing_expected_is_not_applicable() -> None:
    assert farm()["keys_expected"].status == "na"


def test_generation_of_the_farm() -> None:
    known = (bundle(generation=1), bundle(generation=2))
    verdicts = judge(
        record("web1", facts=facts("web1", "shop", 1)), record("web2", facts=facts("web2", "shop", 2)), known=known
    )
    assert verdicts["web1"]["key_generation"].status == "fail"
    assert "generation 1" in verdicts["web1"]["key_generation"].reason
    assert verdicts["web2"]["key_generation"].status == "pass"


def test_keys_of_two_generations_on_one_host() -> None:
    def mix(data: Any) -> None:
        container(data, "iisWasKey")["fingerprint"] = digest("shop", "iisWasKey", 2)

    verdict = farm(mix, known=(bundle(generation=1), bundle(generation=2)))["key_generation"]
    assert verdict.status == "fail"
    assert "different generations" in verdict.reason


def test_generation_without_a_bundle_is_not_applicable() -> None:
    assert farm()["key_generation"].status == "na"


def test_equal_to_the_bundle_is_no_clone() -> None:
    assert farm(known=(bundle(),))["cloned_image"].status == "pass"


def test_shared_and_in_no_bundle_is_flagged() -> None:
    verdict = farm()["cloned_image"]
    assert verdict.status == "warn"
    assert "no known bundle" in verdict.reason


def test_equal_across_farms_fails() -> None:
    def other(data: Any) -> None:
        container(data, "iisWasKey")["fingerprint"] = digest("shop", "iisWasKey", 1)

    verdicts = judge(record("web1"), record("web2", "blog", other))
    assert [one["cloned_image"].status for one in verdicts.values()] == ["fail", "fail"]
    # With the bundle of one farm, its own hosts are right and the others are named as its clones.
    verdicts = judge(record("web1"), record("web2", "blog", other), known=(bundle(),))
    assert verdicts["web1"]["cloned_image"].status == "pass"
    assert verdicts["web2"]["cloned_image"].status == "fail"
    assert "key of the farm 'shop'" in verdicts["web2"]["cloned_image"].reason


def test_a_doubled_machine_guid_is_a_clone() -> None:
    verdicts = judge(record("web1"), record("web2", change=TROUBLE["clone"]), known=(bundle(),))
    assert verdicts["web1"]["cloned_image"].status == "fail"
    assert "web2" in verdicts["web1"]["cloned_image"].reason


def test_key_files_of_another_machine_guid_are_flagged() -> None:
    verdict = farm(lambda data: container(data, "iisWasKey").update(foreign_files=["76944_old"]), known=(bundle(),))
    assert verdict["cloned_image"].status == "warn"


def test_keys_of_its_own_are_no_clone() -> None:
    assert judge(record("web1"))["web1"]["cloned_image"].status == "pass"


@pytest.mark.parametrize(
    ("found", "wanted", "status"),
    [
        (True, True, "pass"),
        (True, False, "fail"),
        (False, True, "fail"),
        (False, False, "pass"),
        (None, False, "unknown"),
    ],
)
def test_exportable(found: bool | None, wanted: bool, status: str) -> None:
    def change(data: Any) -> None:
        for name in CORE:
            container(data, name)["exportable"] = found

    assert farm(change, policy={"rules": {"key_exportable": {"exportable": wanted}}})["key_exportable"].status == status


def test_exportable_is_off_by_default() -> None:
    assert "key_exportable" not in {rule.id for rule in _policy.load_policy({}).active}


def test_minimum_size_is_an_option() -> None:
    assert farm(policy={"rules": {"key_size": {"minimum": 3072}}})["key_size"].status == "fail"
    assert farm(TROUBLE["small_key"], policy={"rules": {"key_size": {"minimum": 1024}}})["key_size"].status == "pass"


def test_a_strange_reader_of_a_key() -> None:
    def change(data: Any) -> None:
        container(data, "iisConfigurationKey")["acl"].append(
            {"sid": "S-1-5-21-1-2-3-1001", "account": r"CORP\deploy", "type": "allow", "rights": "read", "mask": "0x1"}
        )

    verdict = farm(change)["key_access"]
    assert verdict.status == "fail"
    assert r"CORP\deploy" in verdict.reason
    assert farm(change, policy={"rules": {"key_access": {"allow": [r"CORP\deploy"]}}})["key_access"].status == "pass"


def test_no_containers_are_no_pass() -> None:
    verdicts = farm(lambda data: data.update(key_containers=[]), known=(bundle(),))
    rules = ("keys_expected", "keys_equal", "cloned_image", "key_size", "key_access", "key_exportable")
    assert {verdicts[rule].status for rule in rules} == {"unknown"}


# --- values and configuration ---------------------------------------------------------------------------------------


def test_accepted_values() -> None:
    path = facts()["protected_values"][0]["path"]
    policy = {"rules": {"values_open": {"accepted": [{"path": path, "reason": "pool is retired"}]}}}
    verdict = farm(TROUBLE["bad_values"], policy=policy)["values_open"]
    assert verdict.status == "pass"
    assert "pool is retired" in verdict.reason


def test_untested_values_are_unknown() -> None:
    def change(data: Any) -> None:
        data["protected_values"][0]["verdict"] = "untested"

    assert farm(change)["values_open"].status == "unknown"


def test_a_session_key_that_does_not_open() -> None:
    verdict = farm(lambda data: data["session_keys"][0].update(verdict="bad_data"))["values_open"]
    assert verdict.status == "fail"
    assert "@sessionKey" in verdict.reason


def test_a_password_of_the_certificate_store_that_does_not_open() -> None:
    item = {"file": "registry", "path": r"HKLM\...\CentralCertProvider\Password", "verdict": "garbage"}
    verdict = farm(lambda data: data.update(certificate_store={"configured": True, "protected_values": [item]}))
    assert verdict["values_open"].status == "fail"
    assert verdict["providers_allowed"].status == "pass"


def test_no_values_pass_only_when_they_were_looked_for() -> None:
    def empty(data: Any) -> None:
        data.update(session_keys=[], protected_values=[])

    assert farm(empty)["values_open"].status == "pass"
    verdict = judge(record("web1", change=empty, gather_subset=["keys"]))["web1"]
    assert {verdict[rule].status for rule in ("values_open", "providers_allowed", "configuration_sound")} == {"unknown"}


def test_what_could_not_be_gathered_is_unknown() -> None:
    def broken(data: Any) -> None:
        data.update(
            session_keys=[],
            protected_values=[],
            gathering_problems=[{"part": "administration.config", "message": "line 3: not well-formed"}],
        )

    verdicts = farm(broken)
    assert {verdicts[rule].status for rule in ("values_open", "providers_allowed")} == {"unknown"}
    assert "line 3" in verdicts["values_open"].reason


def test_a_shared_configuration_is_not_judged_by_local_files() -> None:
    def shared(data: Any) -> None:
        data.update(redirection={"enabled": True, "path": r"\\nas\iis"}, session_keys=[], protected_values=[])

    verdicts = farm(shared)
    assert verdicts["values_open"].status == "unknown"
    assert verdicts["configuration_sound"].status == "warn"
    assert r"\\nas\iis" in verdicts["configuration_sound"].reason


def test_other_providers_can_be_allowed() -> None:
    policy = {
        "rules": {
            "providers_allowed": {
                "providers": ["aesprovider", "IISWASOnlyAesProvider", "IISWASOnlyRsaProvider", "IISWASOnlyCngProvider"]
            }
        }
    }
    assert farm(TROUBLE["cng"], policy=policy)["providers_allowed"].status == "pass"


def test_without_the_canonical_digest_configurations_are_unknown() -> None:
    def change(data: Any) -> None:
        for name in ("canonical_digest", "canonical_attributes"):
            data["configuration_files"][0].pop(name)

    verdict = farm(change)["configuration_equal"]
    assert verdict.status == "unknown"
    assert "canonical_digest" in verdict.reason


def test_a_missing_file() -> None:
    verdicts = farm(lambda data: data["configuration_files"][0].update(exists=False))
    assert verdicts["configuration_sound"].status == "fail"
    assert verdicts["configuration_equal"].status == "fail"


def test_history_needs_its_service() -> None:
    def stopped(data: Any) -> None:
        next(one for one in data["services"] if one["name"] == "AppHostSvc")["state"] = "stopped"

    verdict = farm(stopped)["history_on"]
    assert verdict.status == "fail"
    assert "AppHostSvc" in verdict.reason


def test_backup_days_are_an_option() -> None:
    assert farm(policy={"rules": {"backup_recent": {"days": 0.5}}})["backup_recent"].status == "fail"
    assert (
        farm(TROUBLE["old_backup"], policy={"rules": {"backup_recent": {"days": 90}}})["backup_recent"].status == "pass"
    )


def test_an_untested_backup_is_unknown() -> None:
    assert farm(lambda data: data["backups"][0].update(proven=None))["backup_proven"].status == "unknown"


# --- policies -------------------------------------------------------------------------------------------------------


def test_rules_can_differ_per_group() -> None:
    policy = {
        "rules": {"backup_recent": {"days": 1}},
        "overrides": [
            {"groups": ["farm_blog"], "rules": {"backup_recent": {"days": 365}, "history_on": False}},
            {"hosts": ["web2*"], "rules": {"key_size": {"minimum": 4096}}},
        ],
    }
    verdicts = judge(
        record("web1", change=TROUBLE["old_backup"]), record("web2", "blog", TROUBLE["old_backup"]), policy=policy
    )
    assert verdicts["web1"]["backup_recent"].status == "fail"
    assert verdicts["web2"]["backup_recent"].status == "pass"
    assert "history_on" in verdicts["web1"]
    assert "history_on" not in verdicts["web2"]
    assert verdicts["web1"]["key_size"].status == "pass"
    assert verdicts["web2"]["key_size"].status == "fail"


def test_an_override_can_turn_a_rule_on() -> None:
    policy = _policy.load_policy({"overrides": [{"farms": ["shop"], "rules": {"key_exportable": True}}]})
    view = view_of(record("web1"), Pool(), now=NOW)
    assert policy.rules_for(view)["key_exportable"]["exportable"] is False
    assert "key_exportable" not in policy.rules_for(view_of(record("web9", "blog"), Pool(), now=NOW))


def test_waivers_end() -> None:
    waiver = {"rule": "key_size", "hosts": ["web1"], "reason": "replaced in spring", "until": "2026-11-23"}
    verdict = farm(TROUBLE["small_key"], policy={"waivers": [waiver]})["key_size"]
    assert verdict.status == "waived"
    assert "replaced in spring" in verdict.reason
    verdict = farm(TROUBLE["small_key"], policy={"waivers": [{**waiver, "until": "2026-11-22"}]})["key_size"]
    assert verdict.status == "fail"
    assert "ended on 2026-11-22" in verdict.reason


def test_a_waiver_changes_nothing_that_passes_and_nothing_elsewhere() -> None:
    waiver = {"rule": "key_size", "hosts": ["web9"], "reason": "other"}
    assert farm(policy={"waivers": [{**waiver, "hosts": ["web1"]}]})["key_size"].status == "pass"
    assert farm(TROUBLE["small_key"], policy={"waivers": [waiver]})["key_size"].status == "fail"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"rule": {}}, "unknown field 'rule'"),
        ({"rules": {"key_sise": True}}, "unknown field 'key_sise'"),
        ({"rules": {"key_size": {"min": 1}}}, "policy.rules.key_size has the unknown field 'min'"),
        ({"rules": {"key_size": {"minimum": "2048"}}}, "minimum has to be of the kind int"),
        ({"rules": {"key_size": {"minimum": True}}}, "minimum has to be of the kind int"),
        ({"rules": {"backup_recent": {"days": -1}}}, "days has to be of the kind"),
        ({"rules": {"history_on": {"x": 1}}}, "takes no options"),
        ({"rules": ["key_size"]}, "has to be a dictionary"),
        ({"rules": {"values_open": {"accepted": [{"path": "x"}]}}}, "needs a path and a reason"),
        ({"waivers": [{"rule": "key_size", "hosts": ["web1"]}]}, "reason is empty"),
        ({"waivers": [{"rule": "key_size", "reason": "x"}]}, "names no hosts"),
        ({"waivers": [{"rule": "nothing", "hosts": ["a"], "reason": "x"}]}, "must be one of"),
        ({"waivers": [{"rule": "key_size", "hosts": ["a"], "reason": "x", "until": "soon"}]}, "has to be a date"),
        ({"overrides": [{"roles": ["x"], "rules": {}}]}, "unknown field 'roles'"),
    ],
)
def test_a_policy_that_cannot_be_understood(data: dict[str, Any], words: str) -> None:
    with pytest.raises(_policy.PolicyError, match="policy") as caught:
        _policy.load_policy(data)
    assert words in str(caught.value)


def test_fail_on_words() -> None:
    assert _policy.check_fail_on(["fail", "key_size"]) == ["fail", "key_size"]
    with pytest.raises(_policy.PolicyError, match="'failed' is neither"):
        _policy.check_fail_on(["failed"])


@pytest.mark.parametrize(
    ("fail_on", "expected"),
    [
        ([], []),
        (["fail"], ["key_size"]),
        (["unknown"], ["backup_recent"]),
        (["backup_recent"], ["backup_recent"]),
        (["key_size", "values_open"], ["key_size"]),
        (["unreachable"], []),
    ],
)
def test_violations(fail_on: list[str], expected: list[str]) -> None:
    verdicts = {
        "reachable": Verdict("pass", ""),
        "key_size": Verdict("fail", ""),
        "values_open": Verdict("pass", ""),
        "backup_recent": Verdict("unknown", ""),
    }
    view = view_of(record("web1"), Pool(), now=NOW)
    assert _policy.violations(view, verdicts, fail_on) == expected


def test_a_silent_host_is_one_violation_and_only_when_asked() -> None:
    one = unreachable("web1")
    view, verdicts = view_of(one, Pool(), now=NOW), judge(one)["web1"]
    assert _policy.violations(view, verdicts, ["fail", "unknown"]) == []
    assert _policy.violations(view, verdicts, ["unreachable"]) == ["reachable"]
    assert _policy.host_status(view, verdicts) == "unreachable"
