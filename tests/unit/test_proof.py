# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of a whole configuration, and the same configuration for other keys."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from _support import (
    CORPUS,
    NO_CORPUS,
    configuration_keys,
    corpus,
    filled_configuration,
    key,
    name_of,
    plaintexts,
    unb64,
    vectors,
)

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost as ah
from ansible_collections.webfarm.iis.plugins.plugin_utils import _proof as po
from ansible_collections.webfarm.iis.plugins.plugin_utils import _protection as pr
from ansible_collections.webfarm.iis.plugins.plugin_utils import _rewrap as rw

FIELDS = {
    *("path", "file", "line", "provider", "kind", "container"),
    *("verdict", "hresult", "message", "cause", "fix", "accepted", "reason"),
}


def configuration() -> ah.Configuration:
    return ah.parse(filled_configuration(), "applicationHost.config")


def ring(cng: bool = True) -> pr.KeyRing:
    keys = pr.KeyRing(configuration_keys())
    if cng:
        for container in ("iisCngWasKey", "iisCngConfigurationKey"):
            keys.add_cng(container, unb64(vectors()["cng"]["secret"]))
    return keys


def texts(content: bytes, keys: pr.KeyRing) -> dict[str, str | None]:
    one = ah.parse(content, "x")
    return {v.path: pr.judge(v.provider, v.data, one.provider(v.provider), keys).text for v in one.values}


def test_everything_is_proven() -> None:
    one = configuration()
    proof = po.prove([one], ring())
    assert proof.summary() == {"total": 9, "proven": 9, "accepted": 0, "needs_target": 0, "failed": 0}
    assert all(set(value) == FIELDS for value in proof.protected_values)
    assert {value["provider"] for value in proof.protected_values} == {p.name for p in one.providers}
    assert [s["algorithm"] for s in proof.session_keys] == ["AES-128", "AES-128"]
    assert [s["key_bits"] for s in proof.session_keys] == [4096, 2048]
    assert sorted(t or "" for t in texts(one.content, ring()).values()) == sorted(plaintexts().values())


def test_no_plaintext_and_no_key_in_the_result() -> None:
    proof = po.prove([configuration()], ring())
    shown = json.dumps(proof.protected_values + proof.session_keys) + repr(proof)
    for text in plaintexts().values():
        assert text not in shown
    for session in vectors()["sessions"].values():
        assert session["unwrapped"].split()[1] not in shown


def test_without_the_raw_cng_keys() -> None:
    proof = po.prove([configuration()], ring(cng=False))
    assert proof.summary() == {"total": 9, "proven": 5, "accepted": 0, "needs_target": 4, "failed": 0}
    assert {v["kind"] for v in proof.needs_target} == {"cng"}
    assert "config_rewrap" in proof.needs_target[0]["fix"]


def test_foreign_keys() -> None:
    keys = pr.KeyRing({"iisWasKey": key("TestKeyOther"), "iisConfigurationKey": key("TestKey4096")})
    proof = po.prove([configuration()], keys)
    assert {v["verdict"] for v in proof.failed} == {"bad_data"}
    assert {v["container"] for v in proof.failed} == {"iisWasKey"}
    first = proof.failed[0]
    assert first["hresult"] == "0x80090005"
    assert "encrypted for another key than the one in iisWasKey" in first["cause"]
    assert {s["provider"]: s["verdict"] for s in proof.session_keys} == {
        "AesProvider": "ok",
        "IISWASOnlyAesProvider": "bad_data",
    }


def test_missing_key() -> None:
    proof = po.prove([configuration()], pr.KeyRing({"iisConfigurationKey": key("TestKey4096")}))
    assert {(v["verdict"], v["hresult"]) for v in proof.failed} == {("missing_key", "0x80090016")}
    assert all(v["cause"].startswith("iisWasKey is not on this server") for v in proof.failed)


def test_value_from_a_file_with_another_session_key() -> None:
    one = configuration()
    path = next(v.path for v in one.values if v.provider == "AesProvider")
    pasted = pr.format_value("AesProvider", pr.encrypt_aes("pasted", pr.new_session_key()))
    proof = po.prove([ah.parse(one.replace({path: pasted}), "x")], ring())
    (bad,) = proof.failed
    assert (bad["path"], bad["verdict"], bad["hresult"]) == (path, "garbage", None)


def test_other_verdicts() -> None:
    one = configuration()
    paths = [v.path for v in one.values]
    changed = one.replace(
        {
            paths[0]: "[enc:Nobody:QUJD:enc]",
            paths[1]: "[enc:AesProvider:QU*D:enc]",
            paths[2]: "[enc:cut off:enc]",
            paths[3]: "[enc:AESPROVIDER:QUJD:enc]",
        }
    )
    proof = po.prove([ah.parse(changed, "x")], ring())
    assert [(v["verdict"], v["provider"], v["kind"]) for v in proof.failed] == [
        ("unknown_provider", "Nobody", None),
        ("malformed", "AesProvider", "aes"),
        ("malformed", None, None),
        ("bad_data", "AesProvider", "aes"),
    ]
    assert all(v["message"] and v["cause"] and v["fix"] for v in proof.failed)


def test_accepted_values() -> None:
    one = configuration()
    keys = pr.KeyRing({"iisConfigurationKey": key("TestKey4096")})
    failed = [v["path"] for v in po.prove([one], keys).failed]
    good = next(v["path"] for v in po.prove([one], keys).protected_values if v["verdict"] == "ok")
    proof = po.prove([one], keys, {failed[0]: "old pool", good: "decrypts after all", "nowhere/@x": "typing error"})
    assert [v["path"] for v in proof.failed] == failed[1:]
    assert proof.summary()["accepted"] == 1
    assert [(v["path"], v["reason"]) for v in proof.protected_values if v["accepted"]] == [(failed[0], "old pool")]
    assert proof.unused_accepted == [good, "nowhere/@x"]


def test_diagnosis_table_is_readable() -> None:
    for verdict in (
        "bad_data",
        "garbage",
        "missing_key",
        "denied",
        "damaged",
        "unknown_provider",
        "unsupported",
        "malformed",
    ):
        found = po.diagnose(verdict, 0, "iisWasKey", "AesProvider")
        assert found["cause"]
        assert found["fix"]
        assert "{" not in found["cause"] + found["fix"]
    assert po.format_code(0) is None
    assert po.format_code(0x80090005) == "0x80090005"


# --- other keys ------------------------------------------------------------------------------------------------------


def test_portable() -> None:
    one = configuration()
    done = rw.reencrypt(one, ring())
    assert {(c.from_provider, c.to_provider) for c in done.conversions} == {
        ("IISWASOnlyCngProvider", "IISWASOnlyAesProvider"),
        ("IISCngProvider", "AesProvider"),
    }
    assert len(done.conversions) == 4
    after = ah.parse(done.content, "x")
    assert po.prove([after], ring(cng=False)).summary()["proven"] == 9
    assert texts(done.content, ring()) == texts(one.content, ring())
    again = rw.reencrypt(after, ring(cng=False))
    assert (again.conversions, again.content) == ((), done.content)


def test_portable_never_lowers_the_protection() -> None:
    text = filled_configuration().replace(b'keyContainerName="iisWasKey"', b'keyContainerName="iisConfigurationKey"')
    with pytest.raises(rw.RewrapError, match="no WAS-only AES provider to take the value of IISWASOnlyCngProvider"):
        rw.reencrypt(ah.parse(text, "x"), ring())
    with pytest.raises(rw.RewrapError, match="does not leave its server"):
        rw.reencrypt(configuration(), ring(cng=False))
    path = next(v.path for v in configuration().values if v.provider == "IISWASOnlyCngProvider")
    keys = ring()
    done = rw.reencrypt(configuration(), keys, skip=[path])
    assert path not in [c.path for c in done.conversions]


# --- the corpus ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not CORPUS.exists(), reason=NO_CORPUS)
@pytest.mark.parametrize("path", corpus("applicationHost", "administration", "redirection"), ids=name_of)
def test_proof_of_the_corpus(path: Path) -> None:
    """Nobody has these keys: every value gets a verdict other than ok, with cause and fix."""
    try:
        one = ah.load(path)
    except ah.ConfigurationError:
        return
    for keys in (pr.KeyRing(), ring()):
        proof = po.prove([one], keys)
        assert len(proof.protected_values) == len(one.values)
        assert proof.proven == 0
        for value in proof.protected_values:
            assert value["verdict"] in ("missing_key", "bad_data", "garbage", "unknown_provider", "malformed")
            assert value["cause"]
            assert value["fix"]
        for session in proof.session_keys:
            assert session["key_bits"] in (1024, 2048, None)


def test_openssl_reads_the_file_without_this_code(tmp_path: Path) -> None:
    """The chain by hand: session key out of the XML, opened by openssl; a value opened with it."""
    from cryptography.hazmat.primitives import serialization

    one = configuration()
    provider = one.provider("IISWASOnlyAesProvider")
    assert provider is not None
    pem = pr._private_key(key("TestKey2048")).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(pem)
    block = base64.b64decode(provider.session_key or "")[12:][::-1]
    session = subprocess.run(
        ["openssl", "pkeyutl", "-decrypt", "-inkey", str(tmp_path / "key.pem")],
        input=block,
        capture_output=True,
        check=True,
    ).stdout
    value = next(v for v in one.values if v.provider == "IISWASOnlyAesProvider")
    clear = subprocess.run(
        ["openssl", "enc", "-d", "-aes-128-cbc", "-K", session.hex(), "-iv", "0" * 32],
        input=base64.b64decode(value.data or ""),
        capture_output=True,
        check=True,
    ).stdout
    assert clear[4:].startswith("P0rtal&pool <2019>".encode("utf-16-le") + b"\0\0")
