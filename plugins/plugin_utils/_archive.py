# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""A fetched backup: one plain tar file with the configuration files, a manifest of hashes, and the sealed keys.

The same content gives the same bytes: entries stand in one order, with the time of the backup, one mode and no
owner, and nothing is compressed. Reading believes nothing: every entry must be in the manifest, with size and hash.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import typing as t
from dataclasses import dataclass
from datetime import UTC, datetime

FORMAT = "webfarm.iis backup"
VERSION = 1
MANIFEST = "manifest.json"
KEYS = "keys/keyset.json"
FOLDER = "backup/"
# The files of a backup in the layout of appcmd.
KNOWN = ("MBSchema.xml", "MetaBase.xml", "administration.config", "applicationHost.config", "redirection.config")
MAXIMUM_BYTES = 128 * 1024 * 1024


class ArchiveError(ValueError):
    """The archive cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Archive:
    """What an archive holds."""

    name: str
    host: str
    machine_guid: str
    created: str
    files: dict[str, bytes]
    key_fingerprints: dict[str, str]
    bundle: bytes | None = None

    def manifest(self) -> dict[str, t.Any]:
        """The entry that describes the others."""
        contents = self._contents()
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "host": self.host,
            "machine_guid": self.machine_guid,
            "created": self.created,
            "key_fingerprints": self.key_fingerprints,
            "entries": [
                {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for path, content in sorted(contents.items())
            ],
        }

    def _contents(self) -> dict[str, bytes]:
        contents = {FOLDER + name: content for name, content in self.files.items()}
        if self.bundle is not None:
            contents[KEYS] = self.bundle
        return contents

    def to_bytes(self) -> bytes:
        """The tar file."""
        text = json.dumps(self.manifest(), indent=2, sort_keys=True) + "\n"
        entries = [(MANIFEST, text.encode("utf-8")), *sorted(self._contents().items())]
        memory = io.BytesIO()
        with tarfile.open(fileobj=memory, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path, content in entries:
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                entry.mode = 0o600
                entry.mtime = _seconds(self.created)
                tar.addfile(entry, io.BytesIO(content))
        return memory.getvalue()


def _seconds(created: str) -> int:
    try:
        return int(datetime.strptime(created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise ArchiveError(f"the time {created!r} is not of the form 2026-11-20T07:32:00Z") from None


def parse(content: bytes, what: str) -> Archive:
    """The archive of these bytes, every entry checked. *what* names it in errors."""
    entries = _entries(content, what)
    try:
        manifest = json.loads(entries.pop(MANIFEST, b"").decode("utf-8"))
        if manifest["format"] != FORMAT or manifest["version"] != VERSION:
            raise ArchiveError(
                f"{what} has the format {manifest['format']!r}, version {manifest['version']!r}; "
                f"this release reads {FORMAT!r}, version {VERSION}."
            )
        listed = {str(item["path"]): item for item in manifest["entries"]}
        for path in sorted({*listed, *entries}):
            item = listed.get(path)
            if item is None or path not in entries:
                missing = "the manifest" if item is None else "the archive"
                raise ArchiveError(f"{what} is not as it was written: {path} is not in {missing}. Use another copy.")
            found = hashlib.sha256(entries[path]).hexdigest()
            if int(item["size"]) != len(entries[path]) or str(item["sha256"]).lower() != found:
                raise ArchiveError(f"{what} is not as it was written: {path} has another hash. Use another copy.")
        archive = Archive(
            name=str(manifest["name"]),
            host=str(manifest["host"]),
            machine_guid=str(manifest["machine_guid"]),
            created=str(manifest["created"]),
            files={path.removeprefix(FOLDER): data for path, data in entries.items() if path.startswith(FOLDER)},
            key_fingerprints={str(name): str(mark) for name, mark in manifest["key_fingerprints"].items()},
            bundle=entries.get(KEYS),
        )
        _seconds(archive.created)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(
            f"{what} has no manifest that can be read; config_backup with dest writes such an archive."
        ) from None
    if "applicationHost.config" not in archive.files:
        raise ArchiveError(f"{what} holds no applicationHost.config.")
    return archive


def _entries(content: bytes, what: str) -> dict[str, bytes]:
    entries: dict[str, bytes] = {}
    allowed = {MANIFEST, KEYS, *(FOLDER + name for name in KNOWN)}
    if len(content) > MAXIMUM_BYTES:
        raise ArchiveError(f"{what} has {len(content)} bytes; an archive of a backup is not that large.")
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for entry in tar:
                if entry.name not in allowed or not entry.isreg() or entry.name in entries:
                    raise ArchiveError(f"{what} holds {entry.name!r}, which is no part of a backup, or twice.")
                stream = tar.extractfile(entry)
                data = stream.read() if stream else b""
                if len(data) != entry.size:
                    raise ArchiveError(f"{what} is cut short at {entry.name}. Use another copy.")
                entries[entry.name] = data
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArchiveError(f"{what} is no archive that config_backup wrote: {error}") from None
    return entries
