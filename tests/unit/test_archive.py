# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fetched backup: the same bytes for the same content, and nothing else is believed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest

from ansible_collections.webfarm.iis.plugins.plugin_utils._archive import Archive, ArchiveError, parse


def archive(**more: object) -> Archive:
    values: dict[str, object] = {
        "name": "20261120T073200",
        "host": "WEB2",
        "machine_guid": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "created": "2026-11-20T07:32:00Z",
        "files": {"applicationHost.config": b"<configuration />\r\n", "administration.config": b"<configuration/>"},
        "key_fingerprints": {"iisWasKey": "0" * 64},
        "bundle": b"{}",
    }
    return Archive(**(values | more))  # type: ignore[arg-type]


def rebuilt(content: bytes, **changes: bytes | None) -> bytes:
    """The archive with entries replaced, added or (None) left out."""
    names = {name.replace("__", "/").replace("_dot_", "."): data for name, data in changes.items()}
    memory = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as old, tarfile.open(fileobj=memory, mode="w") as new:
        entries = {entry.name: old.extractfile(entry).read() for entry in old} | names  # type: ignore[union-attr]
        for name, data in entries.items():
            if data is not None:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                new.addfile(entry, io.BytesIO(data))
    return memory.getvalue()


def test_the_same_content_gives_the_same_bytes_whatever_the_order() -> None:
    one = archive()
    other = archive(files=dict(reversed(list(one.files.items()))))
    assert one.to_bytes() == other.to_bytes()
    assert parse(one.to_bytes(), "x") == one
    assert parse(archive(bundle=None).to_bytes(), "x").bundle is None


def test_entries_have_one_time_one_mode_and_no_owner() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive().to_bytes())) as tar:
        entries = tar.getmembers()
    assert [entry.name for entry in entries] == [
        "manifest.json",
        "backup/administration.config",
        "backup/applicationHost.config",
        "keys/keyset.json",
    ]
    assert {(entry.mtime, entry.mode, entry.uid, entry.gid, entry.uname) for entry in entries} == {
        (1795159920, 0o600, 0, 0, "")
    }


def test_the_manifest_holds_the_hashes() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive().to_bytes())) as tar:
        stream = tar.extractfile("manifest.json")
        assert stream is not None
        manifest = json.load(stream)
    assert {entry["path"]: entry["sha256"] for entry in manifest["entries"]}["backup/applicationHost.config"] == (
        hashlib.sha256(b"<configuration />\r\n").hexdigest()
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"not a tar file" * 100, "no archive that config_backup wrote"),
        (archive().to_bytes()[:1500], "archive.tar"),
        (rebuilt(archive().to_bytes(), manifest_dot_json=b"[]"), "no manifest"),
        (rebuilt(archive().to_bytes(), manifest_dot_json=None), "no manifest"),
        (rebuilt(archive().to_bytes(), backup__applicationHost_dot_config=b"<other />"), "has another hash"),
        (rebuilt(archive().to_bytes(), keys__keyset_dot_json=b"[]"), "has another hash"),
        (rebuilt(archive().to_bytes(), keys__keyset_dot_json=None), "is not in the archive"),
        (rebuilt(archive().to_bytes(), backup__MetaBase_dot_xml=b"x"), "is not in the manifest"),
        (rebuilt(archive().to_bytes(), evil=b"x"), "no part of a backup"),
        (archive(files={"administration.config": b"<configuration />"}).to_bytes(), "no applicationHost.config"),
    ],
    ids=["empty", "text", "cut", "manifest", "without", "changed", "keys", "lost", "added", "evil", "incomplete"],
)
def test_what_is_not_as_it_was_written_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        parse(content, "archive.tar")


def test_a_link_is_no_file() -> None:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as tar:
        entry = tarfile.TarInfo("backup/applicationHost.config")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/shadow"
        tar.addfile(entry)
    with pytest.raises(ArchiveError, match="no part of a backup"):
        parse(memory.getvalue(), "archive.tar")
