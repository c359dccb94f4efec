# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of the controller: what a host costs it, with hosts that answer at no cost."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import _fleet

from lab.replay import Fleet

from .figure import ROOT, BenchError, Figure

FORKS = 50
FARM_SIZE = 20
LIBRARY = ROOT / "tests" / "bench" / "library"
MODULE = ROOT / "plugins" / "modules" / "server_info.ps1"
PLAY = "- hosts: all\n  gather_facts: false\n  tasks:\n    - {task}:\n"


def make_fleet(folder: Path, hosts: int) -> Fleet:
    """Hosts that answer do-nothing modules and server_info as a lab host did, each with its own names and keys."""
    fleet = Fleet(folder)
    names = [f"web{number + 1:04d}" for number in range(hosts)]
    farms = {f"farm{at // FARM_SIZE + 1:03d}": names[at : at + FARM_SIZE] for at in range(0, hosts, FARM_SIZE)}
    fleet.define(farms)
    for module in ("do_nothing", "do_nothing_loaded"):
        fleet.answer(module, {"changed": False})
    for farm, members in farms.items():
        for name in members:
            fleet.answer("webfarm.iis.server_info", {"changed": False, **_fleet.facts(name, farm)}, name)
    return fleet


def loaded_module(folder: Path) -> Path:
    """The module that does nothing, with the libraries that server_info brings: what ansible-core spends on their
    bytes alone."""
    lines = [line for line in MODULE.read_text(encoding="utf-8").splitlines() if line.startswith("#AnsibleRequires")]
    requires = "\n".join(lines).replace("..module_utils", "ansible_collections.webfarm.iis.plugins.module_utils")
    body = (LIBRARY / "do_nothing.ps1").read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(LIBRARY / "do_nothing.ps1", folder)
    path = folder / "do_nothing_loaded.ps1"
    path.write_text(re.sub(r"(?m)^#AnsibleRequires .*$", lambda _match: requires, body), encoding="utf-8")
    return path


@dataclass
class Cost:
    """What a run cost the controller: processor seconds of Ansible and all its workers, and memory in MB.

    memory: the largest sum of what all its processes had for themselves (PSS), looked at twice a second.
    """

    seconds: float
    memory: float
    wall: float


def _tree(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, pending = [], [root]
    while pending:
        one = pending.pop()
        found.append(one)
        pending += children.get(one, [])
    return found


def _memory(root: int) -> float:
    total = 0
    for process in _tree(root):
        try:
            text = Path("/proc", str(process), "smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue
        match = re.search(r"(?m)^Pss:\s+(\d+) kB", text)
        total += int(match[1]) if match else 0
    return total / 1024


def run_play(fleet: Fleet, play: str, folder: Path, library: Path, *arguments: str) -> Cost:
    """Run a playbook over the fleet and count. Raises BenchError when it fails."""
    command = ["ansible-playbook", "-i", str(fleet.inventory), "--forks", str(FORKS), play, *arguments]
    env = os.environ | {"ANSIBLE_LIBRARY": str(library), "PWD": str(folder)}
    peak = [0.0]
    done = threading.Event()
    log = folder / "log"
    began = time.monotonic()
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )

        def watch() -> None:
            while not done.wait(0.5):
                peak[0] = max(peak[0], _memory(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        watcher.join()
    if process.returncode:
        raise BenchError(f"{play} failed over the fleet: {log.read_text(errors='replace')[-500:]}")
    # wait4 counts the process with every worker that it has waited for.
    return Cost(usage.ru_utime + usage.ru_stime, peak[0], time.monotonic() - began)


def _series(top: Path, hosts: int, repetitions: int) -> dict[str, list[Cost]]:
    """Every play in turn, so that what else the machine does meets all of them."""
    folder = top / f"fleet{hosts}"
    library = top / "library"
    loaded_module(library)
    plays = {}
    for name in ("do_nothing", "do_nothing_loaded"):
        plays[name] = str(top / f"{name}.yml")
        Path(plays[name]).write_text(PLAY.format(task=name), encoding="utf-8")
    plays["compliance"] = "webfarm.iis.compliance"
    costs: dict[str, list[Cost]] = {name: [] for name in plays}
    with make_fleet(folder, hosts) as fleet:
        for number in range(repetitions):
            for name in list(plays)[:: -1 if number % 2 else 1]:
                work = folder / "run"
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
                costs[name].append(run_play(fleet, plays[name], work, library))
                if name == "compliance":
                    _check(work / "compliance" / "report" / "compliance.json", hosts)
                print(f"   {hosts} hosts, {name}: {costs[name][-1].seconds:.1f} s of processor time", file=sys.stderr)
    return costs


def _check(path: Path, hosts: int) -> None:
    states = [one["state"] for one in json.loads(path.read_text(encoding="utf-8"))["hosts"]]
    if states.count("answered") != hosts:
        raise BenchError(f"{states.count('answered')} of {hosts} hosts answered the compliance run")


def controller(smoke: bool) -> list[Figure]:
    """Time and memory of the compliance run per host, against modules that do nothing, and how they grow.

    Five runs of each play over 1,000 hosts would take most of an hour. So five turns are taken over the small fleet,
    one over the large one, and the cost of a host between the two tells whether the cost is linear.
    """
    small, large = (6, 12) if smoke else (100, 1000)
    with tempfile.TemporaryDirectory(prefix="webfarm-bench-") as name:
        few = _series(Path(name), small, 1 if smoke else 5)
        many = _series(Path(name), large, 1)
    few_seconds = {play: statistics.median(cost.seconds for cost in costs) for play, costs in few.items()}

    def seconds(one: str, other: str, costs: dict[str, list[Cost]], hosts: int) -> list[tuple[float, float]]:
        return [
            (mine.seconds / hosts * 1000, theirs.seconds / hosts * 1000)
            for mine, theirs in zip(costs[one], costs[other], strict=True)
        ]

    title = "compliance: processor time of the controller per host"
    grown = [
        (
            (many["compliance"][0].seconds - few_seconds["compliance"]) / (large - small) * 1000,
            few_seconds["compliance"] / small * 1000,
        )
    ]
    judged = None if smoke else 1.2
    figures = [
        Figure(
            "controller_time",
            f"{title}, {large} hosts",
            "a module that does nothing, with the same libraries",
            "ms",
            seconds("compliance", "do_nothing_loaded", many, large),
            judged,
        ),
        Figure(
            "controller_time_few",
            f"{title}, {small} hosts",
            "a module that does nothing, with the same libraries",
            "ms",
            seconds("compliance", "do_nothing_loaded", few, small),
            None,
            note="the start of the five plays and the report are in it, and weigh more with few hosts.",
        ),
        Figure(
            "controller_floor",
            f"{title}, {large} hosts",
            "a module that does nothing",
            "ms",
            seconds("compliance", "do_nothing", many, large),
            None,
            note="told only: ansible-core reads, wraps and sends every library of a module again for each host; the "
            "next line shows what that costs without a line of this collection running.",
        ),
        Figure(
            "controller_libraries",
            f"a module that does nothing, with the libraries of server_info: processor time per host, {large} hosts",
            "a module that does nothing",
            "ms",
            seconds("do_nothing_loaded", "do_nothing", many, large),
            None,
        ),
        Figure(
            "controller_memory",
            f"compliance: peak memory of the controller, {large} hosts and {FORKS} forks",
            "a module that does nothing",
            "MB",
            [(many["compliance"][0].memory, many["do_nothing"][0].memory)],
            judged,
        ),
        Figure(
            "controller_linear",
            f"compliance: processor time of a further host between {small} and {large}",
            f"a host of {small}",
            "ms",
            grown,
            None if smoke else 1.1,
            note=f"one run over {large} hosts, the median of five over {small}. At most 1 means linear or better.",
        ),
    ]
    for figure in figures:
        figure.details = {
            "hosts": [small, large],
            "runs": {
                str(hosts): {play: [vars(cost) for cost in costs] for play, costs in series.items()}
                for hosts, series in ((small, few), (large, many))
            },
        }
    return figures


FIGURES = {"controller": controller}
