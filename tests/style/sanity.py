# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test sanity, on a copy of the files that git knows, where ansible-test wants them.

It works without the download that ansible-test begins with, and leaves the user's home alone: what it keeps (one
virtual environment for each of its tests) lies in .build/sanity. Left out is pslint, whose modules come from the
PowerShell Gallery; the workflow linux.yml runs it. With a PowerShell 7 for Linux on the path, validate-modules compares
the argument spec of each ps1 with its documentation; without one that part is left out, and said so.

  sanity.py --quick           pylint over the plugins only, and without pep8, whose place ruff takes
  sanity.py --pslint          pslint alone, where the PowerShell Gallery can be reached
  sanity.py --core VERSION    another ansible-core, in a virtual environment of its own
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / ".build" / "sanity"
HOME = BUILD / "home"
LEFT_OUT = ("pslint",)

BOOTSTRAP = '''"""Puts pip into an empty virtual environment, from the wheel beside this file."""
import pathlib, sysconfig, zipfile

with zipfile.ZipFile(pathlib.Path(__file__).with_name("{wheel}")) as wheel:
    wheel.extractall(sysconfig.get_path("purelib"))
'''


def call(*command: str | Path, **options: object) -> None:
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]


def copy(tree: Path) -> None:
    """The files of the working tree that git tracks or would track, as a repository of its own."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    call("git", "init", "-q", ".", cwd=tree)
    call("git", "add", "--all", cwd=tree)


def provide_pip(python: Path, library: Path) -> None:
    """The script that ansible-test would download, in its cache."""
    source = (library / "ansible_test" / "_internal" / "python_requirements.py").read_text(encoding="utf-8")
    found = re.search(r"""pip=['"]([0-9.]+)['"]""", source)
    if not found:
        sys.exit("sanity: this ansible-test does not say which pip it wants")
    version = found.group(1)
    cache = HOME / ".ansible" / "test" / "cache"
    script = cache / f"get_pip_{version.replace('.', '_')}.py"
    wheel = f"pip-{version}-py3-none-any.whl"
    if not (cache / wheel).is_file():
        cache.mkdir(parents=True, exist_ok=True)
        call(python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", cache, f"pip=={version}")
    script.write_text(BOOTSTRAP.format(wheel=wheel), encoding="utf-8")


def powershell() -> list[str]:
    """The folder of a PowerShell 7 for Linux, where the lab has one or can get it."""
    sys.path.insert(0, str(ROOT / "tests" / "lab"))
    from lab import errors, setup

    try:
        return [str(Path(setup.pwsh_linux(lambda text: None).path).parent)]
    except errors.LabError as error:
        if not shutil.which("pwsh"):
            print(f"sanity: the comparison of ps1 and documentation is left out: {error}", flush=True)
        return []


def pythons() -> t.Iterator[str]:
    """Pythons of this machine, the oldest that serves first."""
    for minor in range(11, 15):
        name = f"python3.{minor}"
        for path in (shutil.which(name), *sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))):
            if (
                path
                and subprocess.run([path, "-m", "venv", "--help"], capture_output=True, check=False).returncode == 0
            ):
                yield str(path)
                break


def other_core(core: str) -> Path | None:
    """The Python of a virtual environment with this ansible-core; None when no Python here takes it."""
    folder = BUILD / f"core-{core}"
    python = folder / "bin" / "python"
    if (folder / "bin" / "ansible-test").is_file():
        return python
    for candidate in pythons():
        shutil.rmtree(folder, ignore_errors=True)
        call(candidate, "-m", "venv", folder)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"ansible-core~={core}.0"]
        if subprocess.run(install, capture_output=True, check=False).returncode == 0:
            return python
    shutil.rmtree(folder, ignore_errors=True)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", help="the first two numbers of the version, as in 2.21")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pslint", action="store_true")
    given = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    python = other_core(given.core) if given.core else Path(sys.executable)
    if python is None:
        print(f"sanity: no Python here takes ansible-core {given.core}, so it is left out", flush=True)
        return 0
    ask = "import sys, sysconfig; print(sysconfig.get_path('purelib'), '%d.%d' % sys.version_info[:2])"
    library, version = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.split()
    provide_pip(Path(sys.executable), Path(library))
    tree = BUILD / f"tree-{given.core or 'main'}" / "ansible_collections" / "webfarm" / "iis"
    copy(tree)
    path = [str(python.parent), *powershell(), os.environ.get("PATH", "")]
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    env.update(HOME=str(HOME), PATH=os.pathsep.join(path), LC_ALL="C.UTF-8")
    env.pop("VIRTUAL_ENV", None)
    env.pop("PYTHONPATH", None)
    command = [python.with_name("ansible-test"), "sanity", "--python", version, "--color", "no"]
    left_out = [*LEFT_OUT, *(("pylint", "pep8") if given.quick else ())]
    runs: list[list[str]] = [[argument for name in left_out for argument in ("--skip-test", name)]]
    if given.quick:
        runs.append(["--test", "pylint", "plugins/"])
    if given.pslint:
        runs = [["--test", "pslint", "--requirements"]]
    # Side by side: one is one process after the other, pylint is many.
    children = [subprocess.Popen([*command, *run], cwd=tree, env=env, stdin=subprocess.DEVNULL) for run in runs]
    return max([child.wait() for child in children], key=abs)


if __name__ == "__main__":
    sys.exit(main())
