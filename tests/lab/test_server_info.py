# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""server_info: everything in one call, the subsets, and servers where something is wrong."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.webfarm.iis.plugins.plugin_utils import _canonical
from lab import Host

Module = Callable[..., dict[str, Any]]
LISTS = (
    "key_containers",
    "session_keys",
    "protected_values",
    "configuration_files",
    "configuration_providers",
    "services",
    "app_pools",
    "sites",
)


def test_everything_in_one_call(ansible_module: Module, web1: Host, unchanged: Callable[..., Any]) -> None:
    # A password that nobody encrypted, in an attribute that the schema of a third party declares.
    (web1.config_dir / "schema" / "contoso.xml").write_text(
        '<configSchema><sectionSchema name="contoso/gate"><collection addElement="door" defaultElement="doorDefaults">'
        '<element name="lock"><attribute name="pin" type="string" encrypted="true" /></element></collection>'
        "</sectionSchema></configSchema>",
        encoding="utf-8",
    )
    clear = b'<contoso><gate><door name="front"><lock pin="Pa55-clear" /></door></gate></contoso></configuration>'
    web1.config.write_bytes(web1.config.read_bytes().replace(b"</configuration>", clear))
    time.sleep(3)  # AppHostSvc keeps a copy of the new file by itself
    with unchanged(web1):
        result = ansible_module(
            web1, "server_info", check=True, compare_attributes=True, run_key="0f" * 32, canonical_ignore=["*/@id"]
        )
    assert not result.get("failed"), result
    assert result["changed"] is False and result["format_version"] == "1.2"
    assert result["host"]["name"] == "WEB1" and result["host"]["machine_guid"] == web1.machine_guid
    assert result["redirection"] == {"enabled": False, "path": ""}
    assert all(result[name] for name in LISTS)
    files = {item["name"]: item for item in result["configuration_files"]}
    content = web1.config.read_bytes()
    assert files["applicationHost.config"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert files["applicationHost.config"]["size"] == len(content)
    in_file = [item for item in result["protected_values"] if item["file"] == "applicationHost.config"]
    assert files["applicationHost.config"]["protected_values"] == len(in_file)
    assert {item["verdict"] for item in result["protected_values"]} == {"ok"}
    # The digest and the attributes are those that the controller computes with another parser.
    declared = ["contoso/gate/door/lock/@pin"]
    form = _canonical.canonical(content, ignore=["*/@id"], declared=declared, run_key=bytes.fromhex("0f" * 32))
    own = files["applicationHost.config"]
    assert own["canonical_digest"] == form.digest and own["canonical_keyed_digest"] == form.keyed_digest
    assert _canonical.unpack(own["canonical_attributes"]) == form.attributes
    assert own["encoding"] == "utf-8" and own["locations"]
    states = {(item["file"], item["path"]): item for item in result["encrypted_attributes"]}
    pin = states["applicationHost.config", "contoso/gate/door[@name='front']/lock/@pin"]
    assert (pin["state"], pin["schema"], pin["provider"]) == ("clear", "contoso.xml", None)
    for item in result["protected_values"]:
        one = states[item["file"], item["path"]]
        assert (one["state"], one["provider"]) == ("encrypted", item["provider"])
        assert one["container"] == item["container"]
    assert result["shared_config"]["state"] == "disabled" and result["shared_config"]["password"] == "none"
    providers = {(item["file"], item["name"]): item for item in result["configuration_providers"]}
    wasonly = providers["applicationHost.config", "IISWASOnlyAesProvider"]
    assert wasonly["was_only"] is True and wasonly["has_session"] is True and wasonly["used_by"] >= 1
    services = {item["name"]: item for item in result["services"]}
    assert list(services) == ["WAS", "W3SVC", "AppHostSvc", "WMSVC", "FTPSVC"]
    assert {name: item["state"] for name, item in services.items()} == {
        name: web1.services()[name] for name in services
    }
    assert "Shop" in [item["name"] for item in result["app_pools"]]
    shop = next(item for item in result["sites"] if item["name"] == "Shop")
    assert shop["app_pools"] == ["Shop", "Orders"]
    assert shop["bindings"] == [{"protocol": "http", "address": "*", "port": 80, "host_name": "shop.example"}]
    text = json.dumps(result)
    assert "Pa55" not in text and "[enc:" not in text and "AQIAAA5mAAAApAAA" not in text


def test_a_subset_and_a_malformed_file(ansible_module: Module, web2: Host) -> None:
    web2.config.write_bytes(web2.config.read_bytes().replace(b"</applicationPools>", b"</applicationPool>", 1))
    (web2.config_dir / "applicationHost.config.tmp").write_bytes(b"left over")
    result = ansible_module(web2, "server_info", gather_subset=["keys", "files"], decrypt="none")
    assert not result.get("failed"), result
    assert [name for name in LISTS if result[name]] == ["key_containers", "configuration_files"]
    files = {item["name"]: item for item in result["configuration_files"]}
    assert "line " in files["applicationHost.config"]["message"] and files["applicationHost.config"]["fix"]
    assert files["applicationHost.config"]["sha256"] == hashlib.sha256(web2.config.read_bytes()).hexdigest()
    assert "stops WAS" in files["applicationHost.config.tmp"]["message"]
    assert len([text for text in result["warnings"] if "applicationHost.config" in text]) == 2
    failed = ansible_module(web2, "server_info", gather_subset=["values"])
    assert failed["failed"] and "not well-formed" in failed["msg"] and "applicationHost.config, line " in failed["msg"]


def test_a_shared_configuration_is_reported(ansible_module: Module, web2: Host) -> None:
    path = web2.config_dir / "redirection.config"
    text = path.read_text(encoding="utf-8-sig")
    element = r'<configurationRedirection enabled="true" path="\\files\iis" userName="web" password="Pa55" />'
    path.write_text(text.replace("<configurationRedirection />", element), encoding="utf-8")
    refused = ansible_module(web2, "server_info")
    assert refused["failed"] and r"\\files\iis" in refused["msg"] and "gather_subset" in refused["msg"]
    assert refused["redirection"] == {"enabled": True, "path": r"\\files\iis"}
    rest = ansible_module(web2, "server_info", gather_subset=["keys", "files", "services", "shared_config"])
    assert not rest.get("failed"), rest
    assert rest["redirection"] == {"enabled": True, "path": r"\\files\iis"}
    assert rest["services"] and rest["configuration_files"] and rest["key_containers"]
    assert rest["sites"] == [] and rest["protected_values"] == []
    shared = rest["shared_config"]
    assert (shared["state"], shared["path"], shared["user_name"]) == ("enabled", r"\\files\iis", "web")
    # In clear: the schema of redirection.config says that it should not be.
    assert shared["password"] == "clear" and "Pa55" not in json.dumps(rest)
    (clear,) = [item for item in rest["encrypted_attributes"] if item["state"] == "clear"]
    assert clear["file"] == "redirection.config"
    assert clear["path"] == r"configurationRedirection[@path='\\files\iis']/@password"
