# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""Evidence of compliance runs: one JSON file per run, chained by hash, signed when a key is given.

``NNNNNN.evidence.json`` holds what was found, by host; ``previous`` names the file of the run before and the SHA-256
of its bytes, so that no run can be altered or taken out without breaking every later one. The newest can still be cut
off: keep its SHA-256 elsewhere (the module returns it), or sign. ``NNNNNN.evidence.json.p7s`` is a detached CMS
SignedData (DER) over the very bytes of the file, which OpenSSL verifies.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.webfarm.iis.plugins.plugin_utils import _record, _seal
from ansible_collections.webfarm.iis.plugins.plugin_utils._report import Report

FORMAT = "webfarm.iis compliance evidence"
VERSION = 1
SUFFIX = ".evidence.json"
SIGNATURE_SUFFIX = ".p7s"

_NAME = re.compile(r"(\d{6,})\.evidence\.json\Z")
_ATTEMPTS = 20

Data = dict[str, t.Any]


class EvidenceError(ValueError):
    """Evidence that cannot be written, or a chain that does not hold. The message names the file."""


@dataclass(frozen=True)
class Signer:
    """A private key with its certificate, both PEM."""

    key: bytes
    passphrase: str | None
    certificate: bytes
    what: str = "signing_file"

    def sign(self, content: bytes) -> bytes:
        """Raises :class:`EvidenceError`."""
        try:
            return _seal.sign(content, self.key, self.passphrase, self.certificate, self.what)
        except _seal.SealError as error:
            raise EvidenceError(str(error)) from None


@dataclass(frozen=True)
class Written:
    """A piece of evidence as it stands on the disk."""

    number: int
    path: Path
    sha256: str
    signature: Path | None


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_of_data(data: t.Any) -> str:
    """SHA-256 over canonical JSON: sorted keys, no spaces, UTF-8."""
    return digest(json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8"))


def content_of(
    report: Report,
    *,
    tool: t.Mapping[str, str],
    operator: str | None = None,
    fail_on: t.Sequence[str] = (),
    outputs: t.Mapping[str, str] | None = None,
) -> Data:
    """What a run found, without its place in the chain. *outputs*: SHA-256 by name of the reports it wrote."""
    policy = report.policy.to_dict()
    return {
        "format": FORMAT,
        "version": VERSION,
        "generated": report.generated,
        "operator": operator,
        "tool": dict(tool),
        "policy": {"name": policy["name"], "sha256": digest_of_data(policy)},
        "bundles": [
            {"farm": one.farm, "generation": one.generation, "fingerprints": dict(one.fingerprints)}
            for one in report.fleet.known
        ],
        "fail_on": list(fail_on),
        "summary": report.summary(),
        "outputs": dict(outputs or {}),
        "hosts": [
            {
                "host": one.view.name,
                "farm": one.view.farm,
                "status": one.status,
                "state": one.view.state,
                "recorded": one.view.recorded,
                "record_sha256": _file_digest(one.view.source),
                "machine_guid": one.view.machine_guid,
                "versions": {
                    "os": one.view.os_version,
                    "iis": one.view.iis_version,
                    "powershell": one.view.powershell_version,
                },
                "fingerprints": {key.name: key.fingerprint for key in one.view.containers if key.fingerprint},
                "files": {file.name: file.sha256 for file in one.view.files if file.sha256},
                "verdicts": {rule: verdict.status for rule, verdict in one.verdicts.items()},
            }
            for one in report.hosts
        ],
    }


def _file_digest(path: str | None) -> str | None:
    try:
        return digest(Path(path).read_bytes()) if path else None
    except OSError:
        return None


def _to_bytes(data: Data) -> bytes:
    """One line per host: readable, and quick to write."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    parts = [f"{encode(name)}:{encode(value)}" for name, value in data.items() if name != "hosts"]
    hosts = ",\n".join(encode(one) for one in data["hosts"])
    return _record.mask("{\n" + ",\n".join(parts) + ',\n"hosts":[\n' + hosts + "\n]}\n").encode("utf-8", "replace")


def files(folder: Path) -> list[Path]:
    """The evidence of a folder in the order of its numbers."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.match(path.name))]
    return [path for dummy, path in sorted(found)]


def append(folder: Path, content: Data, signer: Signer | None = None) -> Written:
    """Write the next piece of evidence. Two runs at the same time get two numbers. Raises :class:`EvidenceError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        for _attempt in range(_ATTEMPTS):
            previous = files(folder)[-1:]
            number = int(previous[0].name.split(".")[0]) + 1 if previous else 1
            link: Data | None = None
            if previous:
                link = {"file": previous[0].name, "sha256": digest(previous[0].read_bytes())}
            data = {"format": content["format"], "version": content["version"], "number": number, "previous": link}
            body = _to_bytes({**data, **{name: value for name, value in content.items() if name not in data}})
            path = folder / f"{number:06d}{SUFFIX}"
            # Signed first: evidence without its signature must never be seen.
            signature = signer.sign(body) if signer else None
            if _create(path, body):
                signed = Path(f"{path}{SIGNATURE_SUFFIX}") if signature is not None else None
                if signed is not None and signature is not None:
                    _create(signed, signature)
                return Written(number, path, digest(body), signed)
    except OSError as error:
        raise EvidenceError(
            f"cannot write evidence into {folder}: {error.strerror}. Name a folder that this user may write."
        ) from None
    raise EvidenceError(f"{folder}: other runs keep writing evidence here; run again")


def _create(path: Path, content: bytes) -> bool:
    """Write a file that must not exist yet, in one step. Answers whether it was ours to write."""
    descriptor, temporary = tempfile.mkstemp(prefix=".webfarm-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o440)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    return True


def verify(folder: Path, certificate: bytes | None = None, what: str = "signer_certificate") -> list[Path]:
    """The whole chain holds, and with a certificate every piece is signed by it. Raises :class:`EvidenceError`."""
    found = files(folder)
    before: Path | None = None
    for number, path in enumerate(found, start=1):
        content = path.read_bytes()
        try:
            data = json.loads(content)
        except ValueError:
            raise EvidenceError(f"{path} is not JSON; it was altered") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
            raise EvidenceError(f"{path} is not evidence of the format '{FORMAT}', version {VERSION}")
        if data.get("number") != number:
            raise EvidenceError(f"{path} has the number {data.get('number')}, {number} was expected: one is missing")
        link = data.get("previous")
        if before is None:
            if link is not None:
                raise EvidenceError(f"{path} is the first one here, but it names {link.get('file')} before it")
        elif not isinstance(link, dict) or link.get("file") != before.name:
            raise EvidenceError(f"{path} does not name {before.name} as the one before it")
        elif link.get("sha256") != digest(before.read_bytes()):
            raise EvidenceError(f"{before} was altered after {path.name} was written")
        if certificate is not None:
            try:
                signature = Path(f"{path}{SIGNATURE_SUFFIX}").read_bytes()
            except OSError:
                raise EvidenceError(f"{path} has no signature beside it ({path.name}{SIGNATURE_SUFFIX})") from None
            try:
                _seal.verify(content, signature, certificate, what)
            except _seal.SealError as error:
                raise EvidenceError(f"{path}: {error}") from None
        before = path
    return found
