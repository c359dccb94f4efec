# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The custody guide: its commands are run as they are printed, its tasks have options that exist."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from _support import ROOT, key
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from test_action_key_bundle import FINGERPRINTS, IMPORT, bad, good
from test_bundle import Identity

from ansible_collections.webfarm.iis.plugins.plugin_utils import _bundle as bu
from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyblob as kb
from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyfile as kf

GUIDE = ROOT / "docs" / "docsite" / "rst" / "guide_custody.rst"
PASSPHRASE = "Passphrase-of-the-guide"

_BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", re.MULTILINE)


def blocks(language: str) -> list[str]:
    return [textwrap.dedent(body) for name, body in _BLOCK.findall(GUIDE.read_text("utf-8")) if name == language]


def shell(folder: Path, script: str) -> str:
    """Run a block as it is printed. Without a terminal, openssl reads passphrases from standard input."""
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        input=f"{PASSPHRASE}\n" * 4,
        capture_output=True,
        text=True,
        cwd=folder,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipients, made by the commands of the guide."""
    folder = tmp_path_factory.mktemp("people")
    for line in blocks("shell")[0].splitlines():
        shell(folder, line)
    return folder


@pytest.fixture
def folder(people: Path, tmp_path: Path) -> Path:
    for path in people.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    signer = Identity("signer")
    (tmp_path / "signer.crt").write_bytes(signer.pem)
    (tmp_path / "signer.key").write_bytes(signer.key_pem)
    (tmp_path / "was.xml").write_text(kb.write_xml(key("TestKey2048"), private=True))
    (tmp_path / "configuration.blob").write_bytes(kb.write_private_blob(key("TestKey4096")))
    return tmp_path


def test_the_recipients_of_the_guide(people: Path) -> None:
    for name in ("operator", "safe"):
        certificate = x509.load_pem_x509_certificate((people / f"{name}.crt").read_bytes())
        private = serialization.load_pem_private_key((people / f"{name}.key").read_bytes(), PASSPHRASE.encode())
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        assert certificate.public_key().public_bytes(*form) == private.public_key().public_bytes(*form)


def test_break_glass(folder: Path) -> None:
    """The commands, one after another, on a bundle with the guide's recipients."""
    good(
        folder,
        farm="shop",
        recipients=["operator.crt", "safe.crt"],
        import_from=IMPORT,
        signing_certificate="signer.crt",
        signing_file="signer.key",
    )
    take_out, fingerprint, convert, verify, delete = blocks("shell")[1:]
    shell(folder, take_out)
    assert (folder / "iisWasKey.blob").read_bytes() == kb.write_private_blob(key("TestKey2048"))
    assert (folder / "iisWasKey.blob").stat().st_mode & 0o077 == 0
    assert shell(folder, fingerprint).split()[-1] == FINGERPRINTS["iisWasKey"]
    shell(folder, convert)
    for name in ("iisWasKey.pem", "iisWasKey.pvk"):
        assert kf.read_key_file((folder / name).read_bytes(), None, name).key == key("TestKey2048")
    shell(folder, verify)
    assert (folder / "verified").read_bytes() == bu.read_bundle(folder / "shop.keyset.json").canonical()
    shell(folder, delete)
    assert [path.name for path in folder.glob("iisWasKey.*")] == ["iisWasKey.p7m"]


def test_the_guides_check_of_a_signature_can_fail(folder: Path) -> None:
    options = {"farm": "shop", "recipients": ["operator.crt"], "import_from": IMPORT}
    good(folder, **options, signing_certificate="signer.crt", signing_file="signer.key")
    verify = blocks("shell")[4]
    path = folder / "shop.keyset.json"
    bundle = bu.read_bundle(path)
    path.write_bytes(dataclasses.replace(bundle, farm="other").to_bytes())
    with pytest.raises(AssertionError, match="(?i)verification failure"):
        shell(folder, verify)
    stranger = Identity("signer")
    path.write_bytes(bundle.signed(stranger.key_pem, None, stranger.pem).to_bytes())
    with pytest.raises(AssertionError, match="signer certificate not found"):
        shell(folder, verify)
    bad(folder, "not signed by signer_certificate", signer_certificate="signer.crt")


def check_options(task: dict[str, Any], spec: dict[str, Any]) -> None:
    for name, value in task.items():
        assert name in spec, f"there is no option {name}"
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and spec[name].get("options"):
                check_options(item, spec[name]["options"])


def test_the_tasks_of_the_guide_have_options_that_exist() -> None:
    tasks = [task for block in blocks("yaml") for task in yaml.safe_load(block)]
    assert len(tasks) >= 6
    for task in tasks:
        assert task.pop("name")
        ((name, options),) = task.items()
        short = name.removeprefix("webfarm.iis.")
        spec = importlib.import_module(f"ansible_collections.webfarm.iis.plugins.action.{short}").ActionModule.SPEC
        check_options(options, spec)
        for option, rule in spec.items():
            assert not rule.get("required") or option in options


def test_every_refused_recorder_of_the_guide_is_one() -> None:
    from ansible_collections.webfarm.iis.plugins.plugin_utils._action import RESULT_RECORDERS

    text = " ".join(GUIDE.read_text("utf-8").split())
    listed = re.search(r"record results \((.*?) and their like\)", text)
    assert listed
    assert set(re.findall(r"``(\w+)``", listed[1])) <= RESULT_RECORDERS
