# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wine: its binaries, the environment of its processes, the registry files of a prefix that is not running."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .errors import LabError, LabUnavailable

# Debian's /usr/bin/wine is a script that prints hints; the programs behind it are used directly.
_LOADERS = ("/usr/lib/wine/wine64", "/usr/lib/wine/wine", "/usr/bin/wine64", "/opt/wine-stable/bin/wine64")
_SERVERS = (
    "/usr/lib/wine/wineserver64",
    "/usr/lib/wine/wineserver",
    "/usr/bin/wineserver",
    "/opt/wine-stable/bin/wineserver",
)

# Lines that Wine itself writes to the standard error of a Windows program.
NOISE = re.compile(
    rb"Read access denied for device|^[0-9a-f]{4}:(err|fixme|warn|trace):|^wine: (created|configuration|failed to open)"
)


def _first(paths: Iterable[str]) -> str | None:
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def loader() -> str:
    """The wine64 program."""
    found = _first(_LOADERS)
    if not found:
        raise LabUnavailable("Wine is not installed: as root run apt-get install wine wine64")
    return found


def server() -> str:
    """The wineserver program."""
    found = _first(_SERVERS)
    if not found:
        raise LabUnavailable("Wine's wineserver is not installed: as root run apt-get install wine64")
    return found


def environment(prefix: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a process in a host; nothing of the caller's own leaks into the simulated server."""
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(prefix / "home"),
        "LANG": "C.UTF-8",
        "WINEPREFIX": str(prefix),
        "WINELOADER": loader(),
        "WINESERVER": server(),
        "WINEDEBUG": "-all",
        # no HTML engine, no desktop menus; the lab's schtasks.exe and not Wine's own; never mscoree (.NET assemblies
        # would not load)
        "WINEDLLOVERRIDES": "mshtml=;winemenubuilder.exe=;schtasks.exe=n",
        # .NET on Wine dies now and then with "Internal CLR error 0x80131506" without these
        "DOTNET_EnableWriteXorExecute": "0",
        "DOTNET_gcConcurrent": "0",
        "NO_COLOR": "1",
        "POWERSHELL_TELEMETRY_OPTOUT": "1",
        "POWERSHELL_UPDATECHECK": "Off",
    }
    env.update(extra or {})
    return env


def clean(stderr: bytes) -> bytes:
    """Standard error without Wine's own noise."""
    return b"".join(line for line in stderr.splitlines(keepends=True) if not NOISE.search(line))


def windows_path(path: Path | str) -> str:
    """A Unix path as a program in the prefix sees it (drive Z is the root)."""
    return "Z:" + str(path).replace("/", "\\")


def run(
    prefix: Path,
    argv: Sequence[str],
    enter: Sequence[str] = (),
    stdin: bytes = b"",
    timeout: float = 60,
    extra: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a Windows program in a prefix, `enter` being the command that enters its namespaces."""
    # Files, not pipes: background processes that a program starts inherit them, and reading a pipe would wait for
    # these too.
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write(stdin)
        source.seek(0)
        process = subprocess.Popen(
            [*enter, loader(), *argv],
            stdin=source,
            stdout=out,
            stderr=err,
            env=environment(prefix, extra),
            cwd=cwd or prefix / "drive_c",
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise LabError(f"{argv[0]} did not end within {timeout:.0f} s in {prefix.name}") from error
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(
            list(argv),
            code,
            out.read().replace(b"\r\n", b"\n"),
            clean(err.read()).replace(b"\r\n", b"\n"),
        )


def start_server(prefix: Path, enter: Sequence[str] = ()) -> None:
    """Start the prefix's server and keep it; its own output must not hold the caller's pipes."""
    subprocess.run(
        [*enter, server(), "-p"],
        env=environment(prefix),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
        timeout=30,
    )


def processes(prefix: Path) -> list[int]:
    """Ids of all processes that belong to this prefix (their environment names it), wineserver included."""
    wanted = b"WINEPREFIX=" + str(prefix).encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if wanted in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                found.append(int(entry))
        except OSError:
            continue
    return found


def stop_server(prefix: Path, timeout: float = 15) -> None:
    """End everything of one prefix: ask its server, wait, and end by id whatever stayed."""
    if not prefix.is_dir():
        return
    own = os.getpid()
    for option in ("-k", "-k9"):
        subprocess.run(
            [server(), option],
            env=environment(prefix),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=30,
        )
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if not [pid for pid in processes(prefix) if pid != own]:
                return
            time.sleep(0.1)
    for pid in processes(prefix):
        if pid != own:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass


def edit_registry_text(file: Path, edits: Mapping[str, Mapping[str, str]]) -> None:
    """Set string values in a registry file of a prefix that is not running. Keys and values must exist already."""
    text = file.read_text(encoding="latin-1")
    for key, values in edits.items():
        header = "[" + key.replace("\\", "\\\\") + "]"
        start = text.lower().find(header.lower())
        if start < 0:
            raise LabError(f"{file}: no registry key {key}")
        end = text.find("\n[", start)
        end = len(text) if end < 0 else end
        section = text[start:end]
        for name, value in values.items():
            old = re.compile(rf'^"{re.escape(name)}"="[^"]*"', re.MULTILINE | re.IGNORECASE)
            section, count = old.subn(f'"{name}"="{value}"'.replace("\\", r"\\"), section)
            if not count:
                raise LabError(f"{file}: no value {name} in {key}")
        text = text[:start] + section + text[end:]
    # The file may be shared by a hard link: write a new one.
    new = file.with_name(file.name + ".new")
    new.write_text(text, encoding="latin-1")
    new.replace(file)
