# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Known secrets are looked for everywhere after a whole run at the highest verbosity. None may be found."""

from __future__ import annotations

import base64
import json
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Host

CONTAINERS = ("iisWasKey", "iisConfigurationKey")
PASSPHRASE = "Canary-passphrase-of-the-custody-key"
# Only shorter pieces of a number would be met by chance or belong to the public half.
SHORTEST = 8


def private_numbers(blob: bytes) -> dict[str, bytes]:
    """P, Q, DP, DQ, InverseQ and D of a PRIVATEKEYBLOB, little-endian as CryptoAPI writes them."""
    bits = struct.unpack_from("<I", blob, 12)[0]
    size, half = bits // 8, bits // 16
    at = 20 + size
    numbers = {}
    for name in ("P", "Q", "DP", "DQ", "InverseQ"):
        numbers[name] = blob[at : at + half]
        at += half
    numbers["D"] = blob[at : at + size]
    return numbers


def encodings(secret: bytes) -> Iterator[bytes]:
    """The secret as it could lie in a file or a log: raw, hexadecimal, base64 at any offset."""
    for form in (secret, secret[::-1]):
        yield form
        yield form.hex().encode()
        yield form.hex().upper().encode()
        # PowerShell and .NET print bytes so.
        yield "-".join(f"{byte:02X}" for byte in form[:32]).encode()
        yield ", ".join(str(byte) for byte in form[:32]).encode()
        for shift in range(3):
            text = base64.b64encode(b"\0" * shift + form)
            yield text[4 if shift else 0 : -4]
    yield str(int.from_bytes(secret, "little")).encode()
    yield str(int.from_bytes(secret, "big")).encode()


def text_encodings(secret: str) -> Iterator[bytes]:
    for form in (secret.encode(), secret.encode("utf-16-le")):
        yield form
        yield form.hex().encode()
        for shift in range(3):
            yield base64.b64encode(b"\0" * shift + form)[4 if shift else 0 : -4]
    yield json.dumps(secret)[1:-1].encode()


def needles(host: Host, texts: list[str]) -> dict[bytes, str]:
    """What is looked for, and what it is."""
    found: dict[bytes, str] = {}
    sessions = re.findall(
        r'<add name="(\w+)"[^>]*keyContainerName="(\w+)"[^>]*sessionKey="([^"]+)"', host.config.read_text("utf-8-sig")
    )
    assert len(sessions) == 2
    for container in CONTAINERS:
        for name, number in private_numbers(base64.b64decode(host.oracle("export", container, "private"))).items():
            for form in encodings(number):
                found[form] = f"{name} of {container}"
    for provider, container, wrapped in sessions:
        session = bytes.fromhex(host.oracle("unwrap", container, wrapped).split()[1])
        for form in encodings(session):
            found[form] = f"session key of {provider}"
    for text in texts:
        for form in text_encodings(text):
            found[form] = f"text {text[:6]}..."
    return {form: what for form, what in found.items() if len(form) >= SHORTEST}


def plaintexts(host: Host) -> list[str]:
    """The passwords of the golden server's file, opened by the oracle."""
    text = host.config.read_text("utf-8-sig")
    sessions = dict(re.findall(r'<add name="(\w+)"[^>]*sessionKey="([^"]+)"', text))
    containers = dict(re.findall(r'<add name="(\w+)"[^>]*keyContainerName="(\w+)"', text))
    found = []
    for provider, value in re.findall(r"\[enc:(\w+):([^:\]]+):enc\]", text):
        container = containers[provider]
        if "Cng" in provider:
            command = ["decrypt", "cng", container]
        elif provider in sessions:
            command = ["decrypt", "aes", container, sessions[provider]]
        else:
            command = ["decrypt", "rsa", container]
        found.append(host.oracle(*command, stdin=value))
    return found


def hits(content: bytes, wanted: dict[bytes, str]) -> set[str]:
    return {what for form, what in wanted.items() if form in content}


def module_arguments(text: str) -> list[dict[str, Any]]:
    """What the modules on the targets said they were called with: compact JSON in what the connection received."""
    decoder = json.JSONDecoder()
    return [
        decoder.raw_decode(text, found.end())[0] for found in re.finditer(r'"invocation":\{"module_args":(?=\{)', text)
    ]


def test_the_search_finds_what_is_there(web1: Host) -> None:
    """The search itself: planted secrets are found in every encoding."""
    texts = plaintexts(web1)
    assert len(texts) == 6
    assert all(len(text) > SHORTEST for text in texts)
    wanted = needles(web1, texts)
    blob = base64.b64decode(web1.oracle("export", "iisWasKey", "private"))
    names = {f"{name} of iisWasKey" for name in ("P", "Q", "DP", "DQ", "InverseQ", "D")}
    for planted in (blob, base64.b64encode(blob), b"x" + base64.b64encode(b"yy" + blob), blob.hex().encode()):
        assert hits(planted, wanted) == names
    for text in texts:
        assert hits(text.encode("utf-16-le"), wanted)
        assert hits(f"password is {text}".encode(), wanted)


def test_no_secret_is_found_anywhere(
    web1: Host, web2: Host, web3: Host, playbook: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = needles(web1, [*plaintexts(web1), PASSPHRASE])
    folder = tmp_path / "project"
    folder.mkdir()
    command = "openssl req -x509 -newkey rsa:2048 -days 10 -subj /CN=custody -keyout custody.key -out custody.crt"
    subprocess.run([*command.split(), "-passout", f"pass:{PASSPHRASE}"], cwd=folder, check=True, capture_output=True)
    (folder / "passphrase").write_text(PASSPHRASE)
    hosts = (web1, web2, web3)
    before = {host.name: host.snapshot().files for host in hosts}

    # Everything that the controller may write lies here.
    local, temporary = tmp_path / "ansible-local", tmp_path / "tmp"
    local.mkdir()
    temporary.mkdir()
    log = tmp_path / "ansible.log"
    variables = {
        "provision_work_dir": str(folder / "work"),
        "provision_recipients": [str(folder / "custody.crt")],
        "provision_opening_file": str(folder / "custody.key"),
        "provision_opening_passphrase": "{{ lookup('ansible.builtin.file', '" + str(folder / "passphrase") + "') }}",
        "provision_cng": "portable",
        "provision_start_services": "automatic",
    }
    env = {"ANSIBLE_LOCAL_TEMP": str(local), "TMPDIR": str(temporary), "ANSIBLE_CALLBACK_RESULT_INDENTATION": "1"}
    kept = {
        "ANSIBLE_LOG_PATH": str(log),
        "ANSIBLE_CACHE_PLUGIN": "jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "facts"),
    }

    def provision(*arguments: str, **more: str) -> Any:
        run = playbook("webfarm.iis.provision", "--diff", *arguments, extra_vars=variables, env=env | more)
        assert run.rc == 0, run.text[-3000:]
        return run

    # Keys do not travel while a fact cache keeps variables: that one is filled by a run in which none has to.
    run = provision("-vvvvvv", ANSIBLE_LOG_PATH=str(log))
    again = provision("-vvvvvv", **kept)
    assert again.changed == 0
    assert '"invocation"' in run.text
    assert log.stat().st_size > 10_000

    # Ansible.Basic writes every unmasked argument to the event log of the target: none may be large.
    arguments = module_arguments(run.text)
    assert any("_sealed" in call for call in arguments)
    assert max(len(json.dumps(value)) for call in arguments for value in call.values()) < 8192

    found: dict[str, set[str]] = {}

    def look(name: str, content: bytes) -> None:
        result = hits(content, wanted)
        if result:
            found[name] = result

    for number, output in enumerate((run, again), 1):
        look(f"output of run {number}", output.text.encode())
    custody = {folder / "passphrase"}
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file() and path not in custody:
            look(str(path.relative_to(tmp_path)), path.read_bytes())
    changed = 0
    for host in hosts:
        after = host.snapshot().files
        for name, digest in after.items():
            if digest != "folder" and before[host.name].get(name) != digest:
                changed += 1
                look(f"{host.name}: {name}", (host.drive_c / name).read_bytes())
        look(f"{host.name}: events", json.dumps(host.events()).encode())
    assert changed > 4
    assert not found, found
    # A transport key pair is deleted in any case.
    for host in hosts:
        assert set(host.containers()) == set(CONTAINERS)
