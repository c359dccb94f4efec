# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet of hosts that answer modules with recorded results: for what a thousand hosts cost the controller.

The WS-Management side is the lab's own endpoint: only the process behind it is missing. One process serves all hosts on
one port of loopback, each under its own path (ansible_winrm_path). A module gets the recorded result

    answers/HOST/MODULE.json, else answers/MODULE.json

in the fleet's folder, MODULE being the name that Ansible sends along; its arguments are put into the result as
Ansible.Basic does. A module without a recording fails, and says so. hosts/HOST/faults.json holds faults (drop, delay)
as in the lab.
"""

from __future__ import annotations

import json
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from . import tls
from .endpoint import BAD_REQUEST, POWERSHELL, Command, EndpointHost, Server, SoapFault
from .errors import LabError
from .faults import FaultFile

USER = "Administrator"
_MODULE = re.compile(rb'"_ansible_module_name": ?"([\w.]+)"')
_ARGUMENTS = re.compile(rb'(?:"complex_args", ?"Value": ?|"module_args": ?)(?=\{)')


def module_of(payload: bytes) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the module in what Ansible writes to PowerShell. Raises LabError when there is none."""
    name = _MODULE.search(payload)
    start = _ARGUMENTS.search(payload)
    if not name or not start:
        raise LabError("no module of Ansible in the input")
    arguments, _end = json.JSONDecoder().raw_decode(payload[start.end() :].decode("utf-8"))
    return name[1].decode("ascii"), {key: value for key, value in arguments.items() if not key.startswith("_")}


class ReplayCommand(Command):
    """A command that ends with its input, and has the recorded result as its output."""

    def __init__(self, host: ReplayHost, marker: str) -> None:
        # Nothing of the parent's: there is no process.
        self.marker = marker
        self.changed = threading.Condition()
        self._no_input_yet = False
        self._buffers = {"stdout": bytearray(), "stderr": bytearray()}
        self.exit_code: int | None = None
        self._host = host
        self._payload: list[bytes] = []

    def send(self, data: bytes, end: bool) -> None:
        self._payload.append(data)
        if not end:
            return
        code, output, problem = self._host.result_of(b"".join(self._payload))
        self._payload.clear()
        with self.changed:
            self._buffers["stdout"] += output
            self._buffers["stderr"] += problem
            self.exit_code = code
            self.changed.notify_all()

    def kill(self) -> None:
        self.exit_code = 1


class ReplayHost(EndpointHost):
    """One host of the fleet."""

    def __init__(self, name: str, folder: Path, password: str) -> None:
        own = folder / "hosts" / name
        super().__init__(name, own, (), USER, password, (), FaultFile(own), {}, lambda _text: None)
        self.answers = (folder / "answers" / name, folder / "answers")

    def start(self, words: Sequence[str], identity: str, console: bool, shell: str) -> Command:
        if words[0].lower().rsplit("\\", 1)[-1] not in POWERSHELL or console:
            raise SoapFault(BAD_REQUEST, "A recorded host runs modules of Ansible and nothing else.")
        return ReplayCommand(self, identity)

    def result_of(self, payload: bytes) -> tuple[int, bytes, bytes]:
        """Exit code, output and errors of a module."""
        try:
            module, arguments = module_of(payload)
            for folder in self.answers:
                path = folder / f"{module}.json"
                if path.is_file():
                    result = json.loads(path.read_bytes())
                    break
            else:
                raise LabError(f"no recorded result of {module} for {self.name}")
        except (LabError, OSError, ValueError) as error:
            return 1, b"", f"{error}\r\n".encode()
        result["invocation"] = {"module_args": arguments}
        return int(bool(result.get("failed"))), json.dumps(result, separators=(",", ":")).encode() + b"\r\n", b""


class ReplayServer(Server):
    """All hosts behind one port."""

    request_queue_size = 512

    def __init__(self, hosts: Mapping[str, ReplayHost], certificate: Path, key: Path) -> None:
        self.hosts = hosts
        super().__init__(next(iter(hosts.values())), certificate, key)

    def host_of(self, path: str) -> EndpointHost:
        before, _slash, name = path.partition("/wsman/")
        if before:
            raise LookupError(path)
        return self.hosts[name]


class Fleet:
    """A fleet as its user sees it: with Fleet(folder) as fleet after define() and answer()."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory.yml"

    def define(self, farms: Mapping[str, Iterable[str]]) -> None:
        """The hosts by farm. A farm is a group of the inventory and the compliance_farm of its hosts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "farms.json").write_text(json.dumps({farm: list(hosts) for farm, hosts in farms.items()}))

    def answer(self, module: str, result: Mapping[str, Any], host: str = "") -> None:
        """What a module (its full name) answers on one host, or on every host without an answer of its own."""
        folder = self.folder / "answers" / host
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{module}.json").write_text(json.dumps(result))

    def fault(self, host: str, **fault: Any) -> None:
        """A fault of one host, see faults.py."""
        folder = self.folder / "hosts" / host
        folder.mkdir(parents=True, exist_ok=True)
        FaultFile(folder).write([{"id": secrets.token_hex(4), **fault}])

    def __enter__(self) -> Fleet:
        command = [sys.executable, "-m", "lab.replay", str(self.folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "READY":
            self._process.wait()
            raise LabError("the fleet does not start; its messages are above")
        return self

    def __exit__(self, *_exception: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def _write_inventory(fleet: Fleet, farms: Mapping[str, Sequence[str]], port: int, password: str) -> None:
    inventory = {
        "all": {
            "vars": {
                "ansible_connection": "winrm",
                "ansible_host": "127.0.0.1",
                "ansible_port": port,
                "ansible_user": USER,
                "ansible_password": password,
                "ansible_winrm_path": "/wsman/{{ inventory_hostname }}",
                "ansible_winrm_scheme": "https",
                "ansible_winrm_transport": "basic",
                "ansible_winrm_server_cert_validation": "validate",
                "ansible_winrm_ca_trust_path": str(fleet.folder / "tls/ca.pem"),
            },
            "children": {
                f"farm_{farm}": {"vars": {"compliance_farm": farm}, "hosts": dict.fromkeys(names)}
                for farm, names in farms.items()
            },
        }
    }
    text = "# Written for the recorded hosts. Holds their password.\n---\n" + yaml.safe_dump(inventory, sort_keys=False)
    tls.write_private(fleet.inventory, text.encode("utf-8"))


def serve(folder: Path) -> int:
    """The process behind a fleet: until SIGTERM, or until who started it is gone."""
    fleet = Fleet(folder)
    farms: dict[str, list[str]] = json.loads((folder / "farms.json").read_bytes())
    password = secrets.token_urlsafe(24)
    _ca, certificate, key = tls.make(folder / "tls", ["fleet"])
    hosts = {name: ReplayHost(name, folder, password) for names in farms.values() for name in names}
    server = ReplayServer(hosts, certificate, key)
    _write_inventory(fleet, farms, server.server_address[1], password)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 5}, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("READY", flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))
