# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults that tests set while the farm runs. They lie in a file per host, which the endpoint reads at every message.

    drop          close the connection instead of answering: after_messages=N, after_bytes=N (cuts an answer short),
                  action="Receive" (only these messages), times=N (default: until cleared)
    delay         wait before answering: seconds=S, action=..., times=N
    kill          end the next command and its children: after=S seconds, or marker=PATH as soon as that file exists
                  (a path relative to drive C, or a pattern), with contains=TEXT in it; drop=True also cuts the
                  connections, and new ones until the faults are cleared; spare=True leaves the command running;
                  times=N (default 1)
    environment   more variables for the processes of commands: variables={...}
    unelevated    run commands with a token that is not elevated
    wrap          put words before the command: argv=[...]
    full_disk     folder=PATH (relative to drive C) holds free_kb more KiB (default 0), then no more. Wine reports
                  a write that fits only in part as done, where Windows fails: with 0 every write fails as it should
    read_only     path=PATH (relative to drive C) can be read only, whoever asks; with attribute=True the file
                  attribute is set instead
    lock          path=PATH is held open without sharing for seconds=S; with readable=True it can be read, not replaced
    service       a fault of the stand-in services: name="refuse-start-W3SVC", ms=N, code=N, times=N (see iissvc.c)

skip=N lets N commands (kill, environment, unelevated, wrap) or messages (drop, delay) pass first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from .errors import LabError

KINDS = ("drop", "delay", "kill", "environment", "unelevated", "wrap", "full_disk", "read_only", "lock", "service")

Fault = dict[str, Any]


def met(fault: Fault, drive: Path) -> bool:
    """Is the file there that a fault waits for, with its text?"""
    if not fault.get("marker"):
        return True
    try:
        return any(
            str(fault.get("contains", "")) in path.read_text(encoding="utf-8", errors="replace")
            for path in drive.glob(fault["marker"])
        )
    except OSError:
        return False


class FaultFile:
    """The faults of one host as both sides see them: tests write, the endpoint reads and counts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "faults.json"
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._faults: list[Fault] = []
        self._counts: dict[str, int] = {}

    def write(self, faults: list[Fault]) -> None:
        """Replace the list atomically."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(faults), encoding="utf-8")
        new.replace(self.path)

    def read(self) -> list[Fault]:
        """The present list."""
        try:
            return list(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return []

    def _refresh(self) -> None:
        try:
            state = self.path.stat()
            seen = (state.st_mtime_ns, state.st_ino)
        except FileNotFoundError:
            seen = None
        if seen != self._seen:
            self._seen = seen
            self._faults = self.read() if seen else []
            known = {fault["id"] for fault in self._faults}
            self._counts = {key: count for key, count in self._counts.items() if key.split("/")[0] in known}

    def take(self, *kinds: str, action: str = "") -> list[Fault]:
        """The faults of these kinds that apply now; each answer counts against skip and times."""
        with self._lock:
            self._refresh()
            found = []
            for fault in self._faults:
                if fault["kind"] not in kinds or (fault.get("action") and fault["action"] != action):
                    continue
                number = self._counts.get(fault["id"], 0)
                self._counts[fault["id"]] = number + 1
                first = int(fault.get("skip", 0)) + int(fault.get("after_messages", 0))
                times = fault.get("times", 1 if fault["kind"] == "kill" else None)
                if number >= first and (times is None or number < first + int(times)):
                    found.append(fault)
            return found

    def add_bytes(self, fault: Fault, size: int) -> int:
        """Count answered bytes of a fault with after_bytes; answers how many were sent before this answer."""
        with self._lock:
            key = f"{fault['id']}/bytes"
            before = self._counts.get(key, 0)
            self._counts[key] = before + size
            return before


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"mount {' '.join(arguments)} failed: {done.stderr.strip()}")


def mounts_below(folder: Path) -> list[str]:
    """Mount points under a folder, innermost first."""
    found = []
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        point = line.split(" ")[1].encode("latin-1", "backslashreplace").decode("unicode_escape")
        if point.startswith(f"{folder}/"):
            found.append(point)
    return found[::-1]


def unmount_all(folder: Path) -> None:
    """Take every fault's mount away; the folders show what they held before."""
    for point in mounts_below(folder):
        if subprocess.run(["umount", point], capture_output=True, check=False).returncode != 0:
            subprocess.run(["umount", "-l", point], capture_output=True, check=False)


def full_disk(folder: Path, free_kb: int) -> None:
    """Mount a tiny file system with the folder's present content and little more over it."""
    page = 4096
    size = sum(-(-path.lstat().st_size // page) * page + page for path in folder.rglob("*")) + 4 * page + free_kb * 1024
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".full-") as keep:
        _mount("-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", keep)
        try:
            shutil.copytree(folder, keep, symlinks=True, dirs_exist_ok=True)
            usage = os.statvfs(keep)
            filler = usage.f_bavail * usage.f_frsize - free_kb * 1024
            if filler > 0:
                # shrink to what is used plus the free space that was asked for
                used = (usage.f_blocks - usage.f_bavail) * usage.f_frsize
                _mount("-o", f"remount,size={used + free_kb * 1024}", keep)
            _mount("--bind", keep, str(folder))
        finally:
            subprocess.run(["umount", keep], capture_output=True, check=False)


def read_only(path: Path) -> None:
    """Bind a file or folder over itself, read-only."""
    _mount("--bind", str(path), str(path))
    _mount("-o", "remount,bind,ro", str(path))
