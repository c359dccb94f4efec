# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parsers of the target, the same C# on PowerShell 7: they stand damaged input and agree with the controller."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from _fuzz import CORPUS, LIMIT_SECONDS, ROOT, SECONDS, SEED, SMALL, configurations, mutate
from test_fuzz_controller import ENTITIES, VALUES

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost as ah

UTILS = ROOT / "plugins" / "module_utils"
HERE = Path(__file__).resolve().parent / "powershell"


@dataclass
class Answer:
    milliseconds: int
    outcome: str
    detail: list[str]


def run(pwsh: Path, inputs: Sequence[bytes], value: str, folder: Path) -> list[Answer]:
    import ansible.module_utils

    packed, listing, output = folder / "inputs.bin", folder / "work.json", folder / "output.txt"
    packed.write_bytes(b"".join(struct.pack("<i", len(data)) + data for data in inputs))
    sources = [UTILS / f"{name}.cs" for name in ("_KeyContainer", "_Configuration", "_Protection")] + [HERE / "Fuzz.cs"]
    add_type = Path(ansible.module_utils.__file__).parent / "powershell" / "Ansible.ModuleUtils.AddType.psm1"
    work = {
        "add_type": str(add_type),
        "sources": [str(path) for path in sources],
        "inputs": str(packed),
        "value": value,
        "output": str(output),
    }
    listing.write_text(json.dumps(work), encoding="utf-8")
    done = subprocess.run(
        [pwsh, "-NoProfile", "-NonInteractive", "-File", HERE / "fuzz.ps1", listing],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300 + 20 * SECONDS,
    )
    assert done.returncode == 0 and output.exists(), done.stdout + done.stderr
    answers = []
    for line in output.read_text(encoding="utf-8").rstrip("\n").split("\n"):
        milliseconds, outcome, *detail = line.split("\t")
        answers.append(Answer(int(milliseconds), outcome, detail))
    assert len(answers) == len(inputs)
    return answers


def digest(one: ah.Configuration) -> str:
    """What was read, in the words of Fuzz.cs."""
    lines = [f"{a.path}\0{a.value}\0{a.line}\n" for a in one._attributes]
    lines += [f"{v.path}\0{v.provider or ''}\0{v.data or ''}\n" for v in one.values]
    return "-".join(f"{byte:02X}" for byte in hashlib.sha256("".join(lines).encode()).digest())


def judge(data: bytes, answer: Answer, value: str) -> str:
    """Compare with the controller. Returns what is wrong, nothing when all is well."""
    if answer.outcome == "finding":
        return answer.detail[0]
    if answer.milliseconds > LIMIT_SECONDS * 1000:
        return f"took {answer.milliseconds} ms"
    try:
        one = ah.parse(data, "x")
    except ah.ConfigurationError as error:
        # The controller may be stricter. What it refuses never reaches a server.
        return "" if answer.outcome == "refused" or "amespace" in str(error) else f"only here: {error}"
    if answer.outcome == "refused":
        return f"only there: {answer.detail[0]}"
    if answer.detail[0] != digest(one):
        return "the two sides read something else"
    path = base64.b64decode(answer.detail[1]).decode()
    # Prefixes of namespaces are nobody's to change; libxml2 wants a URI there, .NET does not.
    if not one.paths() or len(set(one.paths())) < len(one.paths()) or "@xmlns" in path:
        return ""
    try:
        mine = one.replace({path: value})
    except ah.ConfigurationError:
        return "" if answer.detail[2] == "refused" else "only the target edits this"
    if answer.detail[2] == "refused":
        return "only the controller edits this"
    return "" if base64.b64decode(answer.detail[2]) == mine else "the two sides write something else"


def test_both_sides_agree_on_damaged_files(pwsh_linux: Path, tmp_path: Path) -> None:
    seeds = configurations(20_000)
    count = max(300, int(SECONDS * 15))
    inputs = []
    for number in range(count):
        rng = random.Random(f"{SEED} target {number}")
        inputs.append(mutate(rng.choice((SMALL, rng.choice(seeds))), seeds, rng))
    value = random.Random(SEED).choice(VALUES)
    print(f"fuzz target: FUZZ_SEED={SEED}, {count} inputs")
    answers = run(pwsh_linux, inputs, value, tmp_path)
    for number, (data, answer) in enumerate(zip(inputs, answers, strict=True)):
        wrong = judge(data, answer, value)
        if wrong:
            kept = ROOT / ".build" / "fuzz" / f"target-{SEED}-{number}.bin"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(data)
            pytest.fail(f"FUZZ_SEED={SEED}, input {number} ({kept}): {wrong}")
    read = sum(answer.outcome == "read" for answer in answers)
    assert 20 < read < count - 20, read


def test_both_sides_edit_every_file_of_the_corpus_alike(pwsh_linux: Path, tmp_path: Path) -> None:
    inputs = configurations() + [
        b"\xef\xbb\xbf" + SMALL,
        SMALL.replace(b"\n", b"\r"),
        SMALL.replace(b"UTF-8", b"us-ascii"),
        SMALL.decode().encode("utf-16"),
        b"<configuration><a b='&#" + b"0" * 5000 + b"65;'/></configuration>",
    ]
    assert len(inputs) > 7
    for value in ("a&b<c>d\"e'f äöü 🔑\t\r\n", "]]>"):
        answers = run(pwsh_linux, inputs, value, tmp_path)
        for number, (data, answer) in enumerate(zip(inputs, answers, strict=True)):
            assert not judge(data, answer, value), f"input {number}: {judge(data, answer, value)}"
        assert answers[0].outcome == "read"
        assert answers[-2].outcome == "refused" and "UTF-16" in answers[-2].detail[0]
    if CORPUS.exists():
        assert sum(answer.outcome == "read" for answer in answers) > 20


def test_entities_are_refused(pwsh_linux: Path, tmp_path: Path) -> None:
    for answer in run(pwsh_linux, list(ENTITIES.values()), "x", tmp_path):
        assert answer.outcome == "refused" and "DTD" in answer.detail[0], answer
        assert answer.milliseconds < 30_000


def test_time_and_text_grow_with_the_file(pwsh_linux: Path, tmp_path: Path) -> None:
    from test_fuzz_scaling import RATIO, SHAPES

    small, large = 2000, 8000
    inputs = [SHAPES["plain"](100)] * 3  # warm
    for make in SHAPES.values():
        inputs += [make(small), make(large)]
    answers = run(pwsh_linux, inputs, "x", tmp_path)[3:]
    for number, name in enumerate(SHAPES):
        first, second = answers[2 * number : 2 * number + 2]
        assert first.outcome == second.outcome, (name, first.detail[:1], second.detail[:1])
        assert first.outcome != "finding", (name, first.detail)
        assert second.milliseconds < 1500 + RATIO * first.milliseconds, (name, first.milliseconds, second.milliseconds)
