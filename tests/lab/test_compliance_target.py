# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compliance run over the lab, whose servers have one trouble each. The judge of it is the lab's own C program."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from lab import Host

ASPNET = "NetFrameworkConfigurationKey"
MACHINE_KEY = '<machineKey validationKey="{}" decryptionKey="{}" validation="HMACSHA256" decryption="AES" />'

# The stand-ins of the CNG keys have the permissions of Unix files, so their access lists say nothing.
READERS = {
    "iisWasKey": ["S-1-5-18", "S-1-5-32-544", "S-1-5-19"],
    "iisConfigurationKey": ["S-1-5-18", "S-1-5-32-544", "S-1-5-19", "S-1-5-32-568"],
}
POLICY = {"name": "lab", "rules": {"key_access": {"readers": READERS}}}


def encrypted(host: Host, element: str, triple: bool) -> str:
    """What ASP.NET would write for an element: XML Encryption for the host's NetFrameworkConfigurationKey."""
    dummy, modulus, exponent = host.oracle("publickey", ASPNET).split()
    public = rsa.RSAPublicNumbers(int(exponent, 16), int(modulus, 16)).public_key()
    secret = os.urandom(24 if triple else 32)
    block = 8 if triple else 16
    text = element.encode()
    name = re.match("<([A-Za-z]+)", element)[1]
    pad = block - len(text) % block
    start = os.urandom(block)
    cipher = Cipher(TripleDES(secret) if triple else algorithms.AES(secret), modes.CBC(start)).encryptor()
    content = start + cipher.update(text + os.urandom(pad - 1) + bytes([pad])) + cipher.finalize()
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    wrapped = public.encrypt(secret, padding.PKCS1v15() if triple else oaep)
    xmlenc = "http://www.w3.org/2001/04/xmlenc#"

    def data(value: bytes) -> str:
        return f"<CipherData><CipherValue>{base64.b64encode(value).decode()}</CipherValue></CipherData>"

    return (
        f'<{name} configProtectionProvider="RsaProtectedConfigurationProvider">'
        f'<EncryptedData Type="{xmlenc}Element" xmlns="{xmlenc}">'
        f'<EncryptionMethod Algorithm="{xmlenc}{"tripledes" if triple else "aes256"}-cbc" />'
        f'<KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><EncryptedKey xmlns="{xmlenc}">'
        f'<EncryptionMethod Algorithm="{xmlenc}{"rsa-1_5" if triple else "rsa-oaep-mgf1p"}" />'
        f'<KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><KeyName>Rsa Key</KeyName></KeyInfo>{data(wrapped)}'
        f"</EncryptedKey></KeyInfo>{data(content)}</EncryptedData></{name}>"
    )


def web_config(host: Host, machine_key: str, more: str = "") -> None:
    path = host.drive_c / "inetpub" / "wwwroot" / "web.config"
    text = f"<configuration>{more}<system.web>{machine_key}</system.web></configuration>"
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def compliance(playbook: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def run(*arguments: str, **variables: Any) -> tuple[Any, dict[str, dict[str, Any]]]:
        given = {
            "compliance_report_dir": str(tmp_path / "records"),
            "compliance_policy": POLICY,
            "compliance_farm": "shop",
        }
        given["compliance_retry_delay"] = 0
        done = playbook("webfarm.iis.compliance", *arguments, extra_vars=given | variables, env={"ANSIBLE_FORKS": "3"})
        report = json.loads((tmp_path / "records" / "report" / "compliance.json").read_text(encoding="utf-8"))
        return done, {one["host"]: one for one in report["hosts"]}

    return run


def test_every_trouble_has_its_verdict(
    compliance: Callable[..., Any],
    web1: Host,
    web2: Host,
    web3: Host,
    unchanged: Callable[..., AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    # web1: CNG values. web2: the configuration of web1 without its keys, a reader too many, a left-over file; the first
    # connection breaks. web3: no iisWasKey.
    web2.oracle("setsddl", "iisWasKey", "D:(A;;FA;;;SY)(A;;FA;;;BA)(A;;FR;;;LS)(A;;FR;;;S-1-5-32-568)")
    web1.config.write_bytes(web1.config.read_bytes().replace(rb"\\files\orders", rb"C:\inetpub\orders"))
    # As web1 says it, in another spelling.
    spelling = web1.config.read_bytes().replace(b"<configuration>", b"<configuration><!-- from web1 -->\r\n", 1)
    web2.config.write_bytes(spelling.replace(b"\r\n", b"\n"))
    # web3: a password in clear text, a site on a share. The machineKey of web2 is another; that of web1 is encrypted.
    # web2 has the encrypted section of web1 without its key.
    clear = b'<location path="x"><system.webServer><odbcLogging password="Pa55-clear" /></system.webServer></location>'
    web3.config.write_bytes(web3.config.read_bytes().replace(b"</configuration>", clear + b"</configuration>"))
    web1.oracle("create", ASPNET, "2048", "exportable")
    strings = encrypted(web1, '<connectionStrings><add name="x" connectionString="Pa55" /></connectionStrings>', True)
    common = MACHINE_KEY.format("AB" * 64, "CD" * 32)
    web_config(web1, encrypted(web1, common, False), strings)
    web_config(web2, MACHINE_KEY.format("12" * 64, "CD" * 32), strings)
    web_config(web3, common.replace("AB" * 64, "ab" * 64))
    (web2.config_dir / "applicationHost.config.tmp").write_bytes(b"<configuration")
    web2.fault("drop", times=1)
    time.sleep(3)  # AppHostSvc keeps a copy of the new file by itself
    with unchanged(web1, web2, web3):
        done, hosts = compliance(compliance_fail_on=["values_open"])
    assert done.rc == 2, done.text
    assert "do not comply (fail_on: values_open)" in done.text

    def status(host: str) -> dict[str, str]:
        return {rule: verdict["status"] for rule, verdict in hosts[host]["verdicts"].items()}

    for host in (web1, web2, web3):
        assert hosts[host.name]["state"] == "answered"
        for container, fingerprint in hosts[host.name]["keys"].items():
            assert fingerprint == host.oracle("fingerprint", container).split()[0].lower()
    assert status("web1")["values_open"] == "pass"
    assert status("web1")["providers_allowed"] == "fail"
    assert "IISWASOnlyCngProvider" in hosts["web1"]["verdicts"]["providers_allowed"]["reason"]
    assert status("web2")["values_open"] == "fail"
    assert "bad_data" in hosts["web2"]["verdicts"]["values_open"]["reason"]
    assert status("web2")["key_access"] == "fail"
    assert "IIS_IUSRS" in hosts["web2"]["verdicts"]["key_access"]["reason"]
    assert status("web2")["configuration_sound"] == "fail"
    assert status("web3")["values_open"] == "fail"
    assert "NTE_BAD_KEYSET" in hosts["web3"]["verdicts"]["keys_equal"]["reason"]
    assert status("web1")["configuration_equal"] == status("web2")["configuration_equal"] == "pass"
    assert status("web3")["configuration_equal"] == "fail"
    reason = hosts["web3"]["verdicts"]["configuration_equal"]["reason"]
    assert "Compared with web1: " in reason and "(only " in reason
    assert status("web3")["secrets_encrypted"] == "fail" and status("web1")["secrets_encrypted"] == "pass"
    assert "odbcLogging/@password" in hosts["web3"]["verdicts"]["secrets_encrypted"]["reason"]
    assert status("web1")["machine_key_equal"] == "pass"
    # What was read of web3 is equal; a file on a share was not read, which is no pass.
    assert status("web3")["machine_key_equal"] == "unknown"
    assert "share" in hosts["web3"]["verdicts"]["machine_key_equal"]["reason"]
    assert status("web2")["machine_key_equal"] == "fail"
    assert "Default Web Site/" in hosts["web2"]["verdicts"]["machine_key_equal"]["reason"]
    # Shop has none, and web3 no Shop.
    assert status("web1")["machine_key_set"] == "fail" and status("web3")["machine_key_set"] == "unknown"
    assert "Shop/" in hosts["web1"]["verdicts"]["machine_key_set"]["reason"]
    assert status("web1")["sections_open"] == "pass" and status("web3")["sections_open"] == "unknown"
    assert status("web2")["sections_open"] == "fail"
    assert "missing_key" in hosts["web2"]["verdicts"]["sections_open"]["reason"]
    assert status("web1")["key_access"] == status("web3")["key_access"] == "pass"
    text = "".join(path.read_text(encoding="utf-8-sig") for path in (tmp_path / "records").rglob("*") if path.is_file())
    assert "[enc:" not in text and "Pa55" not in text
    assert "ABABABAB" not in text.upper() and "CDCDCDCD" not in text.upper()
    assert "PRIVATE KEY" not in text


def test_an_unreachable_and_an_unelevated_host(
    compliance: Callable[..., Any], web1: Host, web2: Host, web3: Host
) -> None:
    web2.fault("drop")
    web3.fault("unelevated")
    done, hosts = compliance()
    assert done.rc == 0, done.text
    assert {name: one["state"] for name, one in hosts.items()} == {
        "web1": "answered",
        "web2": "unreachable",
        "web3": "failed",
    }
    assert "elevated" in hosts["web3"]["verdicts"]["reachable"]["reason"]
    assert {verdict["status"] for rule, verdict in hosts["web2"]["verdicts"].items() if rule != "reachable"} == {
        "unknown"
    }
