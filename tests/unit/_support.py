# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the controller libraries share: the vectors of the C oracle and the corpus of real files."""

from __future__ import annotations

import base64
import functools
import html
import json
from pathlib import Path
from typing import Any

from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyblob as kb

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"
VECTORS = ROOT / "tests" / "vectors" / "vectors.json"
OWN_CONFIGURATION = ROOT / "tests" / "lab" / "files" / "applicationHost.config"

NO_CORPUS = f"the corpus of real files is not at {CORPUS}"


@functools.cache
def vectors() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
    return data


def unb64(text: str) -> bytes:
    return base64.b64decode(text)


@functools.cache
def key(name: str) -> kb.RsaKey:
    """A private test key, from CryptoAPI's own blob."""
    return kb.read_private_blob(unb64(vectors()["keys"][name]["private"]))


def corpus(*folders: str) -> list[Path]:
    """Every file of these corpus folders; empty where the corpus is not there."""
    return [path for folder in folders for path in sorted((CORPUS / folder).glob("*")) if path.is_file()]


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@functools.cache
def filled_configuration() -> bytes:
    """The lab's configuration file with the secrets that CryptoAPI encrypted for two of the test keys."""
    text = OWN_CONFIGURATION.read_bytes().decode("utf-8")
    for marker, value in vectors()["configuration"]["filled"].items():
        text = text.replace(marker, value)
    assert "@@" not in text, "the template has new markers: run tests/vectors/make_vectors.py again"
    return text.encode("utf-8")


def plaintexts() -> dict[str, str]:
    """The secret texts of that file by their provider and marker."""
    return {m: html.unescape(m.split(":", 2)[2][:-2]) for m in vectors()["configuration"]["filled"] if "@@secret" in m}


def configuration_keys() -> dict[str, kb.RsaKey]:
    return {container: key(name) for container, name in vectors()["configuration"]["keys"].items()}
