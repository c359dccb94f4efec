# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""verify_urls over a real TLS connection: the name of the site is in the greeting, whatever address it goes to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_windows_powershell import UTILS, run_work

from lab import tls

LAB = Path(__file__).resolve().parents[1] / "lab"
NAME = "shop.example.com"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    _authority, certificate, key = tls.make(tmp_path / "tls", [NAME])
    command = [sys.executable, str(LAB / "sni_site.py"), str(certificate), str(key), "0", NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_the_greeting_names_the_site(site: subprocess.Popen[str], tmp_path: Path) -> None:
    assert site.stdout is not None
    port = int(site.stdout.readline())
    configuration = tmp_path / "applicationHost.config"
    binding = f'<binding protocol="https" bindingInformation="127.0.0.1:{port}:{NAME}" sslFlags="1" />'
    configuration.write_text(
        "<configuration><system.applicationHost><sites><site name='Shop' id='1'>"
        f"<bindings>{binding}</bindings></site></sites></system.applicationHost></configuration>"
    )
    urls = [
        # the address is the binding's, not what the name resolves to
        {"url": f"https://{NAME}:{port}/", "status": [200]},
        {"url": f"https://127.0.0.1:{port}/", "host_header": NAME, "status": [200]},
        # without a name, and with another one: the site is not reached
        {"url": f"https://127.0.0.1:{port}/", "status": [200]},
        {"url": f"https://127.0.0.1:{port}/", "host_header": "other.example.com", "status": [200]},
        {"url": f"https://{NAME}:{port}/", "status": [204, 301]},
    ]
    said = run_work(
        "health.ps1",
        tmp_path,
        [UTILS / f"{name}.cs" for name in ("_KeyContainer", "_Configuration", "_Health")],
        library=str(UTILS / "_Service.psm1"),
        configuration=str(configuration),
        urls=urls,
    )
    assert said[:2] == [None, None], said
    assert "does not answer" in said[2] and "does not answer" in said[3], said
    assert f"https://{NAME}:{port}/ at 127.0.0.1 answers 200, expected 204 or 301" in said[4], said
    site.kill()
    seen = site.stdout.read().splitlines()
    assert seen[:2] == [f"{NAME} {NAME}:{port}"] * 2, seen
    assert {line.split()[0] for line in seen[2:]} == {"-", "other.example.com", NAME}, seen
