# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""python -m bench [NAME...] [--smoke] [--output FILE] [--readme]"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

from . import controller, figure, lab_hosts, library

FIGURES = {**lab_hosts.FIGURES, **library.FIGURES, **controller.FIGURES}
BEGIN, END = "<!-- bench begins: ./run bench --readme writes what is between -->", "<!-- bench ends -->"


def write_readme(readme: Path, result: dict[str, Any]) -> None:
    """Put the table of the last complete run into the README."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise figure.BenchError(f"{readme.name} has no place for the table: '{BEGIN}' and '{END}'")
    readme.write_text(f"{before}{begin}\n\n{figure.markdown_table(result)}\n\n{end}{after}", encoding="utf-8")


def main() -> int:
    """0: every bound is kept. 1: one is missed. 2: a figure could not be measured, or a wrong argument."""
    parser = argparse.ArgumentParser(prog="./run bench", description="Speed, as ratios measured in the same run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(FIGURES)}")
    parser.add_argument("--smoke", action="store_true", help="small and quick: tries the bench itself, judges nothing")
    parser.add_argument("--output", type=Path, default=figure.RESULT, help="the JSON file")
    parser.add_argument("--readme", action="store_true", help="write the table of the JSON file into the README")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in FIGURES]
    if unknown:
        parser.error(f"there is no figure {', '.join(unknown)}; choose from {', '.join(FIGURES)}")
    if options.readme:
        if not options.output.is_file():
            parser.error(f"there is no {options.output}; run ./run bench first")
        write_readme(figure.ROOT / "README.md", json.loads(options.output.read_text(encoding="utf-8")))
        return 0
    began = time.monotonic()
    result: dict[str, Any] = {
        "format": figure.FORMAT,
        "version": figure.VERSION,
        "began": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "smoke": options.smoke,
        "machine": figure.machine(),
        "figures": [],
        "problems": {},
    }
    for name in options.names or FIGURES:
        print(f"== {name}", file=sys.stderr, flush=True)
        try:
            found = FIGURES[name](options.smoke)
        except figure.BenchError as error:
            result["problems"][name] = str(error)
            continue
        result["figures"] += [one.to_dict() | {"bound_text": one.bound_text} for one in found]
    result["seconds"] = round(time.monotonic() - began, 1)
    figure.write(result, options.output)
    print(figure.text_table(result["figures"]))
    for name, problem in result["problems"].items():
        print(f"{name} could not be measured: {problem}")
    missed = [one["name"] for one in result["figures"] if not one["passed"]]
    if missed:
        print(f"missed: {', '.join(missed)}")
    print(f"{result['seconds']:.0f} s, written to {options.output}")
    return 2 if result["problems"] else 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
