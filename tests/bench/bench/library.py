# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of the controller libraries: the proof of a large file, the report of a large fleet."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _fleet
import _support
from cryptography.hazmat.primitives.asymmetric import rsa
from lxml import etree

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost, _keyblob, _proof, _protection, _rewrap
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import write_private_file

from .figure import ROOT, BenchError, Figure, pairs

SITE = (
    '            <site name="site{n}" id="{id}" serverAutoStart="true">\r\n'
    '                <application path="/" applicationPool="pool{n}">\r\n'
    '                    <virtualDirectory path="/" physicalPath="D:\\sites\\site{n}\\wwwroot" userName="CORP\\svc{n}"'
    ' password="{value}" />\r\n'
    '                    <virtualDirectory path="/media" physicalPath="\\\\files.example.net\\media\\site{n}" />\r\n'
    "                </application>\r\n"
    "                <bindings>\r\n"
    '                    <binding protocol="http" bindingInformation="*:80:site{n}.example.net" />\r\n'
    '                    <binding protocol="https" bindingInformation="*:443:site{n}.example.net" sslFlags="1" />\r\n'
    "                </bindings>\r\n"
    '                <logFile directory="D:\\logs\\site{n}" logFormat="W3C" period="Daily" />\r\n'
    "            </site>\r\n"
)
POOL = (
    '            <add name="pool{n}" autoStart="true" startMode="AlwaysRunning" managedRuntimeVersion="v4.0">\r\n'
    '                <processModel identityType="SpecificUser" userName="CORP\\svc{n}" password="{value}"'
    ' loadUserProfile="true" idleTimeout="00:00:00" maxProcesses="1" />\r\n'
    '                <recycling logEventOnRecycle="Time, Requests, Schedule, Memory, IsapiUnhealthy, OnDemand">\r\n'
    '                    <periodicRestart time="00:00:00" privateMemory="0" requests="0" />\r\n'
    "                </recycling>\r\n"
    "            </add>\r\n"
)


def large_configuration(values: int, size: int) -> tuple[bytes, _protection.KeyRing]:
    """A configuration with that many more encrypted values, filled with sites to about that size; and its keys."""
    content = _support.filled_configuration()
    keys = _protection.KeyRing(_support.configuration_keys())
    for container in ("iisCngWasKey", "iisCngConfigurationKey"):
        keys.add_cng(container, _support.unb64(_support.vectors()["cng"]["secret"]))
    parsed = _apphost.parse(content, "applicationHost.config")
    was, other = parsed.provider("IISWASOnlyAesProvider"), parsed.provider("AesProvider")
    assert was is not None and other is not None
    text = content.decode("utf-8")
    sites, pools = [], []
    for number in range(values // 2):
        secret = f"Geheim-{number:05d}-\u00e4\u00f6\u00fc"
        pools.append(POOL.format(n=number, value=_protection.format_value(was.name, _seal(was, secret, keys))))
        sites.append(
            SITE.format(
                n=number, id=number + 1000, value=_protection.format_value(other.name, _seal(other, secret, keys))
            )
        )
    have = len(content) + sum(len(one) for one in sites + pools)
    number = values
    while have < size:
        plain = SITE.format(n=number, id=number + 1000, value="")
        sites.append(plain)
        have += len(plain)
        number += 1
    for end, parts in (("        </applicationPools>", pools), ("        </sites>", sites)):
        at = text.rindex(end.strip())
        at = text.rindex("\n", 0, at) + 1
        text = text[:at] + "".join(parts) + text[at:]
    return text.encode("utf-8"), keys


def _seal(provider: _apphost.Provider, text: str, keys: _protection.KeyRing) -> bytes:
    return _protection.encrypt_aes(text, keys.session(provider))


def config_proof(smoke: bool) -> list[Figure]:
    """Proof of a file of 5 MB with 5,000 values against lxml parsing and walking it."""
    values, size = (200, 200_000) if smoke else (5000, 5_000_000)
    content, keys = large_configuration(values, size)

    def prove() -> float:
        gc.collect()
        began = time.process_time()
        proof = _proof.prove([_apphost.parse(content, "applicationHost.config")], keys)
        seconds = time.process_time() - began
        if proof.failed or proof.proven < values:
            raise BenchError(f"the generated file does not prove: {proof.summary()}")
        return seconds

    def walk() -> float:
        gc.collect()
        began = time.process_time()
        root = etree.fromstring(content, etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True))
        found = sum(1 for node in root.iter() for _name, value in node.attrib.items() if value.startswith("[enc:"))
        seconds = time.process_time() - began
        if found < values:
            raise BenchError(f"the generated file has {found} values only")
        return seconds

    return [
        Figure(
            "config_proof",
            f"config_proof of {len(content) / 1e6:.1f} MB with {values} values",
            "lxml parses and walks the file",
            "s",
            pairs(prove, walk, 1 if smoke else 7),
            None if smoke else 3,
            details={"bytes": len(content)},
        )
    ]


def config_rewrap(smoke: bool) -> list[Figure]:
    """A configuration for each of 1,000 servers against writing 1,000 copies of it, both in the same safe way."""
    servers = 20 if smoke else 1000
    ring = _protection.KeyRing(_support.configuration_keys())
    for container in ("iisCngWasKey", "iisCngConfigurationKey"):
        ring.add_cng(container, _support.unb64(_support.vectors()["cng"]["secret"]))
    # The copy of config_rewrap has no value under a CNG key.
    content = _rewrap.reencrypt(_apphost.parse(_support.filled_configuration(), "applicationHost.config"), ring).content
    keys = [_public_key() for _number in range(16)]
    containers = list(_support.configuration_keys())
    targets = [
        {container: keys[(number + at) % len(keys)] for at, container in enumerate(containers)}
        for number in range(servers)
    ]
    with tempfile.TemporaryDirectory(prefix="webfarm-bench-") as name:

        def rewrap() -> float:
            began = time.process_time()
            configuration = _apphost.parse(content, "applicationHost.config")
            source = _rewrap.Source(configuration, ring)
            template = configuration.template(list(source.paths))
            for number, target in enumerate(targets):
                write_private_file(f"{name}/{number}.config", template.fill(source.wrap(target)), "targets")
            return time.process_time() - began

        def copy() -> float:
            began = time.process_time()
            for number in range(servers):
                write_private_file(f"{name}/{number}.config", content, "targets")
            return time.process_time() - began

        samples = pairs(rewrap, copy, 1 if smoke else 7)
    return [
        Figure(
            "config_rewrap",
            f"config_rewrap for {servers} servers, on the controller",
            f"writing {servers} copies of the file",
            "s",
            samples,
            None if smoke else 2,
            note="processor time; both write in the same safe way (new file, then its name).",
            details={"bytes": len(content)},
        )
    ]


def _public_key() -> _keyblob.RsaKey:
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key().public_numbers()
    return _keyblob.RsaKey(numbers.n, numbers.e)


MEASURE = """
import json, re, sys, time
from pathlib import Path
from ansible_collections.webfarm.iis.plugins.plugin_utils import _evidence, _page, _policy, _report, _record
folder, out, reference = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "reference"
began = time.process_time()
if reference:
    hosts = 0
    for path in sorted(folder.glob("*.host.json")):
        hosts += json.loads(path.read_bytes())["format"] != ""
else:
    import _fleet
    report = _report.evaluate(folder, _policy.load_policy({}), now=_fleet.NOW)
    with (out / "r.json").open("w") as stream:
        _report.write_json(report, stream)
    with (out / "r.xml").open("wb") as stream:
        _report.write_junit(report, stream)
    with (out / "r.csv").open("w", newline="") as stream:
        _report.write_csv(report, stream)
    (out / "r.html").write_text(_page.render(report))
    _evidence.append(out / "evidence", _evidence.content_of(report, tool={}))
    hosts = len(report.hosts)
seconds = time.process_time() - began
# Not ru_maxrss: it begins with what the process had that started this one.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps([seconds, peak / 1024, hosts]))
"""


def report(smoke: bool) -> list[Figure]:
    """All reports and the evidence of 10,000 hosts: 10 s, 500 MB, and against only reading their records."""
    hosts = 200 if smoke else 10_000
    with tempfile.TemporaryDirectory(prefix="webfarm-bench-") as name:
        folder, out = Path(name, "records"), Path(name, "out")
        out.mkdir()
        _fleet.large(folder, hosts)
        memory: list[tuple[float, float]] = []
        peak: dict[str, float] = {}

        def run(what: str) -> float:
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, str(folder), str(out), what],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode:
                raise BenchError(f"the report of {hosts} hosts failed: {done.stderr.strip()}")
            seconds, peak[what], found = json.loads(done.stdout)
            if found != hosts:
                raise BenchError(f"the report has {found} of {hosts} hosts")
            return float(seconds)

        def measured() -> float:
            seconds = run("report")
            memory.append((peak["report"], 500.0))
            return seconds

        samples = pairs(measured, lambda: run("reference"), 1 if smoke else 5, warm_up=False)
    title = f"report of {hosts} hosts"
    bound = None if smoke else 1.0
    return [
        Figure(
            "report_time",
            f"{title}: processor time",
            "10 s",
            "s",
            [(mine, 10.0) for mine, _other in samples],
            bound,
        ),
        Figure("report_memory", f"{title}: peak memory", "500 MB", "MB", memory, bound),
        Figure("report_reading", f"{title}: processor time", "only reading their records", "s", samples, None),
        *(page(smoke) if not smoke else []),
    ]


def page(smoke: bool) -> list[Figure]:
    """The page of 10,000 hosts in headless Chromium, by the test that also clicks through it."""
    shown = ROOT / ".build" / "browser" / "figures.json"
    frames: list[tuple[float, float]] = []
    typing: list[tuple[float, float]] = []
    opening: list[tuple[float, float]] = []
    for _number in range(1 if smoke else 5):
        shown.unlink(missing_ok=True)
        test = "tests/browser/test_report_page.py::test_ten_thousand_hosts"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", test],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if not shown.is_file():
            raise BenchError(f"the page could not be measured in a browser: {done.stdout.strip()[-300:]}")
        found: dict[str, Any] = json.loads(shown.read_text(encoding="utf-8"))
        still = float(found["scroll"]["still"])
        frames.append((float(found["scroll"]["moving"]), still))
        typing.append((float(found["filter_worst_ms"]), still))
        opening.append((float(found["open_ms"]), 3000.0))
    return [
        Figure("page_open", "page of 10000 hosts: opens", "3 s", "ms", opening, 1),
        Figure("page_scroll", "page of 10000 hosts: worst frame of scrolling", "a frame at rest", "ms", frames, 9),
        Figure(
            "page_filter",
            "page of 10000 hosts: slowest answer to a key in the search",
            "a frame at rest",
            "ms",
            typing,
            12,
            note="up to 200 ms at 60 frames a second reads as immediate.",
        ),
    ]


FIGURES = {"config_proof": config_proof, "config_rewrap": config_rewrap, "report": report}
__all__ = ["FIGURES", "large_configuration"]
