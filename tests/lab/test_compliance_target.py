# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compliance run over the lab, whose servers have one trouble each. The judge of it is the lab's own C program."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from lab import Host

# The stand-ins of the CNG keys have the permissions of Unix files, so their access lists say nothing.
READERS = {
    "iisWasKey": ["S-1-5-18", "S-1-5-32-544", "S-1-5-19"],
    "iisConfigurationKey": ["S-1-5-18", "S-1-5-32-544", "S-1-5-19", "S-1-5-32-568"],
}
POLICY = {"name": "lab", "rules": {"key_access": {"readers": READERS}}}


@pytest.fixture
def compliance(playbook: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def run(*arguments: str, **variables: Any) -> tuple[Any, dict[str, dict[str, Any]]]:
        given = {
            "compliance_report_dir": str(tmp_path / "records"),
            "compliance_policy": POLICY,
            "compliance_farm": "shop",
        }
        given["compliance_retry_delay"] = 0
        done = playbook("webfarm.iis.compliance", *arguments, extra_vars=given | variables, env={"ANSIBLE_FORKS": "3"})
        report = json.loads((tmp_path / "records" / "report" / "compliance.json").read_text(encoding="utf-8"))
        return done, {one["host"]: one for one in report["hosts"]}

    return run


def test_every_trouble_has_its_verdict(
    compliance: Callable[..., Any],
    web1: Host,
    web2: Host,
    web3: Host,
    unchanged: Callable[..., AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    # web1: CNG values. web2: the configuration of web1 without its keys, a reader too many, a left-over file; the first
    # connection breaks. web3: no iisWasKey.
    web2.oracle("setsddl", "iisWasKey", "D:(A;;FA;;;SY)(A;;FA;;;BA)(A;;FR;;;LS)(A;;FR;;;S-1-5-32-568)")
    web2.config.write_bytes(web1.config.read_bytes())
    (web2.config_dir / "applicationHost.config.tmp").write_bytes(b"<configuration")
    web2.fault("drop", times=1)
    time.sleep(3)  # AppHostSvc keeps a copy of the new file by itself
    with unchanged(web1, web2, web3):
        done, hosts = compliance(compliance_fail_on=["values_open"])
    assert done.rc == 2, done.text
    assert "do not comply (fail_on: values_open)" in done.text

    def status(host: str) -> dict[str, str]:
        return {rule: verdict["status"] for rule, verdict in hosts[host]["verdicts"].items()}

    for host in (web1, web2, web3):
        assert hosts[host.name]["state"] == "answered"
        for container, fingerprint in hosts[host.name]["keys"].items():
            assert fingerprint == host.oracle("fingerprint", container).split()[0].lower()
    assert status("web1")["values_open"] == "pass"
    assert status("web1")["providers_allowed"] == "fail"
    assert "IISWASOnlyCngProvider" in hosts["web1"]["verdicts"]["providers_allowed"]["reason"]
    assert status("web2")["values_open"] == "fail"
    assert "bad_data" in hosts["web2"]["verdicts"]["values_open"]["reason"]
    assert status("web2")["key_access"] == "fail"
    assert "IIS_IUSRS" in hosts["web2"]["verdicts"]["key_access"]["reason"]
    assert status("web2")["configuration_sound"] == "fail"
    assert status("web3")["values_open"] == "fail"
    assert "NTE_BAD_KEYSET" in hosts["web3"]["verdicts"]["keys_equal"]["reason"]
    assert status("web1")["key_access"] == status("web3")["key_access"] == "pass"
    text = "".join(path.read_text(encoding="utf-8-sig") for path in (tmp_path / "records").rglob("*") if path.is_file())
    assert "[enc:" not in text
    assert "PRIVATE KEY" not in text


def test_an_unreachable_and_an_unelevated_host(
    compliance: Callable[..., Any], web1: Host, web2: Host, web3: Host
) -> None:
    web2.fault("drop")
    web3.fault("unelevated")
    done, hosts = compliance()
    assert done.rc == 0, done.text
    assert {name: one["state"] for name, one in hosts.items()} == {
        "web1": "answered",
        "web2": "unreachable",
        "web3": "failed",
    }
    assert "elevated" in hosts["web3"]["verdicts"]["reachable"]["reason"]
    assert {verdict["status"] for rule, verdict in hosts["web2"]["verdicts"].items() if rule != "reachable"} == {
        "unknown"
    }
