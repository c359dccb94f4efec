# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values outside applicationHost.config that a key opens, made and opened by the C oracle."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from lab import Host

REGISTRY = r"HKLM\SOFTWARE\Microsoft\IIS\CentralCertProvider"
_PROVIDER = re.compile(r'<add name="(\w+)"[^>]*keyContainerName="(\w+)"[^>]*?(?:sessionKey="([^"]+)")?\s*/>')
_VALUE = re.compile(r"\[enc:(\w+):([^:\"]+):enc\]")
TEXTS = {
    "administration.config": "Remote-Pa55",
    "redirection.config": "Share-Pa55 äß",
    "web.config": "Anonymous-Pa55",
    "Password": "Ccs-Pa55",
    "PrivateKeyPassword": "Pfx-Pa55",
}


def _rewrite(value: str) -> str:
    setting = f'<settings><add key="ConnectionString" encryptedValue="{value}" /></settings>'
    return (
        f'<system.webServer><rewrite><providers><provider name="db" type="x">{setting}</provider></providers></rewrite>'
        "</system.webServer>"
    )


@dataclass
class Dependents:
    """What was staged on a host."""

    host: Host
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, Path]:
        return {
            "administration.config": self.host.config_dir / "administration.config",
            "redirection.config": self.host.config_dir / "redirection.config",
            "web.config": self.host.drive_c / "inetpub/wwwroot/app/web.config",
        }

    def providers(self) -> dict[str, tuple[str, str]]:
        """Container and session key of every provider of applicationHost.config."""
        text = self.host.config.read_text("utf-8-sig")
        return {name: (container, session) for name, container, session in _PROVIDER.findall(text)}

    def encrypt(self, provider: str, text: str) -> str:
        container, session = self.providers()[provider]
        arguments = ["aes", container, session] if session else ["rsa", container]
        return f"[enc:{provider}:{self.host.oracle('encrypt', *arguments, stdin=text)}:enc]"

    def stage(self) -> Dependents:
        """One value in every place; in applicationHost.config one of FTP and one of URL Rewrite."""
        text = self.host.config.read_text("utf-8-sig")
        ftp = self.encrypt("AesProvider", "Ftp-Pa55")
        data = f'<providerData name="a"><add key="x" encryptedValue="{ftp}" /></providerData>'
        section = f"<providerDefinitions><activation>{data}</activation></providerDefinitions>"
        section = f"<system.ftpServer>{section}</system.ftpServer>"
        section += _rewrite(self.encrypt("AesProvider", "Rewrite-Pa55"))
        self.host.config.write_bytes(text.replace("</configuration>", f"{section}</configuration>").encode())
        admin = self.files["administration.config"]
        text = admin.read_text("utf-8-sig")
        value = self.encrypt("AesProvider", TEXTS["administration.config"])
        scope = f'<scope><add name="joe" password="{value}" /></scope>'
        section = f"<system.webServer><management>{scope}</management></system.webServer></configuration>"
        admin.write_bytes(text.replace("</configuration>", section).encode())
        redirection = self.files["redirection.config"]
        text = redirection.read_text("utf-8-sig")
        value = "[enc:IISRsaProvider:" + self.host.oracle(
            "encrypt", "rsa", "iisConfigurationKey", stdin=TEXTS["redirection.config"]
        )
        start = f'<configurationRedirection enabled="false" password="{value}:enc]" '
        redirection.write_bytes(re.sub("<configurationRedirection ", start, text).encode())
        web = self.files["web.config"]
        web.parent.mkdir(parents=True, exist_ok=True)
        value = self.encrypt("AesProvider", TEXTS["web.config"])
        web.write_bytes(f"<configuration>\r\n  {_rewrite(value)}\r\n</configuration>\r\n".encode())
        for name in ("Password", "PrivateKeyPassword"):
            self.set_registry(name, self.host.oracle("encrypt", "rsa", "iisWasKey", stdin=TEXTS[name]))
        return self

    def set_registry(self, name: str, value: str) -> None:
        self.host.run(["reg", "add", REGISTRY, "/v", name, "/t", "REG_SZ", "/d", value, "/f"])

    def raw(self) -> dict[str, str]:
        """The values as they are stored."""
        found = {}
        for name, path in self.files.items():
            (found[name],) = ["".join(match) for match in _VALUE.findall(path.read_text("utf-8-sig"))]
        for name in ("Password", "PrivateKeyPassword"):
            answer = self.host.run(["reg", "query", REGISTRY, "/v", name]).stdout.decode()
            found[name] = answer.split("REG_SZ")[1].strip()
        return found

    def read(self) -> dict[str, str]:
        """The values as the present keys open them."""
        providers = self.providers()
        found = {}
        for name, path in self.files.items():
            ((provider, data),) = _VALUE.findall(path.read_text("utf-8-sig"))
            container, session = providers.get(provider, ("iisConfigurationKey", ""))
            arguments = ["aes", container, session] if session else ["rsa", container]
            found[name] = self.host.oracle("decrypt", *arguments, stdin=data)
        raw = self.raw()
        for name in ("Password", "PrivateKeyPassword"):
            found[name] = self.host.oracle("decrypt", "rsa", "iisWasKey", stdin=raw[name])
        return found

    def own(self) -> dict[str, str]:
        """The values of applicationHost.config that are not under CNG keys: number and text."""
        providers = self.providers()
        found = {}
        for number, (provider, data) in enumerate(_VALUE.findall(self.host.config.read_text("utf-8-sig"))):
            container, session = providers[provider]
            if "Cng" not in provider:
                arguments = ["aes", container, session] if session else ["rsa", container]
                found[f"{number} {provider}"] = self.host.oracle("decrypt", *arguments, stdin=data)
        return found

    def sessions(self) -> dict[str, str]:
        """The AES keys of the providers of applicationHost.config, as the present keys open them."""
        return {
            name: self.host.oracle("unwrap", container, session)
            for name, (container, session) in self.providers().items()
            if session
        }
