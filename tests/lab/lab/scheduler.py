# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Task Scheduler of a host.

The lab's schtasks.exe (src/schtasks.c) registers and deletes tasks and keeps their definitions where Windows keeps
them; they are started here, by the same definitions: when the host starts, and when their time has come. Everything in
a host runs as one user, so that SYSTEM of a task is not another account than that of the connection.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from .errors import LabError
from .farm import Host

FOLDER = "windows/system32/tasks"
SPACE = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


@dataclass(frozen=True)
class Task:
    """A registered task, as far as it is needed here. Anything else in a definition is refused."""

    name: str
    user: str
    command: str
    arguments: str
    at_boot: bool
    due: float | None  # Unix time of the first start
    interval: float  # seconds between starts, once it is due


def read(path: Path) -> Task:
    """A definition as schtasks.exe kept it."""
    root = ElementTree.fromstring(path.read_bytes())
    triggers = root.find(f"{SPACE}Triggers")
    actions = root.findall(f"{SPACE}Actions/{SPACE}Exec")
    if triggers is None or len(actions) != 1:
        raise LabError(f"the task {path.name} has no triggers or not exactly one program")
    unknown = {item.tag.removeprefix(SPACE) for item in triggers} - {"TimeTrigger", "BootTrigger"}
    if unknown:
        raise LabError(f"the task {path.name} has triggers that the lab does not know: {unknown}")
    start = triggers.findtext(f"{SPACE}TimeTrigger/{SPACE}StartBoundary")
    interval = triggers.findtext(f"{SPACE}TimeTrigger/{SPACE}Repetition/{SPACE}Interval") or ""
    return Task(
        name=path.name,
        user=root.findtext(f"{SPACE}Principals/{SPACE}Principal/{SPACE}UserId") or "",
        command=actions[0].findtext(f"{SPACE}Command") or "",
        arguments=actions[0].findtext(f"{SPACE}Arguments") or "",
        at_boot=triggers.find(f"{SPACE}BootTrigger") is not None,
        due=datetime.strptime(start, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp() if start else None,
        interval=60.0 * int(interval.removeprefix("PT").removesuffix("M")) if interval else 0.0,
    )


def tasks(host: Host) -> dict[str, Task]:
    """The registered tasks of a host, by name."""
    folder = host.drive_c / FOLDER
    return {path.name: read(path) for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def run(host: Host, task: Task, timeout: float = 600) -> int:
    """Start a task's program and wait for it; answers its exit code."""
    # The program gets its command line as it stands in the definition; Wine puts it together again from these words.
    words = shlex.split(task.arguments.replace("\\", "\\\\"))
    return host.run([task.command, *words], timeout=timeout, env=host.farm.pwsh_environment()).returncode


def boot(host: Host) -> dict[str, int]:
    """What the scheduler does when the host starts."""
    return {task.name: run(host, task) for task in tasks(host).values() if task.at_boot}


class Scheduler:
    """Starts what is due on the hosts of a farm, until it is told to stop."""

    def __init__(self, hosts: list[Host], stopping: threading.Event, log: Callable[[str], None]) -> None:
        self.hosts, self.stopping, self.log = hosts, stopping, log

    def start(self) -> None:
        for host in self.hosts:
            threading.Thread(target=self._watch, args=(host,), daemon=True).start()

    def _watch(self, host: Host) -> None:
        last: dict[tuple[str, float | None], float] = {}
        while not self.stopping.wait(1):
            try:
                found = tasks(host)
            except (OSError, ElementTree.ParseError):
                continue  # it is being written or deleted
            last = {mark: when for mark, when in last.items() if mark[0] in found}
            for task in found.values():
                now = time.time()
                mark = (task.name, task.due)
                if task.due is None or now < task.due:
                    continue
                if mark in last and (not task.interval or now < last[mark] + task.interval):
                    continue
                last[mark] = now
                try:
                    self.log(f"{host.name}: task {task.name} ended with {run(host, task)}")
                except LabError as error:
                    self.log(f"{host.name}: task {task.name}: {error}")
