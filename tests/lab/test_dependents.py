# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys change while the server keeps its own configuration: what the old keys open is listed, or encrypted anew.

All expected texts come from the C oracle.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from dependents import TEXTS, Dependents

from lab import Host

Module = Callable[..., dict[str, Any]]
CONTAINERS = ("iisWasKey", "iisConfigurationKey")
REGISTRY_PATHS = {
    "Password": r"HKLM\SOFTWARE\Microsoft\IIS\CentralCertProvider\Password",
    "PrivateKeyPassword": r"HKLM\SOFTWARE\Microsoft\IIS\CentralCertProvider\PrivateKeyPassword",
}


_made: dict[str, Any] = {}


@pytest.fixture
def bundle(ansible_module: Module, web1: Host, tmp_path: Path) -> dict[str, Any]:
    """Options that bring the golden server's keys to a host. One export serves every test."""
    if _made:
        return _made
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "operator.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "operator.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    dest = tmp_path / "shop.keyset.json"
    made = ansible_module(web1, "key_export", dest=str(dest), farm="shop", recipients=[str(tmp_path / "operator.pem")])
    assert made["changed"], made
    _made.update(
        bundle=str(dest),
        expected_fingerprints={name: web1.oracle("fingerprint", name) for name in CONTAINERS},
        opening_file=str(tmp_path / "operator.key"),
    )
    return _made


def places(facts: list[dict[str, Any]]) -> set[str]:
    """The staged places that a list of facts names."""
    names = set()
    for fact in facts:
        if fact["file"] == "registry":
            names.add(fact["path"].rsplit("\\", 1)[1])
        else:
            names.add(fact["file"].rsplit("\\", 1)[-1])
    return names


def test_the_server_keeps_its_own_configuration(
    ansible_module: Module, bundle: dict[str, Any], web2: Host, unchanged: Callable[..., Any]
) -> None:
    staged = Dependents(web2).stage()
    web2.stop_services("FTPSVC")
    own, raw, sessions = staged.own(), staged.raw(), staged.sessions()
    assert staged.read() == TEXTS and len(own) == 4
    assert {"Ftp-Pa55", "Rewrite-Pa55"} < set(own.values())
    file = web2.config.read_bytes()

    with unchanged(web2):
        refused = ansible_module(web2, "config", **bundle)
    assert refused["failed"] and "dependents" in refused["msg"], refused
    assert places(refused["dependent_values"]) == {*TEXTS, "applicationHost.config"}
    assert {fact["path"] for fact in refused["dependent_values"]} >= set(REGISTRY_PATHS.values())
    # FTP and Rewrite, and Rewrite below a site
    files = [fact["file"] for fact in refused["dependent_values"] if fact["path"].endswith("/@encryptedValue")]
    assert [name.rsplit("\\", 1)[-1] for name in files] == ["applicationHost.config"] * 2 + ["web.config"]

    with unchanged(web2):
        planned = ansible_module(web2, "config", check=True, diff=True, dependents="reencrypt", **bundle)
    assert planned["changed"], planned
    assert places(planned["reencrypted"]) == {*TEXTS, "applicationHost.config"}
    assert len(planned["dependent_files"]) == 5

    done = ansible_module(web2, "config", dependents="reencrypt", **bundle)
    assert done["changed"] and done["transaction"]["outcome"] == "committed", done
    assert places(done["reencrypted"]) == {*TEXTS, "applicationHost.config"} and done["lost"] == []
    assert done["proof"]["proven"] == done["proof"]["total"] == 4
    # the farm's keys, the server's own texts, new session keys, and no old ciphertext
    for name, fingerprint in bundle["expected_fingerprints"].items():
        assert web2.oracle("fingerprint", name) == fingerprint
    assert staged.read() == TEXTS
    assert staged.own() == own
    assert not set(staged.raw().values()) & set(raw.values())
    assert all(new != sessions[name] for name, new in staged.sessions().items())
    old = {line for line in file.splitlines() if b"[enc:" in line and b"::enc]" not in line}
    assert old and not old & set(web2.config.read_bytes().splitlines())
    assert {name: state for name, state in web2.services().items() if state == "running"}.keys() >= {"WAS", "W3SVC"}
    assert web2.services()["FTPSVC"] == "stopped"
    text = json.dumps([refused, planned, done])
    assert not any(secret in text for secret in (*TEXTS.values(), *own.values()))

    with unchanged(web2):
        again = ansible_module(web2, "config", dependents="reencrypt", **bundle)
    assert not again["changed"] and not again.get("failed"), again


def test_what_nothing_opens_is_listed_and_everything_is_put_back(
    ansible_module: Module, bundle: dict[str, Any], web2: Host, unchanged: Callable[..., Any]
) -> None:
    staged = Dependents(web2).stage()
    foreign = web2.oracle("sessionkey", "iisConfigurationKey")
    value = web2.oracle("encrypt", "aes", "iisConfigurationKey", foreign, stdin="Foreign-Pa55")
    element = f'<a password="[enc:AesProvider:{value}:enc]" />'
    staged.files["web.config"].write_text(f"<configuration>{element}</configuration>", encoding="utf-8")
    staged.set_registry("PrivateKeyPassword", "QUFBQUFBQUE=")

    with unchanged(web2):
        refused = ansible_module(web2, "config", dependents="reencrypt", **bundle)
    assert refused["failed"] and "entered again" in refused["msg"], refused
    assert places(refused["lost"]) == {"web.config", "PrivateKeyPassword"}

    accepted = [{"path": fact["path"], "reason": "entered again by the team"} for fact in refused["lost"]]
    before = {name: web2.oracle("fingerprint", name) for name in CONTAINERS}
    files = {name: path.read_bytes() for name, path in staged.files.items()} | {"main": web2.config.read_bytes()}
    raw = staged.raw()
    url = {"url": "http://localhost/", "status": [418]}
    options = {"dependents": "reencrypt", "accept_undecryptable": accepted, **bundle}
    rolled = ansible_module(web2, "config", verify_urls=[url], start_timeout=5, **options)
    assert rolled["failed"] and rolled["transaction"]["outcome"] == "rolled_back", rolled
    assert {name: web2.oracle("fingerprint", name) for name in CONTAINERS} == before
    now = {name: path.read_bytes() for name, path in staged.files.items()} | {"main": web2.config.read_bytes()}
    assert now == files
    assert staged.raw() == raw

    done = ansible_module(web2, "config", **options)
    assert done["changed"] and places(done["lost"]) == {"web.config", "PrivateKeyPassword"}, done
    assert staged.raw()["PrivateKeyPassword"] == "QUFBQUFBQUE="
    assert web2.oracle("decrypt", "rsa", "iisWasKey", stdin=staged.raw()["Password"]) == TEXTS["Password"]


def test_keys_alone_for_a_server_that_stands_still(
    ansible_module: Module, bundle: dict[str, Any], web2: Host, unchanged: Callable[..., Any]
) -> None:
    staged = Dependents(web2).stage()
    own = staged.own()
    with unchanged(web2):
        running = ansible_module(web2, "key_import", dependents="reencrypt", **bundle)
    assert running["failed"] and "allow_running" in running["msg"], running
    web2.stop_services("WMSVC", "FTPSVC", "W3SVC", "WAS")
    with unchanged(web2):
        refused = ansible_module(web2, "key_import", **bundle)
    assert refused["failed"] and places(refused["dependent_values"]) == {*TEXTS, "applicationHost.config"}, refused
    done = ansible_module(web2, "key_import", dependents="reencrypt", **bundle)
    assert done["changed"] and len(done["dependent_files"]) == 5, done
    assert {name: web2.oracle("fingerprint", name) for name in CONTAINERS} == bundle["expected_fingerprints"]
    assert staged.read() == TEXTS and staged.own() == own
    assert web2.services()["WAS"] == "stopped"
