# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of sync_keys and rotate share: who holds which keys, who can read what, who serves."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from lab import Host

CONTAINERS = ("iisWasKey", "iisConfigurationKey")
PASSPHRASE = "Passphrase-of-the-custody-key"
JOURNAL = "ProgramData/webfarm.iis/journal.json"
SERVICES = ("WAS", "W3SVC", "AppHostSvc", "WMSVC")
GOLDEN_SITES = (("/", "shop.example", 80), ("/orders", "shop.example", 80), ("/", "", 8080))


def fingerprints(host: Host) -> dict[str, str]:
    return dict(zip(CONTAINERS, host.oracle_batch([["fingerprint", name] for name in CONTAINERS]), strict=True))


def declared(text: str) -> dict[str, tuple[str, str | None]]:
    """Provider -> container and session key."""
    found = {}
    for entry in re.findall(r'<add name="\w+"[^>]*keyContainerName="\w+"[^>]*>', text):
        values = dict(re.findall(r'(\w+)="([^"]*)"', entry))
        found[values["name"]] = (values["keyContainerName"], values.get("sessionKey"))
    return found


def secrets(text: str) -> list[tuple[str, str]]:
    """Provider and data of every value under a CryptoAPI key, in the order of the file."""
    return [pair for pair in re.findall(r"\[enc:(\w+):([^:\"]+):enc\]", text) if "Cng" not in pair[0]]


def text_argument(text: str) -> str:
    """A text as the oracle's batch takes it."""
    return "@" + base64.b64encode(text.encode()).decode()


def opened(
    host: Host, text: str, keys: dict[str, str] | None = None, sessions: str | None = None, check: bool = True
) -> list[str]:
    """What the oracle reads in the file, with keys in other containers and the session keys of another file."""
    providers = declared(sessions or text)
    commands = []
    for provider, data in secrets(text):
        container, session = providers[provider]
        container = (keys or {}).get(container, container)
        commands.append(
            ["decrypt", *(["aes", container, session] if session else ["rsa", container]), text_argument(data)]
        )
    return host.oracle_batch(commands, check=check)


def healthy(host: Host, pages: list[int], services: tuple[str, ...] = SERVICES) -> None:
    """Services run, pages are served, nothing is left of an interrupted run."""
    state = host.services()
    assert {name: state[name] for name in services} == dict.fromkeys(services, "running"), host.name
    assert statuses(host) == pages, host.name
    assert not (host.drive_c / JOURNAL).exists()


def statuses(host: Host) -> list[int]:
    sites = GOLDEN_SITES if host.name == "web1" else (("/", "", 80),)
    return [host.http(path, header, port)[0] for path, header, port in sites]


def variables(folder: Path, target_hosts: str) -> dict[str, Any]:
    """The variables of a project: the custody key and the signer are made, the work folder does not exist yet."""
    for name, more in (("custody", ["-passout", f"pass:{PASSPHRASE}"]), ("signer", ["-nodes"])):
        command = f"openssl req -x509 -newkey rsa:2048 -days 3650 -subj /CN={name} -keyout {name}.key -out {name}.crt"
        subprocess.run([*command.split(), *more], cwd=folder, check=True, capture_output=True)
    return {
        "target_hosts": target_hosts,
        "provision_farm": "shop",
        "provision_work_dir": str(folder / "work"),
        "provision_recipients": [str(folder / "custody.crt")],
        "provision_opening_file": str(folder / "custody.key"),
        "provision_opening_passphrase": PASSPHRASE,
        "provision_signing_file": str(folder / "signer.key"),
        "provision_signing_certificate": str(folder / "signer.crt"),
        "provision_signer_certificate": str(folder / "signer.crt"),
    }


def bundle(project: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(Path(project["provision_work_dir"], "shop.keyset.json").read_text()))


def held(project: dict[str, Any]) -> dict[str, str]:
    return {item["container"]: item["fingerprint"] for item in bundle(project)["containers"]}
