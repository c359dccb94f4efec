# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Command line: python -m lab up|down|status|setup [--farm NAME] [--hosts web1,web2,web3]"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import paths, setup, template
from .daemon import Daemon
from .errors import LabError, LabUnavailable
from .farm import Farm


def _up(farm_name: str, root: Path, hosts: list[str], install: bool) -> int:
    started = time.monotonic()
    setup.require(setup.say, install=install)
    template.ensure(setup.say)
    farm = Farm.up(hosts, root, farm_name, setup.say)
    print(f"The farm {farm_name} is up ({time.monotonic() - started:.0f} s). Inventory: {farm.inventory}")
    print(
        f"Look at it with: ./run lab status; ansible-playbook -i {farm.inventory} ...; "
        f"files under {farm.folder}/HOST/prefix/drive_c"
    )
    if not farm.has_pwsh():
        print(
            "There is no PowerShell: modules cannot run on these hosts. "
            "Set LAB_PWSH to a pwsh.exe and raise the farm again."
        )
    return 0


def _down(farm_name: str, root: Path) -> int:
    farm = Farm(farm_name, root)
    was_up = farm.is_up()
    farm.down()
    print(f"The farm {farm_name} is down." if was_up else f"The farm {farm_name} was not up.")
    return 0


def _status(farm_name: str, root: Path) -> int:
    farm = Farm(farm_name, root)
    if not farm.is_up():
        print(f"The farm {farm_name} is not up.")
        return 3
    print(
        f"farm {farm_name}, process {farm.daemon_pid}, inventory {farm.inventory}, "
        f"PowerShell: {'yes' if farm.has_pwsh() else 'none'}"
    )
    for host in farm.hosts.values():
        print(f"{host.name:8} {host.role:8} https://127.0.0.1:{host.port}/wsman  MachineGuid {host.machine_guid}")
        print("         " + ", ".join(f"{name} {state}" for name, state in host.services().items()))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(prog="lab", description="The simulated farm.")
    parser.add_argument("command", choices=("setup", "up", "down", "status", "_serve"))
    parser.add_argument("--farm", default="demo", help="the farm's name (default: demo)")
    parser.add_argument("--hosts", default="web1,web2,web3", help="comma-separated host names (up)")
    parser.add_argument("--root", default=str(paths.FARMS), help=argparse.SUPPRESS)
    parser.add_argument("--no-install", action="store_true", help="do not install missing Debian packages")
    given = parser.parse_args(arguments)
    hosts = [name for name in given.hosts.split(",") if name]
    root = Path(given.root).resolve()
    try:
        if given.command == "setup":
            pwsh = setup.require(setup.say, install=not given.no_install)
            template.ensure(setup.say)
            print(f"PowerShell: {pwsh.path} ({pwsh.source})" if pwsh else "PowerShell: none")
            return 0
        if given.command == "up":
            return _up(given.farm, root, hosts, not given.no_install)
        if given.command == "down":
            return _down(given.farm, root)
        if given.command == "status":
            return _status(given.farm, root)
        return Daemon(given.farm, root, hosts).serve()
    except LabUnavailable as error:
        print(f"The lab is not available: {error}", file=sys.stderr)
        return 4
    except LabError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
