# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""key_bundle: who can open a bundle, keys from files, signatures. openssl says who really can."""

from __future__ import annotations

import base64
import dataclasses
import importlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from _support import key
from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from test_action_flows import Target, run
from test_bundle import Identity

from ansible_collections.webfarm.iis.plugins.plugin_utils import _action
from ansible_collections.webfarm.iis.plugins.plugin_utils import _bundle as bu
from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyblob as kb
from ansible_collections.webfarm.iis.plugins.plugin_utils import _seal as se

PASSPHRASE = "Passphrase-of-a-recipient"
WAS, CONFIGURATION = "TestKey2048", "TestKey4096"


@pytest.fixture(scope="module")
def people() -> dict[str, Identity]:
    found = {name: Identity(name) for name in ("ann", "ben", "carol", "signer", "second")}
    return found | {"locked": Identity("locked", passphrase=PASSPHRASE)}


@pytest.fixture
def folder(tmp_path: Path, people: dict[str, Identity]) -> Path:
    for name, one in people.items():
        (tmp_path / f"{name}.crt").write_bytes(one.pem)
        (tmp_path / f"{name}.key").write_bytes(one.key_pem)
    (tmp_path / "was.xml").write_text(kb.write_xml(key(WAS), private=True))
    (tmp_path / "configuration.blob").write_bytes(kb.write_private_blob(key(CONFIGURATION)))
    return tmp_path


def call(folder: Path, *, check: bool = False, diff: bool = False, **options: Any) -> Any:
    """One run of the module; it must not call a target."""
    target = Target()
    result = run("key_bundle", target, folder, check=check, diff=diff, **{"bundle": "shop.keyset.json"} | options)
    assert target.calls == []
    json.dumps(result)
    return result


def good(folder: Path, **options: Any) -> Any:
    result = call(folder, **options)
    assert not result.get("failed"), result
    return result


def bad(folder: Path, match: str, **options: Any) -> None:
    path = folder / "shop.keyset.json"
    before = path.read_bytes() if path.exists() else None
    result = call(folder, **options)
    assert result.get("failed"), result
    assert not result["changed"]
    assert re.search(match, result["msg"]), result["msg"]
    assert (path.read_bytes() if path.exists() else None) == before


IMPORT = [
    {"container": "iisWasKey", "src": "was.xml"},
    {"container": "iisConfigurationKey", "src": "configuration.blob"},
]
FINGERPRINTS = {"iisWasKey": key(WAS).fingerprint, "iisConfigurationKey": key(CONFIGURATION).fingerprint}
SIGN = {"signing_certificate": "signer.crt", "signing_file": "signer.key"}


@pytest.fixture
def made(folder: Path) -> Path:
    """A bundle for ann and ben, not signed."""
    good(folder, farm="shop", recipients=["ann.crt", "ben.crt"], import_from=IMPORT)
    return folder


@pytest.fixture
def signed(folder: Path) -> Path:
    good(folder, farm="shop", recipients=["ann.crt", "ben.crt"], import_from=IMPORT, **SIGN)
    return folder


def on_disk(folder: Path) -> bu.Bundle:
    return bu.read_bundle(folder / "shop.keyset.json")


def opens(folder: Path, name: str, sealed: bytes) -> bytes | None:
    """What openssl makes of a sealed key with that person's private key."""
    (folder / "sealed.der").write_bytes(sealed)
    command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-in", "sealed.der", "-inkey", f"{name}.key"]
    done = subprocess.run([*command, "-recip", f"{name}.crt"], capture_output=True, check=False, cwd=folder)
    return done.stdout if done.returncode == 0 else None


def who(folder: Path) -> set[str]:
    """Everybody who opens every key, by openssl."""
    return {
        name
        for name in ("ann", "ben", "carol")
        if all(opens(folder, name, one.sealed) is not None for one in on_disk(folder).containers)
    }


# --- a bundle from files ----------------------------------------------------------------------------------------------


def test_a_bundle_from_files(folder: Path) -> None:
    options = {"farm": "shop", "recipients": ["ann.crt", "ben.crt"], "import_from": IMPORT}
    assert call(folder, check=True, **options)["changed"]
    assert not (folder / "shop.keyset.json").exists()
    result = good(folder, **options)
    assert result["changed"]
    assert result["fingerprints"] == FINGERPRINTS
    assert result["bundle"]["generation"] == 1
    assert result["bundle"]["source_host"] is None
    assert sorted(one["subject"] for one in result["recipients"]) == ["CN=ann", "CN=ben"]
    path = folder / "shop.keyset.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for container, name in (("iisWasKey", WAS), ("iisConfigurationKey", CONFIGURATION)):
        entry = on_disk(folder).get(container)
        assert entry is not None
        assert opens(folder, "ben", entry.sealed) == kb.write_private_blob(key(name))
    assert who(folder) == {"ann", "ben"}
    content = path.read_bytes()
    again = good(folder, **options, expected_fingerprints=FINGERPRINTS)
    assert not again["changed"]
    assert again["reasons"] == []
    assert path.read_bytes() == content


def test_it_tells_what_is_in_it_without_any_key(signed: Path, people: dict[str, Identity]) -> None:
    for file in signed.glob("*.key"):
        file.unlink()
    result = good(signed)
    assert not result["changed"]
    assert result["trust"] == []
    assert result["bundle"]["farm"] == "shop"
    assert {one["container"]: one["bits"] for one in result["key_containers"]} == {
        "iisWasKey": 2048,
        "iisConfigurationKey": 4096,
    }
    stated = {one["subject"]: one for one in result["recipients"]}
    assert set(stated) == {"CN=ann", "CN=ben"}
    command = ["openssl", "x509", "-in", "ann.crt", "-noout", "-serial", "-fingerprint", "-sha256"]
    serial, fingerprint = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=signed
    ).stdout.splitlines()
    assert int(stated["CN=ann"]["serial"], 16) == int(serial.partition("=")[2], 16)
    assert stated["CN=ann"]["certificate_fingerprint"] == fingerprint.partition("=")[2].replace(":", "").lower()
    assert result["signed"]
    assert [one["subject"] for one in result["signers"]] == ["CN=signer"]
    assert good(signed, signer_certificate="signer.crt")["trust"] == ["signed"]
    assert good(signed, expected_fingerprints=FINGERPRINTS)["trust"] == ["pinned"]
    bad(signed, "not signed by signer_certificate", signer_certificate="ann.crt")
    bad(signed, "expected_fingerprints says", expected_fingerprints={"iisWasKey": "0" * 64})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "does not exist. Write it with key_export, or make one with import_from"),
        ({"import_from": IMPORT, "recipients": ["ann.crt"]}, "farm: a new bundle needs"),
        ({"import_from": IMPORT, "farm": "shop"}, "recipients: a new bundle needs"),
        ({"import_from": IMPORT, "farm": "shop", "recipients": []}, "recipients: name at least one"),
        (
            {"import_from": IMPORT, "farm": "shop", "recipients": ["ann.crt"], "recipients_action": "add"},
            "recipients: a new bundle needs",
        ),
        ({"import_from": IMPORT, "farm": "shop", "recipients": ["ann.crt"] * 2}, "listed twice"),
        ({"import_from": [IMPORT[0]] * 2, "farm": "shop", "recipients": ["ann.crt"]}, "iisWasKey is given twice"),
        (
            {
                "import_from": [{"container": "iisCngWasKey", "src": "was.xml"}],
                "farm": "shop",
                "recipients": ["ann.crt"],
            },
            "iisCngWasKey is a CNG key",
        ),
        (
            {"import_from": [{"container": "a", "src": "none"}], "farm": "shop", "recipients": ["ann.crt"]},
            "import_from: cannot read .*none",
        ),
        (
            {"import_from": [{"container": "a", "src": "ann.crt"}], "farm": "shop", "recipients": ["ann.crt"]},
            "import_from: .*ann.crt is not a PEM private key",
        ),
        (
            {
                "import_from": IMPORT,
                "farm": "shop",
                "recipients": ["ann.crt"],
                "expected_fingerprints": {"IISWASKEY": "a" * 64},
            },
            "was.xml has the fingerprint .* expected_fingerprints says a{64}",
        ),
    ],
)
def test_what_makes_no_bundle(folder: Path, options: dict[str, Any], reason: str) -> None:
    bad(folder, reason, **options)


def test_public_only_xml_is_refused_with_the_reason(folder: Path) -> None:
    (folder / "public.xml").write_text(kb.write_xml(key(WAS)))
    bad(
        folder,
        "public.xml holds the public half .* aspnet_regiis -pi reports success",
        farm="shop",
        recipients=["ann.crt"],
        import_from=[{"container": "iisWasKey", "src": "public.xml"}],
    )


def test_keys_from_variables_and_passphrases(folder: Path) -> None:
    pem = subprocess.run(
        ["openssl", "rsa", "-inform", "MSBLOB", "-aes256", "-passout", f"pass:{PASSPHRASE}"],
        input=kb.write_private_blob(key(WAS)),
        capture_output=True,
        check=True,
    ).stdout.decode()
    blob = base64.b64encode(kb.write_private_blob(key(CONFIGURATION))).decode()
    result = good(
        folder,
        farm="shop",
        recipients=["ann.crt"],
        import_from=[
            {"container": "iisWasKey", "content": pem, "passphrase": PASSPHRASE},
            {"container": "iisConfigurationKey", "content": blob},
        ],
        diff=True,
    )
    assert result["fingerprints"] == FINGERPRINTS
    arguments = result["invocation"]["module_args"]["import_from"]
    assert arguments[0] == {"container": "iisWasKey", "content": _action.MASK, "passphrase": _action.MASK}
    shown = json.dumps(result)
    for secret in (PASSPHRASE, pem[100:160], blob[100:160]):
        assert secret not in shown


def test_a_vaulted_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = VaultLib([("default", VaultSecret(b"vault"))])
    (folder / "was.xml").write_bytes(vault.encrypt((folder / "was.xml").read_bytes()))
    assert b"RSAKeyValue" not in (folder / "was.xml").read_bytes()
    original = DataLoader.__init__

    def with_secret(self: DataLoader) -> None:
        original(self)
        self.set_vault_secrets([("default", VaultSecret(b"vault"))])

    monkeypatch.setattr(DataLoader, "__init__", with_secret)
    result = good(folder, farm="shop", recipients=["ann.crt"], import_from=[IMPORT[0]])
    assert result["fingerprints"]["iisWasKey"] == FINGERPRINTS["iisWasKey"]


# --- more keys, fewer keys --------------------------------------------------------------------------------------------


def test_a_key_is_added_and_replaced(folder: Path) -> None:
    good(folder, farm="shop", recipients=["ann.crt"], import_from=[IMPORT[0]])
    first = on_disk(folder)
    trust = {"expected_fingerprints": FINGERPRINTS, "recipients": ["ann.crt"]}
    bad(folder, "nothing vouches for iisWasKey", import_from=[IMPORT[1]], recipients=["ann.crt"])
    bad(
        folder, "only a signature vouches for them", import_from=[IMPORT[1]], expected_fingerprints=FINGERPRINTS
    )  # the recipients would come from the file
    result = good(folder, import_from=[IMPORT[1]], **trust)  # no opening key
    assert result["reasons"] == ["iisConfigurationKey is not in the bundle"]
    assert result["bundle"]["generation"] == 2
    assert on_disk(folder).get("iisWasKey") == first.get("iisWasKey")

    other = kb.write_xml(key("TestKeyOther"), private=True)
    change = {"import_from": [{"container": "IISWASKEY", "content": other}]}
    pins = FINGERPRINTS | {"iisWasKey": key("TestKeyOther").fingerprint}
    bad(folder, "holds another key for iisWasKey .* replace: true", **change, expected_fingerprints=pins)
    result = good(
        folder, **change, recipients=["ann.crt"], expected_fingerprints=pins, replace=True, backup=True, diff=True
    )
    assert result["reasons"] == ["the key of iisWasKey differs"]
    assert result["bundle"]["generation"] == 3
    assert bu.read_bundle(result["backup_file"]).fingerprints() == FINGERPRINTS
    assert stat.S_IMODE(Path(result["backup_file"]).stat().st_mode) == 0o600
    assert result["diff"]["before"]["fingerprints"] == FINGERPRINTS
    assert result["diff"]["after"]["generation"] == 3
    assert not good(folder, **change, recipients=["ann.crt"], expected_fingerprints=pins, replace=True)["changed"]


def test_a_key_is_removed(made: Path) -> None:
    trust = {"expected_fingerprints": FINGERPRINTS}
    bad(made, "nothing would be left", remove_containers=list(FINGERPRINTS), **trust)
    bad(made, "is also in import_from", remove_containers=["iiswaskey"], import_from=IMPORT, **trust)
    result = good(made, remove_containers=["iiswaskey"], **trust)
    assert result["fingerprints"] == {"iisConfigurationKey": FINGERPRINTS["iisConfigurationKey"]}
    assert result["bundle"]["generation"] == 2
    assert not good(made, remove_containers=["iiswaskey"], **trust)["changed"]
    assert who(made) == {"ann", "ben"}


# --- recipients -------------------------------------------------------------------------------------------------------

OPEN = {"expected_fingerprints": FINGERPRINTS, "opening_file": "ann.key"}


def test_recipients_are_changed_without_a_server(made: Path) -> None:
    before = on_disk(made)
    assert not good(made, recipients=["ben.crt", "ann.crt"], expected_fingerprints=FINGERPRINTS)["changed"]
    wanted = {"recipients": ["ann.crt", "carol.crt"]}
    planned = call(made, check=True, diff=True, **wanted, **OPEN)
    assert planned["changed"]
    assert on_disk(made) == before
    result = good(made, diff=True, **wanted, **OPEN)
    assert result["diff"] == planned["diff"]
    assert "CN=carol" in result["reasons"][0]
    assert "is added; CN=ben" in result["reasons"][0]
    assert who(made) == {"ann", "carol"}
    after = on_disk(made)
    assert after.generation == before.generation
    assert after.fingerprints() == before.fingerprints()
    assert not good(made, **wanted, expected_fingerprints=FINGERPRINTS)["changed"]


def test_an_old_content_key_opens_nothing_of_the_new_file(made: Path, people: dict[str, Identity]) -> None:
    """Ben kept the content keys of the old file. The new file has others, and new initialisation vectors."""
    old = on_disk(made)
    good(made, recipients=["ann.crt", "carol.crt"], **OPEN)
    for before, after in zip(old.containers, on_disk(made).containers, strict=True):
        old_part, old_who = se.disassemble(before.sealed, "it")
        part, dummy = se.disassemble(after.sealed, "it")
        wrapped = dict(zip(old_who, old_part.wrapped, strict=True))[people["ben"].recipient.identity]
        numbers = people["ben"].private
        assert isinstance(numbers, rsa.RSAPrivateKey)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        content_key = numbers.decrypt(wrapped, oaep)
        for one, succeeds in ((old_part, True), (part, False)):
            command = ["openssl", "enc", "-d", "-aes-256-cbc", "-K", content_key.hex(), "-iv", one.iv.hex()]
            done = subprocess.run(command, input=one.ciphertext, capture_output=True, check=False)
            assert (done.returncode == 0 and done.stdout[:4] == b"\x07\x02\x00\x00") is succeeds
        assert part.iv != old_part.iv


def test_a_leftover_recipient_of_one_key_counts(made: Path, people: dict[str, Identity]) -> None:
    """Ann opens both keys, ben one of them. That is not 'ann alone'."""
    bundle = on_disk(made)
    sealed = se.seal(kb.write_private_blob(key(WAS)), [people["ann"].recipient.key])
    alone = bu.make_bundle_key("iisWasKey", key(WAS), sealed, [people["ann"].recipient])
    mixed = dataclasses.replace(bundle, containers=(alone, bundle.containers[1]), certificates=())
    (made / "shop.keyset.json").write_bytes(mixed.to_bytes())
    assert mixed.recipients() == {people["ann"].recipient.identity}
    result = good(made, recipients=["ann.crt"], **OPEN)
    assert result["changed"]
    assert who(made) == {"ann"}
    assert {one["subject"] for one in result["recipients"]} == {"CN=ann"}


def test_add_and_remove_need_a_signature(made: Path) -> None:
    bad(made, "only a signature vouches for them", recipients=["carol.crt"], recipients_action="add", **OPEN)
    bad(made, "only a signature vouches for them", recipients=["ben.crt"], recipients_action="remove", **OPEN)


def test_add_and_remove(signed: Path) -> None:
    opening = {"opening_file": "ann.key", "signer_certificate": "signer.crt"}
    add = {"recipients": ["carol.crt"], "recipients_action": "add"}
    bad(signed, "would make its signature void", **add, **opening)
    assert good(signed, **add, **opening, **SIGN)["changed"]
    assert who(signed) == {"ann", "ben", "carol"}
    assert not good(signed, **add, **opening, **SIGN)["changed"]
    remove = {"recipients": ["ben.crt"], "recipients_action": "remove"}
    assert good(signed, **remove, **opening, **SIGN)["changed"]
    assert who(signed) == {"ann", "carol"}
    assert not good(signed, **remove, **opening, **SIGN)["changed"]
    bad(
        signed,
        "nobody would be left",
        recipients=["ann.crt", "carol.crt"],
        recipients_action="remove",
        **opening,
        **SIGN,
    )
    assert good(signed, signer_certificate="signer.crt")["trust"] == ["signed"]


def test_a_planted_certificate_is_not_taken_over(made: Path, people: dict[str, Identity]) -> None:
    """Somebody who can write the file puts a certificate into it and waits for the next change of recipients."""
    data = json.loads((made / "shop.keyset.json").read_text())
    der = base64.b64encode(people["carol"].recipient.der).decode()
    data["recipients"].append(der)
    (made / "shop.keyset.json").write_text(json.dumps(data))
    bad(made, "no key is sealed to that certificate")


@pytest.mark.parametrize("source", ["file", "content"])
def test_the_opening_key_is_an_ordinary_option(folder: Path, people: dict[str, Identity], source: str) -> None:
    good(folder, farm="shop", recipients=["locked.crt"], import_from=IMPORT)
    value = "locked.key" if source == "file" else people["locked"].key_pem.decode()
    opening = {f"opening_{source}": value, "expected_fingerprints": FINGERPRINTS, "recipients": ["ann.crt"]}
    bad(folder, f"opening_{source}.* is protected by a passphrase", **opening)
    bad(folder, f"opening_{source}.* does not open with the given", **opening, opening_passphrase="wrong one")
    result = good(folder, **opening, opening_passphrase=PASSPHRASE)
    assert who(folder) == {"ann"}
    shown = json.dumps(result)
    assert PASSPHRASE not in shown
    assert "PRIVATE KEY" not in shown


def test_an_opening_key_is_missing_or_that_of_a_stranger(made: Path) -> None:
    change = {"recipients": ["carol.crt"], "expected_fingerprints": FINGERPRINTS}
    bad(made, "the private key of one of its recipients is needed", **change)
    bad(made, "carol.key does not open the key of iisWasKey", **change, opening_file="carol.key")
    bad(made, "nothing vouches for", recipients=["carol.crt"], opening_file="ann.key")


# --- signatures -------------------------------------------------------------------------------------------------------


def test_signing_needs_no_opening_key(made: Path) -> None:
    bad(made, "nothing vouches for", **SIGN)
    sealed = [one.sealed for one in on_disk(made).containers]
    result = good(made, **SIGN, expected_fingerprints=FINGERPRINTS)
    assert result["reasons"] == ["the bundle is not signed"]
    assert [one.sealed for one in on_disk(made).containers] == sealed
    assert result["bundle"]["generation"] == 1
    bundle = on_disk(made)
    (made / "signature.der").write_bytes(bundle.signature or b"")
    (made / "content").write_bytes(bundle.canonical())
    command = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "signature.der", "-content", "content"]
    trust = ["-CAfile", "signer.crt", "-purpose", "any", "-out", "verified"]
    subprocess.run([*command, *trust], check=True, cwd=made, capture_output=True)
    # a second run needs neither pins nor the private key
    (made / "signer.key").unlink()
    again = good(made, signing_certificate="signer.crt")
    assert not again["changed"]


def test_another_signer(signed: Path) -> None:
    second = {"signing_certificate": "second.crt", "signing_file": "second.key"}
    bad(signed, "nothing vouches for", **second)
    assert good(signed, **second, signer_certificate="signer.crt")["changed"]
    assert good(signed, signer_certificate="second.crt")["trust"] == ["signed"]
    assert not good(signed, **second, signer_certificate="signer.crt")["changed"]
    bad(signed, "not signed by signer_certificate", signer_certificate="signer.crt")


def test_a_signature_is_dropped_only_when_that_is_said(signed: Path) -> None:
    trust = {"signer_certificate": "signer.crt"}
    bad(signed, "would make its signature void", farm="other", **trust)
    bad(signed, "contradict each other", drop_signature=True, **SIGN)
    bad(signed, "is needed .signing_file", farm="other", signing_certificate="signer.crt")
    result = good(signed, farm="other", drop_signature=True, **trust)
    assert not result["signed"]
    assert on_disk(signed).signature is None
    bad(signed, "the bundle has no signature", **trust)
    assert not good(signed, farm="other", drop_signature=True)["changed"]


def test_a_signing_key_from_a_variable(made: Path, people: dict[str, Identity]) -> None:
    options = {"signing_certificate": "locked.crt", "signing_content": people["locked"].key_pem.decode()}
    bad(made, "signing_content is protected by a passphrase", **options, expected_fingerprints=FINGERPRINTS)
    result = good(made, **options, signing_passphrase=PASSPHRASE, expected_fingerprints=FINGERPRINTS)
    assert result["invocation"]["module_args"]["signing_content"] == _action.MASK
    assert good(made, signer_certificate="locked.crt")["trust"] == ["signed"]


def test_options_that_belong_together(made: Path) -> None:
    for options in (
        {"signing_file": "signer.key"},
        {"opening_file": "ann.key", "opening_content": "x"},
        {"signing_passphrase": "x"},
        {"import_from": [{"src": "was.xml"}]},
    ):
        with pytest.raises(AnsibleActionFail):
            call(made, **options)
    for item in ({}, {"src": "was.xml", "content": "x"}):
        bad(made, "give either src or content for iisWasKey", import_from=[{"container": "iisWasKey"} | item])


# --- in the clear, only when asked for by name ------------------------------------------------------------------------


def test_export_in_the_clear(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(_action.WebfarmAction, "warn", lambda self, message: warnings.append(message))
    export = {"export_unencrypted_xml": [{"container": "IISWASKEY", "dest": "out/was.xml"}]}
    bad(made, "nothing vouches", **export, opening_file="ann.key")
    bad(made, "opening_file: the bundle has to be opened", **export, expected_fingerprints=FINGERPRINTS)
    bad(made, "Export in a task of its own", **export, **OPEN, farm="other")
    bad(made, "no key other", export_unencrypted_xml=[{"container": "other", "dest": "x"}], **OPEN)
    path = made / "out" / "was.xml"
    warnings.clear()
    assert call(made, check=True, **export, **OPEN)["changed"]
    assert not path.exists()
    result = good(made, **export, **OPEN)
    assert path.read_text() == (made / "was.xml").read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert result["exported"] == [{"container": "iisWasKey", "dest": str(path), "changed": True}]
    assert any("the private key of iisWasKey lies readable" in one for one in warnings)
    shown = json.dumps(result)
    for number in (key(WAS).d, key(WAS).p):
        assert base64.b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode() not in shown
    assert not good(made, **export, **OPEN)["changed"]
    path.chmod(0o644)
    assert good(made, **export, **OPEN)["changed"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for other in (kb.write_xml(key("TestKeyOther"), private=True), "something", kb.write_xml(key(WAS))):
        path.write_text(other)
        bad(made, "exists and is not the key of iisWasKey", **export, **OPEN)
        assert path.read_text() == other


# --- surroundings -----------------------------------------------------------------------------------------------------


def test_looking_at_a_bundle_is_never_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(C, "DEFAULT_DEBUG", True)
    monkeypatch.setattr(C, "CACHE_PLUGIN", "jsonfile")
    monkeypatch.setattr(C, "CALLBACKS_ENABLED", ["community.general.log_plays"])
    assert not good(made)["changed"]
    assert not good(made, recipients=["ann.crt", "ben.crt"], expected_fingerprints=FINGERPRINTS)["changed"]


@pytest.mark.parametrize(
    ("constant", "value", "reason"),
    [
        ("DEFAULT_DEBUG", True, "ANSIBLE_DEBUG"),
        ("DEFAULT_KEEP_REMOTE_FILES", True, "ANSIBLE_KEEP_REMOTE_FILES"),
        ("CACHE_PLUGIN", "jsonfile", "ANSIBLE_CACHE_PLUGIN=memory"),
        ("CALLBACKS_ENABLED", ["community.general.log_plays"], "callback plugin community.general.log_plays"),
    ],
)
def test_keys_are_not_read_where_they_could_be_kept(
    made: Path, monkeypatch: pytest.MonkeyPatch, constant: str, value: object, reason: str
) -> None:
    monkeypatch.setattr(C, constant, value)
    bad(made, reason, recipients=["carol.crt"], **OPEN)
    bad(made, reason, import_from=IMPORT)
    export = [{"container": "iisWasKey", "dest": "x.xml"}]
    bad(made, reason, export_unencrypted_xml=export, **OPEN)
    assert not (made / "x.xml").exists()


# --- through ansible-playbook -----------------------------------------------------------------------------------------


def play(folder: Path, tasks: list[dict[str, Any]], *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    book = [{"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": tasks}]
    (folder / "play.yml").write_text(json.dumps(book))
    return subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "play.yml", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "ANSIBLE_HOME": str(folder / "home"), "ANSIBLE_NOCOLOR": "1", **env},
        check=False,
    )


def canaries() -> set[bytes]:
    """Parts of the private numbers in every spelling that a leak could have."""
    found: set[bytes] = set()
    for name in (WAS, CONFIGURATION):
        for number in (key(name).d, key(name).p, key(name).q):
            raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
            for one in (raw, raw[::-1]):
                found |= {one[:24], one.hex()[:48].encode(), base64.b64encode(one)[:40]}
    return found


def test_no_key_is_left_anywhere(folder: Path) -> None:
    """A key from a vaulted file and one from a vaulted variable, very verbose, with a log and a fact cache."""
    (folder / "vault").write_text("the vault password")
    encrypt = [str(Path(sys.executable).parent / "ansible-vault"), "encrypt", "--vault-password-file", "vault"]
    variable = {"configuration_key": base64.b64encode((folder / "configuration.blob").read_bytes()).decode()}
    (folder / "variables.yml").write_text(json.dumps(variable))
    subprocess.run([*encrypt, "was.xml", "variables.yml"], cwd=folder, check=True, capture_output=True)
    (folder / "configuration.blob").unlink()
    task = {
        "webfarm.iis.key_bundle": {
            "bundle": "shop.keyset.json",
            "farm": "shop",
            "recipients": ["ann.crt"],
            "import_from": [
                {"container": "iisWasKey", "src": "was.xml"},
                {"container": "iisConfigurationKey", "content": "{{ configuration_key }}"},
            ],
        },
        "register": "made",
    }
    show = {"ansible.builtin.debug": {"var": "made"}}
    arguments = ["--vault-password-file", "vault", "-e", "@variables.yml", "-vvvv", "--diff"]
    # kept results are refused ...
    for env in (
        {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder / "facts")},
        {"ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.junit", "JUNIT_OUTPUT_DIR": str(folder / "junit")},
        {"ANSIBLE_LOG_PATH": str(folder / "ansible.log")},
    ):
        done = play(folder, [task], *arguments, **env)
        assert done.returncode != 0
        assert "A private key would travel while" in done.stdout, done.stdout + done.stderr
        assert not (folder / "shop.keyset.json").exists()
    # ... unless the task hides them
    done = play(folder, [task | {"no_log": True}, show], *arguments, ANSIBLE_LOG_PATH=str(folder / "ansible.log"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert on_disk(folder).fingerprints() == FINGERPRINTS
    done = play(folder, [task, show], *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" in done.stdout
    texts = {"output": (done.stdout + done.stderr).encode()}
    texts |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert str(folder / "ansible.log") in texts
    for where, content in texts.items():
        for canary in canaries():
            assert canary not in content, f"a private number is in {where}"
    (folder / "leak").write_text(kb.write_xml(key(WAS), private=True))
    assert any(canary in (folder / "leak").read_bytes() for canary in canaries())


def test_a_task_that_is_tried_again(folder: Path) -> None:
    task = {
        "webfarm.iis.key_bundle": {
            "bundle": "shop.keyset.json",
            "farm": "shop",
            "recipients": ["ann.crt"],
            "import_from": IMPORT,
        },
        "register": "made",
        "until": "not made.changed",
        "retries": 2,
        "delay": 0,
    }
    done = play(folder, [task])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED - RETRYING" in done.stdout + done.stderr


def test_the_examples_have_options_that_exist() -> None:
    module = importlib.import_module("ansible_collections.webfarm.iis.plugins.modules.key_bundle")
    spec = importlib.import_module("ansible_collections.webfarm.iis.plugins.action.key_bundle").ActionModule.SPEC
    tasks = yaml.safe_load(module.EXAMPLES)
    assert len(tasks) >= 5
    for task in tasks:
        assert set(task["webfarm.iis.key_bundle"]) <= set(spec)
        for item in task["webfarm.iis.key_bundle"].get("import_from", []):
            assert set(item) <= set(spec["import_from"]["options"])


def test_the_result_is_the_documented_one(signed: Path) -> None:
    module = importlib.import_module("ansible_collections.webfarm.iis.plugins.modules.key_bundle")
    documented = yaml.safe_load(module.RETURN)
    result = good(signed)
    assert set(result) - {"changed", "invocation"} == set(documented)
    assert set(result["bundle"]) == set(documented["bundle"]["contains"])
    for name in ("key_containers", "recipients"):
        assert set(result[name][0]) == set(documented[name]["contains"])
