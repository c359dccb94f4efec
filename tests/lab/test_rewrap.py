# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Without identical keys: each server keeps its own, and gets a file wrapped for it. iiscrypt.exe opens it there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rotation import text_argument
from test_canary import hits, needles, plaintexts
from test_provision import CONTAINERS, fingerprints, statuses

from lab import Host

PROVIDER = re.compile(r'<add name="(\w+)"[^>]*keyContainerName="(\w+)"[^>]*sessionKey="([^"]+)"')
VALUE = re.compile(r"\[enc:(\w+):([^:\]]+):enc\]")


@pytest.fixture
def provision(playbook: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """No recipient, no custody key, no passphrase: nothing of a private key is needed on the controller."""
    variables = {
        "provision_farm": "shop",
        "provision_strategy": "rewrap",
        "provision_work_dir": str(tmp_path / "work"),
        "provision_cng": "portable",
        "provision_start_services": "automatic",
    }

    def run(*arguments: str, env: dict[str, str] | None = None, **more: Any) -> Any:
        return playbook("webfarm.iis.provision", *arguments, extra_vars=variables | more, env=env, timeout=1800)

    return run


def sessions(host: Host) -> dict[str, str]:
    """The session keys of a server's file, as its own keys open them in CryptoAPI."""
    text = host.config.read_text("utf-8-sig")
    return {name: host.oracle("unwrap", container, blob) for name, container, blob in PROVIDER.findall(text)}


def skeleton(content: bytes) -> str:
    """The file with session keys and data of protected values blanked."""
    text = re.sub(r'sessionKey="[^"]+"', 'sessionKey=""', content.decode("utf-8-sig"))
    return VALUE.sub(r"[enc:\1:enc]", text)


def test_each_server_keeps_its_key_and_opens_its_own_file(
    web1: Host, web2: Host, web3: Host, provision: Callable[..., Any], unchanged: Callable[..., Any], tmp_path: Path
) -> None:
    """Check mode, the run with every secret looked for, the run again: web3 lacks a key that is made for it."""
    work = tmp_path / "work"
    texts = plaintexts(web1)
    wanted = needles(web1, texts)
    golden, before2, before3 = fingerprints(web1), fingerprints(web2), fingerprints(web3)
    assert "iisWasKey" not in before3

    with unchanged(web1, web2, web3):
        check = provision("--check", "--diff")
    assert check.rc == 0, check.text
    assert not work.exists()
    assert check.recap["web2"]["changed"] == 1
    assert "6 of 6 (target)" in check.text
    assert "web3 lacks a key" in check.text

    local, temporary, log = tmp_path / "ansible-local", tmp_path / "tmp", tmp_path / "ansible.log"
    local.mkdir()
    temporary.mkdir()
    places = {"ANSIBLE_LOCAL_TEMP": str(local), "TMPDIR": str(temporary), "ANSIBLE_LOG_PATH": str(log)}
    with unchanged(web1):
        first = provision("-vvvvvv", "--diff", env=places)
    assert first.rc == 0, first.text[-4000:]

    # Every server opens every value with its own keys, in another implementation.
    after2, after3 = fingerprints(web2), fingerprints(web3)
    assert after2 == before2
    assert after3["iisConfigurationKey"] == before3["iisConfigurationKey"]
    for name in CONTAINERS:
        assert len({golden[name], after2[name], after3[name]}) == 3
    for host in (web2, web3):
        assert sorted(plaintexts(host)) == sorted(texts)
        assert statuses(host) == [200, 200, 200]
        assert sessions(host) == sessions(web1)
        made = (work / "shop.rewrap" / host.name / "applicationHost.config").read_bytes()
        assert host.config.read_bytes() == made
        assert skeleton(made) == skeleton((work / "shop.applicationHost.config").read_bytes())
        assert "[enc:IISWASOnlyCngProvider:" not in made.decode("utf-8-sig").replace("[enc:IISWASOnlyCngProvider::", "")
    assert {path.stat().st_mode & 0o777 for path in work.rglob("*") if path.is_file()} == {0o600}

    # No private key and no session key or text of the golden server anywhere: not in output, logs, files or events.
    found = {name: hits(content, wanted) for name, content in traces(first.text, tmp_path, (web1, web2, web3)).items()}
    assert not {name: what for name, what in found.items() if what}
    assert log.stat().st_size > 10_000

    with unchanged(web1, web2, web3):
        second = provision()
    assert second.rc == 0, second.text
    assert second.changed == 0

    # Without the golden server its last answer serves; a server that got another key meanwhile is refused as it is.
    web2.oracle("delete", "iisConfigurationKey")
    web2.oracle("create", "iisConfigurationKey", "2048", "exportable")
    with unchanged(web2):
        refused = provision("--limit", "web2")
    assert refused.rc != 0
    assert "0x80090005" in refused.text
    pinned = provision("--limit", "web1,web2", provision_expected_fingerprints={"iisConfigurationKey": "0" * 64})
    assert pinned.rc != 0
    assert "expected_fingerprints says 000" in pinned.text


def traces(output: str, folder: Path, hosts: tuple[Host, ...]) -> dict[str, bytes]:
    """Everything that a run left behind."""
    left = {"output": output.encode()}
    left |= {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for host in hosts:
        left[f"{host.name}: configuration"] = host.config.read_bytes()
        left[f"{host.name}: events"] = json.dumps(host.events()).encode()
    return left


def test_a_session_key_of_one_server_opens_nothing_of_another(
    web1: Host, web2: Host, web3: Host, provision: Callable[..., Any], unchanged: Callable[..., Any], tmp_path: Path
) -> None:
    run = provision(provision_session_key="per_host")
    assert run.rc == 0, run.text[-4000:]
    texts = sorted(plaintexts(web1))
    keys = [sessions(host) for host in (web1, web2, web3)]
    for name in keys[0]:
        assert len({one[name] for one in keys}) == 3
    for host in (web2, web3):
        assert sorted(plaintexts(host)) == texts
        assert statuses(host) == [200, 200, 200]

    # What somebody could do who took web2's private keys and web3's file: web2's session key on web3's data.
    own = {name: (container, blob) for name, container, blob in PROVIDER.findall(web2.config.read_text("utf-8-sig"))}
    provider, data = next(pair for pair in VALUE.findall(web2.config.read_text("utf-8-sig")) if pair[0] in own)
    assert web2.oracle_batch([["decrypt", "aes", *own[provider], text_argument(data)]])[0] in texts
    tried = 0
    for provider, data in VALUE.findall(web3.config.read_text("utf-8-sig")):
        if provider in own:
            question = ["decrypt", "aes", *own[provider], text_argument(data)]
            assert web2.oracle_batch([question], check=False)[0] not in texts
            tried += 1
    assert tried >= 4
    for name, container, blob in PROVIDER.findall(web3.config.read_text("utf-8-sig")):
        answer = web2.oracle_batch([["unwrap", container, blob]], check=False)[0]
        assert answer.startswith("ERROR 0x80090005"), name

    # The controller lost its files: new ones are made, with other session keys. The members hold what means the same.
    shutil.rmtree(tmp_path / "work")
    with unchanged(web2, web3):
        again = provision(provision_session_key="per_host")
    assert again.rc == 0, again.text
    assert {name: recap["changed"] for name, recap in again.recap.items()} == {"web1": 1, "web2": 0, "web3": 0}
