# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's story as assertions: the playbook on the simulated farm."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import Farm, Host

# The sites of the golden server: host header and port.
SITES = (("/", "shop.example", 80), ("/orders", "shop.example", 80), ("/", "", 8080))
CONTAINERS = ("iisWasKey", "iisConfigurationKey")
PASSPHRASE = "Passphrase-of-the-custody-key"


def statuses(host: Host) -> list[int]:
    return [host.http(path, header, port)[0] for path, header, port in SITES]


def fingerprints(host: Host) -> dict[str, str]:
    return {name: host.oracle("fingerprint", name) for name in CONTAINERS if name in host.containers()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The variables of the farm, with a custody key pair made by openssl."""
    folder: Path = tmp_path_factory.mktemp("project")
    command = "openssl req -x509 -newkey rsa:3072 -days 3650 -subj /CN=custody -keyout custody.key -out custody.crt"
    subprocess.run([*command.split(), "-passout", f"pass:{PASSPHRASE}"], cwd=folder, check=True, capture_output=True)
    return {
        "provision_farm": "shop",
        "provision_work_dir": str(folder / "work"),
        "provision_recipients": [str(folder / "custody.crt")],
        "provision_opening_file": str(folder / "custody.key"),
        "provision_opening_passphrase": PASSPHRASE,
        "provision_cng": "portable",
        "provision_start_services": "automatic",
    }


Provision = Callable[..., Any]


@pytest.fixture
def provision(playbook: Callable[..., Any], project: dict[str, Any]) -> Provision:
    def run(*arguments: str, env: dict[str, str] | None = None, **more: Any) -> Any:
        return playbook("webfarm.iis.provision", *arguments, extra_vars=project | more, env=env)

    return run


def test_a_naive_copy_fails_as_administrators_know_it(web1: Host, web2: Host) -> None:
    web2.stop_services()
    web2.config.write_bytes(web1.config.read_bytes())
    seen = len(web2.events())
    web2.start_services()
    assert statuses(web2) == [503, 503, 503]
    events = web2.events()[seen:]
    assert {event["id"] for event in events} >= {5021, 5057}
    assert {event["hresult"] for event in events if event["id"] == 5021} == {"0x80090005"}


def test_the_story(
    farm: Farm,
    web1: Host,
    web2: Host,
    web3: Host,
    provision: Provision,
    project: dict[str, Any],
    unchanged: Callable[..., Any],
) -> None:
    """Check mode, the run, the run again, a member alone, a drifted member: one after the other on the same farm."""
    work = Path(project["provision_work_dir"])
    golden = fingerprints(web1)

    with unchanged(web1, web2, web3):
        check = provision("--check", "--diff")
    assert check.rc == 0, check.text
    assert not work.exists()
    assert "6 of 6 (golden)" in check.text
    for name in CONTAINERS:
        assert golden[name] in check.text
    assert "processModel" in check.text

    with unchanged(web1):
        first = provision()
    assert first.rc == 0, first.text
    assert {name: recap["changed"] for name, recap in first.recap.items()} == {"web1": 2, "web2": 1, "web3": 1}
    for host in (web2, web3):
        assert fingerprints(host) == golden
        assert statuses(host) == [200, 200, 200]
        assert {name: host.services()[name] for name in ("WAS", "W3SVC", "AppHostSvc")} == dict.fromkeys(
            ("WAS", "W3SVC", "AppHostSvc"), "running"
        )
    assert web2.config.read_bytes() == web3.config.read_bytes() == (work / "shop.applicationHost.config").read_bytes()
    # CNG values stay in the golden server's own file and are in no candidate.
    assert re.search(rb"\[enc:IIS(WASOnly)?CngProvider:(?!:)", web1.config.read_bytes())
    assert not re.search(rb"\[enc:IIS(WASOnly)?CngProvider:(?!:)", web2.config.read_bytes())
    assert {path.stat().st_mode & 0o777 for path in work.iterdir()} == {0o600}
    # The new key belongs to those who need it, and to nobody else.
    assert "S-1-5-32-568" not in web3.oracle("getsddl", "iisWasKey")

    with unchanged(web1, web2, web3):
        second = provision()
    assert second.rc == 0, second.text
    assert second.changed == 0
    assert "6 of 6 (target)" in second.text

    pins = {
        key["container"]: key["fingerprint"]
        for key in json.loads((work / "shop.keyset.json").read_text())["containers"]
    }
    assert pins == golden
    alone = provision("--limit", "web2", provision_expected_fingerprints=pins)
    assert alone.rc == 0, alone.text
    assert alone.changed == 0

    # The bundle is on disk now: check mode opens it and proves with its keys.
    web2.reset()
    with unchanged(web2):
        drifted = provision("--check", "--limit", "web2", provision_expected_fingerprints=pins)
    assert drifted.rc == 0, drifted.text
    assert drifted.recap["web2"]["changed"] == 1
    assert "6 of 6 (bundle)" in drifted.text

    wrong = dict.fromkeys(pins, "0" * 64)
    with unchanged(web2):
        refused = provision("--limit", "web2", provision_expected_fingerprints=wrong)
    assert refused.rc != 0
    assert "expected_fingerprints says" in refused.text

    with unchanged(web2):
        unpinned = provision("--limit", "web2")
    assert unpinned.rc != 0
    assert "provision_expected_fingerprints" in unpinned.text


def test_values_under_cng_keys_are_refused_by_default(
    web1: Host, web2: Host, provision: Provision, unchanged: Callable[..., Any], tmp_path: Path
) -> None:
    with unchanged(web1, web2):
        run = provision(provision_cng="refuse", provision_work_dir=str(tmp_path / "work"))
    assert run.rc != 0
    assert "IISWASOnlyCngProvider" in run.text
    assert not (tmp_path / "work" / "shop.applicationHost.config").exists()
    assert run.recap["web2"]["ok"] == run.recap["web2"]["changed"] == 0, run.text


def test_a_server_that_does_not_come_back_stops_the_run(
    web1: Host, web2: Host, web3: Host, provision: Provision, unchanged: Callable[..., Any], tmp_path: Path
) -> None:
    """The worker of web2 fails with 500.19: rolled back, drained, and web3 is not touched."""
    drain = tmp_path / "drain.yml"
    drain.write_text("- ansible.builtin.debug: {msg: 'DRAINED {{ inventory_hostname }}'}\n", encoding="utf-8")
    undrain = tmp_path / "undrain.yml"
    undrain.write_text("- ansible.builtin.debug: {msg: 'UNDRAINED {{ inventory_hostname }}'}\n", encoding="utf-8")
    before, old = fingerprints(web2), web2.config.read_bytes()
    web2.fault("service", name="fail-worker-Shop")
    with unchanged(web3):
        run = provision(
            provision_drain_tasks=str(drain),
            provision_undrain_tasks=str(undrain),
            provision_work_dir=str(tmp_path / "work"),
        )
    assert run.rc != 0
    assert "500" in run.text
    assert " DRAINED web2" in run.text.replace('"', " ")
    assert "UNDRAINED web2" not in run.text
    assert fingerprints(web2) == before
    assert web2.config.read_bytes() == old
    assert web2.services()["W3SVC"] == "running"


@pytest.mark.parametrize("name", ["ANSIBLE_DEBUG", "ANSIBLE_KEEP_REMOTE_FILES"])
def test_no_bundle_is_opened_where_arguments_are_shown(
    web2: Host, provision: Provision, project: dict[str, Any], unchanged: Callable[..., Any], name: str
) -> None:
    if not Path(project["provision_work_dir"], "shop.keyset.json").exists():
        assert provision("--limit", "golden").rc == 0
    pins = {"iisWasKey": "0" * 64, "iisConfigurationKey": "0" * 64}
    with unchanged(web2):
        run = provision("--limit", "web2", env={name: "1"}, provision_expected_fingerprints=pins)
    assert run.rc != 0
    assert f"{name} is on" in run.text
    assert os.environ.get(name) is None


LOGS = "system.applicationHost/sites/siteDefaults/logFile/@directory"
BINDING = "system.applicationHost/sites/site[@name='Shop']/bindings/binding/@bindingInformation"


def test_values_of_their_own_for_two_members(
    web1: Host,
    web2: Host,
    web3: Host,
    farm: Farm,
    provision: Provision,
    project: dict[str, Any],
    unchanged: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Host variables: each member holds the candidate with its own values, and nothing else differs."""
    own = {
        "web2": {LOGS: "C:\\inetpub\\logs\\web2 & more", BINDING: "127.0.0.1:80:shop.example"},
        "web3": {LOGS: "C:\\inetpub\\logs\\web3"},
    }
    candidate = (Path(project["provision_work_dir"]), "shop.applicationHost.config")
    done = provision("--diff", provision_overrides="{{ own_values[inventory_hostname] | default({}) }}", own_values=own)
    assert done.rc == 0, done.text
    assert "web2 & more" in done.text and "log_folder_absent" in done.text
    source = candidate[0].joinpath(candidate[1]).read_bytes()
    for host, values in ((web2, own["web2"]), (web3, own["web3"])):
        expected = source
        for old, new in (
            (b'logFormat="W3C" directory="%SystemDrive%\\inetpub\\logs\\LogFiles"', values[LOGS]),
            (b'bindingInformation="*:80:shop.example"', values.get(BINDING)),
        ):
            if new is not None:
                assert expected.count(old) == 1
                value = old[: old.rindex(b'="') + 2] + new.replace("&", "&amp;").encode() + b'"'
                expected = expected.replace(old, value)
        assert host.config.read_bytes() == expected
        assert statuses(host) == [200, 200, 200]
    with unchanged(web2, web3):
        again = provision(provision_overrides="{{ own_values[inventory_hostname] | default({}) }}", own_values=own)
    assert again.rc == 0, again.text
    assert {name: recap["changed"] for name, recap in again.recap.items()} == {"web1": 0, "web2": 0, "web3": 0}
    wrong = {"web2": {"system.applicationHost/sites/site[@name='Shop']/bindings/binding[2]/@bindingInformation": "x"}}
    with unchanged(web2):
        refused = provision(
            "--limit",
            "web1,web2",
            provision_overrides="{{ own_values[inventory_hostname] | default({}) }}",
            own_values=wrong,
        )
    assert refused.rc != 0 and BINDING in refused.text, refused.text
