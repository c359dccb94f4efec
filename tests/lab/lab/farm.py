# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A farm and its hosts, as tests, the demo and the command line see them."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import content, faults, netns, paths, template, wine
from .errors import LabError, LabUnavailable

Progress = Callable[[str], None]

# What "nothing changed" compares, relative to drive C, and what is left out because a running server appends to it.
WATCHED = (
    f"{template.INETSRV}",
    "inetpub",
    "ProgramData/Microsoft/Crypto",
    "ProgramData/webfarm.iis",
    "users/root/Temp",
    "windows/system32/tasks",
    "users/root/AppData/Local/Temp",
    "windows/temp",
)
UNWATCHED = ("inetpub/logs",)
KEY_FILE_FOLDER = "ProgramData/Microsoft/Crypto/RSA/MachineKeys/"
CONTAINER_KEY = r"HKEY_LOCAL_MACHINE\Software\Wine\Crypto\RSA"
REGISTRY = (r"HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\IIS", r"HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\InetStp")
MACHINE_GUID_KEY = r"Software\Microsoft\Cryptography"


@dataclass(frozen=True)
class Snapshot:
    """The state of a host as far as the project may change it. Two snapshots of an unchanged host are equal."""

    files: Mapping[str, str]  # path -> sha256, or "folder"
    registry: Mapping[str, str]  # key -> export
    containers: Mapping[str, Mapping[str, str]]  # container -> fingerprint and sddl
    services: Mapping[str, Mapping[str, str]]  # service -> state and start type
    folder: str | None = field(default=None, compare=False)  # copies, where restore() must work

    def differences(self, other: Snapshot) -> list[str]:
        """What differs, one line each; empty when equal."""
        lines = []
        for title in ("files", "registry", "containers", "services"):
            mine, theirs = getattr(self, title), getattr(other, title)
            for name in sorted(set(mine) | set(theirs)):
                if mine.get(name) != theirs.get(name):
                    before, after = (str(side.get(name, "absent"))[:400] for side in (mine, theirs))
                    lines.append(f"{title}: {name}: {before} -> {after}")
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "registry": self.registry,
            "containers": self.containers,
            "services": self.services,
            "folder": self.folder,
        }


class Host:
    """One simulated server."""

    def __init__(self, farm: Farm, name: str, data: Mapping[str, Any]) -> None:
        self.farm = farm
        self.name = name
        self.folder = farm.folder / name
        self.prefix = self.folder / "prefix"
        self.drive_c = self.prefix / "drive_c"
        self.port = int(data.get("port") or 0)
        self.role = str(data.get("role") or "")
        self.machine_guid = str(data.get("machine_guid") or "")
        self._holder = int(data.get("holder") or 0)
        self._faults = faults.FaultFile(self.folder)

    # --- paths ---

    @property
    def config_dir(self) -> Path:
        """inetsrv\\config"""
        return self.drive_c / template.INETSRV / "config"

    @property
    def config(self) -> Path:
        """applicationHost.config"""
        return self.config_dir / "applicationHost.config"

    @property
    def machine_keys(self) -> Path:
        """The folder of CryptoAPI key files."""
        return self.drive_c / "ProgramData/Microsoft/Crypto/RSA/MachineKeys"

    def key_file(self, container: str, cng: bool = False) -> Path:
        """The file that belongs to a container by the real rule."""
        if cng:
            return (
                self.drive_c
                / "ProgramData/Microsoft/Crypto/Keys"
                / f"{content.file_prefix(container, 'utf-16-le')}_{self.machine_guid}"
            )
        return self.machine_keys / f"{content.file_prefix(container, 'ascii')}_{self.machine_guid}"

    # --- running things ---

    @property
    def enter(self) -> Sequence[str]:
        """The command prefix that enters the host's namespaces."""
        return netns.enter_command(self._holder)

    def inventory_vars(self) -> dict[str, Any]:
        """Connection variables for Ansible."""
        return {"ansible_host": "127.0.0.1", "ansible_port": self.port, **self.farm.connection_vars()}

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes = b"",
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a Windows program in the host."""
        return wine.run(self.prefix, argv, self.enter, stdin, timeout, env)

    def _text(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60) -> str:
        done = self.run(argv, stdin, timeout, self.farm.pwsh_environment())
        if done.returncode != 0:
            detail = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
            raise LabError(
                f"{self.name}: {argv[0]} {' '.join(argv[1:3])} ended with {done.returncode}: {detail[:1500]}"
            )
        return done.stdout.decode("utf-8", "replace")

    def pwsh(self, script: str, stdin: bytes = b"", timeout: float = 60) -> str:
        """Run a PowerShell script in the host; answers its standard output."""
        program = self.farm.pwsh_command()
        if not program:
            raise LabUnavailable("this farm has no PowerShell")
        encoded = base64.b64encode(script.encode("utf-16-le")).decode("ascii")
        return self._text([*program, "-NoProfile", "-NonInteractive", "-EncodedCommand", encoded], stdin, timeout)

    def oracle(self, *args: str, stdin: str = "") -> str:
        """One command of iiscrypt.exe."""
        return self._text(["C:\\lab\\iiscrypt.exe", *args], stdin.encode("utf-8")).rstrip("\n")

    def oracle_batch(self, commands: Sequence[Sequence[str]], check: bool = True) -> list[str]:
        """Many commands of iiscrypt.exe in one process; answers the results, without check also error lines."""
        lines = "".join("\t".join(command) + ("\t" if len(command) == 1 else "") + "\n" for command in commands)
        # The exit code tells only that one of the commands failed; its line says which.
        done = self.run(["C:\\lab\\iiscrypt.exe", "batch"], lines.encode("utf-8"), 120, self.farm.pwsh_environment())
        answers = done.stdout.decode("utf-8", "replace").splitlines()
        if len(answers) != len(commands):
            raise LabError(f"{self.name}: iiscrypt answered {len(answers)} of {len(commands)} commands: {answers[-1:]}")
        results = []
        for command, answer in zip(commands, answers, strict=True):
            good = answer == "OK" or answer.startswith("OK ")
            if check and not good:
                raise LabError(f"{self.name}: iiscrypt {' '.join(command[:3])}: {answer}")
            results.append(answer[3:] if good else answer)
        return results

    def _control(self, *args: str, timeout: float = 120) -> list[list[str]]:
        done = self.run(["C:\\lab\\labctl.exe", *args], timeout=timeout)
        if done.returncode not in (0, 1):
            raise LabError(
                f"{self.name}: labctl {args[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')}"
            )
        return [line.split() for line in done.stdout.decode().splitlines()]

    def services(self) -> dict[str, str]:
        """Service -> state."""
        return {name: values["state"] for name, values in self.service_details().items()}

    def service_details(self) -> dict[str, dict[str, str]]:
        """Service -> state, start type, exit code and process id."""
        lines = self._control("services", *template.SERVICES, template.KEY_FILES)
        return {line[0]: {"state": line[1], "start": line[2], "exit_code": line[3], "pid": line[4]} for line in lines}

    def start_services(self, *names: str, timeout: int = 30) -> dict[str, str]:
        """Start in order; answers service -> OK or the error."""
        lines = self._control("start", "-t", str(timeout), *(names or template.SERVICES), timeout=timeout * 6 + 10)
        return {line[0]: " ".join(line[1:]) for line in lines}

    def stop_services(self, *names: str, timeout: int = 30) -> dict[str, str]:
        """Stop in order; answers service -> OK or the error."""
        lines = self._control("stop", "-t", str(timeout), *(names or template.SERVICES[::-1]), timeout=timeout * 6 + 10)
        return {line[0]: " ".join(line[1:]) for line in lines}

    def http(self, path: str = "/", header: str = "", port: int = 80, timeout: float = 30) -> tuple[int, str]:
        """A request to a site of the host, from inside; answers status and body (status 0: no answer)."""
        script = (
            "import sys, http.client\n"
            "port, path, header, limit = int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])\n"
            "c = http.client.HTTPConnection('127.0.0.1', port, timeout=limit)\n"
            "try:\n"
            "    c.request('GET', path, headers={'Host': header} if header else {})\n"
            "    r = c.getresponse(); print(r.status); sys.stdout.flush(); sys.stdout.buffer.write(r.read())\n"
            "except OSError as e:\n"
            "    print(0); print(e)\n"
        )
        done = subprocess.run(
            [*self.enter, sys.executable, "-I", "-c", script, str(port), path, header, str(timeout)],
            capture_output=True,
            timeout=timeout + 10,
            check=False,
        )
        status, _newline, body = done.stdout.decode("utf-8", "replace").partition("\n")
        return int(status or 0), body

    def use_configuration(self, text: str) -> None:
        """Put a configuration with markers (see lab.content) in force, filled with this host's own keys."""
        self.write_file(self.config, content.fill(text, self.oracle_batch).encode("utf-8"))

    @staticmethod
    def write_file(path: Path, data: bytes) -> None:
        """Write a file of the host as a new one: it may be shared with other hosts by a hard link."""
        new = path.with_name(path.name + ".lab-new")
        new.write_bytes(data)
        new.replace(path)

    def events(self) -> list[dict[str, Any]]:
        """What the stand-in services logged."""
        file = self.drive_c / "lab/events.jsonl"
        if not file.is_file():
            return []
        return [
            json.loads(line) for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]

    # --- state ---

    def _watched_files(self) -> Iterable[tuple[str, Path]]:
        skip = {str(self.drive_c / name) for name in UNWATCHED}
        for top in WATCHED:
            for folder, names, files in os.walk(self.drive_c / top):
                names[:] = sorted(name for name in names if os.path.join(folder, name) not in skip)
                yield os.path.relpath(folder, self.drive_c), Path(folder)
                for name in sorted(files):
                    path = Path(folder, name)
                    yield os.path.relpath(path, self.drive_c), path

    def _files(self) -> dict[str, str]:
        found = {}
        for name, path in self._watched_files():
            with contextlib.suppress(FileNotFoundError):
                if path.is_dir():
                    found[name] = "folder"
                elif name.startswith(KEY_FILE_FOLDER):
                    # mirrors the registry of containers, see _container_state
                    found[name] = "key file"
                else:
                    found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def _export(self, key: str) -> str:
        # Every host has containers: an export without them is one that Wine's regedit did not finish.
        for _attempt in range(3 if key == CONTAINER_KEY else 1):
            file = self.folder / f"export-{uuid.uuid4().hex[:8]}.reg"
            try:
                self.run(["regedit", "/E", wine.windows_path(file), key])
                text = file.read_bytes().decode("utf-16").replace("\r\n", "\n") if file.is_file() else ""
            finally:
                file.unlink(missing_ok=True)
            if self._container_names(text) or key != CONTAINER_KEY:
                break
        return text

    def containers(self) -> list[str]:
        """The names of all machine containers, as Wine's registry has them."""
        return self._container_names(self._export(CONTAINER_KEY))

    @staticmethod
    def _container_names(export: str) -> list[str]:
        start = f"[{CONTAINER_KEY}\\".lower()
        return sorted(
            line[len(start) : -1].replace("\\\\", "\\")
            for line in export.splitlines()
            if line.lower().startswith(start) and line.endswith("]")
        )

    def _container_state(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        # Wine encrypts a container's keys anew whenever a program closes it, so that the bytes in the registry say
        # nothing: what counts is the public key, the security descriptor, and whether the private key may leave.
        if not names:
            return {}
        asked = (["fingerprint"], ["getsddl"], ["export", "private"])
        answers = self.oracle_batch([[verb, name, *rest] for name in names for verb, *rest in asked], check=False)
        return {
            name: {
                "fingerprint": answers[3 * at],
                "sddl": answers[3 * at + 1],
                "exportable": "no" if answers[3 * at + 2].startswith("ERROR") else "yes",
            }
            for at, name in enumerate(names)
        }

    def snapshot(self, keep: bool = False) -> Snapshot:
        """The present state; with keep, restore() can bring it back later."""
        export = self._export(CONTAINER_KEY)
        registry = {key: self._export(key) for key in REGISTRY}
        details = self.service_details()
        snapshot = Snapshot(
            files=self._files(),
            registry=registry,
            containers=self._container_state(self._container_names(export)),
            services={name: {"state": values["state"], "start": values["start"]} for name, values in details.items()},
        )
        if not keep:
            return snapshot
        folder = self.folder / "states" / uuid.uuid4().hex[:12]
        for name, path in self._watched_files():
            target = folder / "files" / name
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
        text = export if export else "Windows Registry Editor Version 5.00\n"
        header, _newline, rest = text.partition("\n")
        (folder / "containers.reg").write_bytes(
            f"{header}\n\n[-{CONTAINER_KEY}]\n\n{rest}".replace("\n", "\r\n").encode("utf-16")
        )
        for number, key in enumerate(REGISTRY):
            header, _newline, rest = (registry[key] or "Windows Registry Editor Version 5.00\n").partition("\n")
            (folder / f"registry{number}.reg").write_bytes(
                f"{header}\n\n[-{key}]\n\n{rest}".replace("\n", "\r\n").encode("utf-16")
            )
        kept = Snapshot(snapshot.files, snapshot.registry, snapshot.containers, snapshot.services, str(folder))
        (folder / "state.json").write_text(json.dumps(kept.to_json()), encoding="utf-8")
        return kept

    def wait_until_read(self, seconds: float = 5) -> None:
        """Until WAS has taken up a configuration written just now: it looks every second, and writes for its pools."""
        while self.config.is_file() and 0 <= time.time() - self.config.stat().st_mtime < seconds:
            time.sleep(0.2)

    @contextlib.contextmanager
    def history_paused(self) -> Iterator[None]:
        """AppHostSvc runs, but makes no copies."""
        pause = self.drive_c / "lab/history.paused"
        pause.touch()
        try:
            yield
        finally:
            pause.unlink(missing_ok=True)

    @property
    def pristine(self) -> Snapshot:
        """The state in which the farm was raised."""
        path = self.folder / "pristine.json"
        if not path.is_file():
            raise LabError(f"{self.name}: no pristine state was kept; raise the farm again")
        return Snapshot(**json.loads(path.read_text(encoding="utf-8")))

    def keep_pristine(self) -> None:
        """Make the present state the one that reset() brings back."""
        kept = self.snapshot(keep=True)
        (self.folder / "pristine.json").write_text(json.dumps(kept.to_json()), encoding="utf-8")

    def reset(self) -> None:
        """Back to the pristine state."""
        self.restore(self.pristine)

    def restore(self, state: Snapshot) -> None:
        """Bring a kept state back: files, containers with access lists, registry, services; faults end."""
        if not state.folder or not Path(state.folder).is_dir():
            raise LabError(f"{self.name}: this snapshot was taken without keep=True and cannot be restored")
        self.clear_faults()
        self._forget_tasks()
        present = self.snapshot()
        if present == state:
            return
        folder = Path(state.folder)
        disturbed = (
            present.files != state.files or present.containers != state.containers or present.registry != state.registry
        )
        moved = any(present.services[name]["state"] != state.services[name]["state"] for name in template.SERVICES)
        if (disturbed or moved) and self._stop_everything():
            present = self.snapshot()  # without the access lists that were in memory
            disturbed = True
        if disturbed:
            pause = self.drive_c / "lab/keyfiles.paused"
            pause.touch()
            try:
                self._restore_registry(state, present, folder)
                self._restore_files(state, folder)
            finally:
                pause.unlink(missing_ok=True)
        changed = [
            name
            for name in state.services
            if present.services.get(name, {}).get("start") != state.services[name]["start"]
        ]
        if changed:
            self._control("startup", *(f"{name}={state.services[name]['start']}" for name in changed))
        running = [name for name in template.SERVICES if state.services[name]["state"] == "running"]
        if running:
            failed = {name: answer for name, answer in self.start_services(*running).items() if answer != "OK"}
            if failed:
                # LabKeyFiles may not have caught up with the restored containers yet.
                time.sleep(2)
                failed = {name: answer for name, answer in self.start_services(*failed).items() if answer != "OK"}
            if failed:
                raise LabError(f"{self.name}: services do not start after the reset: {failed}")

    def _forget_tasks(self) -> None:
        folder = self.drive_c / "windows/system32/tasks"
        for path in folder.iterdir() if folder.is_dir() else ():
            path.unlink(missing_ok=True)

    def _stop_everything(self) -> bool:
        """Answers whether the host had to be started anew for it."""
        answers = self.stop_services(timeout=10)
        if all(answer == "OK" for answer in answers.values()):
            return False
        # A service that hangs or refuses: end the host as by pulling its plug, and start it again. What Wine keeps
        # only in memory (the access lists of containers) is restored by the caller.
        wine.stop_server(self.prefix)
        boot(self.prefix, self.enter)
        self.stop_services(timeout=30)
        return True

    def restart(self) -> None:
        """Pull the plug and start the host again: its automatic services start, then what its scheduler does then."""
        from . import scheduler  # it needs this module

        wine.stop_server(self.prefix)
        boot(self.prefix, self.enter)
        scheduler.boot(self)

    def _restore_registry(self, state: Snapshot, present: Snapshot, folder: Path) -> None:
        if present.containers != state.containers:
            self.run(["regedit", "/S", wine.windows_path(folder / "containers.reg")])
            wanted = {
                name: values["sddl"]
                for name, values in state.containers.items()
                if not values["sddl"].startswith("ERROR")
            }
            if wanted:
                self.oracle_batch([["setsddl", name, sddl] for name, sddl in wanted.items()])
        for number, key in enumerate(REGISTRY):
            if present.registry.get(key) != state.registry.get(key):
                self.run(["regedit", "/S", wine.windows_path(folder / f"registry{number}.reg")])

    def _restore_files(self, state: Snapshot, folder: Path) -> None:
        present = self._files()
        for name in sorted(set(present) - set(state.files), key=len, reverse=True):
            path = self.drive_c / name
            if present[name] == "folder":
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for name in sorted(state.files):
            path = self.drive_c / name
            if state.files[name] == "folder":
                path.mkdir(parents=True, exist_ok=True)
            elif present.get(name) != state.files[name] or state.files[name] == "key file":
                path.parent.mkdir(parents=True, exist_ok=True)
                new = path.with_name(path.name + ".lab-new")
                shutil.copy2(folder / "files" / name, new)
                new.replace(path)
            else:
                shutil.copystat(folder / "files" / name, path)

    # --- faults ---

    def fault(self, kind: str, **args: Any) -> None:
        """Set a fault (see lab.faults); it stays until clear_faults() unless it counts itself down."""
        if kind not in faults.KINDS:
            raise LabError(f"unknown fault {kind}: use one of {', '.join(faults.KINDS)}")
        if kind == "full_disk":
            faults.full_disk(self.drive_c / args["folder"], int(args.get("free_kb", 0)))
        elif kind == "read_only":
            path = self.drive_c / args["path"]
            if args.get("attribute"):
                path.chmod(0o444)
            else:
                faults.read_only(path)
        elif kind == "lock":
            self._lock_file(str(args["path"]), float(args.get("seconds", 30)), bool(args.get("readable")))
        elif kind == "service":
            folder = self.drive_c / "lab/faults"
            folder.mkdir(parents=True, exist_ok=True)
            words = " ".join(f"{key}={args[key]}" for key in ("ms", "code", "times") if key in args)
            (folder / args["name"]).write_text(words + "\n", encoding="ascii")
        else:
            self._faults.write([*self._faults.read(), {"id": uuid.uuid4().hex[:8], "kind": kind, **args}])

    def _lock_file(self, path: str, seconds: float, readable: bool) -> None:
        windows = "C:\\" + path.replace("/", "\\")
        words = ["lock", windows, str(int(seconds) or 1), *(["readable"] if readable else [])]
        process = subprocess.Popen(
            [*self.enter, wine.loader(), "C:\\lab\\labctl.exe", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=wine.environment(self.prefix, {"LAB_LOCK": self.name}),
            cwd=self.drive_c,
            start_new_session=True,
        )
        assert process.stdout is not None
        answer = process.stdout.readline().strip()
        if answer != b"locked":
            raise LabError(f"{self.name}: {path} cannot be locked: {answer.decode(errors='replace')}")

    def clear_faults(self) -> None:
        """Take all faults away."""
        self._faults.write([])
        faults.unmount_all(self.prefix)
        folder = self.drive_c / "lab/faults"
        if folder.is_dir():
            for path in folder.iterdir():
                path.unlink(missing_ok=True)
        for pid in wine.processes(self.prefix):
            with contextlib.suppress(OSError):
                if b"LAB_LOCK=" + self.name.encode() in Path("/proc", str(pid), "environ").read_bytes().split(b"\0"):
                    os.kill(pid, signal.SIGKILL)


def boot(prefix: Path, enter: Sequence[str]) -> None:
    """Start a host's server and its automatic services."""
    wine.start_server(prefix, enter)
    done = wine.run(prefix, ["wineboot"], enter, timeout=60)
    if done.returncode != 0:
        raise LabError(f"{prefix.parent.name} does not boot: {done.stderr.decode(errors='replace')[:300]}")


class Farm:
    """A farm that is up: a daemon serves its endpoint and keeps its hosts' namespaces."""

    def __init__(self, name: str = "demo", root: Path | None = None) -> None:
        self.name = name
        self.folder = (root or paths.FARMS) / name
        self._state: dict[str, Any] = {}
        if (self.folder / "state.json").is_file():
            self._state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        self.hosts = {host: Host(self, host, data) for host, data in self._state.get("hosts", {}).items()}

    # --- life ---

    @classmethod
    def up(
        cls,
        names: Sequence[str] = ("web1", "web2", "web3"),
        root: Path | None = None,
        name: str = "demo",
        progress: Progress | None = None,
        timeout: float = 300,
    ) -> Farm:
        """Raise a farm; one that is already up with these hosts is taken as it is."""
        say = progress or (lambda _text: None)
        farm = cls(name, root)
        if farm.is_up():
            if list(farm.hosts) == list(names):
                say(f"Farm {name} is already up.")
                return farm
            farm.down()
        else:
            farm.sweep()
        farm.folder.mkdir(parents=True, exist_ok=True)
        log = farm.folder / "progress.log"
        log.write_text("", encoding="utf-8")
        environment = {
            **os.environ,
            "PYTHONPATH": str(paths.LAB),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with open(log, "ab") as out:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "lab",
                    "_serve",
                    "--farm",
                    name,
                    "--root",
                    str(root or paths.FARMS),
                    "--hosts",
                    ",".join(names),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
                cwd=paths.LAB,
            )
        seen = 0
        end = time.monotonic() + timeout
        while True:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            for line in lines[seen:]:
                if line.startswith("* "):
                    say(line[2:])
            seen = len(lines)
            code = process.poll()
            if "READY" in lines:
                return cls(name, root)
            if code is not None or time.monotonic() > end:
                if code is None:
                    process.terminate()
                    process.wait(30)
                farm.sweep()
                reason = next((line for line in reversed(lines) if line.strip()), "no output")
                kind = LabUnavailable if reason.startswith("UNAVAILABLE ") else LabError
                raise kind(f"the farm {name} did not come up: {reason.removeprefix('UNAVAILABLE ')} (log: {log})")
            time.sleep(0.1)

    @property
    def daemon_pid(self) -> int | None:
        """The daemon's process id while it runs."""
        pid = self._state.get("pid")
        if not pid:
            return None
        try:
            words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
        except OSError:
            return None
        return int(pid) if b"_serve" in words and self.name.encode() in words else None

    def is_up(self) -> bool:
        """Is the daemon there?"""
        return self.daemon_pid is not None

    def down(self, timeout: float = 60) -> None:
        """End the farm; no process stays behind."""
        pid = self.daemon_pid
        if pid:
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + timeout
            while self.daemon_pid and time.monotonic() < end:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)  # it is our child when we raised it
                time.sleep(0.1)
            if self.daemon_pid:
                os.kill(pid, signal.SIGKILL)
        self.sweep()
        self._state.pop("pid", None)

    def sweep(self) -> None:
        """End what a farm that was not taken down properly left behind: prefixes' processes and mounts."""
        if not self.folder.is_dir():
            return
        faults.unmount_all(self.folder)
        for prefix in sorted(self.folder.glob("*/prefix")):
            if wine.processes(prefix):
                wine.stop_server(prefix)

    # --- parts ---

    def host(self, name: str) -> Host:
        """A host by name."""
        if name not in self.hosts:
            raise LabError(
                f"the farm {self.name} has no host {name}: it has {', '.join(self.hosts) or 'none (is it up?)'}"
            )
        return self.hosts[name]

    @property
    def inventory(self) -> Path:
        """The inventory file for ansible-playbook -i."""
        return self.folder / "inventory.yml"

    @property
    def password(self) -> str:
        """The password of the hosts' Administrator."""
        return (self.folder / "password").read_text(encoding="ascii").strip()

    def connection_vars(self) -> dict[str, Any]:
        """What all hosts have in common."""
        return {
            "ansible_connection": "winrm",
            "ansible_user": "Administrator",
            "ansible_password": self.password,
            "ansible_winrm_scheme": "https",
            "ansible_winrm_transport": "basic",
            "ansible_winrm_server_cert_validation": "validate",
            "ansible_winrm_ca_trust_path": str(self.folder / "tls/ca.pem"),
        }

    def has_pwsh(self) -> bool:
        """Can modules run here?"""
        return bool(self._state.get("pwsh"))

    def pwsh_command(self) -> list[str]:
        """How PowerShell is called inside a host."""
        return list(self._state.get("pwsh") or [])

    def pwsh_environment(self) -> dict[str, str]:
        """More variables for PowerShell."""
        return dict(self._state.get("environment") or {})

    def reset(self) -> None:
        """All hosts back to their pristine state."""
        for host in self.hosts.values():
            host.reset()


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One daemon per farm."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LabError(f"{folder}: another process serves this farm") from error
        yield
