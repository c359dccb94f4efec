# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all controller halves share."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.webfarm.iis.plugins.plugin_utils import _action


def test_content_survives_packing() -> None:
    content = b"\xff\xfe<configuration/>\r\n" * 500
    packed = _action.pack(content)
    assert len(packed) < len(content) / 4
    assert _action.unpack(packed, "the candidate") == content


@pytest.mark.parametrize("text", ["", "%%%", "aGVsbG8=", _action.pack(b"x" * 100)[:-12]])
def test_damaged_content_names_what_it_was(text: str) -> None:
    with pytest.raises(_action.ActionFailure, match="the candidate"):
        _action.unpack(text, "the candidate")


def test_a_private_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "shop.keyset.json"
    _action.write_private_file(str(path), b"one", "dest")
    _action.write_private_file(str(path), b"two", "dest")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_made_is_an_error_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(_action.ActionFailure, match=r"dest: cannot write .*file/shop\.json"):
        _action.write_private_file(str(tmp_path / "file" / "shop.json"), b"", "dest")


def test_what_the_halves_say_to_each_other_stays_between_them() -> None:
    result = {
        "changed": False,
        "_content": "H4sI",
        "_transport": {"container": "x"},
        "_ansible_parsed": True,
        "key_containers": [{"container": "iisWasKey", "sealed": {"iv": ""}}],
    }
    assert _action.public_part(result) == {
        "changed": False,
        "_ansible_parsed": True,
        "key_containers": [{"container": "iisWasKey"}],
    }


ENCRYPTED = [
    ("winrm", {"scheme": "https", "port": 5986}),
    ("winrm", {"scheme": None, "port": 5986}),
    ("ansible.builtin.winrm", {"scheme": None, "port": None}),
    ("winrm", {"scheme": "http", "port": 5985, "transport": ["ntlm"]}),
    ("winrm", {"scheme": "http", "transport": [None], "remote_user": "ops@SHOP.EXAMPLE"}),
    ("winrm", {"scheme": "https", "_extras": {"ansible_winrm_message_encryption": "never"}}),
    ("psrp", {"protocol": None, "port": None}),
    ("psrp", {"protocol": "http", "auth": "negotiate", "message_encryption": "auto"}),
    ("psrp", {"protocol": "https", "auth": "basic"}),
    ("ssh", {}),
    ("local", {}),
]

READABLE = [
    ("winrm", {"scheme": "http", "transport": ["basic"]}, "basic"),
    ("winrm", {"scheme": None, "port": 5985}, "plaintext"),
    ("winrm", {"scheme": "http", "transport": ["kerberos", "plaintext"]}, "plaintext"),
    (
        "winrm",
        {"scheme": "http", "transport": ["ntlm"], "_extras": {"ansible_winrm_message_encryption": "never"}},
        "message_encryption",
    ),
    ("psrp", {"protocol": "http", "auth": "basic"}, "basic"),
    ("psrp", {"protocol": None, "port": 5985, "message_encryption": "never"}, "message_encryption"),
    ("some.other.plugin", {}, "some.other.plugin"),
]


@pytest.mark.parametrize(("transport", "options"), ENCRYPTED)
def test_encrypted_transports_are_accepted(transport: str, options: dict[str, Any]) -> None:
    assert _action.transport_problem(transport, options.get) is None


@pytest.mark.parametrize(("transport", "options", "word"), READABLE)
def test_readable_transports_are_named(transport: str, options: dict[str, Any], word: str) -> None:
    problem = _action.transport_problem(transport, options.get)
    assert problem is not None
    assert word in problem


QUIET: dict[str, Any] = {"cache_plugin": "memory", "callbacks": [], "log_path": None, "verbosity": 0, "no_log": False}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"cache_plugin": "ansible.builtin.memory"},
        {"callbacks": ["ansible.posix.profile_tasks", "awx_display", "default"]},
        {"callbacks": ["community.general.syslog_json"], "no_log": True},
        {"log_path": "/var/log/ansible.log"},
        {"log_path": "/var/log/ansible.log", "verbosity": 2, "no_log": True},
        {"verbosity": 3},
    ],
)
def test_runs_that_keep_nothing(change: dict[str, Any]) -> None:
    assert _action.recording_problem(**QUIET | change) is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"cache_plugin": "jsonfile"}, "plugin jsonfile"),
        ({"cache_plugin": "community.general.redis", "no_log": True}, "ANSIBLE_CACHE_PLUGIN=memory"),
        ({"callbacks": ["x", "community.general.syslog_json"]}, "community.general.syslog_json records"),
        ({"callbacks": ["ara_default"]}, "no_log: true on this task"),
        ({"log_path": "/var/log/ansible.log", "verbosity": 1}, "/var/log/ansible.log"),
    ],
)
def test_runs_that_keep_results_are_named(change: dict[str, Any], word: str) -> None:
    problem = _action.recording_problem(**QUIET | change)
    assert problem is not None
    assert word in problem


def test_callbacks_are_found_as_ansible_core_finds_them(tmp_path: Path) -> None:
    """Enabled by name, or lying in a folder of callback plugins without asking to be enabled (as ara does)."""
    body = "from ansible.plugins.callback import CallbackBase\nclass CallbackModule(CallbackBase):\n"
    (tmp_path / "ara_default.py").write_text(body + "    CALLBACK_TYPE = 'awesome'\n")
    (tmp_path / "log_plays.py").write_text(body + "    CALLBACK_NEEDS_ENABLED = True\n")
    program = (
        "from ansible_collections.webfarm.iis.plugins.plugin_utils import _action\nprint(_action.active_callbacks())"
    )
    command = [sys.executable, "-c", "import ansible.plugins.loader as l; l.init_plugin_loader()\n" + program]

    def found(**env: str) -> list[str]:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False)
        assert done.returncode == 0, done.stderr
        return list(ast.literal_eval(done.stdout))

    assert not _action.RESULT_RECORDERS.intersection(found())
    folder = {"ANSIBLE_CALLBACK_PLUGINS": str(tmp_path)}
    assert _action.RESULT_RECORDERS.intersection(found(**folder)) == {"ara_default"}
    names = found(**folder, ANSIBLE_CALLBACKS_ENABLED="log_plays,ansible.builtin.junit")
    assert {"ara_default", "log_plays", "ansible.builtin.junit"} <= set(names)


def test_nested_secrets_are_masked() -> None:
    spec: dict[str, Any] = {
        "plain": {"type": "str"},
        "hidden": {"type": "str", "no_log": True},
        "items": {"type": "list", "options": {"name": {}, "content": {"no_log": True}}},
        "one": {"type": "dict", "options": {"content": {"no_log": True}}},
    }
    given = {"plain": "a", "hidden": "b", "items": [{"name": "n", "content": "c"}], "one": {"content": "d"}}
    assert _action.masked(given, spec) == {
        "plain": "a",
        "hidden": _action.MASK,
        "items": [{"name": "n", "content": _action.MASK}],
        "one": {"content": _action.MASK},
    }
    # text that Ansible itself would take apart
    assert _action.masked({"items": '[{"content": "c"}]'}, spec) == {"items": _action.MASK}
    assert given["hidden"] == "b"
