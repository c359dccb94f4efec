# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Wine prefix that every host is copied from: a Windows Server with the folders of IIS 10."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from . import paths, setup, wine
from .errors import LabError

VERSION = "5"

# In the order in which they start; stopping is the reverse. LabKeyFiles keeps the files of MachineKeys in step with
# Wine's registry of containers; it is no part of the simulated Windows and never stops.
SERVICES = ("AppHostSvc", "WAS", "W3SVC", "FTPSVC", "WMSVC")
KEY_FILES = "LabKeyFiles"

INETSRV = "windows/system32/inetsrv"
FOLDERS = (
    f"{INETSRV}/config/schema",
    f"{INETSRV}/config/Export",
    f"{INETSRV}/backup",
    f"{INETSRV}/history",
    "inetpub/history",
    "inetpub/logs/FailedReqLogFiles",
    "inetpub/logs/LogFiles",
    "inetpub/temp/appPools",
    "inetpub/temp/IIS Temporary Compressed Files",
    "inetpub/wwwroot",
    "inetpub/ftproot",
    "inetpub/custerr/en-US",
    "ProgramData/Microsoft/Crypto/RSA/MachineKeys",
    "ProgramData/Microsoft/Crypto/Keys",
    "lab/faults",
)

_REGISTRY = r"""Windows Registry Editor Version 5.00

[HKEY_CURRENT_USER\Software\Wine\Drivers]
"Graphics"="null"

[HKEY_CURRENT_USER\Software\Wine\WineDbg]
"ShowCrashDialog"=dword:00000000

[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion]
"ProductName"="Windows Server 2022 Standard"
"CurrentBuild"="20348"
"CurrentBuildNumber"="20348"
"InstallationType"="Server"
"EditionID"="ServerStandard"
"DisplayVersion"="21H2"

[HKEY_LOCAL_MACHINE\System\CurrentControlSet\Control\ProductOptions]
"ProductType"="ServerNT"

[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\InetStp]
"MajorVersion"=dword:0000000a
"MinorVersion"=dword:00000000
"VersionString"="Version 10.0"
"SetupString"="IIS 10.0"
"ProductString"="IIS 10.0"
"InstallPath"="C:\\windows\\system32\\inetsrv"
"PathWWWRoot"="C:\\inetpub\\wwwroot"

[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\IIS]

[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\WebManagement\Server]
"EnableRemoteManagement"=dword:00000001
"""


def _stamp() -> str:
    return f"{VERSION} {setup.wine_version()}\n"


def ensure(progress: setup.Progress = setup.say) -> Path:
    """The template, made anew when it is missing or of another version. Answers the prefix."""
    prefix = paths.TEMPLATE
    stamp = prefix / ".complete"
    with setup.lock("template"):
        if stamp.is_file() and stamp.read_text(encoding="ascii") == _stamp():
            return prefix
        progress("Making the template of the hosts (a Wine prefix laid out as IIS 10, about 15 s) ...")
        if prefix.exists():
            wine.stop_server(prefix)
            shutil.rmtree(prefix)
        _make(prefix)
        stamp.write_text(_stamp(), encoding="ascii")
    return prefix


def _quiet(prefix: Path, argv: list[str], timeout: float = 180) -> None:
    done = wine.run(prefix, argv, timeout=timeout, cwd=prefix)
    if done.returncode != 0:
        raise LabError(
            f"{' '.join(argv)} failed in the template ({done.returncode}): {done.stderr.decode(errors='replace')[:400]}"
        )


def _make(prefix: Path) -> None:
    (prefix / "home").mkdir(parents=True)
    _quiet(prefix, ["wineboot", "-i"])
    wine.start_server(prefix)
    try:
        _quiet(prefix, ["winecfg", "-v", "win10"])
        text = prefix / "lab.reg"
        text.write_bytes(b"\xff\xfe" + _REGISTRY.replace("\n", "\r\n").encode("utf-16-le"))
        _quiet(prefix, ["regedit", "/S", wine.windows_path(text)])
        text.unlink()
    finally:
        # -w would wait for ever behind a kept server: end it, which writes the registry files.
        wine.stop_server(prefix)
    if b"IIS 10.0" not in (prefix / "system.reg").read_bytes():
        raise LabError(f"{prefix}: the registry of the template was not written")
    _detach_home(prefix)
    (prefix / "dosdevices" / "com1").unlink(missing_ok=True)
    for folder in FOLDERS:
        (prefix / "drive_c" / folder).mkdir(parents=True, exist_ok=True)


def _detach_home(prefix: Path) -> None:
    """Wine links the user's folders to the home folder outside: make real ones."""
    for folder, names, _files in os.walk(prefix / "drive_c" / "users"):
        for name in names:
            path = Path(folder, name)
            if path.is_symlink():
                path.unlink()
                path.mkdir()


# Only what Wine itself installed is shared between hosts; nothing ever writes into these in place.
_SHARED_SUFFIXES = (
    ".dll",
    ".exe",
    ".drv",
    ".sys",
    ".nls",
    ".acm",
    ".cpl",
    ".ocx",
    ".tlb",
    ".ax",
    ".ds",
    ".msstyles",
    ".ttf",
    ".fon",
)


def _copy_file(source: str, target: str) -> str:
    if "/drive_c/windows/" in source and "/inetsrv/" not in source and source.lower().endswith(_SHARED_SUFFIXES):
        try:
            os.link(source, target)
            return target
        except OSError:  # another file system, or links are not allowed
            pass
    return shutil.copy2(source, target)


def copy(target: Path) -> None:
    """A new prefix like the template: hard links for Wine's own files, real copies of everything that may change."""
    shutil.copytree(paths.TEMPLATE, target, symlinks=True, copy_function=_copy_file)
    (target / ".complete").unlink(missing_ok=True)


def install_programs(prefix: Path) -> None:
    """The lab's compiled programs, as far as they exist, where Windows keeps their originals."""
    drive = prefix / "drive_c"
    places = {
        "appcmd.exe": f"{INETSRV}/appcmd.exe",
        "aspnet_regiis.exe": "windows/Microsoft.NET/Framework64/v4.0.30319/aspnet_regiis.exe",
        "iissetup.exe": f"{INETSRV}/iissetup.exe",
        "cngkeyhelper.dll": "windows/system32/cngkeyhelper.dll",
        "schtasks.exe": "windows/system32/schtasks.exe",
    }
    for program in sorted(paths.BIN.glob("*.exe")) + sorted(paths.BIN.glob("*.dll")):
        if program.name.startswith(("HostHook", "StartupHook")):
            continue
        place = drive / places.get(program.name, f"lab/{program.name}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)  # never write into a file that may be shared
        shutil.copy2(program, place)
    # Microsoft's PowerShell module for IIS, at its place.
    modules = drive / "windows/system32/WindowsPowerShell/v1.0/Modules/IISAdministration"
    modules.mkdir(parents=True, exist_ok=True)
    for source in sorted((paths.LAB / "files/IISAdministration").iterdir()):
        shutil.copyfile(source, modules / source.name)
