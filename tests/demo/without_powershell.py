# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the demo that needs no PowerShell: the configuration proven and re-wrapped on the controller.

Modules cannot run then. With Wine the farm still stands; without it a shipped configuration is worked on alone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost, _keyblob, _proof, _protection, _rewrap
from lab import Farm, Host

TESTS = Path(__file__).resolve().parent.parent
CONTAINERS = ("iisWasKey", "iisConfigurationKey")
CNG_CONTAINERS = ("iisCngWasKey", "iisCngConfigurationKey")
HOW_TO_GET_THE_REST = (
    "To see the playbook: set LAB_PWSH to a pwsh.exe of PowerShell 7 for Windows, or put labpwsh/win-x64.tar.xz "
    "with its SHA256SUMS into ../shared, or let this machine reach GitHub; and run as root on Debian 12, so that "
    "Wine can be installed."
)


def _notice(reason: str) -> None:
    print(f"\n!!! The playbook cannot run here: {reason}\n    {HOW_TO_GET_THE_REST}\n", flush=True)


def _show(title: str, configuration: _apphost.Configuration, keys: _protection.KeyRing) -> _proof.Proof:
    proof = _proof.prove([configuration], keys)
    print(f"    {title}: {proof.proven} of {len(proof.protected_values)} values proven", flush=True)
    for value in proof.protected_values:
        if value["verdict"] != "ok":
            print(f"      line {value['line']}: {value['path']} ({value['provider']}): {value['verdict']}")
    return proof


def offline(reason: str) -> int:
    """No farm at all: proof and re-wrapping of the shipped configuration, for a key made just now."""
    _notice(reason)
    vectors = json.loads((TESTS / "vectors" / "vectors.json").read_text("utf-8"))
    text = (TESTS / "lab" / "files" / "applicationHost.config").read_text("utf-8")
    for marker, value in vectors["configuration"]["filled"].items():
        text = text.replace(marker, value)
    names = vectors["configuration"]["keys"]
    key = {
        name: _keyblob.read_private_blob(base64.b64decode(entry["private"])) for name, entry in vectors["keys"].items()
    }
    ring = _protection.KeyRing({container: key[name] for container, name in names.items()})
    for container in CNG_CONTAINERS:
        ring.add_cng(container, base64.b64decode(vectors["cng"]["secret"]))

    golden = _apphost.parse(text.encode("utf-8"), "applicationHost.config")
    _show("with its own keys", golden, ring)
    other = _protection.KeyRing(dict.fromkeys(CONTAINERS, key["TestKeyOther"]))
    _show("with another server's keys, as after a naive copy", golden, other)
    portable = _apphost.parse(_rewrap.reencrypt(golden, ring).content, golden.name)
    mine = _apphost.parse(
        _rewrap.rewrap(portable, ring, dict.fromkeys(CONTAINERS, key["TestKeyOther"])).content, golden.name
    )
    proof = _show("re-wrapped for the other server's keys", mine, other)
    _notice(reason)
    return 0 if proof.proven == len(proof.protected_values) else 1


def on_the_farm(raise_farm: Callable[[], Farm], show_pages: Callable[[Host], list[int]], reason: str) -> int:
    """The same farm; the lab places a configuration that was re-wrapped for each server's own keys."""
    _notice(reason)
    farm = raise_farm()
    web1 = farm.host("web1")
    ring = _protection.KeyRing()
    for container in CONTAINERS:
        ring.add(container, _keyblob.read_private_blob(base64.b64decode(web1.oracle("export", container, "private"))))
    for container in CNG_CONTAINERS:
        ring.add_cng(container, web1.key_file(container, cng=True).read_bytes()[8:])
    golden = _apphost.parse(web1.config.read_bytes(), "applicationHost.config")
    _show("web1, with its own keys", golden, ring)
    portable = _apphost.parse(_rewrap.reencrypt(golden, ring).content, golden.name)

    good = True
    for name in ("web2", "web3"):
        host = farm.host(name)
        present = [container for container in CONTAINERS if container in host.containers()]
        own = {c: _keyblob.read_public_blob(base64.b64decode(host.oracle("export", c, "public"))) for c in present}
        content = _rewrap.rewrap(portable, ring, own).content
        host.stop_services()
        host.config.write_bytes(content)
        answers = host.start_services()
        print(f"    {name}: placed for its own {' and '.join(present)}; services: {answers}", flush=True)
        served = show_pages(host) == [200, 200, 200]
        # web3 has no iisWasKey: there WAS has to refuse.
        good = good and served == (len(present) == len(CONTAINERS))
    _notice(reason)
    return 0 if good else 1
