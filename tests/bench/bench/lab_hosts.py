# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of lab hosts: a module against the floor, one call against the usual playbook of raw commands."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from lab import Farm, LabUnavailable

from .controller import LIBRARY
from .figure import ROOT, BenchError, Figure, pairs

CONTAINERS = ("iisConfigurationKey", "iisWasKey", "NetFrameworkConfigurationKey")
FILES = ("applicationHost.config", "administration.config", "redirection.config")
CONFIG = r"C:\Windows\System32\inetsrv\config"
KEYS = r"C:\ProgramData\Microsoft\Crypto\RSA\MachineKeys"
PUBLIC = (
    "$p = New-Object System.Security.Cryptography.CspParameters(24, $null, '{container}'); "
    "$p.Flags = 'UseMachineKeyStore, UseExistingKey'; "
    "try {{ (New-Object System.Security.Cryptography.RSACryptoServiceProvider($p)).ToXmlString($false) }} "
    "catch {{ 'missing' }}"
)


def usual_playbook() -> list[dict[str, Any]]:
    """One task per container and file: list, read, hash, icacls, export of the public part."""
    tasks = [("list the key files", f"Get-ChildItem '{KEYS}' | Select-Object Name, Length")]
    for container in CONTAINERS:
        tasks.append((f"public part of {container}", PUBLIC.format(container=container)))
        tasks.append((f"access list of {container}", f"icacls '{KEYS}'; exit 0"))
    for file in FILES:
        path = f"{CONFIG}\\{file}"
        tasks.append((f"list {file}", f"Get-Item '{path}' | Select-Object Length"))
        tasks.append((f"read {file}", f"Get-Content '{path}' -Raw"))
        tasks.append((f"hash {file}", f"(Get-FileHash '{path}').Hash"))
        tasks.append((f"access list of {file}", f"icacls '{path}'; exit 0"))
    steps = [{"name": name, "ansible.builtin.raw": command} for name, command in tasks]
    return [{"hosts": "all", "gather_facts": False, "tasks": steps}]


class Lab:
    """The lab's farm for one figure."""

    def __init__(self, *hosts: str) -> None:
        try:
            self.farm = Farm.up(hosts, name="bench")
        except LabUnavailable as error:
            raise BenchError(f"the lab is not available: {error}") from None
        if not self.farm.has_pwsh():
            self.farm.down()
            raise BenchError("there is no PowerShell for the lab's hosts")

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.farm.down()

    def play(self, play: str, folder: Path, **env: str) -> float:
        """Run a playbook; answers its wall time."""
        began = time.monotonic()
        done = subprocess.run(
            ["ansible-playbook", "-i", str(self.farm.inventory), play],
            cwd=folder,
            env=os.environ | {"ANSIBLE_LIBRARY": str(LIBRARY), "PWD": str(folder)} | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"{play} failed in the lab: {(done.stdout + done.stderr)[-800:]}")
        return time.monotonic() - began


def key_info(smoke: bool) -> list[Figure]:
    """key_info on one lab host against a module that does nothing on the same host, task by task."""
    count = 1 if smoke else 7
    modules = ("do_nothing", "webfarm.iis.key_info")
    tasks = [{"name": name, name: {}} for number in range(count + 1) for name in modules[:: -1 if number % 2 else 1]]
    play = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
    with tempfile.TemporaryDirectory(prefix="webfarm-bench-") as name, Lab("web1") as lab:
        folder = Path(name)
        (folder / "play.yml").write_text(yaml.safe_dump(play, sort_keys=False), encoding="utf-8")
        lab.play(
            str(folder / "play.yml"),
            folder,
            BENCH_TIMES=str(folder / "times"),
            ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "tests" / "bench" / "callback"),
            ANSIBLE_CALLBACKS_ENABLED="task_times",
        )
        times: dict[str, list[float]] = {module: [] for module in modules}
        for line in (folder / "times").read_text(encoding="utf-8").splitlines():
            _host, task, seconds = line.split("\t")
            times[task].append(float(seconds))
    # The first of each warms the host up.
    samples = list(zip(times[modules[1]][1:], times[modules[0]][1:], strict=True))
    return [
        Figure(
            "key_info",
            "key_info on a lab host",
            "a module that does nothing",
            "s",
            samples,
            None if smoke else 1.35,
        )
    ]


def compliance(smoke: bool) -> list[Figure]:
    """The compliance playbook over the lab's hosts against one task per container and file with raw commands."""
    hosts = ("web1",) if smoke else ("web1", "web2", "web3")
    with tempfile.TemporaryDirectory(prefix="webfarm-bench-") as name, Lab(*hosts) as lab:
        folder = Path(name)
        usual = folder / "usual.yml"
        usual.write_text(yaml.safe_dump(usual_playbook(), sort_keys=False, width=1000), encoding="utf-8")
        samples = pairs(
            lambda: lab.play("webfarm.iis.compliance", folder),
            lambda: lab.play(str(usual), folder),
            1 if smoke else 5,
            warm_up=False,
        )
    return [
        Figure(
            "compliance",
            f"the usual raw commands over {len(hosts)} lab hosts, {len(usual_playbook()[0]['tasks'])} tasks",
            "webfarm.iis.compliance, with its report",
            "s",
            [(other, mine) for mine, other in samples],
            None if smoke else 5,
            at_least=True,
        )
    ]


FIGURES = {"key_info": key_info, "compliance": compliance}
