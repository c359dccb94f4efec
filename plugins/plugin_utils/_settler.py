# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""The script that lies on a server while a transaction runs, and settles its journal when nobody else does.

It is made of the libraries that the modules use themselves, C# and PowerShell, in the order in which they need each
other, so that Windows PowerShell runs it without Ansible and without the controller. It holds code only.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

ENTRY = "_Transaction"
UTILS = Path(__file__).resolve().parents[1] / "module_utils"
_REQUIRES = re.compile(r"^#AnsibleRequires -(CSharpUtil|PowerShell) \.\.module_utils\.(\w+)\r?$", re.MULTILINE)
_USING = re.compile(r"^using ansible_collections\.webfarm\.iis\.plugins\.module_utils\.(\w+);\r?$", re.MULTILINE)


@functools.cache
def parts(entry: str = ENTRY) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The C# files and the PowerShell modules that *entry* needs, each behind those that it needs itself."""
    sources: dict[str, Path] = {}
    modules: dict[str, Path] = {}

    def source(name: str) -> None:
        if name not in sources:
            path = UTILS / f"{name}.cs"
            for needed in _USING.findall(path.read_text(encoding="utf-8")):
                source(needed)
            sources[name] = path

    def module(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"{' -> '.join((*above, name))}: these libraries need each other in a circle")
        if name in modules:
            return
        path = UTILS / f"{name}.psm1"
        for kind, needed in _REQUIRES.findall(path.read_text(encoding="utf-8")):
            if kind == "CSharpUtil":
                source(needed)
            else:
                module(needed, (*above, name))
        modules[name] = path

    module(entry, ())
    return tuple(sources.values()), tuple(modules.values())


def script(add_type: str) -> str:
    """The whole script. *add_type* is the text of ansible-core's module that compiles C# utilities."""
    sources, modules = parts()
    lines = [
        "# Settles an interrupted change of keys and configuration of IIS: completes it, or undoes it.",
        "# Written by the Ansible collection webfarm.iis; it removes itself.",
        "$ErrorActionPreference = 'Stop'",
        "$ProgressPreference = 'SilentlyContinue'",
        _module("AddType", add_type),
    ]
    references = []
    for number, path in enumerate(sources):
        text = path.read_text(encoding="utf-8")
        if "\n'@" in text:
            raise ValueError(f"{path.name} would end the text around it")
        lines.append(f"$source{number} = @'\n{text}\n'@")
        references.append(f"$source{number}")
    lines += [
        # The compiler of Windows PowerShell writes what it makes there, for a moment: nobody else may enter.
        "$env:TEMP = [System.IO.Path]::Combine([Environment]::GetFolderPath('CommonApplicationData'), 'webfarm.iis')",
        "$env:TMP = $env:TEMP",
        f"Add-CSharpType -References @({', '.join(references)})",
        *(_module(path.stem, path.read_text(encoding="utf-8")) for path in modules),
        "exit (Invoke-WebfarmSettling)",
    ]
    return "\n".join(lines) + "\n"


def _module(name: str, text: str) -> str:
    return f"New-Module -Name '{name}' -ScriptBlock {{\n{text}\n}} | Import-Module -Global"
