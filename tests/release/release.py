# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The artefact of a release: the same commit gives the same bytes, on every machine.

  release.py SOURCE OUTPUT EPOCH

SOURCE is a folder with the files of the collection, EPOCH the time that everything in the artefact carries (the time
of the commit). OUTPUT then holds the collection (.tar.gz), its bill of materials (CycloneDX, .cdx.json) and SHA256SUMS.

ansible-galaxy builds the collection. What differs from one machine to the next is put right afterwards: the order of
the files, which is that of the file system, and every time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def as_json(data: Any) -> bytes:
    return json.dumps(data, indent=1, sort_keys=True).encode("utf-8")


def normalized(built: bytes, epoch: int) -> bytes:
    """The same collection with its files in order of name, and one time for all of them."""
    with tarfile.open(fileobj=io.BytesIO(built), mode="r:gz") as old:
        members = {member.name: member for member in old.getmembers()}
        contents = {name: old.extractfile(member).read() for name, member in members.items() if member.isreg()}  # type: ignore[union-attr]
    files = json.loads(contents["FILES.json"])
    files["files"].sort(key=lambda entry: entry["name"])
    contents["FILES.json"] = as_json(files)
    manifest = json.loads(contents["MANIFEST.json"])
    manifest["file_manifest_file"]["chksum_sha256"] = sha256(contents["FILES.json"])
    contents["MANIFEST.json"] = as_json(manifest)
    target = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        # First what the collection is, as ansible-galaxy writes it.
        for name in ["MANIFEST.json", "FILES.json", *sorted(members.keys() - {"MANIFEST.json", "FILES.json"})]:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.linkname = members[name].type, members[name].mode, members[name].linkname
            member.mtime, member.size = epoch, len(contents.get(name, b""))
            new.addfile(member, io.BytesIO(contents[name]) if name in contents else None)
    return target.getvalue()


def bill_of_materials(info: dict[str, Any], requirements: list[str], core: str, artefact: bytes, epoch: int) -> str:
    """What the collection is, and what it needs beside itself; it carries no code of others."""
    name, version = f"{info['namespace']}.{info['name']}", info["version"]
    root = Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=name,
        description=info["description"],
        licenses=[DisjunctiveLicense(id=one) for one in info["license"]],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256(artefact))],
        purl=PackageURL("generic", info["namespace"], info["name"], version),
    )
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, sha256(artefact)))
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    parts = []
    for line in [f"ansible-core{core}", *requirements]:
        package, limits = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*(.*)", line).groups()  # type: ignore[union-attr]
        part = Component(
            name=package,
            type=ComponentType.LIBRARY,
            bom_ref=package,
            scope=ComponentScope.REQUIRED,
            purl=PackageURL("pypi", None, package),
            properties=[Property(name="webfarm:supported-versions", value=limits or "any")],
        )
        bom.components.add(part)
        parts.append(part)
    bom.register_dependency(root, parts)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def release(source: Path, output: Path, epoch: int) -> list[Path]:
    with tempfile.TemporaryDirectory() as folder:
        command = ["ansible-galaxy", "collection", "build", str(source), "--output-path", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        (built,) = Path(folder).glob("*.tar.gz")
        artefact = normalized(built.read_bytes(), epoch)
    with tarfile.open(fileobj=io.BytesIO(artefact), mode="r:gz") as archive:
        info = json.load(archive.extractfile("MANIFEST.json"))["collection_info"]  # type: ignore[arg-type]
    requirements = (source / "meta" / "ee-requirements.txt").read_text(encoding="utf-8").split("\n")
    runtime = (source / "meta" / "runtime.yml").read_text(encoding="utf-8")
    (core,) = re.findall(r'^requires_ansible: "(.+)"$', runtime, re.MULTILINE)
    wanted = [line for line in requirements if line and not line.startswith("#")]
    output.mkdir(parents=True, exist_ok=True)
    contents = {
        built.name: artefact,
        built.name.replace(".tar.gz", ".cdx.json"): bill_of_materials(info, wanted, core, artefact, epoch).encode(),
    }
    contents["SHA256SUMS"] = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(contents.items())).encode()
    for name, data in contents.items():
        (output / name).write_bytes(data)
    return [output / name for name in contents]


if __name__ == "__main__":
    for path in release(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])):
        print(path)
