# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""key: new keys for a server that works, access lists, keys that nobody needs. The C oracle says what is true."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from dependents import TEXTS, Dependents
from rotation import text_argument

from lab import Host

Module = Callable[..., dict[str, Any]]
BOTH = ("iisWasKey", "iisConfigurationKey")


def running(host: Host) -> set[str]:
    return {name for name, state in host.services().items() if state == "running"}


def test_new_keys_without_installing_anything_again(
    ansible_module: Module, web2: Host, unchanged: Callable[..., Any]
) -> None:
    staged = Dependents(web2).stage()
    own, raw, sessions = staged.own(), staged.raw(), staged.sessions()
    before = {name: web2.oracle("fingerprint", name) for name in BOTH}
    acl = {name: web2.oracle("getsddl", name) for name in BOTH}
    services = running(web2)

    with unchanged(web2):
        refused = ansible_module(web2, "key", container="iisWasKey", regenerate="always")
        planned = ansible_module(
            web2, "key", check=True, diff=True, container="iisWasKey", regenerate="always", dependents="reencrypt"
        )
        conforming = ansible_module(web2, "key", container="iisWasKey", size=2048)
        smaller = ansible_module(web2, "key", container="iisWasKey", size=3072)
    assert refused["failed"] and "dependents" in refused["msg"], refused
    assert {fact["file"] for fact in refused["dependent_values"]} == {"applicationHost.config", "registry"}
    assert planned["changed"] and planned["key_containers"][0]["after"]["fingerprint"] is None, planned
    assert {fact["path"] for fact in planned["reencrypted"]} == {fact["path"] for fact in refused["dependent_values"]}
    assert planned["diff"]["after"]["key_containers"] == {"iisWasKey": "a new key"}
    assert not conforming["changed"]
    assert smaller["failed"] and "2048 bits, wanted are 3072" in smaller["msg"]

    done = {
        name: ansible_module(
            web2, "key", container=name, size=3072, regenerate="partial_idempotence", dependents="reencrypt"
        )
        for name in BOTH
    }
    for name, result in done.items():
        assert result["changed"] and result["transaction"]["outcome"] == "committed", result
        now = web2.oracle("fingerprint", name)
        assert result["key_containers"][0]["after"] == {
            "state": "present",
            "fingerprint": now,
            "bits": 3072,
            "exportable": True,
        }
        assert now != before[name] and web2.oracle("getsddl", name) == acl[name]
        assert web2.oracle("publickey", name).split()[0] == "3072"
    # every text is the same, under other session keys; no old ciphertext is left
    assert staged.read() == TEXTS and staged.own() == own
    assert all(new != sessions[name] for name, new in staged.sessions().items())
    assert not set(staged.raw().values()) & set(raw.values())
    assert running(web2) == services
    text = json.dumps([refused, planned, done])
    assert not any(secret in text for secret in (*TEXTS.values(), *own.values()))

    # the same key, without the permission to export it
    kept = web2.oracle("fingerprint", "iisConfigurationKey")
    with unchanged(web2):
        checked = ansible_module(web2, "key", check=True, container="iisConfigurationKey", exportable=False)
    assert checked["changed"] and not checked["key_containers"][0]["generated"]
    fixed = ansible_module(web2, "key", container="iisConfigurationKey", exportable=False)
    assert fixed["changed"] and fixed["key_containers"][0]["after"]["exportable"] is False, fixed
    assert web2.oracle("fingerprint", "iisConfigurationKey") == kept and staged.read() == TEXTS
    again = ansible_module(web2, "key", container="iisConfigurationKey", exportable=True)
    assert again["failed"] and "cannot be exported" in again["msg"]


def test_who_may_read_a_key(ansible_module: Module, web2: Host, unchanged: Callable[..., Any]) -> None:
    with unchanged(web2):
        planned = ansible_module(
            web2,
            "key",
            check=True,
            diff=True,
            container="iisConfigurationKey",
            access={"add": [{"account": "NT AUTHORITY\\NETWORK SERVICE"}]},
        )
        needed = ansible_module(
            web2, "key", container="iisConfigurationKey", access={"remove": [{"account": "IIS_IUSRS"}]}
        )
    assert planned["changed"]
    assert "allow NT AUTHORITY\\NETWORK SERVICE read" in planned["diff"]["after"]["access"]
    assert needed["failed"] and "S-1-5-32-568" in needed["msg"], needed

    services = web2.service_details()
    added = ansible_module(
        web2, "key", container="iisConfigurationKey", access={"add": [{"account": "S-1-5-20", "rights": "read"}]}
    )
    assert added["changed"] and added["steps"][0].startswith("Changed the access lists"), added
    assert web2.oracle("getsddl", "iisConfigurationKey").endswith("(A;;FR;;;NS)")
    assert web2.service_details() == services, "an access list stops nothing"
    exact = ansible_module(
        web2,
        "key",
        container="iisConfigurationKey",
        access={"set": [{"account": "BUILTIN\\IIS_IUSRS"}, {"account": "LocalService"}]},
    )
    assert exact["changed"], exact
    assert {entry["sid"] for entry in exact["access"]["after"]} == {
        "S-1-5-18",
        "S-1-5-32-544",
        "S-1-5-32-568",
        "S-1-5-19",
    }
    with unchanged(web2):
        again = ansible_module(
            web2,
            "key",
            container="iisConfigurationKey",
            access={"set": [{"account": "LocalService"}, {"account": "IIS_IUSRS"}]},
        )
    assert not again["changed"]


def test_a_key_of_one_s_own_comes_and_goes(ansible_module: Module, web2: Host, unchanged: Callable[..., Any]) -> None:
    before = web2.snapshot()
    made = ansible_module(web2, "key", name="ContosoKey", size=4096, exportable=True)
    assert made["changed"] and made["services"] == [], made
    assert web2.oracle("publickey", "ContosoKey").split()[0] == "4096"
    assert made["key_containers"][0]["after"]["fingerprint"] == web2.oracle("fingerprint", "ContosoKey")
    assert web2.oracle("getsddl", "ContosoKey").endswith("(A;;FA;;;SY)(A;;FA;;;BA)")
    gone = ansible_module(web2, "key", name="ContosoKey", state="absent")
    assert gone["changed"] and web2.oracle("exists", "ContosoKey") == "no", gone
    # the state folder, and the backup before the change
    ours = ("webfarm.iis", "backup/webfarm-")
    left = [line for line in before.differences(web2.snapshot()) if not any(name in line for name in ours)]
    assert not left, left
    web = web2.drive_c / "inetpub/wwwroot/web.config"
    section = '<connectionStrings configProtectionProvider="RsaProtectedConfigurationProvider" />'
    web.write_text(f"<configuration>{section}</configuration>")
    ansible_module(web2, "key", name="NetFrameworkConfigurationKey", warm_up=False)
    with unchanged(web2):
        framework = ansible_module(
            web2, "key", name="NetFrameworkConfigurationKey", regenerate="always", dependents="reencrypt"
        )
        again = ansible_module(web2, "key", name="ContosoKey", state="absent")
        in_use = ansible_module(web2, "key", name="iisWasKey", state="absent", dependents="reencrypt")
        cng = ansible_module(web2, "key", name="iisCngWasKey", regenerate="always")
        other = ansible_module(web2, "key", name="WMSvc Certificate Key Container", regenerate="always")
    assert not again["changed"] and not again.get("failed")
    assert framework["failed"] and "aspnet_regiis" in framework["msg"], framework
    assert framework["dependent_values"][0]["path"] == "connectionStrings/@configProtectionProvider"
    assert in_use["failed"] and any("sessionKey" in fact["path"] for fact in in_use["dependent_values"]), in_use
    assert cng["failed"] and "iissetup.exe" in cng["msg"]
    assert other.get("failed") or other["changed"]


def test_a_missing_key_is_made_and_what_is_lost_is_listed(
    ansible_module: Module, web3: Host, unchanged: Callable[..., Any]
) -> None:
    with unchanged(web3):
        refused = ansible_module(web3, "key", container="iisWasKey", dependents="reencrypt")
    assert refused["failed"] and [fact["path"] for fact in refused["lost"]] == [
        "system.applicationHost/applicationPools/add[@name='Local']/processModel/@password"
    ], refused
    accepted = [{"path": fact["path"], "reason": "entered again"} for fact in refused["lost"]]
    done = ansible_module(
        web3,
        "key",
        container="iisWasKey",
        dependents="reencrypt",
        accept_undecryptable=accepted,
        start_services="automatic",
        warm_up=False,
    )
    assert web3.oracle("exists", "iisWasKey") == "yes" and done["changed"], done
    sessions = Dependents(web3).providers()
    assert web3.oracle("unwrap", "iisWasKey", sessions["IISWASOnlyAesProvider"][1])


def test_a_damaged_key_is_replaced_only_when_that_is_said(
    ansible_module: Module, web2: Host, unchanged: Callable[..., Any]
) -> None:
    web2.stop_services("WMSVC", "W3SVC", "WAS")
    file = web2.key_file("iisWasKey")
    web2.write_file(file, b"no key at all")
    end = time.monotonic() + 10
    while not web2.oracle_batch([["fingerprint", "iisWasKey"]], check=False)[0].startswith("ERROR"):
        assert time.monotonic() < end, "the lab did not damage the container"
        time.sleep(0.2)
    options = {"container": "iisWasKey", "dependents": "reencrypt"}
    with unchanged(web2):
        refused = ansible_module(web2, "key", regenerate="partial_idempotence", **options)
        lost = ansible_module(web2, "key", regenerate="full_idempotence", **options)
    assert refused["failed"] and "full_idempotence" in refused["msg"], refused
    assert refused["key_containers"] == [] and lost["failed"] and len(lost["lost"]) == 1, lost
    options["accept_undecryptable"] = [{"path": lost["lost"][0]["path"], "reason": "entered again"}]
    done = ansible_module(web2, "key", regenerate="full_idempotence", **options)
    assert done["changed"] and done["key_containers"][0]["before"]["state"] == "damaged", done
    assert done["key_containers"][0]["after"]["fingerprint"] == web2.oracle("fingerprint", "iisWasKey")
    assert web2.oracle("unwrap", "iisWasKey", Dependents(web2).providers()["IISWASOnlyAesProvider"][1])


# --- CNG keys, by the stand-in for IIS's own setup --------------------------------------------------------------------


def cng_opens(host: Host, container: str, value: str) -> bool:
    return not host.oracle_batch([["decrypt", "cng", container, text_argument(value)]], check=False)[0].startswith(
        "ERROR"
    )


def test_cng_keys_by_iis_s_own_setup(ansible_module: Module, web2: Host, unchanged: Callable[..., Any]) -> None:
    name = "iisCngWasKey"
    file = web2.key_file(name, cng=True)
    old = file.read_bytes()
    value = web2.oracle("encrypt", "cng", name, stdin="Cng-Pa55")
    rsa = {one: web2.oracle("fingerprint", one) for one in BOTH}
    options: dict[str, Any] = {"container": name, "method": "iis_setup", "regenerate": "always"}
    with unchanged(web2):
        conforming = ansible_module(web2, "key", container=name, method="iis_setup")
        elsewhere = ansible_module(web2, "key", container="iisWasKey", method="iis_setup")
        sized = ansible_module(web2, "key", size=2048, **options)
        planned = ansible_module(web2, "key", check=True, diff=True, **options)
    assert not conforming["changed"] and not conforming.get("failed"), conforming
    assert elsewhere["failed"] and "method" in elsewhere["msg"]
    assert sized["failed"] and sized["msg"].startswith("size"), sized
    assert planned["changed"] and planned["diff"]["after"]["key_containers"] == {name: "a new key"}, planned

    # a value that the present key opens
    text = web2.config.read_text("utf-8-sig")
    protected = f"[enc:IISWASOnlyCngProvider:{value}:enc]"
    password = f'<processModel identityType="SpecificUser" userName="x" password="{protected}" />'
    used = text.replace('<add name="DefaultAppPool" />', f'<add name="DefaultAppPool">{password}</add>')
    assert used != text
    web2.write_file(web2.config, used.encode())
    with unchanged(web2):
        refused = ansible_module(web2, "key", dependents="reencrypt", **options)
    assert refused["failed"] and "config_rewrap" in refused["msg"], refused
    assert [fact["container"] for fact in refused["dependent_values"]] == [name]
    web2.write_file(web2.config, text.encode())

    # setup fails after it made the key, makes none, or does not end: the old key is there again and nothing else moved
    services = web2.service_details()
    for fault, words, more in (
        ({"name": "iissetup-after", "code": 1603}, "1603", {}),
        ({"name": "iissetup-without-keys"}, "missing", {}),
        ({"name": "iissetup", "ms": 60000}, "did not end", {"stop_timeout": 1}),
    ):
        web2.fault("service", **fault)
        failed = ansible_module(web2, "key", **options, **more)
        assert failed["failed"] and words in failed["msg"] and "put back" in failed["msg"], failed
        assert failed["transaction"]["outcome"] == "rolled_back" and not failed["changed"], failed
        assert file.read_bytes() == old and cng_opens(web2, name, value)
        web2.clear_faults()

    # it is killed in the middle: the next run puts the old key back before it goes on; this setup edits the file too
    web2.fault("service", name="iissetup", ms=60000)
    web2.fault("kill", marker="ProgramData/webfarm.iis/journal.json", contains='"writing"', after=1)
    killed = ansible_module(web2, "key", **options)
    assert killed.get("failed") or killed.get("unreachable"), killed
    assert not file.exists() and file.with_name(file.name + ".webfarm-old").read_bytes() == old
    web2.clear_faults()
    web2.fault("service", name="iissetup-config")
    configuration = web2.config.read_bytes()
    done = ansible_module(web2, "key", **options)
    assert done["changed"] and done["transaction"]["outcome"] == "committed", done
    assert any("was put back" in text for text in done["warnings"])
    assert any("had changed" in step for step in done["steps"]), done["steps"]
    assert web2.config.read_bytes() == configuration
    assert file.read_bytes() != old and not cng_opens(web2, name, value)
    assert not list(file.parent.glob("*.webfarm-old"))
    kept = web2.drive_c / done["transaction"]["undo_folder"][3:].replace("\\", "/")
    assert (kept / file.name).read_bytes() == old
    assert {one: web2.oracle("fingerprint", one) for one in BOTH} == rsa
    assert web2.service_details() == services, "no service was stopped"

    file.unlink()
    made = ansible_module(web2, "key", container=name, method="iis_setup")
    assert made["changed"] and made["key_containers"][0]["before"]["state"] == "missing", made
    assert cng_opens(web2, name, web2.oracle("encrypt", "cng", name, stdin="another"))
