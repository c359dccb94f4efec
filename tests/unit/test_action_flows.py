# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller halves say to the target and make of its answers. The target is a list of answers here."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from _support import configuration_keys, filled_configuration, key
from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.utils.display import Display
from test_bundle import Identity

from ansible_collections.webfarm.iis.plugins.plugin_utils import _action, _bundle, _keyblob, _proof, _seal

PASSPHRASE = "Passphrase-of-the-custody-key"
TRANSPORT = key("TestKeyOther")


class Target:
    """Answers the calls of an action in turn, and remembers them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[dict[str, Any]] = []

    def __call__(self, module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self.calls.append({"module": module_name, **module_args})
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    @property
    def phases(self) -> list[str]:
        return [str(call.get("_phase")) for call in self.calls]


def run(
    name: str,
    target: Target,
    folder: Path,
    *,
    check: bool = False,
    diff: bool = False,
    transport: str = "ssh",
    **args: Any,
) -> Any:
    loader = DataLoader()
    loader.set_basedir(str(folder))
    task = SimpleNamespace(
        args=args,
        check_mode=check,
        diff=diff,
        async_val=0,
        action=f"webfarm.iis.{name}",
        get_search_path=lambda: [str(folder)],
    )
    shell = SimpleNamespace(tmpdir=None)
    connection = SimpleNamespace(
        _shell=shell, transport=transport, get_option={"scheme": "http", "transport": ["basic"]}.get
    )
    plugin = importlib.import_module(f"ansible_collections.webfarm.iis.plugins.action.{name}").ActionModule
    action = plugin(task=task, connection=connection, play_context=None, loader=loader, templar=None)
    action._execute_module = target
    return action.run(task_vars={"inventory_hostname": "web2"})


@pytest.fixture(scope="module")
def custodian() -> Identity:
    return Identity("custody", passphrase=PASSPHRASE)


@pytest.fixture
def folder(tmp_path: Path, custodian: Identity) -> Path:
    (tmp_path / "custody.crt").write_bytes(custodian.pem)
    (tmp_path / "custody.key").write_bytes(custodian.key_pem)
    (tmp_path / "candidate.config").write_bytes(filled_configuration())
    return tmp_path


@pytest.fixture
def bundle(folder: Path, custodian: Identity) -> dict[str, str]:
    """A bundle on disk; its fingerprints."""
    keys = []
    for container, private in configuration_keys().items():
        part = _seal.seal(_keyblob.write_private_blob(private), [custodian.recipient.key])
        keys.append(
            _bundle.make_bundle_key(container, private.public(), part, [custodian.recipient], sddl="D:(A;;FA;;;SY)")
        )
    made = _bundle.Bundle("shop", 1, "2026-01-31T12:00:00Z", "WEB1", "guid", tuple(keys))
    (folder / "shop.keyset.json").write_bytes(made.to_bytes())
    return made.fingerprints()


def trust(fingerprints: dict[str, str]) -> dict[str, Any]:
    return {
        "bundle": "shop.keyset.json",
        "opening_file": "custody.key",
        "opening_passphrase": PASSPHRASE,
        "expected_fingerprints": fingerprints,
    }


def wire_transport() -> dict[str, str]:
    return {"container": "webfarm-transport-1", **_seal.public_key_to_wire(TRANSPORT)}


def container(name: str, fingerprint: str, **more: Any) -> dict[str, Any]:
    return {"container": name, "bits": 2048, "fingerprint": fingerprint, "exportable": True, "sddl": None, **more}


# --- key_import -------------------------------------------------------------------------------------------------------


def test_keys_travel_only_sealed_to_the_targets_transport_key(folder: Path, bundle: dict[str, str]) -> None:
    target = Target(
        {
            "changed": True,
            "_final": False,
            "_import": ["iisWasKey"],
            "_transport": wire_transport(),
            "warnings": ["one"],
        },
        {"changed": True, "key_containers": [], "_secret": 1, "warnings": ["one", "two"]},
    )
    result = run("key_import", target, folder, **trust(bundle))
    assert target.phases == ["compare", "apply"]
    compare, apply = target.calls
    assert {item["container"]: item["fingerprint"] for item in compare["_planned"]} == bundle
    assert compare["_planned"][0]["sddl"] == "D:(A;;FA;;;SY)"
    sealed = json.loads(apply["_sealed"])
    assert [item["container"] for item in sealed] == ["iisWasKey"]
    part = _seal.SealedPart.from_wire({**sealed[0], "wrapped": [sealed[0]["wrapped"]]}, 1)
    assert _seal.unseal(part, TRANSPORT) == _keyblob.write_private_blob(configuration_keys()["iisWasKey"])
    for call in target.calls:
        assert PASSPHRASE not in json.dumps(call)
        assert not {"opening_passphrase", "opening_file", "expected_fingerprints", "signer_certificate"} & call.keys()
    assert result["warnings"] == ["one", "two"]
    assert "_secret" not in result
    assert result["invocation"]["module_args"]["opening_passphrase"] == _action.MASK
    assert PASSPHRASE not in json.dumps(result)


def test_equal_keys_need_one_call_and_no_opening(folder: Path, bundle: dict[str, str]) -> None:
    (folder / "custody.key").unlink()
    target = Target({"changed": False, "_final": True, "_import": []})
    assert run("key_import", target, folder, **trust(bundle))["changed"] is False
    assert target.phases == ["compare"]


@pytest.mark.parametrize("failure", [{"failed": True, "msg": "import failed"}, RuntimeError("connection lost")])
def test_the_transport_key_is_deleted_when_the_second_call_does_not_succeed(
    folder: Path, bundle: dict[str, str], failure: Any
) -> None:
    target = Target(
        {"_final": False, "_import": ["iisWasKey"], "_transport": wire_transport()}, failure, {"changed": False}
    )
    if isinstance(failure, Exception):
        with pytest.raises(RuntimeError):
            run("key_import", target, folder, **trust(bundle))
    else:
        result = run("key_import", target, folder, **trust(bundle))
        assert result["failed"]
        assert result["msg"] == "import failed"
    assert target.phases == ["compare", "apply", "cleanup"]
    cleanup = target.calls[-1]
    assert cleanup["_transport"] == "webfarm-transport-1"
    assert "_sealed" not in cleanup


@pytest.mark.parametrize(
    ("constant", "value"), [("CACHE_PLUGIN", "jsonfile"), ("CALLBACKS_ENABLED", ["community.general.syslog_json"])]
)
def test_no_key_travels_in_a_run_that_keeps_variables_or_results(
    folder: Path, bundle: dict[str, str], monkeypatch: pytest.MonkeyPatch, constant: str, value: Any
) -> None:
    monkeypatch.setattr(C, constant, value)
    target = Target({"_final": False, "_import": ["iisWasKey"], "_transport": wire_transport()}, {"changed": False})
    result = run("key_import", target, folder, **trust(bundle))
    assert result["failed"]
    assert "A private key would travel while" in result["msg"]
    assert target.phases == ["compare", "cleanup"]
    # where nothing has to travel, nothing is refused
    target = Target({"changed": False, "_final": True, "_import": []})
    assert run("key_import", target, folder, **trust(bundle))["changed"] is False


def test_sealed_keys_may_travel_in_a_run_with_a_verbose_log(
    folder: Path, bundle: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(C, "DEFAULT_LOG_PATH", "ansible.log")
    monkeypatch.setattr(Display(), "verbosity", 2)
    target = Target(
        {"_final": False, "_import": ["iisWasKey"], "_transport": wire_transport()},
        {"changed": True, "key_containers": []},
    )
    assert run("key_import", target, folder, **trust(bundle))["changed"] is True


def test_the_opening_key_may_be_a_value(folder: Path, bundle: dict[str, str], custodian: Identity) -> None:
    """As a lookup returns it. It never goes to the target, and not into the result."""
    (folder / "custody.key").unlink()
    options = {**trust(bundle), "opening_file": None, "opening_content": custodian.key_pem.decode()}
    target = Target(
        {"_final": False, "_import": ["iisWasKey"], "_transport": wire_transport()},
        {"changed": True, "key_containers": []},
    )
    result = run("key_import", target, folder, **options)
    assert target.phases == ["compare", "apply"]
    assert result["invocation"]["module_args"]["opening_content"] == _action.MASK
    assert "PRIVATE KEY" not in json.dumps([result, target.calls])


def test_a_bundle_that_does_not_open_leaves_no_transport_key(folder: Path, bundle: dict[str, str]) -> None:
    target = Target({"_final": False, "_import": ["iisWasKey"], "_transport": wire_transport()}, {"changed": False})
    result = run("key_import", target, folder, **{**trust(bundle), "opening_passphrase": "wrong"})
    assert result["failed"]
    assert "opening_passphrase" in result["msg"]
    assert target.phases == ["compare", "cleanup"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"expected_fingerprints": None}, "is not believed"),
        (
            {"expected_fingerprints": {"iisWasKey": "0" * 64, "iisConfigurationKey": "0" * 64}},
            "expected_fingerprints says",
        ),
        ({"bundle": "absent.json"}, "bundle: "),
        ({"containers": ["NetFrameworkConfigurationKey"]}, "the bundle has no key"),
        ({"signer_certificate": "custody.crt"}, "has no signature"),
    ],
)
def test_a_bundle_that_is_not_believed_contacts_nobody(
    folder: Path, bundle: dict[str, str], change: dict[str, Any], words: str
) -> None:
    target = Target()
    result = run("key_import", target, folder, **{**trust(bundle), **change})
    assert result["failed"]
    assert words in result["msg"]


@pytest.mark.parametrize("setting", ["DEFAULT_DEBUG", "DEFAULT_KEEP_REMOTE_FILES"])
@pytest.mark.parametrize("name", ["key_import", "config", "config_proof"])
def test_no_bundle_is_opened_where_arguments_are_shown(
    folder: Path, bundle: dict[str, str], monkeypatch: pytest.MonkeyPatch, setting: str, name: str
) -> None:
    monkeypatch.setattr(C, setting, True)
    more = {} if name == "key_import" else {"src": "candidate.config"}
    result = run(name, Target(), folder, **trust(bundle), **more)
    assert result["failed"]
    assert setting.removeprefix("DEFAULT_") in result["msg"]


@pytest.mark.parametrize("name", ["key_import", "config"])
def test_no_bundle_is_opened_over_a_readable_connection(folder: Path, bundle: dict[str, str], name: str) -> None:
    more = {} if name == "key_import" else {"src": "candidate.config"}
    result = run(name, Target(), folder, transport="winrm", **trust(bundle), **more)
    assert result["failed"]
    assert "allow_unencrypted_transport" in result["msg"]
    target = Target({"changed": False, "_final": True})
    assert not run(
        name, target, folder, transport="winrm", allow_unencrypted_transport=True, **trust(bundle), **more
    ).get("failed")


def test_unknown_options_are_refused(folder: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="opening_pass"):
        run("key_import", Target(), folder, bundle="x", opening_pass="y")


# --- config -----------------------------------------------------------------------------------------------------------


def test_the_content_travels_packed_and_both_calls_carry_it(folder: Path, bundle: dict[str, str]) -> None:
    target = Target(
        {"_final": False, "_import": list(bundle), "_transport": wire_transport(), "_expected_sha256": "f" * 64},
        {"changed": True, "proof": {"method": "target"}},
    )
    result = run("config", target, folder, src="candidate.config", **trust(bundle))
    assert result["changed"]
    assert target.phases == ["plan", "apply"]
    for call in target.calls:
        assert _action.unpack(call["_content"], "") == filled_configuration()
    assert target.calls[1]["_expected_sha256"] == "f" * 64
    assert len(json.loads(target.calls[1]["_sealed"])) == 2


def test_without_a_bundle_no_key_is_planned(folder: Path) -> None:
    target = Target({"changed": True, "_final": True})
    run("config", target, folder, src="candidate.config")
    assert target.calls[0]["_planned"] == []
    assert "bundle" not in target.calls[0]


def test_a_file_on_the_target_is_not_read_here(folder: Path) -> None:
    target = Target({"changed": True, "_final": True})
    run("config", target, folder, src="C:\\stage\\new.config", remote_src="yes")
    assert target.calls[0]["src"] == "C:\\stage\\new.config"
    assert "_content" not in target.calls[0]


def test_an_absent_source_is_named(folder: Path) -> None:
    result = run("config", Target(), folder, src="absent.config")
    assert result["failed"]
    assert str(folder / "absent.config") in result["msg"]


def plan_answer(**verdicts: str) -> dict[str, Any]:
    values = [{"path": path, "verdict": verdict, "provider": "AesProvider"} for path, verdict in verdicts.items()]
    pending = [path for path, verdict in verdicts.items() if verdict == "pending"]
    return {
        "changed": True,
        "_final": not pending,
        "_import": ["iisWasKey"],
        "_pending": pending,
        "protected_values": values,
    }


def all_paths() -> list[str]:
    from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost

    return [
        value.path for value in _apphost.parse(filled_configuration(), "x").values if "Cng" not in str(value.provider)
    ]


def test_check_mode_proves_offline_from_the_bundle(folder: Path, bundle: dict[str, str]) -> None:
    answer = plan_answer(**dict.fromkeys(all_paths(), "pending"), elsewhere="ok")
    target = Target(answer)
    result = run("config", target, folder, check=True, src="candidate.config", **trust(bundle))
    assert not result.get("failed"), result.get("msg")
    assert target.phases == ["plan"]
    assert result["proof"] == {
        "method": "bundle",
        "proven": len(all_paths()) + 1,
        "total": len(all_paths()) + 1,
        "accepted": 0,
    }


def test_check_mode_fails_for_a_value_of_another_key(folder: Path, bundle: dict[str, str]) -> None:
    text = filled_configuration()
    broken = text.replace(b"[enc:AesProvider:", b"[enc:IISWASOnlyAesProvider:")
    (folder / "candidate.config").write_bytes(broken)
    from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost

    paths = [value.path for value in _apphost.parse(broken, "x").values if "Cng" not in str(value.provider)]
    result = run(
        "config",
        Target(plan_answer(**dict.fromkeys(paths, "pending"))),
        folder,
        check=True,
        src="candidate.config",
        **trust(bundle),
    )
    assert result["failed"]
    assert "Nothing was changed" in result["msg"]
    assert "garbage" in result["msg"] or "bad_data" in result["msg"]


GOLDEN: dict[str, Any] = {
    "planned_fingerprints": {"iisWasKey": "a" * 64},
    "planned_sha256": "b" * 64,
    "golden_verdicts": [{"path": "one", "provider": "AesProvider", "verdict": "ok"}],
}
FACTS = {
    "redirection": {"enabled": False},
    "key_containers": [{"container": "iisWasKey", "state": "missing", "fingerprint": None}],
    "configuration_files": [
        {"path": "C:\\windows\\system32\\inetsrv\\config\\applicationHost.config", "sha256": "c" * 64}
    ],
}


def golden_arguments(**more: Any) -> dict[str, Any]:
    return {
        "src": "absent.config",
        "bundle": "absent.json",
        "expected_fingerprints": GOLDEN["planned_fingerprints"],
        **GOLDEN,
        **more,
    }


def test_check_mode_before_the_first_export_stands_on_the_golden_server(folder: Path) -> None:
    target = Target(FACTS)
    result = run("config", target, folder, check=True, diff=True, **golden_arguments())
    assert [call["module"] for call in target.calls] == ["webfarm.iis.server_info"]
    assert result["changed"]
    assert result["proof"] == {"method": "golden", "proven": 1, "total": 1, "accepted": 0}
    assert result["key_containers"][0]["before"]["state"] == "missing"
    assert result["diff"]["after"]["key_containers"] == {"iisWasKey": "a" * 64}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"golden_verdicts": [{"path": "one", "provider": "AesProvider", "verdict": "garbage"}]},
            "one (AesProvider: garbage)",
        ),
        ({"expected_fingerprints": {"iisWasKey": "d" * 64}}, "expected_fingerprints says"),
    ],
)
def test_the_golden_way_fails_closed(folder: Path, change: dict[str, Any], words: str) -> None:
    result = run("config", Target(FACTS), folder, check=True, **golden_arguments(**change))
    assert result["failed"]
    assert words in result["msg"]


def test_the_golden_way_refuses_redirection(folder: Path) -> None:
    facts = {**FACTS, "redirection": {"enabled": True, "path": "\\\\files\\iis"}}
    result = run("config", Target(facts), folder, check=True, **golden_arguments())
    assert result["failed"]
    assert "\\\\files\\iis" in result["msg"]


def test_files_as_the_golden_server_plans_them_are_used(folder: Path, bundle: dict[str, str]) -> None:
    digest = hashlib.sha256(filled_configuration()).hexdigest()
    target = Target({"changed": False, "_final": True})
    arguments = {
        **trust(bundle),
        **GOLDEN,
        "src": "candidate.config",
        "planned_fingerprints": bundle,
        "planned_sha256": digest,
    }
    run("config", target, folder, check=True, **arguments)
    assert target.phases == ["plan"]
    assert not GOLDEN.keys() & target.calls[0].keys()


# --- key_export -------------------------------------------------------------------------------------------------------


EXPORT: dict[str, Any] = {"dest": "keys/shop.keyset.json", "farm": "shop", "recipients": ["custody.crt"]}


def source_answers(custodian: Identity) -> tuple[dict[str, Any], dict[str, Any]]:
    facts = {
        "host": "WEB1",
        "machine_guid": "guid",
        "changed": False,
        "protected_values": [],
        "accepted_undecryptable": [],
    }
    compare, sealed = [], []
    for name, private in configuration_keys().items():
        item = container(name, private.fingerprint, bits=private.bits)
        part = _seal.seal(_keyblob.write_private_blob(private), [custodian.recipient.key])
        compare.append(item)
        sealed.append({**item, "sealed": part.to_wire()})
    return {**facts, "_export_refusal": "", "key_containers": compare}, {**facts, "key_containers": sealed}


def test_export_writes_what_the_source_sealed(folder: Path, custodian: Identity) -> None:
    compare, sealed = source_answers(custodian)
    target = Target(compare, sealed)
    result = run("key_export", target, folder, **EXPORT)
    assert result["changed"]
    assert result["reasons"] == ["the bundle does not exist"]
    assert "sealed" not in json.dumps(result["key_containers"])
    path = folder / "keys" / "shop.keyset.json"
    assert path.stat().st_mode & 0o777 == 0o600
    bundle = _bundle.read_bundle(path)
    opened = _bundle.open_bundle(bundle, _seal.load_opening_key(custodian.key_pem, PASSPHRASE, "x"))
    assert {name: one.key for name, one in opened.items()} == configuration_keys()
    assert "_recipients" not in target.calls[0]
    assert target.calls[1]["_recipients"] == [custodian.recipient.wire()]
    # The same again: one call, nothing written.
    before = path.read_bytes()
    again = run("key_export", Target(compare), folder, **EXPORT)
    assert again["changed"] is False
    assert path.read_bytes() == before


def test_export_in_check_mode_writes_nothing(folder: Path, custodian: Identity) -> None:
    result = run("key_export", Target(source_answers(custodian)[0]), folder, check=True, diff=True, **EXPORT)
    assert result["changed"]
    assert not (folder / "keys").exists()
    assert result["diff"]["after"]["fingerprints"] == result["fingerprints"]


@pytest.mark.parametrize("check", [False, True])
def test_a_key_that_cannot_be_exported_stops_when_it_is_needed(folder: Path, custodian: Identity, check: bool) -> None:
    answer = {**source_answers(custodian)[0], "_export_refusal": "iisWasKey is not exportable (0x8009000B)."}
    result = run("key_export", Target(answer), folder, check=check, **EXPORT)
    assert result["failed"]
    assert "0x8009000B" in result["msg"]
    assert not (folder / "keys").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"farm": "other"}, "the farm shop"),
        ({"recipients": ["custody.crt", "second.crt"]}, "recipients differ"),
        ({"signing_file": "second.key", "signing_certificate": "second.crt"}, "not signed"),
    ],
)
def test_reasons_to_export_again(folder: Path, custodian: Identity, change: dict[str, Any], reason: str) -> None:
    second = Identity("second")
    (folder / "second.crt").write_bytes(second.pem)
    (folder / "second.key").write_bytes(second.key_pem)
    compare, sealed = source_answers(custodian)
    run("key_export", Target(compare, sealed), folder, **EXPORT)
    result = run("key_export", Target(compare), folder, check=True, **{**EXPORT, **change})
    assert reason in "; ".join(result["reasons"])
    assert result["bundle"]["generation"] == 1


def test_a_signed_bundle_needs_no_pins(folder: Path, custodian: Identity) -> None:
    second = Identity("second")
    (folder / "second.crt").write_bytes(second.pem)
    (folder / "second.key").write_bytes(second.key_pem)
    signed = {**EXPORT, "signing_file": "second.key", "signing_certificate": "second.crt"}
    run("key_export", Target(*source_answers(custodian)), folder, **signed)
    assert run("key_export", Target(source_answers(custodian)[0]), folder, **signed)["changed"] is False
    target = Target({"changed": False, "_final": True})
    arguments = {"bundle": "keys/shop.keyset.json", "signer_certificate": "second.crt"}
    assert not run("key_import", target, folder, **arguments).get("failed")


def test_something_else_at_dest_is_never_replaced(folder: Path, custodian: Identity) -> None:
    (folder / "keys").mkdir()
    (folder / "keys" / "shop.keyset.json").write_text("my notes")
    result = run("key_export", Target(), folder, **EXPORT)
    assert result["failed"]
    assert "dest: " in result["msg"]
    assert (folder / "keys" / "shop.keyset.json").read_text() == "my notes"


# --- config_rewrap and config_proof -----------------------------------------------------------------------------------


def rewrap_answer(content: bytes, **more: Any) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "_content": _action.pack(content),
        "same_content": False,
        "conversions": [
            {
                "path": "two",
                "from_provider": "IISCngProvider",
                "to_provider": "AesProvider",
                "to_container": "iisConfigurationKey",
            }
        ],
        "protected_values": [
            {
                "path": "one",
                "provider": "AesProvider",
                "kind": "aes",
                "container": "iisConfigurationKey",
                "verdict": "ok",
            },
            {
                "path": "two",
                "provider": "IISCngProvider",
                "kind": "cng",
                "container": "iisCngConfigurationKey",
                "verdict": "ok",
            },
        ],
        **more,
    }


def test_rewrap_writes_the_candidate_once(folder: Path) -> None:
    content = filled_configuration()
    result = run("config_rewrap", Target(rewrap_answer(content)), folder, dest="out/shop.config", cng="portable")
    path = folder / "out" / "shop.config"
    assert result["changed"]
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o600
    assert "_content" not in result
    assert result["candidate_values"][1] | {"verdict": "ok"} == {
        "path": "two",
        "provider": "AesProvider",
        "kind": "aes",
        "container": "iisConfigurationKey",
        "verdict": "ok",
    }
    answer = rewrap_answer(content, same_content=True)
    del answer["_content"]
    target = Target(answer)
    assert run("config_rewrap", target, folder, dest="out/shop.config", cng="portable")["changed"] is False
    assert _action.unpack(target.calls[0]["_existing"], "") == content


def test_rewrap_in_check_mode_writes_nothing(folder: Path) -> None:
    result = run(
        "config_rewrap",
        Target(rewrap_answer(b"<configuration/>")),
        folder,
        check=True,
        diff=True,
        dest="out/shop.config",
    )
    assert result["changed"]
    assert not (folder / "out").exists()
    assert "<configuration" not in json.dumps(result)


def test_a_candidate_that_was_altered_on_the_way_is_not_written(folder: Path) -> None:
    answer = {**rewrap_answer(b"<configuration/>"), "sha256": "0" * 64}
    result = run("config_rewrap", Target(answer), folder, dest="out/shop.config")
    assert result["failed"]
    assert not (folder / "out").exists()


def test_offline_proof(folder: Path, bundle: dict[str, str]) -> None:
    arguments = {**trust(bundle), "src": "candidate.config"}
    result = run("config_proof", Target(), folder, **arguments)
    assert result["failed"]
    assert "CNG" in result["msg"]
    assert len(result["needs_target"]) > 0
    result = run("config_proof", Target(), folder, allow_needs_target=True, **arguments)
    assert not result.get("failed")
    assert result["proven"] == len(all_paths())
    assert isinstance(result["protected_values"], list)


def test_offline_proof_names_the_first_value_that_fails(folder: Path, bundle: dict[str, str]) -> None:
    text = filled_configuration().replace(b"[enc:AesProvider:", b"[enc:IISWASOnlyAesProvider:")
    (folder / "candidate.config").write_bytes(text)
    result = run("config_proof", Target(), folder, src="candidate.config", allow_needs_target=True, **trust(bundle))
    assert result["failed"]
    assert result["failed_values"][0] in result["msg"]
    assert _proof.diagnose("bad_data", 0, None, None)["fix"] is not None
