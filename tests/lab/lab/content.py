# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key containers and configuration files of a host.

Every secret is encrypted by iiscrypt.exe, that is by CryptoAPI itself, inside the host; no code of the collection is
used.
A configuration template holds markers:
    @@sessionkey:PROVIDER@@          the wrapped session key of an AES provider
    @@secret:PROVIDER:plaintext@@    a protected value, as [enc:PROVIDER:...:enc]
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import unescape

from . import paths
from .errors import LabError
from .template import INETSRV

# Who may use a container by default (SYSTEM, Administrators, LOCAL SERVICE for the management service, IIS_IUSRS).
_FULL = "(A;;FA;;;SY)(A;;FA;;;BA)"
SDDL = {
    "iisWasKey": f"D:{_FULL}(A;;FR;;;LS)",
    "iisConfigurationKey": f"D:{_FULL}(A;;FR;;;LS)(A;;FR;;;S-1-5-32-568)",
}
CONTAINERS = {
    # provider of a configuration -> container
    "iiswasonlyrsaprovider": "iisWasKey",
    "iiswasonlyaesprovider": "iisWasKey",
    "aesprovider": "iisConfigurationKey",
    "iisrsaprovider": "iisConfigurationKey",
    "iiscngprovider": "iisCngConfigurationKey",
    "iiswasonlycngprovider": "iisCngWasKey",
}
# Accounts of the domain FARM that every host knows (HostHook.cs).
ACCOUNTS = [
    "svc-shop",
    "svc-orders",
    "svc-legacy",
    "svc-files",
    "svc-local",
    "svc-portal",
    "svc-portal-share",
    "svc-reports",
    "svc-content",
    "reports-anonymous",
]
# The libraries of the modules that a full IIS has in inetsrv, and the one of URL Rewrite.
MODULES = [
    "asp",
    "authanon",
    "authbas",
    "authcert",
    "authmap",
    "authmd5",
    "authsspi",
    "cachfile",
    "cachhttp",
    "cachtokn",
    "cachuri",
    "cgi",
    "compdyn",
    "compstat",
    "custerr",
    "defdoc",
    "diprestr",
    "dirlist",
    "filter",
    "iis_ssi",
    "iisetw",
    "iisfcgi",
    "iisfreb",
    "iisreqs",
    "iiswsock",
    "iprestr",
    "isapi",
    "logcust",
    "loghttp",
    "modrqflt",
    "protsup",
    "redirect",
    "rewrite",
    "static",
    "urlauthz",
    "validcfg",
    "warmup",
    "webdav",
    "webdav_simple_lock",
    "webdav_simple_prop",
]
_MARKER = re.compile(r"@@(?P<kind>sessionkey|secret):(?P<provider>[A-Za-z]+)(?::(?P<text>.*?))?@@", re.DOTALL)

Batch = Callable[[Sequence[Sequence[str]]], list[str]]  # commands of iiscrypt -> answers; raises when one fails


def file_prefix(container: str, encoding: str) -> str:
    """The first half of a key file's name: 'ascii' for CryptoAPI, 'utf-16-le' for CNG."""
    digest = hashlib.md5((container.lower() + "\0").encode(encoding), usedforsecurity=False).digest()
    return "".join(f"{word:08x}" for word in struct.unpack("<4I", digest))


def write_cng_key(drive: Path, container: str, machine_guid: str, secret: bytes | None = None) -> Path:
    """The raw key that the stand-in for cngkeyhelper.dll derives from."""
    path = drive / "ProgramData/Microsoft/Crypto/Keys" / f"{file_prefix(container, 'utf-16-le')}_{machine_guid}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"LABKDF1\0" + (secret or os.urandom(32)))
    return path


def argument(text: str) -> str:
    """What a command of iiscrypt reads from standard input, as the last argument of a batch line."""
    return "@" + base64.b64encode(text.encode("utf-8")).decode("ascii")


def fill(text: str, batch: Batch) -> str:
    """Replace all markers of a configuration by what CryptoAPI makes of them in this host."""
    markers = list(_MARKER.finditer(text))
    aes = sorted({match["provider"] for match in markers if "aes" in match["provider"].lower()}, key=str.lower)
    answers = batch([["sessionkey", CONTAINERS[provider.lower()]] for provider in aes]) if aes else []
    sessions = {provider.lower(): answer for provider, answer in zip(aes, answers, strict=True)}
    commands: list[list[str]] = []
    for match in markers:
        provider = match["provider"].lower()
        if provider not in CONTAINERS:
            raise LabError(f"the configuration template names the unknown provider {match['provider']}")
        if match["kind"] == "secret":
            plain = argument(unescape(match["text"], {"&quot;": '"', "&apos;": "'"}))
            container = CONTAINERS[provider]
            if "aes" in provider:
                commands.append(["encrypt", "aes", container, sessions[provider], plain])
            else:
                commands.append(["encrypt", "cng" if "cng" in provider else "rsa", container, plain])
    values = iter(batch(commands) if commands else [])

    def replacement(match: re.Match[str]) -> str:
        if match["kind"] == "sessionkey":
            return sessions[match["provider"].lower()]
        value = next(values)
        return (
            value
            if text[: match.start()].endswith(f"[enc:{match['provider']}:")
            else f"[enc:{match['provider']}:{value}:enc]"
        )

    return _MARKER.sub(replacement, text)


# --- configuration texts -------------------------------------------------------------------------------------------

PARTS = paths.FILES / "parts"


def part(name: str) -> str:
    """A piece of configuration of the farm's servers; see the folder tests/lab/files/parts."""
    notice, _newline, text = (PARTS / name).read_text(encoding="utf-8").partition("\n")
    if not notice.startswith("<!-- Copyright"):
        raise LabError(f"{PARTS / name} does not begin with its copyright notice")
    return text


def _newline_of(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def inject(text: str, pools: str, sites: str) -> str:
    """A real configuration file with markers instead of its session keys, and with more pools and sites."""
    newline = _newline_of(text)
    text = text.replace("\r\n", "\n")

    def session(match: re.Match[str]) -> str:
        element = match.group(0)
        name = re.search(r'\bname="([^"]+)"', element)
        return re.sub(r'(\bsessionKey=)"[^"]*"', rf'\1"@@sessionkey:{name.group(1)}@@"' if name else r"\g<0>", element)

    text = re.sub(r"<add\b[^<>]*\bsessionKey=\"[^\"]*\"[^<>]*>", session, text)
    for closing, addition in (("            <applicationPoolDefaults", pools), ("            <siteDefaults", sites)):
        at = text.find(closing)
        if at < 0:
            raise LabError(f"the configuration to build on has no {closing.strip()}: use another file")
        text = text[:at] + addition + text[at:]
    return text.replace("\n", newline)


def corpus_file(name: str = "RedHatSE_windowcontainertest.config") -> Path | None:
    """A real configuration file, where the corpus is at hand."""
    path = paths.CORPUS / "applicationHost" / name
    return path if path.is_file() else None


def shipped_template() -> Path:
    """The configuration that the project itself brings."""
    return paths.FILES / "applicationHost.config"


def shipped_text() -> str:
    """The configuration that the project ships, with its own markers: harder cases than the farm's."""
    return shipped_template().read_bytes().decode("utf-8-sig")


def _base(corpus: Path | None) -> str:
    """Default pools and sites only: a real file where there is one, else made of the shipped one."""
    corpus = corpus or corpus_file()
    return corpus.read_bytes().decode("utf-8-sig") if corpus is not None else _plain(shipped_text())


def golden_text(corpus: Path | None = None) -> str:
    """The golden server's configuration with markers; the same pools, sites and secrets on either base."""
    return inject(_base(corpus), part("golden-pools.xml"), part("golden-sites.xml"))


def default_text(corpus: Path | None = None) -> str:
    """A new server's own configuration with markers: the default site, and one pool and one share of its own."""
    return inject(_base(corpus), part("local-pool.xml"), part("local-site.xml"))


def _between(text: str, start: str, end: str, replacement: str) -> str:
    before, middle, rest = text.partition(start)
    _old, closing, after = rest.partition(end)
    if not middle or not closing:
        raise LabError(f"{shipped_template()} has no {start} ... {end}")
    return before + middle + replacement + closing + after


def _plain(text: str) -> str:
    """The shipped configuration without its secrets and with the pools and the site of a new installation."""
    newline = _newline_of(text)
    text = text.replace("\r\n", "\n")
    text = _between(
        text,
        "<applicationPools>\n",
        "            <applicationPoolDefaults",
        '            <add name="DefaultAppPool" />\n',
    )
    text = _between(text, "<sites>\n", "            <siteDefaults", part("default-site.xml"))
    for location in re.findall(r"[ \t]*<location\b[^>]*>[\s\S]*?</location>\n?", text):
        if "@@secret:" in location:
            text = text.replace(location, "")
    text = re.sub(r'userName="[^"]*" password="@@secret:[A-Za-z]+:[^"]*@@"', 'userName="IUSR"', text)
    return text.replace("\n", newline)


def write_static_files(drive: Path) -> None:
    """administration.config, redirection.config, the schema folder and the default site's page."""
    config = drive / INETSRV / "config"
    (drive / "windows/system32/tasks").mkdir(exist_ok=True)  # the Task Scheduler's, see lab.scheduler

    def place(target: Path, source: Path, otherwise: str) -> None:
        target.write_bytes(source.read_bytes() if source.is_file() else part(otherwise).replace("\n", "\r\n").encode())

    place(config / "administration.config", paths.CORPUS / "administration/RedHatSE.config", "administration.config")
    place(config / "redirection.config", paths.CORPUS / "redirection/RedHatSE.config", "redirection.config")
    place(config / "schema/IIS_schema.xml", paths.CORPUS / "schema/RedHatSE_IIS_schema.xml", "IIS_schema.xml")
    for name in ("FX_schema.xml", "Ftp_schema.xml"):
        source = paths.CORPUS / "schema" / f"RedHatSE_{name}"
        if source.is_file():
            place(config / "schema" / name, source, "")
    (drive / "inetpub/wwwroot/iisstart.htm").write_text("<html><body>IIS</body></html>\r\n", encoding="ascii")
    for site in ("shop", "legacy"):
        (drive / "inetpub" / site).mkdir(exist_ok=True)
        (drive / "inetpub" / site / "default.htm").write_text(f"<html><body>{site}</body></html>\r\n", encoding="ascii")
    write_modules(drive)
    write_schema(config / "schema")
    (drive / "lab").mkdir(exist_ok=True)
    lines = [f"FARM\\{name}\tS-1-5-21-1004336348-1177238915-682003330-{1100 + at}" for at, name in enumerate(ACCOUNTS)]
    (drive / "lab/domain.txt").write_text("".join(f"{line}\r\n" for line in lines), encoding="ascii")
    (drive / "lab/sslcert.txt").write_text("", encoding="ascii")


def write_modules(drive: Path) -> None:
    """The module libraries of IIS and of URL Rewrite, as files that nobody loads."""
    for inetsrv in (INETSRV, INETSRV.replace("system32", "syswow64")):
        (drive / inetsrv).mkdir(parents=True, exist_ok=True)
        for name in MODULES:
            (drive / inetsrv / f"{name}.dll").write_bytes(b"MZ")
    for bits in ("Framework", "Framework64"):
        for version, engine in (("v2.0.50727", "webengine.dll"), ("v4.0.30319", "webengine4.dll")):
            folder = drive / "windows/Microsoft.NET" / bits / version
            folder.mkdir(parents=True, exist_ok=True)
            for name in (engine, "aspnet_filter.dll", "aspnet_isapi.dll"):
                (folder / name).write_bytes(b"MZ")


# --- schema --------------------------------------------------------------------------------------------------------


# May stand anywhere, whatever the schema says.
_LOCKS = ("lockAttributes", "lockAllAttributesExcept", "lockElements", "lockAllElementsExcept", "lockItem")


def _sections(element: ElementTree.Element, prefix: str) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for child in element:
        name = prefix + str(child.get("name"))
        if child.tag == "section":
            found[name] = True
        elif child.tag == "sectionGroup":
            found |= _sections(child, f"{name}/")
    return found


def _uses(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Where a section is used, in location tags as well."""
    tops = [root, *root.findall("location")]
    return [found for top in tops for found in top.findall(name)]


def _describe(uses: list[ElementTree.Element], parent: ElementTree.Element) -> None:
    """Elements and attributes as they occur; no more than that is known of them."""
    for attribute in sorted({name for use in uses for name in use.attrib}):
        if attribute not in _LOCKS:
            ElementTree.SubElement(parent, "attribute", {"name": attribute, "type": "string"})
    for tag in sorted({child.tag for use in uses for child in use if isinstance(child.tag, str)}):
        inner = ElementTree.SubElement(parent, "element", {"name": tag})
        _describe([child for use in uses for child in use if child.tag == tag], inner)


def write_schema(folder: Path) -> None:
    """rewrite_schema.xml: URL Rewrite, and what else the configurations of the lab use; IIS adds the files up."""
    roots = [
        ElementTree.fromstring(re.sub(r"@@[^@]*@@", "", text).encode("utf-8"))
        for text in (shipped_text(), golden_text(), default_text())
    ]
    schema = ElementTree.Element("configSchema")
    names = {name for root in roots for name in _sections(root.find("configSections"), "")}
    for name in sorted(names):
        section = ElementTree.SubElement(schema, "sectionSchema", {"name": name})
        _describe([use for root in roots for use in _uses(root, name)], section)
    ElementTree.indent(schema)
    (folder / "rewrite_schema.xml").write_bytes(ElementTree.tostring(schema, "utf-8"))


def write_history(drive: Path) -> None:
    """The history folder that AppHostSvc made of the present configuration some time ago."""
    config = drive / INETSRV / "config"
    folder = drive / "inetpub/history/CFGHISTORY_0000000001"
    folder.mkdir(parents=True)
    for name in ("applicationHost.config", "administration.config"):
        shutil.copy2(config / name, folder / name)
    shutil.copytree(config / "schema", folder / "schema")
