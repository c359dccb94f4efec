# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab needs of the machine: Debian's packages, PowerShell for Windows and Linux, the compiled C programs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import paths, wine
from .errors import LabError, LabUnavailable

Progress = Callable[[str], None]

PACKAGES = {
    # program that proves it -> Debian package
    "/usr/lib/wine/wine64": "wine64",
    "/usr/bin/wine": "wine",
    "/usr/bin/x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64",
    "/usr/bin/make": "make",
    "/usr/bin/nsenter": "util-linux",
    "/usr/bin/xz": "xz-utils",
}
# The C# 5 check of the unit tests.
OPTIONAL_PACKAGES = {"/usr/bin/mcs": "mono-mcs"}

RELEASE = "7.6.5"
DOWNLOADS = {
    "win-x64": (
        f"https://github.com/PowerShell/PowerShell/releases/download/v{RELEASE}/PowerShell-{RELEASE}-win-x64.zip",
        "32eb8f6cdce08f86e987d625a2733e54ac3e289ae7e1621b14c0b5bcec2434ea",
    ),
    "linux-x64": (
        f"https://github.com/PowerShell/PowerShell/releases/download/v{RELEASE}/powershell-{RELEASE}-linux-x64.tar.gz",
        None,
    ),
}
HASHES = f"https://github.com/PowerShell/PowerShell/releases/download/v{RELEASE}/hashes.sha256"


def say(text: str) -> None:
    """The default progress."""
    print(text, flush=True)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """One builder at a time."""
    paths.BUILD.mkdir(parents=True, exist_ok=True)
    with open(paths.BUILD / f".{name}.lock", "w", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def missing_packages(optional: bool = True) -> list[str]:
    """Debian packages whose program is not there."""
    wanted = {**PACKAGES, **(OPTIONAL_PACKAGES if optional else {})}
    return [package for program, package in wanted.items() if not os.access(program, os.X_OK)]


def install_packages(progress: Progress = say) -> list[str]:
    """Install what is missing with apt-get; answers what is still missing afterwards."""
    missing = missing_packages()
    if not missing:
        return []
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        progress(
            f"Packages are missing. Install them as root: apt-get install --no-install-recommends {' '.join(missing)}"
        )
        return missing
    progress(f"Installing {' '.join(missing)} with apt-get (a few minutes) ...")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    log = paths.BUILD / "apt.log"
    paths.BUILD.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as out:
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *missing]):
            if (
                subprocess.run(
                    command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
                ).returncode
                != 0
            ):
                progress(f"{' '.join(command[:2])} failed, see {log}")
    return missing_packages()


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _unpack(archive: Path, target: Path) -> None:
    """Unpack into a folder beside the target and rename: the target is complete or absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(work)
        elif archive.suffix == ".xz" and shutil.which("xz"):
            # several times faster than Python's lzma, on both cores
            subprocess.run(["tar", "-C", str(work), "-I", "xz -dT0", "-xf", str(archive)], check=True)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(work, filter="tar")
        inner = list(work.iterdir())
        root = inner[0] if len(inner) == 1 and inner[0].is_dir() else work
        program = root / "pwsh"
        if program.exists():
            program.chmod(0o755)
        root.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        root.rename(target)
    except (OSError, tarfile.TarError, zipfile.BadZipFile, subprocess.CalledProcessError) as error:
        raise LabUnavailable(f"{archive} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _shared_archive(kind: str) -> Path | None:
    """The archive of the sibling folder, verified with its SHA256SUMS."""
    archive = paths.SHARED / "labpwsh" / f"{kind}.tar.xz"
    if not archive.is_file():
        return None
    lines = (archive.parent / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    sums = {words[1].lstrip("*"): words[0] for words in map(str.split, lines) if len(words) == 2}
    if sums.get(archive.name) != _sha256(archive):
        raise LabUnavailable(f"{archive} does not match the checksum in SHA256SUMS beside it: copy it again")
    return archive


def _download(kind: str, folder: Path, progress: Progress) -> Path:
    url, checksum = DOWNLOADS[kind]
    try:
        if checksum is None:
            with urllib.request.urlopen(HASHES, timeout=30) as answer:
                lines = answer.read().decode("utf-8-sig", "replace").splitlines()
            name = url.rsplit("/", 1)[1].lower()
            checksum = next((line.split()[0].lower() for line in lines if line.lower().endswith(name)), None)
            if checksum is None:
                raise LabUnavailable(f"{HASHES} does not name {name}")
        progress(f"Downloading {url} ...")
        target = folder / url.rsplit("/", 1)[1]
        with urllib.request.urlopen(url, timeout=60) as answer, open(target, "wb") as out:
            shutil.copyfileobj(answer, out)
    except OSError as error:
        raise LabUnavailable(f"PowerShell cannot be downloaded from {url}: {error}") from error
    if _sha256(target) != checksum:
        raise LabUnavailable(f"the download {url} does not have the expected SHA-256 {checksum}")
    return target


@dataclass(frozen=True)
class Pwsh:
    """A PowerShell of the lab."""

    path: Path
    source: str  # LAB_PWSH | shared | download
    hooks: tuple[Path, ...] = ()  # dlls for DOTNET_STARTUP_HOOKS


def _get(kind: str, program: str, progress: Progress, download: bool = True) -> tuple[Path, str]:
    target = paths.PWSH / kind
    stamp = paths.PWSH / f"{kind}.source"
    with lock("pwsh"):
        if (target / program).is_file() and stamp.is_file():
            return target / program, stamp.read_text(encoding="ascii").strip()
        archive = _shared_archive(kind)
        if archive:
            progress(f"Unpacking {archive} ...")
            _unpack(archive, target)
            source = "shared"
        elif not download:
            raise LabUnavailable("it has not been downloaded (./run lab setup tries)")
        else:
            with tempfile.TemporaryDirectory() as folder:
                _unpack(_download(kind, Path(folder), progress), target)
            source = "download"
        stamp.write_text(source + "\n", encoding="ascii")
        return target / program, source


def pwsh_windows(progress: Progress = say, download: bool = True) -> Pwsh:
    """pwsh.exe: LAB_PWSH, else ../shared/labpwsh, else the official download."""
    given = os.environ.get("LAB_PWSH")
    if given:
        path = Path(given).resolve()
        if path.is_dir():
            path = path / "pwsh.exe"
        if not path.is_file():
            raise LabUnavailable(f"LAB_PWSH names {given}, which is no file: give the path of a pwsh.exe")
        source = "LAB_PWSH"
    else:
        try:
            path, source = _get("win-x64", "pwsh.exe", progress, download)
        except LabUnavailable as error:
            raise LabUnavailable(
                f"no PowerShell for the lab: {error}. "
                f"Set LAB_PWSH to a pwsh.exe, or put labpwsh/win-x64.tar.xz into {paths.SHARED}",
            ) from error
    # Microsoft's own build has neither the console nor the repairs that the lab's carries.
    official = _is_official(path)
    sources = ("StartupHook.cs", "HostHook.cs") if official else ("HostHook.cs",)
    return Pwsh(path, source, tuple(_startup_hook(name, progress) for name in sources))


def _is_official(path: Path) -> bool:
    """The lab's own build has its start-up repairs inside pwsh.dll."""
    try:
        return b"StartupHook" not in (path.parent / "pwsh.dll").read_bytes()
    except OSError:
        return True


def pwsh_linux(progress: Progress = say) -> Pwsh:
    """pwsh for Linux, for the syntax-tree checks and anything that needs no Windows."""
    given = os.environ.get("LAB_PWSH_LINUX") or shutil.which("pwsh")
    if given:
        return Pwsh(Path(given), "LAB_PWSH_LINUX")
    path, source = _get("linux-x64", "pwsh", progress)
    return Pwsh(path, source)


def _startup_hook(name: str, progress: Progress) -> Path:
    """Compile a start-up hook for pwsh.exe, with the PowerShell for Linux."""
    source = paths.LAB / name
    target = paths.BIN / f"{source.stem}-{_sha256(source)[:12]}.dll"
    if target.is_file():
        return target
    linux = pwsh_linux(progress)
    paths.BIN.mkdir(parents=True, exist_ok=True)
    # The compiler that every PowerShell 7 brings, called directly: Add-Type has no say in what it writes to disk.
    script = f"""
$ErrorActionPreference = 'Stop'
$text = [IO.File]::ReadAllText('{source}')
$tree = [Microsoft.CodeAnalysis.CSharp.CSharpSyntaxTree]::ParseText($text)
$trees = New-Object 'System.Collections.Generic.List[Microsoft.CodeAnalysis.SyntaxTree]'
$trees.Add($tree)
$references = New-Object 'System.Collections.Generic.List[Microsoft.CodeAnalysis.MetadataReference]'
foreach ($file in [IO.Directory]::GetFiles("$PSHOME/ref", '*.dll')) {{
    $references.Add([Microsoft.CodeAnalysis.MetadataReference]::CreateFromFile($file))
}}
$kind = [Microsoft.CodeAnalysis.OutputKind]::DynamicallyLinkedLibrary
$options = (New-Object Microsoft.CodeAnalysis.CSharp.CSharpCompilationOptions $kind).WithAllowUnsafe($true)
$unit = [Microsoft.CodeAnalysis.CSharp.CSharpCompilation]::Create('{source.stem}', $trees, $references, $options)
$stream = [IO.File]::Create('{target}.new')
$result = $unit.Emit($stream)
$stream.Dispose()
if (-not $result.Success) {{ $result.Diagnostics | ForEach-Object {{ [Console]::Error.WriteLine($_) }}; exit 1 }}
[IO.File]::Move('{target}.new', '{target}')
"""
    done = subprocess.run(
        [str(linux.path), "-NoProfile", "-NonInteractive", "-Command", script],
        capture_output=True,
        check=False,
        timeout=120,
    )
    if not target.is_file():
        raise LabUnavailable(
            f"{name} did not compile: {(done.stderr or done.stdout).decode(errors='replace').strip()[:500]}"
        )
    return target


def build_programs(progress: Progress = say) -> Path:
    """Compile tests/lab/src into .build/bin when a source has changed."""
    digest = hashlib.sha256()
    for source in sorted(paths.SOURCES.iterdir()) if paths.SOURCES.is_dir() else []:
        if source.is_file():
            digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    stamp = paths.BIN / ".sources"
    with lock("bin"):
        if stamp.is_file() and stamp.read_text(encoding="ascii") == digest.hexdigest():
            return paths.BIN
        progress("Compiling the lab's Windows programs ...")
        paths.BIN.mkdir(parents=True, exist_ok=True)
        # -B: programs keep no dependency list; there are only a few
        done = subprocess.run(
            ["make", "-B", "-C", str(paths.SOURCES), f"OUT={paths.BIN}"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise LabError(f"make -C {paths.SOURCES} failed:\n{(done.stdout + done.stderr)[-3000:]}")
        stamp.write_text(digest.hexdigest(), encoding="ascii")
    return paths.BIN


def wine_version() -> str:
    """For the template's stamp."""
    return subprocess.run([wine.loader(), "--version"], capture_output=True, text=True, check=False).stdout.strip()


def require(progress: Progress = say, install: bool = True) -> Pwsh | None:
    """Everything up to the compiled programs. Raises where no farm is possible; answers the PowerShell, or None."""
    if os.geteuid() != 0:
        raise LabUnavailable("the lab needs root: it gives every simulated server its own network namespace")
    missing = [
        package
        for package in (install_packages(progress) if install else missing_packages())
        if package not in OPTIONAL_PACKAGES.values()
    ]
    if missing:
        raise LabUnavailable(
            f"missing packages: {' '.join(missing)} (apt-get install --no-install-recommends {' '.join(missing)})"
        )
    build_programs(progress)
    try:
        return pwsh_windows(progress, download=install)
    except LabUnavailable as error:
        progress(str(error))
        return None
