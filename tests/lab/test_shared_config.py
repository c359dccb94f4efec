# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module shared_config: Microsoft's route from one server to another, and what becomes of the keys on it.

The cmdlets are the lab's, written after Microsoft's pages. What they do to an RSA key the oracle's
fingerprints tell. Whether Microsoft's key file carries CNG keys is not documented: both cases are here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_transaction_target import HERE, UTILS, library_job, outcome_of, windows

from lab import Farm, Host

Module = Callable[..., dict[str, Any]]
Unchanged = Callable[..., Any]
SECRET = "Farm-Schluessel-2026"
LOCAL = "C:\\export"
SHARE = "\\\\files\\iis"
FILES = ("applicationHost.config", "administration.config", "configEncKey.key")


def share(host: Host, folder: Path) -> None:
    """The same folder outside is C:\\export and the share \\\\files\\iis of this host."""
    folder.mkdir(exist_ok=True)
    local, unc = host.drive_c / "export", host.prefix / "dosdevices/unc/files"
    unc.mkdir(parents=True, exist_ok=True)
    for link in (local, unc / "iis"):
        link.unlink(missing_ok=True)
        link.symlink_to(folder)


@pytest.fixture(autouse=True)
def traces(farm: Farm) -> Iterator[None]:
    """What share() and carry_cng() made is gone after the test."""
    yield
    for name in ("web1", "web2"):
        host = farm.host(name)
        for path in ("drive_c/export", "dosdevices/unc/files/iis", "drive_c/lab/carry-cng"):
            (host.prefix / path).unlink(missing_ok=True)


def carry_cng(*hosts: Host) -> None:
    """The cmdlets of these hosts put the CNG keys into their key files as well."""
    for host in hosts:
        (host.drive_c / "lab/carry-cng").touch()


def fingerprints(host: Host) -> dict[str, str]:
    return {name: one["fingerprint"] for name, one in host.snapshot().containers.items() if name.startswith("iis")}


def cng_keys(host: Host) -> list[bytes]:
    return [host.key_file(name, cng=True).read_bytes() for name in ("iisCngWasKey", "iisCngConfigurationKey")]


def silent(*results: dict[str, Any]) -> None:
    """No result says a secret."""
    for result in results:
        text = json.dumps({name: part for name, part in result.items() if name != "invocation"})
        assert SECRET not in text and "[enc:" not in text


def exported(web1: Host, ansible_module: Module, folder: Path) -> dict[str, Any]:
    share(web1, folder)
    return ansible_module(web1, "shared_config", state="exported", path=LOCAL, key_encryption_password=SECRET)


def test_from_one_server_to_another(
    web1: Host, web2: Host, ansible_module: Module, unchanged: Unchanged, tmp_path: Path
) -> None:
    """Export, enable, disable with the shared configuration kept; each in check mode first and once more afterwards."""
    folder = tmp_path / "share"
    share(web1, folder)
    carry_cng(web1, web2)
    option = {"state": "exported", "path": LOCAL, "key_encryption_password": SECRET}
    with unchanged(web1):
        check = ansible_module(web1, "shared_config", check=True, diff=True, **option)
    assert check["changed"] and not check.get("failed"), check.get("msg", check)
    assert not list(folder.iterdir())
    made = ansible_module(web1, "shared_config", **option)
    assert made["changed"] and not made.get("failed"), made.get("msg", made)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    again = ansible_module(web1, "shared_config", **option)
    assert again["changed"] is False, again

    golden, own = fingerprints(web1), fingerprints(web2)
    assert golden["iisWasKey"] != own["iisWasKey"]
    share(web2, folder)
    option = {"state": "enabled", "path": SHARE, "key_encryption_password": SECRET}
    pins = {name: golden[name] for name in ("iisWasKey", "iisConfigurationKey")}
    with unchanged(web2):
        look = ansible_module(web2, "shared_config", check=True, diff=True, **option)
    assert look["changed"] and not look.get("failed"), look.get("msg", look)
    assert look["diff"]["after"]["shared_config"]["enabled"]
    assert {item["severity"] for item in look["fit"]} == {"note"} and look["missing_features"] == [], look["fit"]
    library = web2.config_dir.parent / "authbas.dll"
    library.rename(library.with_suffix(".aside"))
    with unchanged(web2):
        refused = ansible_module(web2, "shared_config", **option)
    library.with_suffix(".aside").rename(library)
    assert refused["failed"] and "Install-WindowsFeature -Name Web-Basic-Auth" in refused["msg"], refused
    enabled = ansible_module(web2, "shared_config", expected_fingerprints=pins, **option)
    assert enabled["changed"] and not enabled.get("failed"), enabled.get("msg", enabled)
    assert fingerprints(web2)["iisWasKey"] == golden["iisWasKey"]
    assert cng_keys(web2) == cng_keys(web1)
    assert enabled["shared_config"] == {"enabled": True, "path": SHARE, "user_name": ""}
    assert enabled["transaction"]["outcome"] == "committed"
    same = ansible_module(web2, "shared_config", **option)
    assert same["changed"] is False and not same.get("failed"), same.get("msg", same)

    refused = ansible_module(web2, "shared_config", state="disabled")
    assert refused.get("failed") and "put the old keys back" in refused["msg"], refused
    kept = ansible_module(web2, "shared_config", state="disabled", keep="keys_and_configuration")
    assert kept["changed"] and not kept.get("failed"), kept.get("msg", kept)
    assert fingerprints(web2)["iisWasKey"] == golden["iisWasKey"]
    assert web2.config.read_bytes() == (folder / FILES[0]).read_bytes() == web1.config.read_bytes()
    assert web2.services()["W3SVC"] == "running"
    assert ansible_module(web2, "shared_config", state="disabled", keep="keys")["changed"] is False
    silent(check, made, look, enabled, kept)
    for container in ("iisWasKey", "iisConfigurationKey"):
        assert {one["container"]: one["after"] for one in enabled["key_containers"]}[container] == golden[container]


def test_a_server_that_keeps_its_own_keys(web1: Host, ansible_module: Module, tmp_path: Path) -> None:
    """No key is imported; the account is the computer's, so that neither cmdlet gets a password."""
    assert exported(web1, ansible_module, tmp_path / "share")["changed"]
    own, local = fingerprints(web1), web1.config.read_bytes()
    enabled = ansible_module(web1, "shared_config", state="enabled", path=SHARE, copy_keys=False)
    assert enabled["changed"] and not enabled.get("failed"), enabled.get("msg", enabled)
    assert enabled["shared_config"]["enabled"] and fingerprints(web1) == own
    warnings = " ".join(map(str, enabled.get("warnings", [])))
    assert "cannot be tried from here" in warnings, warnings
    kept = ansible_module(web1, "shared_config", state="disabled", keep="keys")
    assert kept["changed"] and not kept.get("failed"), kept.get("msg", kept)
    assert not kept["shared_config"]["enabled"]
    assert fingerprints(web1) == own and web1.config.read_bytes() == local
    assert web1.services()["W3SVC"] == "running"


def test_an_import_that_fails_leaves_the_old_keys(
    web1: Host, web2: Host, ansible_module: Module, tmp_path: Path
) -> None:
    """The cmdlet imports the keys and then fails: keys, redirection and services are the old ones again."""
    folder = tmp_path / "share"
    carry_cng(web1, web2)
    assert exported(web1, ansible_module, folder)["changed"]
    share(web2, folder)
    own, redirection = fingerprints(web2), (web2.config_dir / "redirection.config").read_bytes()
    cng = cng_keys(web2)
    running = web2.services()
    (web2.drive_c / "lab/fail-enable").touch()
    try:
        result = ansible_module(web2, "shared_config", state="enabled", path=LOCAL, key_encryption_password=SECRET)
    finally:
        (web2.drive_c / "lab/fail-enable").unlink()
    assert result.get("failed"), result
    assert "Failed to commit" in result["msg"]
    assert result["transaction"]["outcome"] == "rolled_back"
    assert fingerprints(web2) == own
    assert cng_keys(web2) == cng != cng_keys(web1)
    assert (web2.config_dir / "redirection.config").read_bytes() == redirection
    assert web2.services() == running
    wrong = ansible_module(
        web2, "shared_config", state="enabled", path=LOCAL, key_encryption_password="Falsches-Wort-1"
    )
    assert wrong.get("failed") and "password is incorrect" in wrong["msg"], wrong
    assert fingerprints(web2) == own
    assert cng_keys(web2) == cng
    silent(result)


def test_a_key_file_without_the_cng_keys_of_the_values(
    web1: Host, web2: Host, ansible_module: Module, tmp_path: Path
) -> None:
    """The cmdlet succeeds, but the new keys do not open the shared configuration: everything is put back."""
    folder = tmp_path / "share"
    assert exported(web1, ansible_module, folder)["changed"]
    share(web2, folder)
    own, redirection = fingerprints(web2), (web2.config_dir / "redirection.config").read_bytes()
    result = ansible_module(web2, "shared_config", state="enabled", path=LOCAL, key_encryption_password=SECRET)
    assert result.get("failed") and "iisCngWasKey): bad_data" in result["msg"], result["msg"]
    assert result["transaction"]["outcome"] == "rolled_back"
    assert fingerprints(web2) == own
    assert (web2.config_dir / "redirection.config").read_bytes() == redirection
    assert web2.services()["W3SVC"] == "running"
    warnings = " ".join(map(str, result.get("warnings", [])))
    assert "redirection.config was put back" in warnings and "edited" not in warnings, warnings


IMPORT, WRITE, SAVE = (
    "Read-KeyFile $rsa.ImportCspBlob",
    "Read-KeyFile File.WriteAllBytes",
    "Save-Redirection $Document.Save",
)
# a key file holds three RSA keys, then two CNG keys: what fails, at which write, how many calls behind it, how it ends
FAULTS = [
    # killed: between the RSA keys, behind the one that had no container, in a CNG key, before redirection.config, and
    # when the cmdlet has done everything
    ("before", IMPORT, 1, "killed"),
    ("before", WRITE, 0, "killed"),
    ("during", WRITE, 0, "killed"),
    ("before", SAVE, 0, "killed"),
    ("before", SAVE, 1, "killed"),
    # a key, then redirection.config, cannot be written
    ("once", IMPORT, 1, "rolled_back"),
    ("once", SAVE, 0, "rolled_back"),
    # the disk is full from the first write on, and from the second CNG key on: the first one cannot be put back then
    ("full", "Write-KeyFile File.WriteAllBytes", 0, "rolled_back"),
    ("full", WRITE, 1, "rollback_failed"),
]


def test_faults_at_the_writes_of_the_cmdlet(web1: Host, web2: Host, ansible_module: Module, tmp_path: Path) -> None:
    """Each time: the journal or an undo brings back keys, files and services; nothing is left over."""
    web1.oracle("create", "NetFrameworkConfigurationKey", "2048", "exportable")
    carry_cng(web1, web2)
    assert exported(web1, ansible_module, tmp_path / "share")["changed"]
    share(web2, tmp_path / "share")
    own, serving = fingerprints(web2), web2.http("/", "", 80)[0]
    assert "NetFrameworkConfigurationKey" not in web2.containers() and serving == 200
    folder = web2.drive_c / "lab/shared-steps"
    folder.mkdir()
    job = library_job() | {
        "path": LOCAL,
        "secret": SECRET,
        "instrumented": ["_Deadman", "_Journal", "_Service", "_Transaction", "IISAdministration"],
        "cases": [{"kind": kind, "step": step, "behind": behind} for kind, step, behind, _end in FAULTS],
    }
    job["modules"] += [
        windows(UTILS / "_SharedConfig.psm1"),
        windows(HERE / "files/IISAdministration/IISAdministration.psm1"),
    ]
    try:
        results = outcome_of(web2, "shared_steps.ps1", folder, job, timeout=600)
    finally:
        shutil.rmtree(folder)

    start, new = results["start"], results["new"]
    assert results["enabled"]["outcome"] == "committed", results["enabled"]
    kept = {"applicationHost.config", "administration.config"}
    assert all((new["parts"][name] == mark) is (name in kept) for name, mark in start["parts"].items())
    assert start["parts"]["NetFrameworkConfigurationKey"].startswith("missing")
    # the way back without knowing the key: it is deleted, and kept
    assert results["back"]["outcome"] == "undone" and results["reset"]["parts"] == start["parts"], results["back"]
    assert any(name.startswith("NetFrameworkConfigurationKey.") for name in results["reset"]["found"])
    for case, (kind, step, behind, end) in zip(results["cases"], FAULTS, strict=True):
        name = f"{case['kind']} {case['step']}: {case['outcome']} {case['message']} {case['settled']}"
        assert case["kind"] == kind and (case["step"] == step) is (step != SAVE or behind == 0), name
        assert case["outcome"] == end, name
        open_end = end != "rolled_back"
        assert case["left"]["journal"] is open_end, name
        if open_end:
            assert case["left"]["parts"] != start["parts"], name
            # on a mixture nothing runs, and nothing would start with Windows
            assert set(case["left"]["services"].values()) <= {"stopped manual", "stopped disabled"}, name
        assert case["settled"]["outcome"] == ("undone" if open_end else "none"), name
        made = not case["left"]["parts"]["NetFrameworkConfigurationKey"].startswith("missing")
        assert any("is kept in" in text and "NetFramework" in text for text in case["settled"]["warnings"]) is made, (
            name
        )
        now = case["now"]
        assert now["parts"] == start["parts"] and now["services"] == start["services"], name
        assert not now["journal"] and not now["state"], name
        # Microsoft's own backup of the keys is the cmdlet's affair
        assert set(now["beside"]) - {"localKeys.backup"} == set(start["beside"]), name
        assert SECRET not in json.dumps(case), name
    assert any(
        not case["left"]["parts"]["NetFrameworkConfigurationKey"].startswith("missing") for case in results["cases"]
    )
    assert fingerprints(web2) == own and "NetFrameworkConfigurationKey" not in web2.containers()
    assert web2.http("/", "", 80)[0] == serving


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"state": "exported", "path": LOCAL, "key_encryption_password": "short"}, "it lacks: 8 characters"),
        ({"state": "exported", "path": "export", "key_encryption_password": SECRET}, "no complete path"),
        ({"state": "enabled", "path": "C:\\nowhere", "key_encryption_password": SECRET}, "cannot be read"),
        ({"state": "enabled", "path": LOCAL, "key_encryption_password": SECRET}, "is not in C:\\export"),
        ({"state": "enabled", "path": LOCAL}, "key_encryption_password is needed"),
        (
            {"state": "enabled", "path": LOCAL, "key_encryption_password": SECRET, "user_name": "web", "password": "x"},
            "by web:",
        ),
        ({"state": "disabled"}, "Plain Disable-IISSharedConfig"),
    ],
)
def test_what_is_refused(
    web2: Host, ansible_module: Module, unchanged: Unchanged, tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    share(web2, tmp_path / "empty")
    with unchanged(web2):
        result = ansible_module(web2, "shared_config", **options)
    assert result.get("failed"), result
    assert text in result["msg"], result["msg"]
    assert "Nothing was changed" in result["msg"]
