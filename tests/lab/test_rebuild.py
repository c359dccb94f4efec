# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook rebuild: from an archive of one server to another that serves, and every reason to stop before that."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lab import Host

CONTAINERS = ("iisWasKey", "iisConfigurationKey")
Module = Callable[..., dict[str, Any]]
Unchanged = Callable[..., AbstractContextManager[None]]


def cases(path: Path) -> dict[str, tuple[str, str]]:
    """From a JUnit file: for each test what became of it, and all that is said of it."""
    top = ElementTree.parse(path).getroot()
    found = {}
    for case in top.iter("testcase"):
        marks = [one for one in case if one.tag != "system-out"]
        text = " ".join(filter(None, [*(one.get("message") for one in marks), *(one.text for one in case)]))
        found[str(case.get("name"))] = (marks[0].tag if marks else "passed", text)
    counts = {name: int(top.get(name, "-1")) for name in ("tests", "failures", "errors", "skipped")}
    tags = [tag for tag, _text in found.values()]
    assert counts == {
        "tests": len(found),
        "failures": tags.count("failure"),
        "errors": tags.count("error"),
        "skipped": tags.count("skipped"),
    }
    return found


def marked(path: Path, *tags: str) -> list[str]:
    return [name for name, (tag, _text) in cases(path).items() if tag in tags]


def test_stops_early_for_whatever_is_missing_then_rebuilds(
    ansible_module: Module,
    web1: Host,
    web2: Host,
    playbook: Callable[..., Any],
    unchanged: Unchanged,
    tmp_path: Path,
) -> None:
    command = (
        "openssl req -x509 -newkey rsa:2048 -days 10 -nodes -subj /CN=custody -keyout custody.key -out custody.crt"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    # Values under CNG keys leave no server: the configuration is made portable first. And it gets an https binding.
    prepared = ansible_module(web1, "config_rewrap", cng="portable", dest=str(tmp_path / "portable.config"))
    assert not prepared.get("failed"), prepared
    content = (tmp_path / "portable.config").read_bytes()
    plain = b'bindingInformation="*:80:'
    assert plain in content
    secure = content.replace(b"<bindings>", b'<bindings><binding protocol="https" bindingInformation="*:443:" />', 1)
    (tmp_path / "portable.config").write_bytes(secure)
    taken = ansible_module(web1, "config", src=str(tmp_path / "portable.config"), stop_timeout=30, start_timeout=60)
    assert not taken.get("failed"), taken
    archive = tmp_path / "web1.backup.tar"
    recipients = [str(tmp_path / "custody.crt")]
    fetched = ansible_module(web1, "config_backup", dest=str(archive), farm="shop", recipients=recipients)
    assert not fetched.get("failed") and fetched["archive"]["server_only"] == [], fetched
    pins = {name: web1.oracle("fingerprint", name) for name in CONTAINERS}
    assert web2.oracle("fingerprint", "iisWasKey") != pins["iisWasKey"]

    junit = tmp_path / "reports" / "web2.xml"
    options: dict[str, Any] = {
        "target_hosts": "web2",
        "rebuild_archive": str(archive),
        "rebuild_expected_fingerprints": pins,
        "rebuild_opening_file": str(tmp_path / "custody.key"),
        "rebuild_junit": str(junit),
        "rebuild_start_timeout": 120,
        "rebuild_stop_timeout": 60,
        "rebuild_verify_urls": [{"url": "http://shop.example/"}],
    }
    page = web2.drive_c / "inetpub/legacy"
    library = web2.config_dir.parent / "authbas.dll"
    certificates = web2.drive_c / "lab/sslcert.txt"

    # A feature, a certificate and content are missing: all is said at once, and nothing is changed.
    library.rename(library.with_suffix(".aside"))
    page.rename(page.with_name("legacy.aside"))
    with unchanged(web1, web2):
        run = playbook("webfarm.iis.rebuild", extra_vars=options)
        # The module refuses by itself, when somebody goes past the role.
        refused = ansible_module(
            web2,
            "config_backup",
            state="restored",
            src=str(archive),
            restore_keys=True,
            expected_fingerprints=pins,
            opening_file=str(tmp_path / "custody.key"),
        )
    assert refused["failed"] and "does not fit this server" in refused["msg"], refused
    assert "Web-Basic-Auth" in refused["msg"] and refused["missing_features"] == ["Web-Basic-Auth"], refused
    assert run.rc == 2 and run.changed == 0, run.text
    assert "Install-WindowsFeature -Name Web-Basic-Auth" in run.text and "Nothing was changed" in run.text
    found = cases(junit)
    assert marked(junit, "failure", "error") == ["features", "certificates", "content"], found
    assert found["features"][1].count("Install-WindowsFeature -Name Web-Basic-Auth") >= 1
    assert "expected Windows features: " in found["features"][1] and "Web-Static-Content" in found["features"][1]
    assert "*:443:" in found["certificates"][1] and "sslcert" in found["certificates"][1]
    assert "inetpub\\legacy is not on this server" in found["content"][1] and "\\\\files\\orders" in found["content"][1]
    assert [found[name][0] for name in ("archive", "keys", "proof", "reachable")] == ["passed"] * 4
    assert found["restored"] == ("skipped", "Not reached.") and found["serving"] == ("skipped", "Not reached.")

    # Wrong pins: known on the controller alone, the server is not asked at all. What was missing is there now.
    library.with_suffix(".aside").rename(library)
    page.with_name("legacy.aside").rename(page)
    certificates.write_text("0.0.0.0:443\r\n", encoding="ascii")
    with unchanged(web2):
        other = dict.fromkeys(CONTAINERS, "0" * 64)
        run = playbook("webfarm.iis.rebuild", extra_vars=options | {"rebuild_expected_fingerprints": other})
    assert run.rc == 2 and marked(junit, "failure", "error") == ["keys"], run.text
    assert cases(junit)["reachable"][0] == "skipped"
    run = playbook("webfarm.iis.rebuild", extra_vars=options | {"rebuild_start_timeout": "soon"})
    assert run.rc == 2 and marked(junit, "failure", "error") == ["run"], run.text
    assert "rebuild_start_timeout" in cases(junit)["run"][1]

    # The server is broken as well: half a configuration, nothing runs.
    web2.stop_services("WMSVC", "FTPSVC", "W3SVC", "WAS", "AppHostSvc")
    live = web2.config.read_bytes()
    web2.write_file(web2.config, live[: len(live) // 2])
    with unchanged(web2):
        run = playbook("webfarm.iis.rebuild", "--check", extra_vars=options)
    assert run.rc == 0 and run.changed == 1, run.text
    assert marked(junit, "failure", "error") == [] and "Dry run" in cases(junit)["restored"][1]

    run = playbook("webfarm.iis.rebuild", extra_vars=options)
    assert run.rc == 0 and run.changed == 1, run.text
    assert {name: web2.oracle("fingerprint", name) for name in CONTAINERS} == pins
    assert web2.config.read_bytes() == secure and web2.http("/", "shop.example", 80)[0] == 200
    found = cases(junit)
    assert set(marked(junit, "passed")) >= {
        "run",
        "proof",
        "features",
        "certificates",
        "content",
        "restored",
        "serving",
    }
    assert "http://shop.example/ answered" in found["serving"][1] and "W3SVC: running" in found["serving"][1]

    with unchanged(web2):
        run = playbook("webfarm.iis.rebuild", extra_vars=options)
    assert run.rc == 0 and run.changed == 0, run.text
    assert "nothing was to be changed" in cases(junit)["restored"][1]
    # Nothing is to be restored, and it does not serve: the run says so and starts nothing.
    web2.stop_services("W3SVC")
    with unchanged(web2):
        run = playbook("webfarm.iis.rebuild", extra_vars=options)
    assert run.rc == 2 and marked(junit, "failure", "error") == ["serving"], run.text
    assert "W3SVC" in cases(junit)["serving"][1]
