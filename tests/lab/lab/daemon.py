# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process behind a farm: makes the hosts, serves the endpoint, and takes everything down again."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from . import content, endpoint, faults, netns, scheduler, setup, template, tls, wine
from .errors import LabError, LabUnavailable
from .farm import MACHINE_GUID_KEY, Farm, Host, boot, exclusive

PWSH = "C:\\Program Files\\PowerShell\\7\\pwsh.exe"


def role_of(name: str, number: int) -> str:
    """web1 (or the first) is golden, web3 lacks iisWasKey, all others are new servers."""
    return {"web1": "golden", "web2": "new", "web3": "keyless"}.get(name, "golden" if number == 0 else "new")


def say(text: str) -> None:
    """Progress for whoever waits for the farm."""
    print(f"* {text}", flush=True)


class Daemon:
    """One farm."""

    def __init__(self, name: str, root: Path, names: Sequence[str]) -> None:
        self.farm_name, self.root, self.names = name, root, list(names)
        self.folder = root / name
        self.holders: list[subprocess.Popen[bytes]] = []
        self.servers: list[endpoint.Server] = []
        self.endpoint_hosts: list[endpoint.EndpointHost] = []
        self.state: dict[str, Any] = {"farm": name, "pid": os.getpid(), "hosts": {}}
        self.stopping = threading.Event()
        self._log_lock = threading.Lock()

    def log(self, text: str) -> None:
        """The endpoint's log: operations, sizes and times, never contents."""
        with self._log_lock, open(self.folder / "endpoint.log", "a", encoding="utf-8") as out:
            out.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def serve(self) -> int:
        """The daemon's life; answers the exit code."""
        signal.signal(signal.SIGTERM, lambda *_: self.stopping.set())
        signal.signal(signal.SIGINT, lambda *_: self.stopping.set())
        try:
            with exclusive(self.folder):
                try:
                    self._raise()
                    print("READY", flush=True)
                    while not self.stopping.wait(3600):
                        pass
                finally:
                    self._lower()
        except LabUnavailable as error:
            print(f"UNAVAILABLE {error}", flush=True)
            return 1
        except LabError as error:
            print(f"FAILED {error}", flush=True)
            return 1
        return 0

    # --- up ---

    def _raise(self) -> None:
        pwsh = setup.require(say, install=False)
        template.ensure(say)
        for old in self.folder.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
            elif old.name not in ("progress.log", ".lock"):
                old.unlink()
        password = secrets.token_urlsafe(24)
        tls.write_private(self.folder / "password", password.encode("ascii") + b"\n")
        _ca, certificate, key = tls.make(self.folder / "tls", self.names)
        if pwsh:
            self.state["pwsh"] = [PWSH]
            self.state["pwsh_source"] = pwsh.source
            hooks = ";".join(wine.windows_path(hook) for hook in pwsh.hooks)
            self.state["environment"] = {"DOTNET_STARTUP_HOOKS": hooks}
        for number, name in enumerate(self.names):
            holder = netns.start_holder(name)
            self.holders.append(holder)
            self.state["hosts"][name] = {
                "role": role_of(name, number),
                "holder": holder.pid,
                "machine_guid": str(uuid.uuid4()),
            }
        self._save()
        say(f"Raising {', '.join(self.names)} ...")
        with ThreadPoolExecutor(max_workers=len(self.names)) as pool:
            for result in pool.map(lambda name: self._make_host(name, pwsh), self.names):
                say(result)
        for name in self.names:
            data = self.state["hosts"][name]
            host = endpoint.EndpointHost(
                name,
                self.folder / name / "prefix",
                netns.enter_command(data["holder"]),
                "Administrator",
                password,
                self.state.get("pwsh", []),
                faults.FaultFile(self.folder / name),
                self.state.get("environment", {}),
                self.log,
            )
            server = endpoint.Server(host, certificate, key)
            data["port"] = server.server_address[1]
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 5}, daemon=True).start()
            self.endpoint_hosts.append(host)
            self.servers.append(server)
        self._save()
        self._write_inventory()
        if pwsh:
            farm = Farm(self.farm_name, self.root)
            scheduler.Scheduler(list(farm.hosts.values()), self.stopping, self.log).start()

    def _save(self) -> None:
        new = self.folder / "state.new"
        new.write_text(json.dumps(self.state, indent=2), encoding="utf-8")
        new.replace(self.folder / "state.json")

    def _write_inventory(self) -> None:
        farm = Farm(self.farm_name, self.root)

        def group(role: bool) -> dict[str, Any]:
            return {
                "hosts": {
                    name: {"ansible_host": "127.0.0.1", "ansible_port": host.port}
                    for name, host in farm.hosts.items()
                    if (host.role == "golden") is role
                },
            }

        inventory = {"iis": {"children": {"golden": group(True), "farm": group(False)}, "vars": farm.connection_vars()}}
        text = "# Written by the lab. Holds the password of the simulated servers.\n---\n" + yaml.safe_dump(
            inventory, sort_keys=False
        )
        tls.write_private(farm.inventory, text.encode("utf-8"))

    def _make_host(self, name: str, pwsh: setup.Pwsh | None) -> str:
        started = time.monotonic()
        data = self.state["hosts"][name]
        host = Host(Farm(self.farm_name, self.root), name, data)
        host.folder.mkdir()
        template.copy(host.prefix)
        wine.edit_registry_text(host.prefix / "system.reg", {MACHINE_GUID_KEY: {"MachineGuid": data["machine_guid"]}})
        template.install_programs(host.prefix)
        if pwsh:
            link = host.drive_c / "Program Files/PowerShell/7"
            link.parent.mkdir(parents=True)
            link.symlink_to(pwsh.path.parent)
        content.write_static_files(host.drive_c)
        boot(host.prefix, host.enter)
        make_content(host, data["role"])
        start_all(host, data["role"])
        host.keep_pristine()
        running = ", ".join(service for service, state in host.services().items() if state == "running")
        return f"{name} ({data['role']}) is up after {time.monotonic() - started:.1f} s: {running}"

    # --- down ---

    def _lower(self) -> None:
        for server in self.servers:
            # shutdown() would wait for the poll interval; the process ends anyway
            server.socket.close()
        for host in self.endpoint_hosts:
            host.close()
        faults.unmount_all(self.folder)
        prefixes = [self.folder / name / "prefix" for name in self.names if (self.folder / name / "prefix").is_dir()]
        if prefixes:
            with ThreadPoolExecutor(max_workers=len(prefixes)) as pool:
                list(pool.map(wine.stop_server, prefixes))
        for holder in self.holders:
            assert holder.stdin is not None
            holder.stdin.close()
            holder.wait(10)


def make_content(host: Host, role: str) -> None:
    """Key containers and configuration of a role, made by CryptoAPI inside the host."""
    commands: list[list[str]] = []
    for container, sddl in content.SDDL.items():
        commands += [["create", container, "2048", "exportable"], ["setsddl", container, sddl]]
    host.oracle_batch(commands)
    for container in ("iisCngConfigurationKey", "iisCngWasKey"):
        content.write_cng_key(host.drive_c, container, host.machine_guid)
    text = content.golden_text() if role == "golden" else content.default_text()
    host.config.write_bytes(content.fill(text, host.oracle_batch).encode("utf-8"))
    content.write_history(host.drive_c)
    if role == "keyless":
        # The key was there when the server was set up; the file still speaks of it.
        host.oracle_batch([["delete", "iisWasKey"]])


def start_all(host: Host, role: str) -> None:
    """Register the services and start what runs on such a server."""
    program = host.drive_c / "lab/iissvc.exe"
    if not program.is_file():
        raise LabError("tests/lab/src has no iissvc.c: the services cannot be installed")
    done = host.run(["C:\\lab\\iissvc.exe", "install"])
    if done.returncode != 0:
        raise LabError(
            f"{host.name}: iissvc install ended with {done.returncode}: "
            f"{(done.stderr or done.stdout).decode(errors='replace')[:300]}"
        )
    answers = host.start_services(template.KEY_FILES, *template.SERVICES, timeout=20)
    failed: Mapping[str, str] = {name: answer for name, answer in answers.items() if answer != "OK"}
    if role == "keyless":
        failed = {name: answer for name, answer in failed.items() if name not in ("WAS", "W3SVC", "WMSVC")}
    if failed:
        raise LabError(f"{host.name}: services do not start: {failed}; events: {host.events()[-3:]}")
    wanted = [host.key_file(container) for container in host.containers()]
    end = time.monotonic() + 10
    while not all(path.is_file() for path in wanted):
        if time.monotonic() > end:
            raise LabError(f"{host.name}: the key files of MachineKeys do not appear ({template.KEY_FILES} keeps them)")
        time.sleep(0.1)
