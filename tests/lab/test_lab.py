# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab itself: what the other tests rely on."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from winrm import Protocol
from winrm.exceptions import InvalidCredentialsError, WinRMOperationTimeoutError

from lab import Farm, Host, content, endpoint


def protocol(host: Host, password: str | None = None, timeout: int = 20) -> Protocol:
    """pywinrm, as Ansible uses it."""
    given = host.inventory_vars()
    return Protocol(
        f"https://127.0.0.1:{host.port}/wsman",
        transport="basic",
        username=given["ansible_user"],
        password=password or given["ansible_password"],
        ca_trust_path=given["ansible_winrm_ca_trust_path"],
        operation_timeout_sec=timeout,
        read_timeout_sec=timeout + 10,
    )


def powershell(client: Protocol, shell: str, script: str, stdin: bytes | None = None) -> tuple[bytes, bytes, int]:
    encoded = base64.b64encode(script.encode("utf-16-le")).decode("ascii")
    command = client.run_command(shell, "PowerShell", ["-NoProfile", "-NonInteractive", "-EncodedCommand", encoded])
    if stdin is not None:
        for at in range(0, len(stdin), 100_000):
            client.send_command_input(shell, command, stdin[at : at + 100_000], end=at + 100_000 >= len(stdin))
    try:
        return client.get_command_output(shell, command)
    finally:
        client.cleanup_command(shell, command)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("PowerShell -NoProfile -Command x", ["PowerShell", "-NoProfile", "-Command", "x"]),
        (r'"C:\Program Files\a.exe" "b c"', [r"C:\Program Files\a.exe", "b c"]),
        (r'a "b\"c" d\\ "e\\"', ["a", 'b"c', "d\\\\", "e\\"]),
        ('a ""', ["a", ""]),
    ],
)
def test_a_command_line_is_split_as_windows_does(line: str, words: list[str]) -> None:
    assert endpoint.split_command_line(line) == words


def test_key_files_are_named_by_the_rule_of_windows() -> None:
    assert content.file_prefix("iisWasKey", "ascii") == "76944fb33636aeddb9590521c2e8815a"
    assert content.file_prefix("iisConfigurationKey", "ascii") == "6de9cb26d2b98c01ec4e9e8b34824aa2"
    assert content.file_prefix("iisCngWasKey", "utf-16-le") == "597367cc37b886d7ee6c493e3befb421"
    assert content.file_prefix("iisCngConfigurationKey", "utf-16-le") == "f0e91f6485ac2d09485e4ec18135601e"


def test_each_host_is_its_own_server(farm: Farm, web1: Host, web2: Host, web3: Host) -> None:
    told = {name: host.run(["cmd", "/c", "echo", "%COMPUTERNAME%"]) for name, host in farm.hosts.items()}
    for name, answer in told.items():
        assert answer.stdout.decode().strip() == name.upper(), answer
    prints = [host.oracle("fingerprint", "iisConfigurationKey") for host in farm.hosts.values()]
    assert len(set(prints)) == 3
    assert [host.oracle("exists", "iisWasKey") for host in farm.hosts.values()] == ["yes", "yes", "no"]


def test_the_golden_server_serves_and_uses_every_provider(web1: Host) -> None:
    text = web1.config.read_text(encoding="utf-8")
    for provider in (
        "IISWASOnlyRsaProvider",
        "IISCngProvider",
        "IISWASOnlyCngProvider",
        "AesProvider",
        "IISWASOnlyAesProvider",
    ):
        assert f"[enc:{provider}:" in text
    assert web1.services()["WAS"] == web1.services()["W3SVC"] == "running"
    assert web1.http("/", "shop.example")[0] == 200


def test_without_its_key_the_server_does_not_start(web3: Host) -> None:
    assert web3.services()["WAS"] == "stopped"
    assert not web3.key_file("iisWasKey").exists()
    assert web3.key_file("iisConfigurationKey").is_file()
    assert web3.start_services("WAS") != {"WAS": "OK"}


def test_shells_run_at_the_same_time(pwsh_farm: Farm, web2: Host) -> None:
    client = protocol(web2)
    one, two = client.open_shell(), client.open_shell()
    try:
        encoded = base64.b64encode("Start-Sleep -Seconds 3; 'slow'".encode("utf-16-le")).decode("ascii")
        slow = client.run_command(one, "PowerShell", ["-EncodedCommand", encoded])
        began = time.monotonic()
        out, err, code = powershell(client, two, "'fast'; [Console]::Error.WriteLine('oops'); exit 7")
        assert (out.strip(), err.strip(), code) == (b"fast", b"oops", 7)
        assert time.monotonic() - began < 2.9
        assert client.get_command_output(one, slow)[0].strip() == b"slow"
    finally:
        client.close_shell(one, close_session=False)
        client.close_shell(two)


def test_receive_answers_in_time(pwsh_farm: Farm, web2: Host) -> None:
    client = protocol(web2, timeout=1)
    shell = client.open_shell()
    try:
        encoded = base64.b64encode("Start-Sleep -Seconds 9".encode("utf-16-le")).decode("ascii")
        command = client.run_command(shell, "PowerShell", ["-EncodedCommand", encoded])
        began = time.monotonic()
        with pytest.raises(WinRMOperationTimeoutError):
            client.get_command_output_raw(shell, command)
        assert 0.9 < time.monotonic() - began < 2.5
        client.cleanup_command(shell, command)  # Signal ends it
    finally:
        client.close_shell(shell)


def test_large_input_and_output(pwsh_farm: Farm, web2: Host) -> None:
    client = protocol(web2)
    shell = client.open_shell()
    try:
        line = b"x" * 99 + b"\n"
        out, _err, code = powershell(
            client, shell, "$all = @($input); \"$($all.Count)\"; 'y' * 700000", stdin=line * 6000
        )
        assert code == 0
        count, text = out.split()
        assert count == b"6000"
        assert len(text) == 700000
    finally:
        client.close_shell(shell)


def test_a_wrong_password_is_refused(web2: Host) -> None:
    with pytest.raises(InvalidCredentialsError):
        protocol(web2, password="wrong").open_shell()


def test_reset_brings_everything_back(web2: Host) -> None:
    before = web2.snapshot()
    web2.config.write_bytes(b"<configuration/>")
    (web2.drive_c / "ProgramData/webfarm.iis").mkdir()
    web2.oracle("delete", "iisWasKey")
    web2.oracle("setsddl", "iisConfigurationKey", "D:(A;;FA;;;SY)(A;;FA;;;BA)")
    web2.stop_services("W3SVC")
    assert before.differences(web2.snapshot())
    web2.reset()
    assert before.differences(web2.snapshot()) == []


def test_a_full_disk(pwsh_farm: Farm, web2: Host) -> None:
    folder = "windows/system32/inetsrv/config"
    script = (
        "try { [IO.File]::WriteAllText('C:\\windows\\system32\\inetsrv\\config\\x.txt', 'x'); 'written' } "
        "catch { '{0:x8}' -f $_.Exception.InnerException.HResult }"
    )
    web2.fault("full_disk", folder=folder)
    assert web2.pwsh(script).strip() == "80070070"
    web2.clear_faults()
    assert web2.pwsh(script).strip() == "written"
    web2.reset()
    assert not (web2.config_dir / "x.txt").exists()


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("drop", {"action": "Receive"}),
    ("drop", {"after_bytes": 3000}),
    ("kill", {"after": 0.3}),
]


@pytest.mark.parametrize(("kind", "args"), FAULTS)
def test_a_broken_connection(pwsh_farm: Farm, web2: Host, kind: str, args: dict[str, Any]) -> None:
    web2.fault(kind, **args)
    client = protocol(web2)
    if kind == "kill":
        out, _err, code = powershell(client, client.open_shell(), "Start-Sleep -Seconds 30; 'end'")
        assert (out, code) == (b"", 1)
    else:
        with pytest.raises(OSError):
            powershell(client, client.open_shell(), "'y' * 20000")
    web2.clear_faults()
    client = protocol(web2)
    shell = client.open_shell()
    assert powershell(client, shell, "'fine'")[0].strip() == b"fine"
    client.close_shell(shell)


def test_a_token_that_is_not_elevated(pwsh_farm: Farm, web2: Host) -> None:
    script = (
        "(New-Object Security.Principal.WindowsPrincipal([Security.Principal.WindowsIdentity]::GetCurrent()))"
        ".IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator); $env:LAB_EXTRA"
    )
    web2.fault("unelevated")
    web2.fault("environment", variables={"LAB_EXTRA": "more"})
    client = protocol(web2)
    shell = client.open_shell()
    assert powershell(client, shell, script)[0].split() == [b"False", b"more"]
    web2.clear_faults()
    assert powershell(client, shell, script)[0].split() == [b"True"]
    client.close_shell(shell)
