# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests have to see the installed artefact, not the checkout."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_installed_collection_is_in_use() -> None:
    from ansible_collections.webfarm.iis.plugins.plugin_utils import _action

    installed = Path(os.environ["ANSIBLE_COLLECTIONS_PATH"]) / "ansible_collections" / "webfarm" / "iis"
    assert Path(_action.__file__).is_relative_to(installed)
    assert not Path(_action.__file__).is_relative_to(ROOT / "plugins")


def test_no_other_collection_is_installed() -> None:
    top = Path(os.environ["ANSIBLE_COLLECTIONS_PATH"]) / "ansible_collections"
    folders = [path for path in top.glob("*/*") if path.is_dir() and not path.parent.name.endswith(".info")]
    assert [f"{path.parent.name}.{path.name}" for path in folders] == ["webfarm.iis"]


def test_the_artefact_holds_what_users_need_and_nothing_else() -> None:
    installed = Path(os.environ["ANSIBLE_COLLECTIONS_PATH"]) / "ansible_collections" / "webfarm" / "iis"
    assert {path.name for path in installed.iterdir()} <= {
        "CHANGELOG.rst",
        "FILES.json",
        "LICENSE",
        "LICENSES",
        "REUSE.toml",
        "MANIFEST.json",
        "README.md",
        "changelogs",
        "docs",
        "meta",
        "playbooks",
        "plugins",
        "roles",
    }
