# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order that sync_keys and rotate give to the modules, and what key_export does with generations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from test_action_flows import EXPORT, Target, custodian, folder, run, source_answers  # noqa: F401  # pylint: disable=unused-import
from test_playbook_provision import FINGERPRINTS, SCENARIO, Playbook, collections, playbook  # noqa: F401  # pylint: disable=unused-import

from ansible_collections.webfarm.iis.plugins.action import key_export
from ansible_collections.webfarm.iis.plugins.plugin_utils import _bundle
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import write_private_file

SERVERS = [f"web{number}" for number in range(1, 7)]
SIGNED = {
    "provision_signing_file": "signer.key",
    "provision_signing_certificate": "signer.crt",
    "provision_signer_certificate": "signer.crt",
}
PRESENT = SCENARIO["config"] | {
    "changed": False,
    "key_containers": [
        {"container": name, "before": {"fingerprint": mark}, "after": {"fingerprint": mark}, "changed": False}
        for name, mark in FINGERPRINTS.items()
    ],
    "configuration_file": {"changed": False},
}
NEW_KEYS = SCENARIO["key_export"] | {"reasons": ["new"], "bundle": {"path": "iis.keyset.json", "generation": 2}}
BACK = NEW_KEYS | {"reasons": ["kept"], "bundle": {"path": "iis.keyset.json", "generation": 1}}
STAY = NEW_KEYS | {"changed": False, "reasons": []}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """There is a bundle; the stand-ins never look into it."""
    path = tmp_path / "webfarm" / "iis.keyset.json"
    path.parent.mkdir()
    path.write_text("{}")
    return path


# --- sync_keys -----------------------------------------------------------------------------------------------------


def test_sync_keys_leaves_every_configuration_where_it_is(playbook: Playbook) -> None:  # noqa: F811
    result = playbook(book="webfarm.iis.sync_keys")
    assert result.code == 0, result.output
    assert result.order() == ["key_export web1", *(f"config {name}" for name in SERVERS[1:])]
    arguments = result.arguments("config", "web2")
    assert "src" not in arguments
    assert arguments["dependents"] == "reencrypt"
    assert arguments["expected_fingerprints"] == FINGERPRINTS


def test_sync_keys_in_check_mode_ends_where_the_bundle_would_be_written(playbook: Playbook) -> None:  # noqa: F811
    assert playbook("--check", book="webfarm.iis.sync_keys").order() == ["key_export web1"]


# --- rotate --------------------------------------------------------------------------------------------------------


def test_new_keys_come_when_every_server_holds_the_present_ones(playbook: Playbook, bundle: Path) -> None:  # noqa: F811
    result = playbook(book="webfarm.iis.rotate", scenario={"config": PRESENT, "key_export": NEW_KEYS}, **SIGNED)
    assert result.code == 0, result.output
    switch = [f"config {name}" for name in SERVERS]
    assert result.order() == [*switch, "key_export web1", *switch]
    arguments = result.arguments("key_export", "web1")
    assert arguments["generate"] is True
    assert arguments["in_use"] == [FINGERPRINTS] * 6
    assert "generation" not in arguments
    # the signature tells, not pins of an inventory, which name one generation
    assert not result.arguments("config", "web1").get("expected_fingerprints")


def test_a_run_that_finishes_another_makes_no_keys(playbook: Playbook, bundle: Path) -> None:  # noqa: F811
    scenario = {"config": PRESENT, "config web4": {"changed": True}, "key_export": STAY}
    result = playbook(book="webfarm.iis.rotate", scenario=scenario, **SIGNED)
    assert result.code == 0, result.output
    assert result.order("config") == [f"config {name}" for name in SERVERS]
    in_use = result.arguments("key_export", "web1")["in_use"]
    assert in_use == [{} if name == "web4" else FINGERPRINTS for name in SERVERS]
    assert "no new keys" in result.output


def test_a_part_of_the_farm_never_begins_a_generation(playbook: Playbook, bundle: Path) -> None:  # noqa: F811
    scenario = {"config": PRESENT, "key_export": STAY}
    result = playbook("--limit", "web2", book="webfarm.iis.rotate", scenario=scenario, **SIGNED)
    assert result.order() == ["config web2"]
    result = playbook("--limit", "web1,web2", book="webfarm.iis.rotate", scenario=scenario, **SIGNED)
    assert result.order() == ["config web1", "config web2", "key_export web1"]
    assert result.arguments("key_export", "web1")["in_use"] == [FINGERPRINTS] * 2 + [{}] * 4
    result = playbook("--limit", "web2", book="webfarm.iis.rotate", scenario=scenario, rotate_generation=1, **SIGNED)
    assert result.calls == [] and "Add web1 to --limit" in result.output


def test_a_given_generation_is_brought_at_once(playbook: Playbook, bundle: Path) -> None:  # noqa: F811
    result = playbook(book="webfarm.iis.rotate", scenario={"key_export": BACK}, rotate_generation=1, **SIGNED)
    assert result.code == 0, result.output
    assert result.order() == ["key_export web1", *(f"config {name}" for name in SERVERS)]
    assert result.arguments("key_export", "web1")["generation"] == 1


def test_without_a_bundle_the_present_keys_are_exported_first(playbook: Playbook) -> None:  # noqa: F811
    result = playbook(book="webfarm.iis.rotate", scenario={"key_export": NEW_KEYS}, **SIGNED)
    assert result.order("key_export")[0] == "key_export web1"
    assert not result.arguments("key_export", "web1").get("generate")


def test_unsigned_bundles_are_not_rotated(playbook: Playbook, bundle: Path) -> None:  # noqa: F811
    result = playbook(book="webfarm.iis.rotate", provision_expected_fingerprints=FINGERPRINTS)
    assert result.code != 0
    assert result.calls == []
    assert "provision_signer_certificate" in result.output


def test_the_first_server_that_fails_ends_it(playbook: Playbook, bundle: Path) -> None:  # noqa: F811
    scenario = {"config": PRESENT, "config web2": {"failed": True, "msg": "no"}}
    result = playbook(book="webfarm.iis.rotate", scenario=scenario, **SIGNED)
    assert result.code != 0
    assert result.order() == ["config web1", "config web2"]


def test_a_server_left_drained_is_undrained_by_the_next_run(
    playbook: Playbook,  # noqa: F811
    bundle: Path,
    tmp_path: Path,
) -> None:
    tasks = {f"provision_{name}_tasks": str(tmp_path / f"{name}.yml") for name in ("drain", "undrain")}
    failed = {"config for real": {"failed": True, "msg": "the connection was lost"}}
    first = playbook("--limit", "web2", book="webfarm.iis.rotate", scenario=failed, **SIGNED, **tasks)
    assert first.order("drain", "undrain") == ["drain web2"]
    scenario = {"config": PRESENT, "key_export": STAY}
    second = playbook("--limit", "web2", book="webfarm.iis.rotate", scenario=scenario, **SIGNED, **tasks)
    assert second.order("drain", "undrain") == ["undrain web2"]
    third = playbook("--limit", "web2", book="webfarm.iis.rotate", scenario=scenario, **SIGNED, **tasks)
    assert third.order("drain", "undrain") == []


# --- generations of key_export -------------------------------------------------------------------------------------


def export(target: Target, place: Path, **options: Any) -> dict[str, Any]:
    return run("key_export", target, place, **{**EXPORT, **options})


def test_generations(folder: Path, custodian: Any) -> None:  # noqa: F811
    """Export, generate, the same again, the way back, forward again, and a number that is never given twice."""
    compare, sealed = source_answers(custodian)
    bundle_path = folder / "keys" / "shop.keyset.json"
    kept = folder / "keys" / "shop.gen1.keyset.json"
    old = dict.fromkeys(("iisWasKey", "iisConfigurationKey"), "0" * 64)
    # the stand-in source gives the same keys as new ones; what was there before is an edited bundle
    export(Target(compare, sealed), folder)
    data = json.loads(bundle_path.read_bytes())
    for item in data["containers"]:
        item["fingerprint"] = old[item["container"]]
    bundle_path.write_text(json.dumps(data))
    first = bundle_path.read_bytes()

    checked = run("key_export", Target(compare), folder, check=True, **EXPORT, generate=True, generation=2)
    assert checked["changed"] and checked["fingerprints"] == {}
    assert bundle_path.read_bytes() == first and not kept.exists()

    target = Target(*source_answers(custodian))
    made = export(target, folder, generate=True, in_use=[old, {name.upper(): mark for name, mark in old.items()}])
    assert made["changed"] and not made.get("failed"), made
    assert made["bundle"] == {"path": str(bundle_path), "generation": 2, "kept": str(kept)}
    assert target.calls[1]["generate"] is True and "in_use" not in target.calls[1]
    assert kept.read_bytes() == first and kept.stat().st_mode & 0o777 == 0o600
    assert _bundle.read_bundle(bundle_path).generation == 2

    # some servers still hold the old ones, or the number is given: nothing to make, nobody is asked
    for more in ({"in_use": [old]}, {"in_use": [{}]}, {"generation": 2}):
        same = export(Target(), folder, generate=True, **more)
        assert same["changed"] is False and same["fingerprints"] == made["fingerprints"], same

    second = bundle_path.read_bytes()
    back = export(Target(), folder, generate=True, generation=1)
    assert back["changed"] and back["bundle"]["generation"] == 1 and back["fingerprints"] == old
    assert bundle_path.read_bytes() == first
    assert (folder / "keys" / "shop.gen2.keyset.json").read_bytes() == second

    # a server that is still at generation 2 while the bundle went back is no reason for an export
    refused = export(Target(compare), folder)
    assert refused["failed"] and "generation 2" in refused["msg"]
    assert bundle_path.read_bytes() == first

    following = run("key_export", Target(compare), folder, check=True, **EXPORT, generate=True, in_use=[old])
    assert following["bundle"]["generation"] == 3

    missing = export(Target(), folder, generate=True, generation=0)
    assert missing["failed"] and "counted from 1" in missing["msg"]
    (folder / "keys" / "shop.gen3.keyset.json").write_bytes(first)
    misnamed = export(Target(), folder, generate=True, generation=3)
    assert misnamed["failed"] and "holds generation 1" in misnamed["msg"]


def test_generate_needs_to_know_which(folder: Path, custodian: Any) -> None:  # noqa: F811
    with pytest.raises(AnsibleActionFail, match="generation, in_use"):
        export(Target(), folder, generate=True)


def test_new_keys_never_go_into_the_bundle_of_another_farm(folder: Path, custodian: Any) -> None:  # noqa: F811
    export(Target(*source_answers(custodian)), folder)
    result = export(Target(), folder, generate=True, generation=2, farm="other")
    assert result["failed"] and "farm: " in result["msg"]


def test_a_run_that_ends_between_the_two_files(
    folder: Path,  # noqa: F811
    custodian: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old bundle is kept first; until the new one is written, the farm's generation is the old one."""
    export(Target(*source_answers(custodian)), folder)
    bundle_path, kept = folder / "keys" / "shop.keyset.json", folder / "keys" / "shop.gen1.keyset.json"
    first = bundle_path.read_bytes()
    writes: list[Path] = []

    def ends_at_the_second(path: Path, content: bytes, option: str) -> None:
        writes.append(Path(path))
        if len(writes) == 2:
            raise KeyboardInterrupt
        write_private_file(path, content, option)

    with monkeypatch.context() as patch:
        patch.setattr(key_export, "write_private_file", ends_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            export(Target(*source_answers(custodian)), folder, generate=True, generation=2)
    assert writes == [kept, bundle_path]
    assert kept.read_bytes() == first == bundle_path.read_bytes()
    made = export(Target(*source_answers(custodian)), folder, generate=True, generation=2)
    assert made["changed"] and made["bundle"]["generation"] == 2
    assert kept.read_bytes() == first and _bundle.read_bundle(bundle_path).generation == 2
