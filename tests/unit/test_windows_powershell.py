# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What travels to Windows runs on Windows PowerShell 5.1: compilers and the syntax tree check it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "powershell"
MODULES = sorted((ROOT / "plugins" / "modules").glob("*.ps1"))
WORKFLOW = ROOT / "tests" / "windows"
UTILS = ROOT / "plugins" / "module_utils"
OWN = "ansible_collections.webfarm.iis.plugins.module_utils."

# As in ansible-core's module_manifest.py.
REQUIRES = re.compile(r"(?im)^#\s*AnsibleRequires\s+-(CSharpUtil|PowerShell)\s+(\S+)")
USING = re.compile(r"(?m)^using\s+((?:Ansible|ansible_collections)\.[\w.]+);\s*$")
ASSEMBLY = re.compile(r"(?m)^//\s*AssemblyReference\s+-(?:Name|Type)\s+(\S+)(?:\s+-CLR\s+(\w+))?")
ACCELERATOR = re.compile(r"(?m)^//\s*TypeAccelerator\s+-Name\s+(\S+)\s+-TypeName\s+(\S+)")
TOP_TYPE = re.compile(
    r"(?m)^ {4}(?:(?:public|internal|static|sealed|abstract|partial|unsafe)\s+)*(?:class|struct|enum|interface)\s+(\w+)"
)


def pwsh() -> str:
    """A PowerShell for Linux, or the reason why there is none."""
    try:
        from lab import errors, setup
    except ImportError as error:
        pytest.skip(f"the lab's tools are not on PYTHONPATH ({error}); start the tests with ./run test")
    try:
        return str(setup.pwsh_linux(lambda text: None).path)
    except errors.LabError as error:
        pytest.skip(f"no PowerShell for Linux: {error}")


def core_utils(kind: str) -> Path:
    """Ansible's own utilities."""
    import ansible.module_utils

    return Path(ansible.module_utils.__file__).parent / kind


def run_pwsh(script: str, argument: Path) -> Any:
    done = subprocess.run(
        [pwsh(), "-NoProfile", "-NonInteractive", "-File", str(HERE / script), str(argument)],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    said = f"{script} ended with {done.returncode}: {done.stdout}\n{done.stderr}"
    assert done.returncode == 0 and done.stdout.strip(), said
    return json.loads(done.stdout)


def run_work(script: str, folder: Path, csharp: Iterable[Path] = (), /, **work: Any) -> Any:
    """Run a script that begins with work.ps1, with these C# files compiled."""
    work["add_type"] = str(core_utils("powershell") / "Ansible.ModuleUtils.AddType.psm1")
    work["csharp"] = [str(path) for path in csharp]
    listing = folder / f"{Path(script).stem}.json"
    listing.write_text(json.dumps(work), encoding="utf-8")
    return run_pwsh(script, listing)


# --- syntax tree ----------------------------------------------------------------------------------------------------


def check_syntax(paths: Iterable[Path], folder: Path) -> list[dict[str, Any]]:
    listing = folder / "files.txt"
    listing.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    found = run_pwsh("check_syntax.ps1", listing)
    return list(found)


def test_every_script_is_5_1_and_laid_out(tmp_path: Path) -> None:
    files = [*MODULES, *sorted(UTILS.glob("*.psm1")), *sorted(HERE.glob("*.ps1")), *sorted(WORKFLOW.glob("*.ps1"))]
    assert len(files) > 8
    found = check_syntax(files, tmp_path)
    lines = [f"{Path(item['file']).name}:{item['line']}: {item['rule']}: {item['text']}" for item in found]
    assert not lines, "\n".join(lines)


def test_functions_of_other_libraries_are_exported_and_required() -> None:
    """What a script calls is its own, or exported by a library that it requires, itself or through another one."""
    exported: dict[Path, set[str]] = {}
    calls: dict[Path, set[str]] = {}
    requires: dict[Path, list[Path]] = {}
    for path in (*MODULES, *UTILS.glob("*.psm1")):
        text = path.read_text(encoding="utf-8")
        own = set(re.findall(r"(?m)^Function ([\w-]+)", text))
        requires[path] = [
            UTILS / f"{name.rpartition('.')[2]}.psm1" for kind, name in REQUIRES.findall(text) if kind == "PowerShell"
        ]
        export = re.search(r"(?ms)^Export-ModuleMember -Function @\((.*?)^\)", text)
        exported[path] = set(re.findall(r"'([\w-]+)'", export[1])) if export else own
        assert exported[path] <= own, f"{path.name} exports what it has not: {exported[path] - own}"
        code = re.sub(r"(?s)<#.*?#>|(?m:^\s*#[^\n]*)", "", text)
        calls[path] = set(re.findall(r"\b[A-Z][a-z]+-Webfarm\w+", code)) - own

    def reached(path: Path, seen: set[Path]) -> set[Path]:
        for one in requires.get(path, []):
            if one not in seen:
                seen.add(one)
                reached(one, seen)
        return seen

    assert sum(map(len, calls.values())) > 100
    for path, names in calls.items():
        known = {name for one in reached(path, set()) for name in exported.get(one, set())}
        assert names <= known, f"{path.name} calls what no library that it requires exports: {sorted(names - known)}"


GOOD = """Function Get-Sample {
    <#
    .SYNOPSIS
      Free indentation in comments.
    #>
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name
    )

    $text = @'
 free
'@
    switch ($Name) {
        { $_ -in @('a', 'b') } {
            "a`tb"
        }
        default {
            try { $null = 0x1FL + 1MB } catch { throw }
        }
    }
    if ($null -eq $Name) {
        $text
    }
    else {
        Get-Content -LiteralPath $Name -Encoding utf8 | ForEach-Object -Process { $_.Replace('a', 'b') }
    }
}
"""

# What each rule is there for.
BAD = [
    ("parse", "if ("),
    ("ternary", "$a = $b ? 1 : 2"),
    ("coalesce", "$a = $b ?? 1"),
    ("coalesce", "$a ??= 1"),
    ("conditional", "${a}?.Length"),
    ("conditional", "${a}?[0]"),
    ("conditional", "${a}?.Trim()"),
    ("chain", "Get-Item -Path a && Get-Item -Path b"),
    ("chain", "Get-Item -Path a || Get-Item -Path b"),
    ("background", "Get-Item -Path a &"),
    ("class", "class A {\n    [int]\n    $B\n}"),
    ("class", "enum A {\n    B\n}"),
    ("using", "using namespace System.IO"),
    ("clean", "Function Get-A {\n    process {\n        1\n    }\n    clean {\n        2\n    }\n}"),
    ("cmdlet", "'a' | Join-String -Separator ','"),
    ("cmdlet", "Get-WmiObject -Class Win32_Service"),
    ("parameter", "ConvertFrom-Json -InputObject $a -AsHashtable"),
    ("parameter", "ConvertFrom-Json -InputObject $a -AsHash"),
    ("parameter", "1..3 | ForEach-Object -Parallel { $_ }"),
    ("parameter", "Invoke-WebRequest -Uri $a -SkipCertificateCheck"),
    ("parameter", "$a = @{ SkipCertificateCheck = $true }"),
    ("parameter", "Get-Content -LiteralPath $a -AsByteStream"),
    ("parameter", "Set-Content -LiteralPath $a -Value b -Encoding utf8NoBOM"),
    ("parameter", "Join-Path a b c"),
    ("variable", "if ($IsWindows) {\n    1\n}"),
    ("global", "$global:a = 1"),
    ("member", "[System.Convert]::ToHexString($a)"),
    ("member", "$a.Contains('b', [System.StringComparison]::Ordinal)"),
    ("number", "$a = 1u"),
    ("number", "$a = 0b11"),
    ("range", "'a'..'e'"),
    ("replace", "$a -replace 'b', { $_.Value }"),
    ("escape", '"`u{1F600}"'),
    ("escape", '"`e[0m"'),
    ("alias", "$a | where { $_ }"),
    ("null", "if ($a -eq $null) {\n    1\n}"),
    ("catch", "try {\n    1\n}\ncatch {\n}"),
    ("verb", "Function Fetch-A {\n    1\n}"),
    ("backtick", "Get-Item `\n    -Path a"),
    ("brace", "if ($a)\n{\n    1\n}"),
    ("brace", "if ($a) {\n    1\n} else {\n    2\n}"),
    ("semicolon", "$a = 1;"),
    ("length", f"$a = '{'x' * 160}'"),
    ("trailing", "$a = 1 "),
    ("tab", "if ($a) {\n\t1\n}"),
    ("indent", "if ($a) {\n  1\n}"),
    ("newline", "$a = 1\r"),
]


def test_the_syntax_check_can_fail(tmp_path: Path) -> None:
    good = tmp_path / "good.ps1"
    good.write_bytes(GOOD.encode())
    files = [good]
    for number, (_rule, code) in enumerate(BAD):
        path = tmp_path / f"bad{number:02}.ps1"
        path.write_bytes(f"{code}\n".encode())
        files.append(path)
    rules: dict[str, set[str]] = {}
    for item in check_syntax(files, tmp_path):
        rules.setdefault(Path(item["file"]).name, set()).add(item["rule"])
    assert "good.ps1" not in rules, rules["good.ps1"]
    missed = [
        f"{rule}: {code}" for number, (rule, code) in enumerate(BAD) if rule not in rules.get(f"bad{number:02}.ps1", ())
    ]
    assert not missed, "\n".join(missed)


# --- C# -------------------------------------------------------------------------------------------------------------


def util_path(name: str, extension: str, base: str) -> Path:
    """Where a utility lies that a script or a C# file names."""
    if name.startswith("."):
        parts = base.split(".")
        while name.startswith("."):
            name = name[1:]
            parts.pop()
        name = ".".join([*parts, name])
    if name.startswith(OWN):
        return UTILS / f"{name.removeprefix(OWN)}{extension}"
    return core_utils("csharp" if extension == ".cs" else "powershell") / f"{name}{extension}"


def csharp_of(module: Path) -> list[Path]:
    """The exact C# files that travel with a module, as ansible-core collects them."""
    start = f"ansible_collections.webfarm.iis.plugins.modules.{module.stem}"
    waiting = [(module, start)]
    seen: set[Path] = set()
    while waiting:
        path, base = waiting.pop()
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".cs":
            names = [(name, ".cs") for name in USING.findall(text)]
        else:
            names = [
                (name, ".cs" if kind.lower() == "csharputil" else ".psm1") for kind, name in REQUIRES.findall(text)
            ]
        for name, extension in names:
            found = util_path(name, extension, base)
            assert found.is_file(), f"{path.name} requires {name}, which is not there"
            if found not in seen:
                seen.add(found)
                waiting.append((found, OWN + found.stem))
    return sorted(path for path in seen if path.suffix == ".cs")


def own(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.parent == UTILS]


def mcs(sources: list[Path], target: Path) -> str:
    """What the C# 5 compiler says, with the references that Windows PowerShell would give; empty when all is well."""
    if not shutil.which("mcs"):
        pytest.skip("no C# 5 compiler: apt-get install mono-mcs")
    references = {"System.dll", "System.Core.dll"}
    for source in sources:
        for name, clr in ASSEMBLY.findall(source.read_text(encoding="utf-8")):
            if clr.lower() != "core":
                references.add(name)
    # -noconfig: without it mcs adds references of its own.
    command = ["mcs", "-noconfig", "-langversion:5", "-warnaserror", "-warn:4", "-target:library", f"-out:{target}"]
    command += [f"-r:{name}" for name in sorted(references)] + [str(source) for source in sources]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_ansible_collects_the_same_csharp() -> None:
    manifest = pytest.importorskip("ansible.executor.powershell.module_manifest")
    for module in MODULES:
        finder = manifest.PSModuleDepFinder()
        name = f"ansible_collections.webfarm.iis.plugins.modules.{module.stem}"
        found = finder.scan_module(module.read_bytes(), fqn=name, powershell=True)
        if not isinstance(found, set):
            pytest.skip("this ansible-core does not return what it collects")
        collected = {str(item).removeprefix(OWN) for item in found if str(item).endswith(".cs")}
        assert collected == {path.name for path in csharp_of(module)}, module.name


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_csharp_5_without_warnings(module: Path, tmp_path: Path) -> None:
    sources = own(csharp_of(module))
    assert sources, f"{module.name} uses no C# of the collection"
    assert not mcs(sources, tmp_path / "unit.dll")


def test_every_csharp_file_is_used() -> None:
    used = {path for module in MODULES for path in csharp_of(module)}
    assert set(UTILS.glob("*.cs")) <= used


def test_powershell_7_compiles_every_unit_without_warnings(tmp_path: Path) -> None:
    units: dict[tuple[Path, ...], str] = {}
    for module in MODULES:
        units.setdefault(tuple(csharp_of(module)), module.stem)
    said = compile_on_7({name: list(sources) for sources, name in units.items()}, tmp_path)
    assert said == dict.fromkeys(units.values(), "")


def compile_on_7(units: dict[str, list[Path]], folder: Path) -> dict[str, str]:
    listed = [{"name": name, "sources": [str(path) for path in sources]} for name, sources in units.items()]
    return dict(run_work("compile.ps1", folder, units=listed))


def test_the_compilers_can_fail(tmp_path: Path) -> None:
    samples = {
        "interpolation": 'public static string A(int b) { return $"{b}"; }',
        "conditional": "public static string A(object b) { return b?.ToString(); }",
        "body": "public static int A() => 1;",
        "nameof": "public static string A(int b) { return nameof(b); }",
        "initialiser": "public int A { get; set; } = 1;",
        "out_variable": 'public static int A() { int.TryParse("1", out int b); return b; }',
        "filter": "public static void A() { try { } catch (System.Exception e) when (e.Message == null) { } }",
        "warning": "public static void A() { int unused; }",
        "reference": "public static System.Xml.XmlDocument A() { return null; }",
        "good": "public static int A() { return 1; }",
    }
    paths = {}
    for name, body in samples.items():
        paths[name] = tmp_path / f"{name}.cs"
        code = f"public class Sample\n    {{\n        {body}\n    }}"
        paths[name].write_text(f"namespace Sample.{name}x\n{{\n    {code}\n}}\n")
    passed = {name for name, path in paths.items() if not mcs([path], tmp_path / f"{name}.dll")}
    assert passed == {"good"}
    said = compile_on_7({name: [paths[name]] for name in ("good", "warning")}, tmp_path)
    assert said["good"] == ""
    assert "unused" in said["warning"]


@pytest.mark.parametrize("path", sorted(UTILS.glob("*.cs")), ids=lambda path: path.stem)
def test_namespace_accelerators_and_comments(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?m)^namespace\s+(\S+)", text) == [OWN + path.stem]
    types = set(TOP_TYPE.findall(text))
    for name, type_name in ACCELERATOR.findall(text):
        assert name == type_name and type_name in types, f"{path.name}: accelerator {name} has no type"
        assert name.startswith("Webfarm"), f"{path.name}: accelerator {name} could be somebody else's"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_type_names_are_unique_in_a_unit(module: Path) -> None:
    seen: dict[str, str] = {}
    for path in csharp_of(module):
        for name in TOP_TYPE.findall(path.read_text(encoding="utf-8")):
            assert name not in seen, f"{module.name}: {name} is in {seen[name]} and in {path.name}"
            seen[name] = path.name


@pytest.mark.parametrize("path", [*MODULES, *sorted(UTILS.glob("*.psm1"))], ids=lambda path: path.name)
def test_head_of_the_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ps1":
        assert text.startswith("#!powershell\n\n# Copyright (c) ")
        assert "#AnsibleRequires -CSharpUtil Ansible.Basic\n" in text
    else:
        assert text.startswith("# Copyright (c) ")
        assert "FOR INTERNAL COLLECTION USE ONLY" in text
        assert "Export-ModuleMember" in text
    assert "GNU General Public License v3.0+" in text
    assert "SPDX-License-Identifier: GPL-3.0-or-later" in text
