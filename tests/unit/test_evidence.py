# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence: chained, signed, and every way to tamper with it found."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import subprocess
import textwrap
import threading
from pathlib import Path
from typing import Any

import _fleet
import pytest
from _fleet import NOW
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from ansible_collections.webfarm.iis.plugins.plugin_utils import _evidence, _policy, _report


def make_signer(passphrase: str | None = None) -> _evidence.Signer:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "auditor")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2026, 1, 1))
        .not_valid_after(datetime.datetime(2046, 1, 1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    protection: Any = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase.encode())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    return _evidence.Signer(pem, passphrase, certificate.public_bytes(serialization.Encoding.PEM))


@pytest.fixture(scope="module")
def signer() -> _evidence.Signer:
    return make_signer()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = _fleet.write(tmp_path_factory.mktemp("records"), _fleet.troubled())
    report = _report.evaluate(folder, _policy.load_policy({}), now=NOW)
    return _evidence.content_of(report, tool={"webfarm.iis": "0.1.0"}, operator="ops", outputs={"json": "ab" * 32})


@pytest.fixture
def chain(tmp_path: Path, content: dict[str, Any], signer: _evidence.Signer) -> Path:
    for _number in range(3):
        _evidence.append(tmp_path, content, signer)
    return tmp_path


def change(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.chmod(0o600)
    path.write_bytes(data.replace(old, new, 1))


def test_what_it_holds(chain: Path) -> None:
    data = json.loads((chain / "000002.evidence.json").read_bytes())
    assert data["number"] == 2
    first = (chain / "000001.evidence.json").read_bytes()
    assert data["previous"] == {"file": "000001.evidence.json", "sha256": hashlib.sha256(first).hexdigest()}
    assert data["operator"] == "ops"
    host = next(one for one in data["hosts"] if one["host"] == "web1")
    assert set(host["fingerprints"]) == {"iisWasKey", "iisConfigurationKey"}
    assert host["verdicts"]["values_open"] == "pass"
    assert host["versions"]["iis"] == "10.0"
    assert len(host["record_sha256"]) == len(host["files"]["applicationHost.config"]) == 64
    away = next(one for one in data["hosts"] if one["host"] == "bad-unreachable")
    assert (away["status"], away["fingerprints"]) == ("unreachable", {})


def test_the_record_behind_it_can_be_checked(tmp_path: Path) -> None:
    folder = _fleet.write(tmp_path, [_fleet.record("web1")])
    report = _report.evaluate(folder, _policy.load_policy({}), now=NOW)
    host = _evidence.content_of(report, tool={})["hosts"][0]
    assert host["record_sha256"] == hashlib.sha256((folder / "web1.host.json").read_bytes()).hexdigest()


def test_a_good_chain_holds(chain: Path, signer: _evidence.Signer) -> None:
    assert len(_evidence.verify(chain)) == 3
    assert len(_evidence.verify(chain, signer.certificate)) == 3


def test_files_are_read_only_and_nothing_is_left_over(chain: Path) -> None:
    assert sorted(path.name for path in chain.iterdir()) == sorted(
        f"00000{number}.evidence.json{end}" for number in (1, 2, 3) for end in ("", ".p7s")
    )
    assert all(path.stat().st_mode & 0o222 == 0 for path in chain.iterdir())


def test_an_altered_piece_breaks_the_chain(chain: Path) -> None:
    change(chain / "000002.evidence.json", b'"fail"', b'"pass"')
    with pytest.raises(_evidence.EvidenceError, match="000002.evidence.json was altered"):
        _evidence.verify(chain)


def test_a_missing_piece_breaks_the_chain(chain: Path) -> None:
    (chain / "000002.evidence.json").unlink()
    with pytest.raises(_evidence.EvidenceError, match="one is missing"):
        _evidence.verify(chain)


def test_a_missing_beginning_breaks_the_chain(chain: Path) -> None:
    (chain / "000001.evidence.json").unlink()
    with pytest.raises(_evidence.EvidenceError, match="one is missing"):
        _evidence.verify(chain)


def test_the_newest_piece_is_held_by_its_signature(chain: Path, signer: _evidence.Signer) -> None:
    change(chain / "000003.evidence.json", b'"fail"', b'"pass"')
    _evidence.verify(chain)  # the chain alone cannot see it
    with pytest.raises(_evidence.EvidenceError, match="changed after it was signed"):
        _evidence.verify(chain, signer.certificate)


def test_a_signature_by_someone_else(chain: Path) -> None:
    with pytest.raises(_evidence.EvidenceError, match="not signed by"):
        _evidence.verify(chain, make_signer().certificate)


def test_a_missing_signature(chain: Path, signer: _evidence.Signer) -> None:
    (chain / "000002.evidence.json.p7s").unlink()
    with pytest.raises(_evidence.EvidenceError, match="has no signature"):
        _evidence.verify(chain, signer.certificate)


def test_a_chain_written_anew_without_the_key(
    chain: Path, content: dict[str, Any], signer: _evidence.Signer, tmp_path: Path
) -> None:
    forged = tmp_path / "forged"
    for _number in range(3):
        _evidence.append(forged, {**content, "summary": {"hosts": 1, "pass": 1}})
    assert len(_evidence.verify(forged)) == 3
    with pytest.raises(_evidence.EvidenceError, match="has no signature"):
        _evidence.verify(forged, signer.certificate)


def test_two_runs_at_the_same_time_get_two_numbers(tmp_path: Path, content: dict[str, Any]) -> None:
    written: list[_evidence.Written] = []
    threads = [
        threading.Thread(target=lambda: written.append(_evidence.append(tmp_path, content))) for dummy in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.number for one in written) == list(range(1, 9))
    assert len(_evidence.verify(tmp_path)) == 8


def test_a_wrong_passphrase_writes_nothing(tmp_path: Path, content: dict[str, Any]) -> None:
    good = make_signer("correct")
    wrong = _evidence.Signer(good.key, "wrong", good.certificate)
    with pytest.raises(_evidence.EvidenceError, match="passphrase"):
        _evidence.append(tmp_path, content, wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_the_commands_of_the_guide(chain: Path, signer: _evidence.Signer) -> None:
    """The verification of the documentation, word by word."""
    (chain / "auditor.crt").write_bytes(signer.certificate)
    guide = (Path(__file__).resolve().parents[2] / "docs/docsite/rst/guide_compliance.rst").read_text()
    script = guide.partition(".. verification begins")[2].partition(".. verification ends")[0]
    script = textwrap.dedent(script.partition("code-block:: bash\n")[2])

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", script], cwd=chain, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 pieces" in done.stdout
    change(chain / "000002.evidence.json", b'"fail"', b'"pass"')
    done = run()
    assert done.returncode != 0
    os.unlink(chain / "000002.evidence.json")
    assert run().returncode != 0
