# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""Host records: what one server said in one call, one JSON file per host.

A folder of records is all that a report reads, so slices of a run merge by putting their files together. The newest
record of a host counts. A record is JSON (UTF-8, one line), with its short fields first, so that a scan of 10,000
records reads their heads only:

* ``format`` "webfarm.iis host record", ``version`` 1
* ``outcome``: answered, unreachable or failed; ``host``: the inventory name
* ``farm``: the group whose members should be equal; ``groups``: the inventory groups
* ``recorded`` (UTC), ``message`` (why there is no answer), ``gather_subset``, ``decrypt``
* ``facts``: the result of server_info, null without an answer
"""

from __future__ import annotations

import datetime
import json
import os
import re
import tempfile
import typing as t
import urllib.parse
from pathlib import Path

FORMAT = "webfarm.iis host record"
VERSION = 1
SUFFIX = ".host.json"
OUTCOMES = ("answered", "unreachable", "failed")

# Part of every Ansible result, not of the facts.
_NOT_FACTS = frozenset({"changed", "failed", "invocation", "msg", "warnings", "deprecations"})
_HEAD_BYTES = 1024
_HEAD = re.compile(r'"outcome":"([a-z]+)","host":("(?:[^"\\]|\\.)*")')
# server_info returns none of these. Should a value ever slip into a message, it stops here.
_CIPHERTEXT = re.compile(r"\[enc:([^:\[\]\"\\]*):[^:\[\]\"\\]+:enc\]")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|(?=\")|\Z)", re.DOTALL
)

Record = dict[str, t.Any]


class RecordError(ValueError):
    """A host record that cannot be read or written. The message names the file."""


def utc_now() -> str:
    """The present time as a record writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def mask(text: str) -> str:
    """Text without encrypted values and private keys, whoever put them there."""
    if "[enc:" in text:
        text = _CIPHERTEXT.sub(r"[enc:\1:...:enc]", text)
    if "PRIVATE KEY-----" in text:
        text = _PRIVATE_KEY.sub("(private key removed)", text)
    return text


def make(
    host: str,
    outcome: str,
    *,
    farm: str,
    groups: t.Iterable[str],
    message: str | None = None,
    facts: t.Mapping[str, t.Any] | None = None,
    gather_subset: t.Sequence[str] = ("all",),
    decrypt: str = "all",
    recorded: str | None = None,
) -> Record:
    """A record in the order in which it is written."""
    if outcome not in OUTCOMES:
        raise RecordError(f"the outcome of {host} is '{outcome}'; it must be one of {', '.join(OUTCOMES)}")
    kept = None
    if facts is not None:
        kept = {
            name: value
            for name, value in facts.items()
            if name not in _NOT_FACTS and not name.startswith(("_", "ansible_"))
        }
    return {
        "format": FORMAT,
        "version": VERSION,
        "outcome": outcome,
        "host": host,
        "farm": farm,
        "groups": sorted(groups),
        "recorded": recorded or utc_now(),
        "message": message,
        "gather_subset": list(gather_subset),
        "decrypt": decrypt,
        "facts": kept,
    }


def to_bytes(record: Record) -> bytes:
    """The content of the file."""
    return (mask(json.dumps(record, separators=(",", ":"), ensure_ascii=False)) + "\n").encode("utf-8", "replace")


def file_name(host: str) -> str:
    """The record's file name: the host's name, with what a file name cannot hold as %XX."""
    quoted = urllib.parse.quote(host, safe=" @+=,~()!'")
    # A leading dot would hide the file; a name of 255 bytes is the limit of most file systems.
    quoted = "%2E" + quoted[1:] if quoted.startswith(".") else quoted
    if not host or len(quoted) + len(SUFFIX) > 255:
        raise RecordError(f"the host name '{host[:80]}' is empty or too long to name a file")
    return quoted + SUFFIX


def write(folder: Path, record: Record) -> Path:
    """Write a record in one step: a reader sees the old file or the new one, never a part."""
    path = folder / file_name(record["host"])
    temporary = ""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        descriptor, temporary = tempfile.mkstemp(prefix=".webfarm-", suffix=".new", dir=folder)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(to_bytes(record))
        os.chmod(temporary, 0o640)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise RecordError(
            f"cannot write {path}: {error.strerror}. Name a folder on the controller that this user may write."
        ) from None
    return path


def files(folder: Path) -> list[Path]:
    """Every record below the folder, in the order of their paths. Slices may lie in folders of their own."""
    if not folder.is_dir():
        raise RecordError(f"{folder} is not a folder; name the folder into which the host records were written")
    found = []
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(top, name) for name in names if name.endswith(SUFFIX) and not name.startswith(".")]
    return sorted(found)


def read(path: Path) -> Record:
    """A record. Raises :class:`RecordError` when it is none."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise RecordError(
            f"{path} is not JSON; it was cut off or edited. Delete it and record the host again."
        ) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise RecordError(f"{path} is not a host record (its format is not '{FORMAT}')")
    if data.get("version") != VERSION:
        raise RecordError(
            f"{path} has version {data.get('version')!r}, this release reads version {VERSION}; use the same release "
            "for recording and reporting"
        )
    if not isinstance(data.get("host"), str) or not data["host"] or data.get("outcome") not in OUTCOMES:
        raise RecordError(f"{path} is damaged: it names no host or no outcome")
    return data


def hosts_with_outcome(folder: Path, outcome: str) -> list[str]:
    """Names of the hosts with a record of that outcome in this folder. Only the heads are read."""
    found = []
    for path in files(folder):
        try:
            with path.open("rb") as stream:
                match = _HEAD.search(stream.read(_HEAD_BYTES).decode("utf-8", "replace"))
        except OSError:
            match = None
        if match:
            if match[1] == outcome:
                found.append(str(json.loads(match[2])))
        else:
            record = read(path)
            if record["outcome"] == outcome:
                found.append(str(record["host"]))
    return sorted(set(found))
