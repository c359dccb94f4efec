# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file that decrypts and still does not fit: what config refuses and lets pass; values that differ per server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from lab import Host

Module = Callable[..., dict[str, Any]]
Unchanged = Callable[..., AbstractContextManager[None]]
CANDIDATE = "inetpub/candidate.config"


def candidate(host: Host, *edits: tuple[str, str]) -> dict[str, Any]:
    """The host's own file with edits, laid beside it: what it holds decrypts in any case."""
    text = host.config.read_bytes().decode("utf-8")
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    (host.drive_c / CANDIDATE).write_bytes(text.encode("utf-8"))
    return {"src": "C:\\" + CANDIDATE.replace("/", "\\"), "remote_src": True, "stop_timeout": 20, "start_timeout": 60}


def codes(result: dict[str, Any], severity: str = "error") -> set[str]:
    return {item["code"] for item in result["fit"] if item["severity"] == severity}


@contextmanager
def without(path: Path) -> Iterator[None]:
    """A file that is not there for a while."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


def test_own_file_fits(ansible_module: Module, web2: Host, unchanged: Unchanged) -> None:
    options = candidate(web2, ("<system.applicationHost>", "<system.applicationHost><!-- changed -->"))
    with unchanged(web2):
        plan = ansible_module(web2, "config", check=True, diff=True, **options)
    assert not plan.get("failed"), plan["msg"]
    assert plan["changed"] is True
    # Its share is told and not asked: no wait for a file server that is away, no warning.
    assert [(item["code"], item["severity"]) for item in plan["fit"]] == [("share_not_checked", "note")], plan["fit"]
    assert not any("not looked at" in text for text in plan["warnings"]), plan["warnings"]
    expects = plan["expects"]
    assert {"Web-ASP", "Web-Asp-Net45", "Web-Basic-Auth", "Web-WebServer"} <= set(expects["features"])
    assert expects["products"] == (["URL Rewrite"] if b"<rewrite>" in web2.config.read_bytes() else [])
    assert expects["certificates"] == []
    assert "\\\\files\\local" in expects["content"], expects


def test_every_trouble_of_the_file_is_named_before_anything_is_stopped(
    ansible_module: Module, web2: Host, unchanged: Unchanged
) -> None:
    sections = (
        '<sectionGroup name="system.applicationHost">',
        '<section name="webFarms" /><section name="gone" type="Some.Managed.Section" />'
        '<sectionGroup name="system.applicationHost">',
    )
    options = candidate(
        web2,
        sections,
        ("<system.applicationHost>", "<webFarms /><gone colour='red' /><system.applicationHost>"),
        ('<processModel identityType="SpecificUser"', '<processModel newInIis11="true" identityType="SpecificUser"'),
        ('userName="FARM\\svc-local"', 'userName="FARM\\svc-gone"'),
        (
            'physicalPath="\\\\files\\local" userName="FARM\\svc-local"',
            'physicalPath="C:\\absent" userName="nobody@farm"',
        ),
        (
            'path="%windir%\\Microsoft.NET\\Framework64\\v4.0.30319\\aspnet_filter.dll"',
            'path="C:\\absent\\filter.dll"',
        ),
        (
            '<add path="%windir%\\system32\\inetsrv\\asp.dll" allowed="true"',
            '<add path="\\\\files\\cgi\\share.exe" allowed="true" /><add path="C:\\absent\\off.exe" allowed="false" />'
            '<add path="&quot;C:\\absent\\perl 5.exe&quot; &quot;%s&quot; %s" allowed="true" />'
            '<add path="%windir%\\system32\\inetsrv\\asp.dll" allowed="true"',
        ),
        ("%windir%\\System32\\inetsrv\\urlauthz.dll", "%windir%\\System32\\inetsrv\\other.dll"),
        (
            '<binding protocol="http" bindingInformation="*:8081:" />',
            '<binding protocol="http" bindingInformation="192.0.2.7:8081:" />'
            '<binding protocol="https" bindingInformation="*:443:shop.example" sslFlags="1" />'
            '<binding protocol="https" bindingInformation="127.0.0.1:444:" />',
        ),
        ('logFormat="W3C" directory="%SystemDrive%\\inetpub\\logs\\LogFiles"', 'logFormat="W3C" directory="D:\\logs"'),
    )
    certificates = web2.drive_c / "lab/sslcert.txt"
    certificates.write_text("127.0.0.1:444\r\n", encoding="ascii")
    inetsrv = web2.config_dir.parent
    try:
        with unchanged(web2), without(inetsrv / "authbas.dll"), without(inetsrv / "asp.dll"):
            refused = ansible_module(web2, "config", **options)
    finally:
        certificates.write_text("", encoding="ascii")
    assert refused["failed"] and "Nothing was changed" in refused["msg"], refused
    assert "Install-WindowsFeature -Name Web-ASP, Web-Basic-Auth " in refused["msg"], refused["msg"]
    assert refused["missing_features"] == ["Web-ASP", "Web-Basic-Auth"]
    errors = [(item["code"], item["path"].rpartition("/")[2]) for item in refused["fit"] if item["severity"] == "error"]
    assert sorted(errors) == [
        ("folder_user_unknown", "@userName"),
        ("module_dll_missing", "@image"),
        ("module_dll_missing", "@image"),
        ("not_in_schema", "@newInIis11"),
        ("pool_user_unknown", "@userName"),
        ("section_without_schema", "webFarms"),
    ], refused["fit"]
    warned = sorted(
        (item["code"], item["path"].rpartition("/")[2]) for item in refused["fit"] if item["severity"] == "warning"
    )
    assert warned == [
        ("address_absent", "@bindingInformation"),
        ("certificate_absent", "@bindingInformation"),
        ("folder_absent", "@physicalPath"),
        ("isapi_cgi_absent", "@path"),
        ("isapi_cgi_absent", "@path"),
        ("isapi_filter_absent", "@path"),
        ("log_folder_absent", "@directory"),
    ], refused["fit"]
    programs = [item["message"] for item in refused["fit"] if item["code"] == "isapi_cgi_absent"]
    assert any("C:\\absent\\perl 5.exe is not" in text for text in programs) and not any(
        "off.exe" in x for x in programs
    )
    assert codes(refused, "note") == {"share_not_checked"}, refused["fit"]
    assert "*:443:shop.example (site " in " ".join(refused["expects"]["certificates"])
    assert "shop.example" in next(item["message"] for item in refused["fit"] if item["code"] == "certificate_absent")


def test_accepted_findings_let_the_change_pass_and_stay_visible(ansible_module: Module, web2: Host) -> None:
    options = candidate(web2, ("%windir%\\System32\\inetsrv\\urlauthz.dll", "%windir%\\System32\\inetsrv\\other.dll"))
    path = "system.webServer/globalModules/add[@name='UrlAuthorizationModule']/@image"
    other = [{"code": "module_dll_missing", "path": path + "x", "reason": "not this one"}]
    refused = ansible_module(web2, "config", check=True, accept_unfit=other, **options)
    assert refused["failed"] and path in refused["msg"], refused
    silent = [{"code": "module_dll_missing", "reason": " "}]
    refused = ansible_module(web2, "config", check=True, accept_unfit=silent, **options)
    assert refused["failed"] and "accept_unfit" in refused["msg"] and "reason" in refused["msg"], refused
    good = [{"code": "module_dll_missing", "path": path, "reason": "comes with the next deployment"}]
    done = ansible_module(web2, "config", accept_unfit=good, **options)
    assert not done.get("failed") and done["changed"], done["msg"]
    assert done["transaction"]["outcome"] == "committed"
    kept = [(item["accepted"], item["reason"]) for item in done["fit"] if item["severity"] != "note"]
    assert kept == [(True, "comes with the next deployment")]
    assert done["missing_features"] == []
    # What is in force already is told, not refused.
    again = ansible_module(web2, "config", **options)
    assert not again.get("failed") and again["changed"] is False, again
    assert codes(again) == {"module_dll_missing"} and any("does not fit" in text for text in again["warnings"])


def test_another_generation(ansible_module: Module, web2: Host, unchanged: Unchanged) -> None:
    text = web2.config.read_bytes().decode("utf-8")
    older = [(line, "") for line in text.splitlines(keepends=True) if "CngProtectedConfigurationProvider" in line]
    assert older
    options = candidate(web2, *older)
    with unchanged(web2):
        refused = ansible_module(web2, "config", check=True, **options)
    assert refused["failed"] and codes(refused) == {"older_generation"}, refused
    migration = [{"code": "older_generation", "reason": "moved from Windows Server 2012 R2"}]
    plan = ansible_module(web2, "config", check=True, accept_unfit=migration, **options)
    assert not plan.get("failed") and plan["changed"], plan
    # The other way round: a server that knows no CNG, in its file or its schema.
    web2.stop_services("WMSVC", "FTPSVC", "W3SVC", "WAS", "AppHostSvc")
    newer = candidate(web2, ("<system.applicationHost>", "<system.applicationHost><!-- newer -->"))
    web2.write_file(
        web2.config, "".join(line for line in text.splitlines(keepends=True) if (line, "") not in older).encode()
    )
    for file in (web2.config_dir / "schema").glob("*.xml"):
        web2.write_file(file, file.read_bytes().replace(b"CngProvider::enc", b"RsaProvider::enc"))
    refused = ansible_module(web2, "config", check=True, **newer)
    assert refused["failed"] and codes(refused) == {"newer_generation"}, refused
    express = candidate(web2, ('logFormat="W3C" directory="', 'logFormat="W3C" directory="%IIS_USER_HOME%\\'))
    refused = ansible_module(web2, "config", check=True, **express)
    assert refused["failed"] and codes(refused) == {"iis_express"}, refused


PENDING = r"""Windows Registry Editor Version 5.00

[{sign}HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending]
"""


def register(host: Host, text: str) -> None:
    path = host.drive_c / "lab/pending.reg"
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-16"))
    assert host.run(["regedit", "/S", "C:\\lab\\pending.reg"]).returncode == 0
    path.unlink()


def test_a_pending_restart_and_a_schema_without_a_section(
    ansible_module: Module, web2: Host, unchanged: Unchanged
) -> None:
    options = candidate(web2, ("<system.applicationHost>", "<system.applicationHost><!-- changed -->"))
    register(web2, PENDING.format(sign=""))
    try:
        with unchanged(web2):
            refused = ansible_module(web2, "config", **options)
    finally:
        register(web2, PENDING.format(sign="-"))
    assert refused["failed"] and codes(refused) == {"pending_reboot"} and "RebootPending" in refused["msg"], refused
    schema = web2.config_dir / "schema/IIS_schema.xml"
    web2.stop_services("WMSVC", "FTPSVC", "W3SVC", "WAS", "AppHostSvc")
    web2.write_file(schema, b"<configSchema><sectionSchema")
    refused = ansible_module(web2, "config", check=True, **options)
    assert refused["failed"] and codes(refused) == {"schema_unreadable"}, refused
