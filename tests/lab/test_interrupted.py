# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sync_keys and rotate are interrupted at every step and continued by the same command, a golden and a new server.

The steps are not chosen here: the controller is ended at each task of the collection that a run comes to (see the
folder interrupt), and the server's part at each phase that the journal knows.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rotation import JOURNAL, SERVICES, bundle, fingerprints, healthy, held, opened, statuses, variables

from lab import Farm, Host

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parent.parent / "plugins/module_utils/_Journal.psm1"
# web3 has no iisWasKey, so that nobody can read this one any more.
LOST = {
    "path": "system.applicationHost/applicationPools/add[@name='Local']/processModel/@password",
    "reason": "its key never was on this server; it is entered again afterwards",
}


def phases() -> list[str]:
    """The phases of a transaction on its way forward, as the library has them."""
    found = re.search(r"\[ValidateSet\('prepared', ([^)]+)\)\]", LIBRARY.read_text(encoding="utf-8"))
    assert found
    names = ["prepared", *re.findall(r"'(\w+)'", found[1])]
    return [name for name in names if not name.startswith("undo") and name != "undone"]


def goes_on(host: Host) -> None:
    """Nobody listens any more, and the transaction ends by itself. Then the connection is there again."""
    end = time.monotonic() + 180
    while (host.drive_c / JOURNAL).exists():
        assert time.monotonic() < end
        time.sleep(0.2)
    host.clear_faults()


@dataclass
class Ended:
    """A run that has ended, by itself or not."""

    killed: bool
    code: int
    text: str


class Project:
    """A farm of two and the files of its project."""

    def __init__(self, farm: Farm, folder: Path, hosts: tuple[Host, Host]) -> None:
        self.farm, self.folder, self.hosts = farm, folder, hosts
        self.variables = variables(folder, hosts[1].name) | {
            "provision_accept_undecryptable": [LOST],
            "provision_start_services": "automatic",
        }
        self.steps = folder / "steps"
        texts = {host.name: opened(host, host.config.read_text("utf-8-sig"), check=False) for host in hosts}
        # what a server can read before, it can read at any time
        self.texts = {
            name: {number: text for number, text in enumerate(values) if not text.startswith("ERROR")}
            for name, values in texts.items()
        }
        assert all(self.texts.values())

    def run(self, book: str, *arguments: str, end_at: str = "", while_exists: Path | None = None) -> Ended:
        """Run a playbook. With end_at=steps the callback ends it; with while_exists this does, once that is there."""
        extra = self.folder / "variables.json"
        extra.write_text(json.dumps(self.variables))
        command = ["ansible-playbook", "-i", str(self.farm.inventory), f"webfarm.iis.{book}", "-e", f"@{extra}"]
        env = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "ANSIBLE_NOCOLOR": "1",
            "LAB_INTERRUPT": str(self.steps),
        }
        if end_at:
            env |= {"ANSIBLE_CALLBACK_PLUGINS": str(HERE / "interrupt"), "ANSIBLE_CALLBACKS_ENABLED": "interrupt"}
        log = self.folder / "run.log"
        with (
            log.open("wb") as out,
            subprocess.Popen(
                [*command, *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            end = time.monotonic() + 600
            while process.poll() is None:
                assert time.monotonic() < end, "the run does not end"
                if while_exists is not None and while_exists.exists():
                    os.killpg(process.pid, signal.SIGKILL)
                    break
                time.sleep(0.02)
            code = process.wait()
        return Ended(code == -signal.SIGKILL, code, log.read_text(errors="replace"))

    def generation(self) -> int:
        return int(bundle(self.variables)["generation"])

    def used(self) -> list[str]:
        return self.steps.read_text().splitlines() if self.steps.exists() else []

    def reads_its_values(self, host: Host) -> None:
        now = opened(host, host.config.read_text("utf-8-sig"), check=False)
        assert {number: now[number] for number in self.texts[host.name]} == self.texts[host.name], host.name

    def serves(self, host: Host) -> None:
        # The Management Service starts by hand, and could not before on the new server.
        services = SERVICES if host.name == "web1" else tuple(name for name in SERVICES if name != "WMSVC")
        healthy(host, [200] * len(statuses(host)), services)

    def complete(self) -> None:
        """One set of keys everywhere, every server serves and reads its own values."""
        for host in self.hosts:
            assert fingerprints(host) == held(self.variables), host.name
            self.reads_its_values(host)
            self.serves(host)

    def interrupted_everywhere(self, book: str, served: tuple[Host, ...]) -> None:
        """End the controller at one step after the other; each next run continues. The last one finds no new step."""
        while True:
            used = self.used()
            ended = self.run(book, end_at="steps")
            if not ended.killed:
                assert ended.code == 0 and self.used() == used, ended.text
                return
            for host in served:
                self.reads_its_values(host)
                self.serves(host)


@pytest.fixture
def project(pwsh_farm: Farm, web1: Host, web3: Host, tmp_path: Path) -> Project:
    return Project(pwsh_farm, tmp_path, (web1, web3))


def test_sync_keys(project: Project, web1: Host, web3: Host, unchanged: Callable[..., Any]) -> None:
    with unchanged(web1):
        project.interrupted_everywhere("sync_keys", (web1,))
    project.complete()
    assert [step.split(" | ", 1)[1] for step in project.used()] == [
        "webfarm.iis.key_export | web1 | begin",
        "webfarm.iis.key_export | web1 | end",
        "webfarm.iis.config | web3 | end",
    ]

    # The server's part dies at each phase, and the connection with it. Afterwards the connection alone, then the
    # controller alone, each in the middle: the server goes on by itself as long as it is let.
    reached = set()
    for phase in phases():
        web3.reset()
        web3.fault("kill", marker=JOURNAL, contains=f'"phase": "{phase}"', drop=True, times=9)
        ended = project.run("sync_keys", "--limit", "web3")
        assert ended.code != 0, ended.text
        web3.clear_faults()
        reached.add(json.loads((web3.drive_c / JOURNAL).read_text())["phase"])
        project.reads_its_values(web3)
        continued = project.run("sync_keys", "--limit", "web3")
        assert continued.code == 0, continued.text
        project.complete()
    # a phase may pass before the process is gone; then the next one was hit
    assert len(reached) >= len(phases()) - 1, reached

    web3.reset()
    web3.fault("kill", marker=JOURNAL, drop=True, spare=True, times=9)
    assert project.run("sync_keys", "--limit", "web3").code != 0
    goes_on(web3)
    continued = project.run("sync_keys", "--limit", "web3")
    assert continued.code == 0, continued.text
    project.complete()

    web3.reset()
    assert project.run("sync_keys", "--limit", "web3", while_exists=web3.drive_c / JOURNAL).killed
    continued = project.run("sync_keys", "--limit", "web3")
    assert continued.code == 0, continued.text
    project.complete()


def test_rotate_without_the_controller(project: Project, web1: Host, web3: Host) -> None:
    """The farm comes to the first generation, to the second and further; each step is interrupted once."""
    # the controller alone, from the first export to the new keys, then a run without interruption
    project.interrupted_everywhere("rotate", (web1,))
    project.complete()
    assert project.generation() == 2
    # the controller again, after the golden server took the keys that the same run had made
    assert project.run("rotate", end_at="steps").killed
    assert project.generation() == 3 and fingerprints(web1) == held(project.variables) != fingerprints(web3)
    for host in project.hosts:
        project.reads_its_values(host)
        project.serves(host)
    # the connection to the other server, which goes on by itself
    web3.fault("kill", marker=JOURNAL, drop=True, spare=True, times=9)
    assert project.run("rotate").code != 0
    goes_on(web3)
    project.complete()
    assert project.generation() == 3
    # the controller after the last server; there is nothing left to do
    ended = project.run("rotate", end_at="steps")
    assert ended.killed, ended.text
    project.complete()
    assert project.generation() == 4
    assert project.used() == [
        "Golden server - make sure that there is a bundle to go back to | webfarm.iis.key_export | web1 | begin",
        "Golden server - make sure that there is a bundle to go back to | webfarm.iis.key_export | web1 | end",
        "Farm - bring every server to the present keys | webfarm.iis.config | web1 | end",
        "Farm - bring every server to the present keys | webfarm.iis.config | web3 | end",
        "Golden server - new keys | webfarm.iis.key_export | web1 | end",
        "Farm - switch the keys, each server keeps its configuration | webfarm.iis.config | web1 | end",
        "Farm - switch the keys, each server keeps its configuration | webfarm.iis.config | web3 | end",
    ]


def test_rotate_without_the_golden_server(project: Project, web1: Host) -> None:
    first = project.run("rotate")
    assert first.code == 0, first.text
    project.complete()
    # its part dies while it makes the keys: they were nobody's
    web1.fault("kill", after=3, drop=True, skip=2)
    assert project.run("rotate").code != 0
    web1.clear_faults()
    assert project.generation() == 1
    project.complete()
    # and while it takes them; the next run brings every server to the keys that this one made
    web1.fault("kill", marker=JOURNAL, drop=True, times=9)
    assert project.run("rotate").code != 0
    web1.clear_faults()
    assert project.generation() == 2
    continued = project.run("rotate")
    assert continued.code == 0, continued.text
    assert project.generation() == 2
    project.complete()
