# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module secret: the oracle says what was encrypted, and under what; nothing else may say it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from lab import Host

Module = Callable[..., dict[str, Any]]
Unchanged = Callable[..., Any]
POOL = "system.applicationHost/applicationPools/add[@name='Shop']/processModel/@password"
NEW = "New <Pool> & 'Passw\"ord' 1"


def text_of(host: Host, value: str) -> tuple[str, str]:
    """Provider and clear text of a protected value, by the oracle."""
    found = re.fullmatch(r"\[enc:(\w+):([^:]+):enc\]", value)
    assert found, value
    provider, data = found[1], found[2]
    text = host.config.read_text("utf-8-sig")
    entry = re.search(rf'<add name="{provider}"[^>]*>', text)
    assert entry
    container = re.search(r'keyContainerName="(\w+)"', entry[0])
    session = re.search(r'sessionKey="([^"]+)"', entry[0])
    assert container
    kind = ["aes", container[1], session[1]] if session else ["cng" if "Cng" in provider else "rsa", container[1]]
    return provider, host.oracle("decrypt", *kind, stdin=data)


def pool_value(host: Host, pool: str = "Shop") -> str:
    text = host.config.read_text("utf-8-sig")
    entry = re.search(rf'<add name="{pool}".*?<processModel[^>]*password="([^"]+)"', text, re.S)
    assert entry
    return entry[1]


def test_an_application_pool_password(web1: Host, ansible_module: Module, unchanged: Unchanged) -> None:
    """Check mode, the change, the same again; then another provider for the same value."""
    old = web1.config.read_text("utf-8-sig")
    before = pool_value(web1)
    options = {"app_pool": "Shop", "provider": "IISWASOnlyAesProvider", "value": NEW}
    with unchanged(web1):
        check = ansible_module(web1, "secret", check=True, diff=True, **options)
    assert check["changed"] and not check.get("failed"), check
    assert check["path"] == POOL
    pid = web1.service_details()["WAS"]["pid"]
    result = ansible_module(web1, "secret", diff=True, **options)
    assert result["changed"] and not result.get("failed"), result
    assert text_of(web1, pool_value(web1)) == ("IISWASOnlyAesProvider", NEW)
    # every other byte stays
    assert web1.config.read_text("utf-8-sig").replace(pool_value(web1), before) == old
    assert result["transaction"]["outcome"] == "committed"
    assert web1.service_details()["WAS"]["pid"] != pid
    assert web1.services()["W3SVC"] == "running"
    for shown in (check, result):
        assert "Passw" not in json.dumps({name: part for name, part in shown.items() if name != "invocation"})
        assert shown["invocation"]["module_args"]["value"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
        assert shown["diff"]["after"]["path"] == POOL
        assert "[enc:" not in json.dumps(shown)
    with unchanged(web1):
        again = ansible_module(web1, "secret", **options)
    assert again["changed"] is False, again


def test_a_virtual_directory_and_the_provider_of_its_class(web1: Host, ansible_module: Module) -> None:
    """Without a provider, without a restart: the present provider stays; a new attribute gets the AES provider."""
    site = re.search(r'<site name="([^"]+)"', web1.config.read_text("utf-8-sig"))
    assert site
    pid = web1.service_details()["WAS"]["pid"]
    result = ansible_module(web1, "secret", virtual_directory={"site": site[1]}, value="Share-Secret-1", restart=False)
    assert result["changed"], result
    assert result["provider"] == "AesProvider"
    found = re.search(r'<virtualDirectory path="/"[^>]*password="([^"]+)"', web1.config.read_text("utf-8-sig"))
    assert found
    assert text_of(web1, found[1]) == ("AesProvider", "Share-Secret-1")
    assert result["services"] == []
    assert web1.service_details()["WAS"]["pid"] == pid


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"app_pool": "Shop", "provider": "AesProvider"}, "for WAS alone"),
        ({"app_pool": "Shop", "provider": "NoSuchProvider"}, "not declared"),
        ({"app_pool": "No such pool"}, "there is no element"),
        (
            {"virtual_directory": {"site": "Default Web Site"}, "provider": "IISWASOnlyAesProvider"},
            "only WAS can read",
        ),
        ({"path": "system.applicationHost/applicationPools/add[@name='Shop']/@autoStart"}, "not encrypted now"),
    ],
)
def test_what_is_refused(
    web1: Host, ansible_module: Module, unchanged: Unchanged, options: dict[str, Any], text: str
) -> None:
    with unchanged(web1):
        result = ansible_module(web1, "secret", value="Refused-Secret-1", **options)
    assert result.get("failed"), result
    assert text in result["msg"]
    assert "Nothing was changed" in result["msg"]
    assert "Refused-Secret" not in json.dumps(result)


def test_a_password_that_breaks_the_server_is_taken_back(web1: Host, ansible_module: Module) -> None:
    before = web1.config.read_bytes()
    web1.fault("service", name="fail-worker-Shop")
    result = ansible_module(web1, "secret", app_pool="Shop", value="Another-Secret-1")
    assert result.get("failed"), result
    assert result["transaction"]["outcome"] == "rolled_back"
    assert web1.config.read_bytes() == before
    assert web1.services()["W3SVC"] == "running"
    assert "Another-Secret" not in json.dumps(result)
