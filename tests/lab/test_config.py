# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""config and key_import, module by module: what is refused, what is rolled back, what a second run does.

The oracle, the bytes on the disk and the stand-ins for IIS say what is true; the modules' own answers are only
compared with them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from test_diagnose import MODULES as EVENT_LOG
from test_diagnose import with_event_log

from lab import Farm, Host, tls

CONTAINERS = ("iisWasKey", "iisConfigurationKey")
SECURE = "secure.shop.example"
SITES = (("/", "shop.example", 80), ("/orders", "shop.example", 80), ("/", "", 8080))
Module = Callable[..., dict[str, Any]]
Unchanged = Callable[..., AbstractContextManager[None]]


def fingerprints(host: Host) -> dict[str, str]:
    present = host.containers()
    return {name: host.oracle("fingerprint", name) for name in CONTAINERS if name in present}


def serves(host: Host) -> list[int]:
    return [host.http(path, header, port)[0] for path, header, port in SITES]


class Material:
    """A bundle and a candidate of web1, a bundle of web2's own keys, and the options that every call shares."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.golden: dict[str, str] = {}
        command = (
            "openssl req -x509 -newkey rsa:2048 -days 10 -nodes -subj /CN=custody -keyout custody.key -out custody.crt"
        )
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def options(self, **more: Any) -> dict[str, Any]:
        options = {
            "src": self.path("candidate.config"),
            "bundle": self.path("shop.keyset.json"),
            "expected_fingerprints": self.golden,
            "opening_file": self.path("custody.key"),
            "stop_timeout": 5,
            "start_timeout": 20,
        }
        return {name: value for name, value in (options | more).items() if value is not None}


@pytest.fixture(scope="module")
def material(pwsh_farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def shop(material: Material, ansible_module: Module, farm: Farm) -> Material:
    """The material, exported once."""
    if material.golden:
        return material
    web1, web2 = farm.host("web1"), farm.host("web2")
    web1.reset()
    web2.reset()
    shared = {"farm": "shop", "recipients": [material.path("custody.crt")]}
    done = ansible_module(web1, "key_export", dest=material.path("shop.keyset.json"), **shared)
    assert done.get("changed"), done
    done = ansible_module(web1, "config_rewrap", dest=material.path("candidate.config"), cng="portable")
    assert done.get("changed"), done
    done = ansible_module(web2, "key_export", dest=material.path("own.keyset.json"), **shared)
    assert done.get("changed"), done
    material.golden = fingerprints(web1)
    return material


def kept(host: Host) -> tuple[bytes, dict[str, str], dict[str, str]]:
    """What a rollback has to bring back."""
    return host.config.read_bytes(), fingerprints(host), host.services()


def no_traces(host: Host) -> None:
    """Nothing of a run is left: no journal, no undo set, no transport key, no temporary file."""
    assert set(host.containers()) <= set(CONTAINERS)
    state = host.drive_c / "ProgramData" / "webfarm.iis"
    assert not [path for path in state.rglob("*") if path.is_file() and path.parent.name != "backups"]
    # the backup before the change stays
    names = [path.name for path in (host.config_dir.parent / "backup").iterdir()]
    assert len(names) == 1 and names[0].startswith("webfarm-"), names
    assert [path.name for path in (state / "backups").iterdir()] == [f"{names[0]}.json"]
    assert not [path.name for path in host.config_dir.iterdir() if "webfarm" in path.name or path.name.endswith(".tmp")]


@contextlib.contextmanager
def sni_site(host: Host, folder: Path) -> Iterator[list[str]]:
    """An https site on the host that only the name in the TLS greeting leads to; afterwards what it was asked."""
    _authority, certificate, key = tls.make(folder / "tls", [SECURE])
    command = [*host.enter, sys.executable, str(Path(__file__).with_name("sni_site.py"))]
    asked: list[str] = []
    with subprocess.Popen(
        [*command, str(certificate), str(key), "8443", SECURE], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "8443\n"
        try:
            yield asked
        finally:
            process.kill()
            asked += process.stdout.read().splitlines()


def test_check_mode_proves_and_changes_nothing(
    shop: Material, ansible_module: Module, web2: Host, unchanged: Unchanged
) -> None:
    with unchanged(web2):
        plan = ansible_module(web2, "config", check=True, diff=True, **shop.options())
    assert plan["changed"] is True, plan
    assert plan["proof"]["method"] == "bundle"
    assert plan["proof"]["proven"] == plan["proof"]["total"] > 5
    shown = json.dumps(plan["diff"])
    assert shop.golden["iisWasKey"] in shown and "/@password" in shown and "[enc:" not in shown


def test_change_then_unchanged(shop: Material, ansible_module: Module, web2: Host, unchanged: Unchanged) -> None:
    planned = ansible_module(web2, "config", check=True, **shop.options())
    before = {path.name: path.read_bytes() for path in web2.config_dir.glob("*.config")}
    with sni_site(web2, shop.folder) as asked:
        urls = [{"url": "https://127.0.0.1:8443/", "host_header": SECURE}]
        done = ansible_module(web2, "config", backup=True, verify_urls=urls, **shop.options())
    assert done["changed"] is True, done
    assert asked == [f"{SECURE} {SECURE}:8443"]
    verdicts = [(value["path"], value["verdict"]) for value in done["protected_values"]]
    assert verdicts == [(value["path"], value["verdict"]) for value in planned["protected_values"]]
    assert web2.config.read_bytes() == Path(shop.path("candidate.config")).read_bytes()
    assert fingerprints(web2) == shop.golden
    assert serves(web2) == [200, 200, 200]
    assert done["transaction"]["outcome"] == "committed"
    prior = web2.config_dir.parent / "backup" / done["transaction"]["backup"]
    assert prior.name.endswith(done["transaction"]["id"].rsplit("-")[-1])
    held = {path.name: path.read_bytes() for path in prior.iterdir()}
    assert held == before and [path.name for path in prior.parent.iterdir()] == [prior.name]
    listed = web2.run(["C:\\windows\\system32\\inetsrv\\appcmd.exe", "list", "backups"]).stdout.decode()
    assert f'BACKUP "{prior.name}"' in listed
    assert set(web2.containers()) == set(CONTAINERS)
    with unchanged(web2):
        again = ansible_module(web2, "config", **shop.options())
    assert again["changed"] is False, again
    assert again["transaction"] == {"outcome": "none"}


def test_keys_that_do_not_fit_are_refused_before_anything_is_written(
    shop: Material, ansible_module: Module, web2: Host, unchanged: Unchanged
) -> None:
    own = fingerprints(web2)
    with unchanged(web2):
        refused = ansible_module(
            web2, "config", **shop.options(bundle=shop.path("own.keyset.json"), expected_fingerprints=own)
        )
    assert refused["failed"] and "/@password" in refused["msg"] and "IISWASOnlyAesProvider" in refused["msg"], refused
    with unchanged(web2):
        refused = ansible_module(web2, "config", **shop.options(expected_fingerprints=own))
    assert refused["failed"] and "expected_fingerprints" in refused["msg"], refused
    with unchanged(web2):
        refused = ansible_module(web2, "config", **shop.options(expected_fingerprints=None))
    assert refused["failed"] and "signer_certificate" in refused["msg"], refused


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("malformed", b"<configuration><open></configuration>", ["line 1", "well-formed"]),
        ("utf16", "<configuration />".encode("utf-16"), ["UTF-16"]),
        ("absent", None, ["absent.config"]),
    ],
)
def test_a_candidate_that_is_no_configuration(
    shop: Material,
    ansible_module: Module,
    web2: Host,
    unchanged: Unchanged,
    name: str,
    content: bytes | None,
    words: list[str],
) -> None:
    path = shop.folder / f"{name}.config"
    if content is not None:
        path.write_bytes(content)
    with unchanged(web2):
        refused = ansible_module(web2, "config", **shop.options(src=str(path)))
    assert refused["failed"], refused
    for word in words:
        assert word in refused["msg"], refused["msg"]


def redirect(host: Host) -> None:
    text = (
        '<configuration><configurationRedirection enabled="true" path="\\\\files\\iis" userName="u" password="p" />'
        "</configuration>"
    )
    (host.config_dir / "redirection.config").write_text(text)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda host: host.config.unlink(), ["applicationHost.config", "does not exist"]),
        (lambda host: host.config.chmod(0o444), ["read-only"]),
        (lambda host: host.config.write_bytes(host.config.read_bytes()[:-20]), ["applicationHost.config", "line"]),
        (redirect, ["\\\\files\\iis"]),
    ],
    ids=["absent", "read-only", "malformed", "redirection"],
)
def test_a_live_file_that_cannot_be_replaced_safely(
    shop: Material,
    ansible_module: Module,
    web2: Host,
    unchanged: Unchanged,
    damage: Callable[[Host], Any],
    words: list[str],
) -> None:
    # AppHostSvc and WAS react to the damage by themselves.
    web2.stop_services("WMSVC", "FTPSVC", "W3SVC", "WAS", "AppHostSvc")
    damage(web2)
    with unchanged(web2):
        refused = ansible_module(web2, "config", **shop.options())
    assert refused["failed"], refused
    for word in words:
        assert word in refused["msg"], refused["msg"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"name": "fail-worker"}, "500.19"),
        ({"name": "refuse-start-W3SVC", "times": 1}, "W3SVC"),
        ({"name": "refuse-stop-WAS", "times": 100}, "WAS"),
        ({"name": "bad-identity-Orders"}, "Orders"),
        ({"name": "lose-worker-Shop"}, "the application pool Shop has no worker process"),
    ],
    ids=["worker", "start", "stop", "identity", "lost-worker"],
)
def test_what_goes_wrong_ends_in_the_old_state_running(
    shop: Material, ansible_module: Module, web2: Host, fault: dict[str, Any], words: str
) -> None:
    before = kept(web2)
    web2.fault("service", **fault)
    failed = ansible_module(web2, "config", **shop.options())
    web2.clear_faults()
    assert failed["failed"], failed
    assert words in failed["msg"], failed["msg"]
    assert failed["transaction"]["outcome"] == "rolled_back", failed["msg"]
    assert "State:" in failed["msg"] and "Next:" in failed["msg"]
    assert kept(web2) == before
    no_traces(web2)


def test_an_event_of_iis_since_the_start_ends_in_the_old_state(
    shop: Material, ansible_module: Module, web2: Host
) -> None:
    before = kept(web2)
    with_event_log(web2)
    try:
        when = time.time()
        # before the services were started it counts nothing, and the same again after it neither; what is new does
        logged = ((-120, 5057, "Broken"), (-60, 5057, "Earlier"), (300, 5059, "Later"), (300, 5057, "Broken"))
        for moment, number, pool in ((when + offset, *rest) for offset, *rest in logged):
            event = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)),
                "source": "Microsoft-Windows-WAS",
                "id": number,
                "message": f"Application pool {pool} has been disabled.",
            }
            with (web2.drive_c / "lab/events.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(event) + "\n")
        failed = ansible_module(web2, "config", **shop.options())
        assert failed["failed"] and failed["transaction"]["outcome"] == "rolled_back", failed
        assert "5059" in failed["msg"] and "Later" in failed["msg"]
        assert "Earlier" not in failed["msg"] and "Broken" not in failed["msg"]
        assert kept(web2) == before
        no_traces(web2)
        # what a good start logs is no trouble
        (web2.drive_c / "lab/events.jsonl").unlink()
        done = ansible_module(web2, "config", **shop.options())
        assert done.get("changed") is True, done
    finally:
        (web2.drive_c / EVENT_LOG).unlink()


def test_a_full_disk_ends_in_the_old_state(shop: Material, ansible_module: Module, web2: Host) -> None:
    before = kept(web2)
    # no room for the backup: nothing is begun
    web2.fault("full_disk", folder="windows/system32/inetsrv", free_kb=0)
    refused = ansible_module(web2, "config", **shop.options())
    web2.clear_faults()
    assert refused["failed"] and "The backup 'webfarm-" in refused["msg"], refused
    assert "nothing was changed and nothing was stopped" in refused["msg"], refused["msg"]
    assert refused["transaction"]["outcome"] == "none" and refused["transaction"]["backup"] is None
    assert kept(web2) == before and not list(web2.config_dir.parent.glob("backup/*"))
    # room for the backup, none for the file
    web2.fault("full_disk", folder="windows/system32/inetsrv/config", free_kb=0)
    failed = ansible_module(web2, "config", **shop.options())
    web2.clear_faults()
    assert failed["failed"] and failed["transaction"]["outcome"] == "rolled_back", failed
    assert kept(web2) == before
    no_traces(web2)


def test_a_connection_lost_in_the_second_call_is_settled_by_the_next_run(
    shop: Material, ansible_module: Module, web2: Host
) -> None:
    # The first command compares and ends; the second one is killed as soon as it has written its journal.
    web2.fault("kill", marker="ProgramData/webfarm.iis/journal.json", skip=1)
    lost = ansible_module(web2, "config", **shop.options())
    web2.clear_faults()
    assert lost.get("failed") or lost.get("unreachable"), lost
    done = ansible_module(web2, "config", **shop.options())
    assert not done.get("failed"), done
    assert web2.config.read_bytes() == Path(shop.path("candidate.config")).read_bytes()
    assert fingerprints(web2) == shop.golden
    assert serves(web2) == [200, 200, 200]
    assert set(web2.containers()) == set(CONTAINERS)
    assert not (web2.drive_c / "ProgramData/webfarm.iis/journal.json").exists()


def test_key_import_is_for_servers_out_of_service(
    shop: Material, ansible_module: Module, web3: Host, unchanged: Unchanged
) -> None:
    options = shop.options(src=None, stop_timeout=None, start_timeout=None, containers=["iisWasKey"])
    pins = {"iisWasKey": shop.golden["iisWasKey"]}
    with unchanged(web3):
        refused = ansible_module(web3, "key_import", **options)
    assert refused["failed"] and "FTPSVC" in refused["msg"], refused
    web3.stop_services("FTPSVC")
    with unchanged(web3):
        plan = ansible_module(web3, "key_import", check=True, **options)
    assert plan["changed"] is True, plan
    done = ansible_module(web3, "key_import", **options | {"expected_fingerprints": pins})
    assert done["changed"] is True, done
    assert fingerprints(web3)["iisWasKey"] == shop.golden["iisWasKey"]
    # A new container is not exportable, and only SYSTEM, Administrators and WMSVC's account may read it.
    assert "0x8009000B" in web3.oracle_batch([["export", "iisWasKey", "private"]], check=False)[0]
    sddl = web3.oracle("getsddl", "iisWasKey")
    assert (
        "S-1-5-32-568" not in sddl and ";IS)" not in sddl and ";;;SY)" in sddl and ";;;BA)" in sddl and ";;;LS)" in sddl
    )
    with unchanged(web3):
        again = ansible_module(web3, "key_import", **options)
    assert again["changed"] is False, again


def test_offline_proof_says_what_the_target_says(
    shop: Material, ansible_module: Module, web1: Host, playbook: Callable[..., Any], tmp_path: Path
) -> None:
    """The golden server's own file: values under CNG keys need a target, all others agree."""
    facts = ansible_module(web1, "key_info")
    source = tmp_path / "golden.config"
    source.write_bytes(web1.config.read_bytes())
    task = {
        "webfarm.iis.config_proof": {
            "src": str(source),
            **{name: shop.options()[name] for name in ("bundle", "expected_fingerprints", "opening_file")},
        },
        "register": "proof",
        "ignore_errors": True,
    }
    copy = {
        "ansible.builtin.copy": {
            "content": "{{ proof | to_json }}",
            "dest": str(tmp_path / "proof.json"),
            "mode": "0600",
        }
    }
    run = playbook([{"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": [task, copy]}])
    assert run.rc == 0, run.text
    proof = json.loads((tmp_path / "proof.json").read_text())
    target = {v["path"]: v["verdict"] for v in facts["protected_values"] if v["file"] == "applicationHost.config"}
    kinds = {v["path"]: v["kind"] for v in proof["protected_values"]}
    offline = {v["path"]: v["verdict"] for v in proof["protected_values"]}
    assert set(kinds.values()) == {"aes", "rsa", "cng"}
    assert offline == {path: "needs_target" if kinds[path] == "cng" else verdict for path, verdict in target.items()}
    assert proof["failed"] and "CNG" in proof["msg"]
