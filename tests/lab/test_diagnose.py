# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each failure of the field, staged on a server: the right cause comes first, with its evidence and what to run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rotation

from ansible_collections.webfarm.iis.plugins.plugin_utils._diagnosis import diagnose
from lab import Farm, Host, content, paths

Module = Callable[..., dict[str, Any]]
FULL = "(A;;FA;;;SY)(A;;FA;;;BA)"
READ = "(A;;FR;;;{})"
IUSRS = "S-1-5-32-568"


@pytest.fixture
def gather(ansible_module: Module) -> Callable[[Host], dict[str, Any]]:
    """gather(host) -> the facts that the role diagnose asks for, from one module call."""

    def run(host: Host) -> dict[str, Any]:
        return ansible_module(host, "server_info", gather_subset=["all", "events"], unreadable="report")

    return run


@pytest.fixture
def examine(gather: Callable[[Host], dict[str, Any]]) -> Callable[[Host], dict[str, Any]]:
    """examine(host) -> the diagnosis."""

    def run(host: Host) -> dict[str, Any]:
        return diagnose(gather(host), host.name)

    return run


MODULES = "Program Files/PowerShell/Modules/LabEventLog/LabEventLog.psm1"


def with_event_log(host: Host) -> None:
    """Let Get-WinEvent answer what the stand-in services have written; the events of before are gone."""
    module = host.drive_c / MODULES
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_bytes((paths.FILES / "modules/LabEventLog/LabEventLog.psm1").read_bytes())
    (host.drive_c / "lab/events.jsonl").unlink(missing_ok=True)


def restart(host: Host) -> None:
    """Stop and start what serves; whether it starts is what the test is about."""
    host.stop_services("W3SVC", "WAS")
    host.start_services("WAS", "W3SVC", timeout=10)


def new_key(host: Host, name: str, bits: str = "2048") -> None:
    """Another key in an existing container, with the access list that it had."""
    sddl = host.oracle("getsddl", name)
    host.oracle("delete", name)
    host.oracle("create", name, bits, "exportable")
    host.oracle("setsddl", name, sddl)


def evidence(cause: dict[str, Any]) -> str:
    return "\n".join(cause["evidence"])


# --- staging ----------------------------------------------------------------------------------------------------------


def healthy(host: Host) -> None:
    """Nothing at all."""


def key_file_deleted(host: Host) -> None:
    host.oracle("delete", "iisWasKey")
    restart(host)


def cloned(host: Host) -> None:
    """The key file of the machine that this one was cloned from."""
    path = host.key_file("iisWasKey")
    data = path.read_bytes()
    host.oracle("delete", "iisWasKey")
    path.with_name(path.name.split("_")[0] + "_0fe0aeb6-5f4c-4d0c-a9ff-0c8c5d4b1d7e").write_bytes(data)
    restart(host)


def key_replaced(host: Host) -> None:
    new_key(host, "iisConfigurationKey", "1024")


def two_files(host: Host) -> None:
    """The machine GUID changed some time ago: the old file stayed, Windows made a new key beside it."""
    path = host.key_file("iisWasKey")
    data = path.read_bytes()
    new_key(host, "iisWasKey")
    old = path.with_name(path.name.split("_")[0] + "_0fe0aeb6-5f4c-4d0c-a9ff-0c8c5d4b1d7e")
    old.write_bytes(data)
    os.utime(old, (1_400_000_000, 1_400_000_000))
    restart(host)


def damaged(host: Host) -> None:
    host.write_file(host.key_file("iisWasKey"), b"no key at all")
    restart(host)


def without_worker(host: Host) -> None:
    host.oracle("setsddl", "iisConfigurationKey", f"D:{FULL}{READ.format('LS')}")


def without_local_service(host: Host) -> None:
    host.oracle("setsddl", "iisWasKey", f"D:{FULL}")


def foreign_configuration(host: Host) -> None:
    host.write_file(host.config, host.farm.host("web1").config.read_bytes())
    restart(host)


def left_over(host: Host) -> None:
    """One of an hour ago: a younger one may belong to a program that is just saving."""
    path = host.config.with_name("applicationHost.config.tmp")
    host.write_file(path, b"<configuration>")
    os.utime(path, (time.time() - 3600,) * 2)
    restart(host)


def malformed(host: Host) -> None:
    data = host.config.read_bytes()
    host.write_file(host.config, data.replace(b"</applicationPools>", b"</applicationPool>", 1))
    restart(host)


def one_session_key(host: Host) -> None:
    """The session key of one provider, pasted from another server's file."""
    own = host.config.read_text(encoding="utf-8")
    pattern = re.compile(r'<add name="AesProvider"[^>]*?sessionKey="([^"]+)"', re.DOTALL)
    theirs = pattern.search(host.farm.host("web1").config.read_text(encoding="utf-8"))
    mine = pattern.search(own)
    assert mine and theirs
    host.write_file(host.config, own.replace(mine[1], theirs[1]).encode("utf-8"))


def unknown_provider(host: Host) -> None:
    text = host.config.read_text(encoding="utf-8")
    host.write_file(host.config, text.replace("[enc:IISWASOnlyAesProvider:", "[enc:Nobody:", 1).encode("utf-8"))


def redirected(host: Host) -> None:
    path = host.config_dir / "redirection.config"
    element = r'<configurationRedirection enabled="true" path="\\files\gone" userName="FARM\iis" password="" />'
    text = path.read_text(encoding="utf-8-sig").replace("<configurationRedirection />", element)
    host.write_file(path, text.encode("utf-8"))
    restart(host)


def wrong_password(host: Host) -> None:
    """The password of a pool's account was changed in the domain."""
    host.fault("service", name="bad-identity-Local")
    appcmd = r"C:\Windows\System32\inetsrv\appcmd.exe"
    host.run([appcmd, "recycle", "apppool", "/apppool.name:Local"])


def does_not_respond(host: Host) -> None:
    host.stop_services("W3SVC")
    host.fault("service", name="refuse-start-W3SVC")
    host.start_services("W3SVC", timeout=5)


def crashes(host: Host) -> None:
    host.stop_services("FTPSVC")
    host.fault("service", name="crash-after-start-FTPSVC", ms=100)
    host.start_services("FTPSVC", timeout=5)
    for _attempt in range(50):
        if host.services()["FTPSVC"] == "stopped":
            break
        time.sleep(0.1)


def not_exportable(host: Host) -> None:
    for name in ("iisWasKey", "iisConfigurationKey"):
        blob = host.oracle("export", name, "private")
        host.oracle("import", name, "nonexportable", stdin=blob)


def certificate_store(host: Host) -> None:
    """The passwords of the Centralized Certificate Store, one of them under an older iisWasKey."""
    good = host.oracle("encrypt", "rsa", "iisWasKey", stdin="share")
    host.oracle("create", "webfarmLabOld", "2048", "exportable")
    try:
        bad = host.oracle("encrypt", "rsa", "webfarmLabOld", stdin="pfx")
    finally:
        host.oracle("delete", "webfarmLabOld")
    key = r"HKLM\SOFTWARE\Microsoft\IIS\CentralCertProvider"
    for name, kind, value in (
        ("Enabled", "REG_DWORD", "1"),
        ("CertStoreLocation", "REG_SZ", r"\\files\certificates"),
        ("UserName", "REG_SZ", r"FARM\certificates"),
        ("Password", "REG_SZ", good),
        ("PrivateKeyPassword", "REG_SZ", bad),
    ):
        host.run(["reg", "add", key, "/v", name, "/t", kind, "/d", value, "/f", "/reg:64"])


# What is staged, what somebody saw, the cause that must come first, words of its evidence, and the name of the step
# that mends it, whose command the test runs; empty where only a person can mend it.
PROVISION = "webfarm.iis.provision"
CASES = [
    (
        key_file_deleted,
        ["Keyset does not exist", "The system cannot find the file specified. (0x80070002)"],
        "key_missing",
        ["iisWasKey", "service WAS is stopped", "it fits what was seen"],
        PROVISION,
    ),
    (
        cloned,
        ["GUID stored in the registry got changed", "The handle is invalid."],
        "foreign_guid",
        ["0fe0aeb6-5f4c-4d0c-a9ff-0c8c5d4b1d7e", "service WAS is stopped", "it fits what was seen"],
        PROVISION,
    ),
    (key_replaced, ["Bad Data"], "foreign_key", ["AesProvider", "2048 bits", "has 1024"], PROVISION),
    (two_files, ["several c23 files"], "several_files", ["There are 2 files", "older file"], PROVISION),
    (
        damaged,
        ["Not enough storage is available to process this command"],
        "no_exchange_key",
        ["iisWasKey", "0x8009000D", "service WAS is stopped", "it fits what was seen"],
        "Move-Item",
    ),
    (without_worker, ["500.19"], "worker_access", ["IIS_IUSRS", "iisConfigurationKey"], "webfarm.iis.key"),
    (without_local_service, [], "wmsvc_access", ["LOCAL SERVICE", "iisWasKey"], "webfarm.iis.key"),
    (one_session_key, [], "foreign_key", ["AesProvider", "CFGHISTORY_0000000001"], "webfarm.iis.config"),
    (unknown_provider, [], "unknown_provider", ["1 values do not open"], "webfarm.iis.config"),
    (redirected, [], "redirected", [r"\\files\gone", "service WAS is stopped"], ""),
    (
        wrong_password,
        ["Invalid Identity"],
        "pool_identity",
        ["Local", r"FARM\svc-local", "password opens", "event 5021"],
        "webfarm.iis.secret",
    ),
    (
        does_not_respond,
        ["The service did not respond to the start or control request in a timely fashion"],
        "service_timeout",
        ["W3SVC", "0x8007041D"],
        "Start-Service",
    ),
    (crashes, [], "service_crashed", ["FTPSVC", "0x8007042B"], "Start-Service"),
    (
        not_exportable,
        ["Key not valid for use in specified state, 0x8009000B on export"],
        "not_exportable",
        ["iisWasKey"],
        "",
    ),
    (certificate_store, [], "certificate_store", ["PrivateKeyPassword", "bad_data"], ""),
]


@pytest.fixture(scope="module")
def variables_of_the_farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an inventory would hold for the plays: farm, bundle and custody key."""
    folder = tmp_path_factory.mktemp("project")
    variables = rotation.variables(folder, "web2") | {
        "provision_cng": "portable",
        "the_password": "New-Pa55 of the account",
    }
    (folder / "variables.json").write_text(json.dumps(variables), encoding="utf-8")
    return folder / "variables.json"


def serves(host: Host) -> bool:
    """Services run and the first page comes, be it after some seconds."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        state = host.services()
        if state["WAS"] == state["W3SVC"] == state["FTPSVC"] == "running" and host.http("/", "", 80)[0] == 200:
            return True
        time.sleep(0.5)
    return False


@pytest.mark.parametrize(
    ("stage", "symptoms", "first", "words", "step"),
    CASES,
    ids=[case[0].__name__ for case in CASES],
)
def test_the_right_cause_comes_first_and_its_command_mends_it(
    gather: Callable[[Host], dict[str, Any]],
    pwsh_farm: Farm,
    web2: Host,
    variables_of_the_farm: Path,
    stage: Callable[[Host], None],
    symptoms: list[str],
    first: str,
    words: list[str],
    step: str,
) -> None:
    with_event_log(web2)
    stage(web2)
    facts = gather(web2)
    for symptom in symptoms or [""]:
        found = diagnose(facts, web2.name, symptom)
        told = "\n".join(found["lines"])
        assert found["causes"] and found["causes"][0]["id"] == first, told
        assert found["causes"][0]["severity"] == "broken" and not found["healthy"], told
        missing = [word for word in words if word not in evidence(found["causes"][0])]
        assert not missing, f"{missing} in\n{told}"
        assert not any("event log was not readable" in note for note in found["notes"]), told
        assert "Pa55" not in told and "[enc:" not in told
    if not step:
        return
    assert found["causes"][0]["next"][0]["name"] == step, told
    web2.clear_faults()
    # What cannot be replaced is moved aside first; the step after it brings the key.
    for following in found["causes"][0]["next"][: 2 if step == "Move-Item" else 1]:
        command = following["command"]
        done = run_it(pwsh_farm, command.replace(" -e @VAULTED.yml", ""), "-e", f"@{variables_of_the_farm}")
        assert done.returncode == 0, done.stdout + done.stderr
    assert serves(web2), command
    values = rotation.opened(web2, web2.config.read_text("utf-8-sig"))
    assert values and not any(value.startswith("ERROR") for value in values)
    if first in ("worker_access", "wmsvc_access"):
        sddl = web2.oracle("getsddl", "iisConfigurationKey" if first == "worker_access" else "iisWasKey")
        assert (IUSRS if first == "worker_access" else "LS") in sddl.replace("S-1-5-19", "LS")


def test_a_server_that_serves_is_healthy(examine: Callable[..., dict[str, Any]], web1: Host, unchanged: Any) -> None:
    with unchanged(web1):
        found = examine(web1)
    told = "\n".join(found["lines"])
    assert found["healthy"], told
    assert {cause["severity"] for cause in found["causes"]} <= {"risk", "note"}, told
    assert any("event log was not readable" in note for note in found["notes"]), told


def test_values_of_a_lost_cng_key(examine: Callable[..., dict[str, Any]], web1: Host) -> None:
    web1.key_file("iisCngWasKey", cng=True).unlink()
    found = examine(web1)
    told = "\n".join(found["lines"])
    assert found["causes"][0]["id"] == "cng_key_missing", told
    assert "iisCngWasKey" in evidence(found["causes"][0]) and "config_rewrap" in found["causes"][0]["next"][0]["name"]


def run_it(farm: Farm, command: str, *more: str) -> subprocess.CompletedProcess[str]:
    """A command of the diagnosis, as somebody would type it."""
    words = shlex.split(command)
    assert words[0] in ("ansible", "ansible-playbook")
    return subprocess.run(
        [*words, "-i", str(farm.inventory), *more],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=900,
        check=False,
    )


@pytest.mark.parametrize(
    ("stage", "first"),
    [(foreign_configuration, "foreign_key"), (malformed, "config_malformed"), (left_over, "leftover_tmp")],
    ids=["foreign", "malformed", "left-over"],
)
def test_the_named_command_mends_it(
    examine: Callable[..., dict[str, Any]], pwsh_farm: Farm, web2: Host, stage: Callable[[Host], None], first: str
) -> None:
    good = web2.config.read_bytes()
    stage(web2)
    found = examine(web2)
    told = "\n".join(found["lines"])
    cause = found["causes"][0]
    assert cause["id"] == first, told
    expected = "Copy-Item" if first == "config_malformed" else "webfarm.iis.config"
    assert cause["next"][0]["name"] == expected, told
    if first != "leftover_tmp":
        assert "CFGHISTORY_0000000001" in cause["next"][0]["command"], told
    done = run_it(pwsh_farm, cause["next"][0]["command"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert web2.config.read_bytes() == good
    assert not web2.config.with_name("applicationHost.config.tmp").exists()
    if first == "leftover_tmp":
        assert set(web2.start_services("WAS", "W3SVC").values()) == {"OK"}
    state = web2.services()
    assert state["WAS"] == state["W3SVC"] == "running"


def test_the_playbook(playbook: Callable[..., Any], web3: Host, tmp_path: Any) -> None:
    """web3 has no iisWasKey; the playbook says so, keeps it, and fails only when asked to."""
    variables = {"target_hosts": "web3", "diagnose_dest": str(tmp_path), "diagnose_fail": True}
    done = playbook("webfarm.iis.diagnose", extra_vars=variables)
    assert done.rc == 2 and done.recap["web3"]["failed"] == 1, done.text
    assert "Most likely: Keyset does not exist. (iisWasKey)" in done.stdout
    assert "ansible-playbook webfarm.iis.provision --limit golden,web3" in done.stdout
    assert (tmp_path / "web3.diagnosis.json").stat().st_mode & 0o777 == 0o600
    assert '"id": "key_missing"' in (tmp_path / "web3.diagnosis.json").read_text(encoding="utf-8")


def test_what_keeps_modules_from_running(ansible_module: Module, web2: Host) -> None:
    web2.fault("unelevated")
    facts = ansible_module(web2, "server_info", unreadable="report")
    assert diagnose(facts, "web2")["causes"][0]["id"] == "not_elevated", facts


def test_a_policy_that_trusts_signed_scripts_only(playbook: Callable[..., Any], web2: Host) -> None:
    """PowerShell's own debugging switch for App Control: it enforces, and nothing of Ansible is signed here."""
    key = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Environment"
    web2.run(["reg", "add", key, "/v", "__PSLockdownPolicy", "/t", "REG_SZ", "/d", "4", "/f"])
    try:
        done = playbook("webfarm.iis.diagnose", extra_vars={"target_hosts": "web2"})
    finally:
        web2.run(["reg", "delete", key, "/v", "__PSLockdownPolicy", "/f"])
    assert done.rc == 0, done.text
    assert "Most likely: PowerShell runs in constrained language mode." in done.stdout
    assert "New-AnsiblePowerShellSignature.ps1" in done.stdout


# --- inventory --------------------------------------------------------------------------------------------------------


def header(name: str, cng: bool) -> bytes:
    """The beginning of a key file as Windows writes it: lengths, then the name."""
    raw = name.encode("utf-16-le") if cng else name.encode("ascii") + b"\0"
    words = [1 if cng else 2, 0, len(raw)] + [0] * (4 if cng else 7)
    return b"".join(word.to_bytes(4, "little") for word in words) + (bytes(16) if cng else b"") + raw + b"rest"


def test_which_container_is_this_file(ansible_module: Module, web2: Host) -> None:
    guid = web2.machine_guid
    other = "0fe0aeb6-5f4c-4d0c-a9ff-0c8c5d4b1d7e"
    mine = f"{content.file_prefix('ShopKeys', 'ascii')}_{guid}"
    cng = f"{content.file_prefix('ShopCng', 'utf-16-le')}_{guid}"
    lying = f"{'0' * 32}_{guid}"
    (web2.machine_keys / mine).write_bytes(header("ShopKeys", False))
    (web2.machine_keys / lying).write_bytes(header("ShopKeys", False))
    folder = web2.key_file("iisCngWasKey", cng=True).parent
    (folder / cng).write_bytes(header("ShopCng", True))
    c2319 = f"c2319c42033a5ca7f44e731bfd3fa2b5_{other}"
    (web2.machine_keys / c2319).write_bytes(b"x")
    legacy = web2.drive_c / "Documents and Settings/All Users/Application Data/Microsoft/Crypto/RSA/MachineKeys"
    legacy.mkdir(parents=True)
    (legacy / f"76944fb33636aeddb9590521c2e8815a_{other}").write_bytes(b"of Windows 2003")
    for number in range(5100):
        (folder / f"{number:032x}_{guid}").touch()
    try:
        names = [
            mine,
            cng,
            lying,
            c2319,
            "76944FB33636AEDDB9590521C2E8815A_" + guid,
            f"6de9cb26d2b98c01ec4e9e8b34824aa2_{other}",
        ]
        result = ansible_module(web2, "key_info", decrypt="session", identify=names)
        bad = ansible_module(web2, "key_info", decrypt="none", identify=["machine.key"])
    finally:
        for path in folder.glob("0000*"):
            path.unlink()
        shutil.rmtree(web2.drive_c / "Documents and Settings")
    assert not result.get("failed"), result
    found = [(item["container"], item["store"], item["state"]) for item in result["identified_files"]]
    assert found == [
        ("ShopKeys", "cryptoapi", "active"),
        ("ShopCng", "cng", "active"),
        (None, "cryptoapi", "active"),
        ("Microsoft Internet Information Server", "cryptoapi", "foreign"),
        ("iisWasKey", "cryptoapi", "active"),
        ("iisConfigurationKey", "cryptoapi", "foreign"),
    ]
    containers = {item["container"]: item for item in result["key_containers"]}
    # of the neighbours only the one that has a file, and no word of warning about it
    assert "TSSecKeySet1" not in containers
    assert containers["Microsoft Internet Information Server"]["state"] == "missing"
    assert [item["state"] for item in containers["Microsoft Internet Information Server"]["files"]] == ["foreign"]
    assert not any("Microsoft Internet Information Server" in text for text in result["warnings"])
    assert sorted(item["state"] for item in containers["iisWasKey"]["files"]) == ["active", "legacy"]
    assert "Documents and Settings" in " ".join(item["path"] for item in containers["iisWasKey"]["files"])
    assert containers["iisWasKey"]["age_days"] == 0
    folders = {(item["store"], item["legacy"]): item for item in result["key_folders"]}
    assert folders["cng", False]["bloated"] and folders["cng", False]["files"] == 5100 + 3
    assert not folders["cryptoapi", False]["bloated"] and folders["cryptoapi", False]["foreign_files"] == 1
    assert folders["cryptoapi", False]["foreign_machine_guids"] == [other]
    assert folders["cryptoapi", True]["files"] == 1
    assert any("5103 files" in text for text in result["warnings"])
    # session keys were tried, values were not
    assert {item["verdict"] for item in result["session_keys"]} == {"ok"}
    assert {item["verdict"] for item in result["protected_values"]} == {"untested"}
    assert bad["failed"] and "machine.key" in bad["msg"] and "identify" in bad["msg"]


def test_the_history_is_proven_from_the_newest(ansible_module: Module, web2: Host) -> None:
    """A foreign file that AppHostSvc kept, a damaged one, and before them the last good one."""
    web2.stop_services("AppHostSvc")  # it would keep the present file once more
    history = web2.drive_c / "inetpub/history"
    for number, data in ((2, web2.farm.host("web1").config.read_bytes()), (3, b"<configuration>")):
        folder = history / f"CFGHISTORY_{number:010d}"
        folder.mkdir()
        (folder / "applicationHost.config").write_bytes(data)
    (history / "CFGHISTORY_0000000004").mkdir()
    result = ansible_module(web2, "server_info", gather_subset=["history"])
    assert not result.get("failed"), result
    found = [(one["number"], one["proven"]) for one in result["history"]["snapshots"]]
    assert found == [(4, False), (3, False), (2, False), (1, True)]
    assert result["history"]["last_proven"] == "CFGHISTORY_0000000001"
    assert "no applicationHost.config" in result["history"]["snapshots"][0]["message"]
    assert "not well-formed" in result["history"]["snapshots"][1]["message"]
    assert result["history"]["snapshots"][2]["failing"] > 0
    assert result["events"] is None and result["key_containers"] == []
