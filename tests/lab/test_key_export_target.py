# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""key_export and config_rewrap on the golden server: what it refuses to hand out, and what it hands out."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from lab import Host

Module = Callable[..., dict[str, Any]]
VALUE = re.compile(r"\[enc:(\w+):[^:\"]+:enc\]")


@pytest.fixture
def recipient(tmp_path: Path) -> str:
    """The certificate of somebody who may open the bundle."""
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
    path = tmp_path / "operator.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return str(path)


def replace_value(host: Host, provider: str, value: str) -> None:
    """Put another protected value in the place of the first one under a provider."""
    # or they would notice the edit, and write their own copies of it while the test compares
    host.stop_services("W3SVC", "WAS", "AppHostSvc")
    text = host.config.read_bytes().decode("utf-8")
    changed = re.sub(rf"\[enc:{provider}:[^:\"]+:enc\]", value, text, count=1)
    assert changed != text
    host.config.write_bytes(changed.encode("utf-8"))


def foreign_value(host: Host) -> str:
    """A value under another session key of the same container, as a paste from another file is."""
    session = host.oracle("sessionkey", "iisConfigurationKey")
    return host.oracle("encrypt", "aes", "iisConfigurationKey", session, stdin="Foreign-Pa55")


def test_a_server_that_cannot_read_itself_exports_nothing(
    ansible_module: Module,
    web1: Host,
    recipient: str,
    tmp_path: Path,
    unchanged: Callable[..., Any],
) -> None:
    replace_value(web1, "AesProvider", f"[enc:AesProvider:{foreign_value(web1)}:enc]")
    replace_value(web1, "IISWASOnlyRsaProvider", "[enc:NoSuchProvider:QUFBQQ==:enc]")
    dest = tmp_path / "shop.keyset.json"
    options = {"dest": str(dest), "farm": "shop", "recipients": [recipient]}
    with unchanged(web1):
        refused = ansible_module(web1, "key_export", **options)
    assert refused["failed"], refused
    assert (
        "garbage" in refused["msg"]
        and "unknown_provider" in refused["msg"]
        and "accept_undecryptable" in refused["msg"]
    )
    assert not dest.exists()
    bad = {item["path"]: item for item in refused["protected_values"] if item["verdict"] != "ok"}
    assert {item["verdict"] for item in bad.values()} == {"garbage", "unknown_provider"}
    assert all(item["cause"] and item["fix"] and item["line"] for item in bad.values())

    accept = [{"path": path, "reason": "broken for years"} for path in bad]
    accepted = ansible_module(
        web1, "key_export", accept_undecryptable=[*accept, {"path": "no/such/@attribute", "reason": "old"}], **options
    )
    assert not accepted.get("failed"), accepted
    assert accepted["accepted_undecryptable"] == sorted(accept, key=lambda item: item["path"])
    assert any("no/such/@attribute" in text for text in accepted["warnings"])
    assert dest.exists()
    text = json.dumps(accepted)
    assert "sealed" not in text and "_export_refusal" not in text and "Pa55" not in text


def test_containers_that_do_not_leave_the_server(
    ansible_module: Module, web1: Host, recipient: str, tmp_path: Path
) -> None:
    dest = tmp_path / "shop.keyset.json"
    options = {"dest": str(dest), "farm": "shop", "recipients": [recipient]}
    cng = ansible_module(web1, "key_export", containers=["iisWasKey", "iisCngWasKey"], **options)
    assert cng["failed"] and "CNG key" in cng["msg"] and "portable" in cng["msg"]
    missing = ansible_module(web1, "key_export", containers=["webfarmLabNever"], **options)
    assert missing["failed"] and "webfarmLabNever is missing" in missing["msg"] and "0x80090016" in missing["msg"]
    web1.oracle("create", "webfarmLabFixed", "2048", "nonexportable")
    try:
        fixed = ansible_module(web1, "key_export", check=True, containers=["webfarmLabFixed"], **options)
    finally:
        web1.oracle("delete", "webfarmLabFixed")
    assert fixed["failed"] and "0x8009000B" in fixed["msg"] and "not exportable" in fixed["msg"]
    reasonless = ansible_module(web1, "key_export", accept_undecryptable=[{"path": "a/@b", "reason": " "}], **options)
    assert reasonless["failed"] and "reason" in reasonless["msg"]
    assert not dest.exists()


def test_values_under_cng_keys_are_refused_or_made_portable(
    ansible_module: Module,
    web1: Host,
    tmp_path: Path,
    unchanged: Callable[..., Any],
) -> None:
    dest = tmp_path / "applicationHost.config"
    before = web1.config.read_bytes().decode("utf-8")
    with unchanged(web1):
        refused = ansible_module(web1, "config_rewrap", dest=str(dest))
        checked = ansible_module(web1, "config_rewrap", check=True, dest=str(dest), cng="portable")
        assert not dest.exists()
        copied = ansible_module(web1, "config_rewrap", dest=str(dest), cng="portable")
        again = ansible_module(web1, "config_rewrap", dest=str(dest), cng="portable")
    assert refused["failed"] and "cng: portable" in refused["msg"] and "IISWASOnlyCngProvider" in refused["msg"]
    assert checked["changed"] is True and copied["changed"] is True
    assert again["changed"] is False and again["sha256"] == copied["sha256"]
    converted = {(item["from_provider"], item["to_provider"], item["to_container"]) for item in copied["conversions"]}
    assert converted == {
        ("IISWASOnlyCngProvider", "IISWASOnlyAesProvider", "iisWasKey"),
        ("IISCngProvider", "AesProvider", "iisConfigurationKey"),
    }
    after = dest.read_bytes().decode("utf-8")
    assert dest.stat().st_mode & 0o777 == 0o600
    # every byte outside the values stays, and only CNG values changed
    assert VALUE.sub("*", after) == VALUE.sub("*", before)
    assert not {name for name in VALUE.findall(after) if "cng" in name.lower()}
    # the oracle opens what was written
    sessions = dict(re.findall(r'name="(\w*AesProvider)"[^>]*sessionKey="([^"]+)"', after))
    pool = re.search(r'name="Shop">\s*<processModel[^>]*\[enc:IISWASOnlyAesProvider:([^:]+):enc\]', after)
    assert (
        pool
        and web1.oracle("decrypt", "aes", "iisWasKey", sessions["IISWASOnlyAesProvider"], stdin=pool[1])
        == "Shop-Pa55!w0rd"
    )
    for result in (refused, copied, again):
        assert "Pa55" not in json.dumps(result) and "_content" not in result
