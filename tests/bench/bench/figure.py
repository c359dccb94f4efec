# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a figure is, how it is judged and how it is written down."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = "webfarm.iis bench"
VERSION = 1
ROOT = Path(__file__).resolve().parents[3]
OUTPUT = ROOT / ".build" / "bench"
RESULT = OUTPUT / "bench.json"


class BenchError(Exception):
    """A figure that could not be measured. The message says why."""


@dataclass
class Figure:
    """One figure. *samples* are pairs (measured, reference) in *unit*; the median of their ratios is judged.

    *bound* is the most that is allowed (at_least: the least). None: told, not judged. *note*: what the number means.
    """

    name: str
    title: str
    reference: str
    unit: str
    samples: list[tuple[float, float]]
    bound: float | None
    at_least: bool = False
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return statistics.median(measured / reference for measured, reference in self.samples)

    @property
    def passed(self) -> bool:
        if self.bound is None:
            return True
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound

    @property
    def bound_text(self) -> str:
        if self.bound is None:
            return "told only"
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g}"

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self)
        ratios = [measured / reference for measured, reference in self.samples]
        return data | {
            "ratio": self.ratio,
            "ratios": ratios,
            "measured": statistics.median(measured for measured, _reference in self.samples),
            "reference_value": statistics.median(reference for _measured, reference in self.samples),
            "passed": self.passed,
        }


def pairs(
    measured: Callable[[], float], reference: Callable[[], float], count: int, *, warm_up: bool = True
) -> list[tuple[float, float]]:
    """Samples in turn, so that what else the machine does meets both."""
    if warm_up:
        reference()
        measured()
    found = []
    for number in range(count):
        if number % 2:
            mine = measured()
            found.append((mine, reference()))
        else:
            other = reference()
            found.append((measured(), other))
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    from ansible.release import __version__ as ansible_version

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "ansible_core": ansible_version,
        "load_before": round(os.getloadavg()[0], 1),
    }


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _line(one: dict[str, Any]) -> list[str]:
    return [
        one["title"],
        f"{_number(one['measured'])} {one['unit']}",
        f"{one['reference']}: {_number(one['reference_value'])} {one['unit']}",
        f"{one['ratio']:.2f}",
        one["bound_text"],
        "yes" if one["passed"] else "NO",
    ]


HEAD = ["figure", "measured", "reference", "ratio", "bound", "kept"]


def text_table(figures: Sequence[dict[str, Any]]) -> str:
    """The table for a terminal."""
    rows = [HEAD, *(_line(one) for one in figures)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown_table(result: dict[str, Any]) -> str:
    """The table for the README, with the machine and what the notes say."""
    rows = [HEAD, ["---"] * len(HEAD), *(_line(one) for one in result["figures"])]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    where = result["machine"]
    lines += [
        "",
        f"Measured {result['began'][:10]} on {where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB, "
        f"{where['system']}, Python {where['python']}, ansible-core {where['ansible_core']}.",
    ]
    notes = [f"* {one['title']}: {one['note']}" for one in result["figures"] if one["note"]]
    return "\n".join(lines + ([""] + notes if notes else []))


def write(result: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    new.replace(path)
