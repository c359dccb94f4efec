# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same configuration for the keys of other servers. Keys, session keys and values are CryptoAPI's."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from _support import CORPUS, NO_CORPUS, configuration_keys, corpus, filled_configuration, key, name_of, vectors
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from test_action_flows import Target, bundle, custodian, folder, run, trust  # noqa: F401  # pylint: disable=unused-import
from test_proof import configuration, ring, texts

from ansible_collections.webfarm.iis.plugins.plugin_utils import _action
from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost as ah
from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyblob as kb
from ansible_collections.webfarm.iis.plugins.plugin_utils import _proof as po
from ansible_collections.webfarm.iis.plugins.plugin_utils import _protection as pr
from ansible_collections.webfarm.iis.plugins.plugin_utils import _rewrap as rw

OTHER = {"iisWasKey": "TestKeyOther", "iisConfigurationKey": "TestKey1024"}
THIRD = {"iisWasKey": "TestKey4096", "iisConfigurationKey": "TestKeyOther"}
SESSION_PATHS = {
    f"configProtectedData/providers/add[@name='{name}']/@sessionKey"
    for name in ("AesProvider", "IISWASOnlyAesProvider")
}


def portable() -> ah.Configuration:
    return ah.parse(rw.reencrypt(configuration(), ring()).content, "applicationHost.config")


def public(names: dict[str, str]) -> dict[str, kb.RsaKey]:
    return {container: key(name).public() for container, name in names.items()}


def private(names: dict[str, str]) -> pr.KeyRing:
    return pr.KeyRing({container: key(name) for container, name in names.items()})


def facts(names: dict[str, str]) -> list[dict[str, Any]]:
    """As key_info reports them."""
    return [
        {
            "container": container,
            "fingerprint": key(name).fingerprint,
            "public_key": base64.b64encode(kb.spki(key(name).modulus, key(name).exponent)).decode(),
        }
        for container, name in names.items()
    ]


def filled(one: ah.Configuration, source: rw.Source, names: dict[str, str]) -> bytes:
    return one.template(source.paths).fill(source.wrap(public(names)))


# --- the library ------------------------------------------------------------------------------------------------------


def test_session_keys_are_wrapped_and_values_stay() -> None:
    one = portable()
    source = rw.Source(one, ring(cng=False))
    content = filled(one, source, OTHER)
    assert texts(content, private(OTHER)) == texts(one.content, ring()) == texts(configuration().content, ring())
    assert po.prove([ah.parse(content, "x")], ring(cng=False)).proven == 0
    after = ah.parse(content, "x")
    changed = {path for path in one.paths() if one.get(path) != after.get(path)}
    direct = {value.path for value in one.values if one.provider(value.provider).kind == "rsa"}  # type: ignore[union-attr]
    assert changed == SESSION_PATHS | direct
    assert len(direct) == 1
    # Nothing else moved: the same file with the changed values blanked on both sides.
    blank = dict.fromkeys(changed, "")
    assert one.replace(blank) == after.replace(blank)


def test_padding_of_the_provider_is_kept() -> None:
    """The provider's useOAEP decides, in the vectors of CryptoAPI: 4096 bits v1.5 and 2048 bits OAEP."""
    for name, vector in vectors()["sessions"].items():
        text = (
            '<configuration><configProtectedData><providers><add name="A" '
            'type="Microsoft.ApplicationHost.AesProtectedConfigurationProvider" keyContainerName="iisWasKey" '
            f'useOAEP="{str(vector["oaep"]).lower()}" sessionKey="{vector["wrapped"]}" />'
            "</providers></configProtectedData></configuration>"
        )
        one = ah.parse(text.encode(), "x")
        source = rw.Source(one, private({"iisWasKey": vector["key"]}))
        (wrapped,) = source.wrap(public({"iisWasKey": "TestKeyOther"}))
        opened = pr.unwrap_session_key(base64.b64decode(wrapped), key("TestKeyOther"), oaep=vector["oaep"])
        algorithm, hexadecimal = vector["unwrapped"].split(" ") if " " in vector["unwrapped"] else ("", "")
        assert opened.key.hex() == (hexadecimal or vector["unwrapped"]).lower(), (name, algorithm)
        with pytest.raises(pr.ProtectionError):
            pr.unwrap_session_key(base64.b64decode(wrapped), key("TestKeyOther"), oaep=not vector["oaep"])


def test_session_keys_of_one_host_do_not_open_values_of_another() -> None:
    one = portable()
    source = rw.Source(one, ring(cng=False), fresh=True)
    first, second = (ah.parse(filled(one, source, names), "x") for names in (OTHER, THIRD))
    assert texts(first.content, private(OTHER)) == texts(second.content, private(THIRD)) == texts(one.content, ring())
    provider = first.provider("AesProvider")
    assert provider is not None
    stolen = private(OTHER).session(provider)
    values = [v for v in second.values if v.provider == "AesProvider"]
    assert len(values) >= 4
    for value in values:
        with pytest.raises(pr.ProtectionError):
            pr.decrypt_aes(base64.b64decode(value.data or ""), stolen)
    # shared, on the other hand, is one session key for all
    shared = rw.Source(one, ring(cng=False))
    a, b = (ah.parse(filled(one, shared, names), "x").provider("AesProvider") for names in (OTHER, THIRD))
    assert a is not None and b is not None
    assert private(OTHER).session(a) == private(THIRD).session(b)


def test_what_is_under_other_containers_stays_unopened() -> None:
    """A file with CNG values too, and the key of one container only."""
    one = configuration()
    keys = pr.KeyRing({"iisWasKey": configuration_keys()["iisWasKey"]})
    source = rw.Source(one, keys, containers=["IISWASKEY"])
    new = {"iisWasKey": OTHER["iisWasKey"]}
    after = ah.parse(one.replace(dict(zip(source.paths, source.wrap(public(new)), strict=True))), "x")
    changed = {path for path in one.paths() if one.get(path) != after.get(path)}
    assert changed == set(source.paths)
    provider = after.provider("IISWASOnlyAesProvider")
    assert provider is not None and private(new).session(provider) == keys.session(one.provider(provider.name))
    direct = [one.provider(value.provider) for value in one.values if value.path in changed]
    assert all(found is not None and found.container == "iisWasKey" for found in direct)


def test_a_source_tells_no_secret() -> None:
    source = rw.Source(portable(), ring(cng=False), fresh=True)
    assert "Source applicationHost.config: 2 session keys, 9 values" in repr(source)


def test_what_cannot_be_opened_is_refused_by_its_path() -> None:
    with pytest.raises(rw.RewrapError, match="provider .*AesProvider .*no private key for container"):
        rw.Source(portable(), pr.KeyRing())
    with pytest.raises(rw.RewrapError, match=r"password \(line \d+\): the value depends on a CNG key"):
        rw.Source(configuration(), ring())
    one = configuration()
    left = {value.path for value in one.values if one.provider(value.provider).kind == "cng"}  # type: ignore[union-attr]
    source = rw.Source(one, ring(), accepted=left)
    after = ah.parse(filled(one, source, OTHER), "x")
    assert {after.get(path) for path in left} == {one.get(path) for path in left}
    with pytest.raises(rw.RewrapError, match="needs container iisConfigurationKey, and no public key was given"):
        source.wrap(public({"iisWasKey": "TestKeyOther"}))


def test_a_text_too_long_for_the_other_key_is_refused() -> None:
    """A direct RSA value that fits into 4096 bits and not into 1024."""
    data = base64.b64encode(pr.encrypt_rsa("x" * 200, key("TestKey4096"))).decode()
    text = (
        '<configuration><configProtectedData><providers><add name="R" type="" keyContainerName="iisWasKey" />'
        f'</providers></configProtectedData><a p="[enc:R:{data}:enc]"/></configuration>'
    )
    source = rw.Source(ah.parse(text.encode(), "x"), private({"iisWasKey": "TestKey4096"}))
    with pytest.raises(rw.RewrapError, match=r"a/@p \(line 1\): 400 bytes do not fit"):
        source.wrap(public({"iisWasKey": "TestKey1024"}))


# --- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not CORPUS.exists(), reason=NO_CORPUS)
@pytest.mark.parametrize("path", corpus("applicationHost"), ids=name_of)
def test_filling_gives_what_a_checked_edit_gives(path: Path) -> None:
    try:
        one = ah.load(path, lenient=True)
    except ah.ConfigurationError:
        return
    paths = [f"{p.path}/@sessionKey" for p in one.providers if p.session_key]
    paths += [v.path for v in one.values if v.provider]
    if len(set(paths)) != len(paths):
        with pytest.raises(ah.ConfigurationError):
            one.template(paths)
        return
    same = [one.get(name) for name in paths]
    if all(value.isascii() and "\t" not in value and "\n" not in value for value in same) and paths:
        new = [
            value.rpartition(":")[0].rpartition(":")[0] + ":QUJDRA==:enc]" if value.startswith("[enc:") else "QUJD"
            for value in same
        ]
        assert one.template(paths).fill(new) == one.replace(dict(zip(paths, new, strict=True)))


@pytest.mark.parametrize("bad", ['QUJD" x="', "QUJD&amp;", "", "[enc:Other:QUJD:enc]", "QUJD:enc]", "QU JD"])
def test_only_base64_is_filled_in(bad: str) -> None:
    template = portable().template(sorted(SESSION_PATHS))
    with pytest.raises(ah.ConfigurationError, match="is not what it should be"):
        template.fill(["QUJD", bad])
    with pytest.raises(ah.ConfigurationError, match="1 values were given for 2 attributes"):
        template.fill(["QUJD"])
    with pytest.raises(ah.ConfigurationError, match="there is no attribute nowhere/@x"):
        portable().template(["nowhere/@x"])


# --- public keys of servers -------------------------------------------------------------------------------------------


def test_public_keys_come_from_the_facts_and_are_checked() -> None:
    needed = rw.needed_containers(portable())
    assert {name.lower() for name in needed} == {"iiswaskey", "iisconfigurationkey"}
    target = rw.read_target("web2", facts(OTHER), needed)
    assert target.fingerprints() == {name: key(OTHER[name]).fingerprint for name in OTHER}

    with pytest.raises(rw.NoKeyYet, match="web2 has no public key for iisConfigurationKey, which provider AesProvider"):
        rw.read_target("web2", facts({"iisWasKey": "TestKeyOther"}), needed)
    lying = [{**one, "fingerprint": "0" * 64} for one in facts(OTHER)]
    with pytest.raises(rw.RewrapError, match="but the facts say 000"):
        rw.read_target("web2", lying, needed)
    pins = {"IISWASKEY": "0" * 64}
    with pytest.raises(rw.RewrapError, match="expected_fingerprints says 000"):
        rw.read_target("web2", facts(OTHER), needed, pins)
    assert rw.read_target("web2", facts(OTHER), needed, target.fingerprints()) == target
    elliptic = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = elliptic.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    wrong = [{**one, "public_key": base64.b64encode(der).decode()} for one in facts(OTHER)]
    with pytest.raises(rw.RewrapError, match="no SubjectPublicKeyInfo of an RSA key"):
        rw.read_target("web2", wrong, needed)


def test_the_record_is_believed_for_the_same_copy_and_choice_only() -> None:
    entry = {"web2": {"sha256": "a", "fingerprints": {"iisWasKey": "b"}}}
    text = rw.write_record(entry, "c", "shared")
    assert rw.read_record(text, "c", "shared") == entry
    for source, choice in (("d", "shared"), ("c", "per_host")):
        assert rw.read_record(text, source, choice) == {}
    for damaged in (None, b"", b"[]", b"{", b'{"format": 1}'):
        assert rw.read_record(damaged, "c", "shared") == {}


# --- the action -------------------------------------------------------------------------------------------------------


def base_answer(content: bytes, **more: Any) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "_content": _action.pack(content),
        "same_content": False,
        "conversions": [],
        "protected_values": [],
        "accepted_undecryptable": [],
        **more,
    }


def wrapped_answer(content: bytes, servers: int) -> dict[str, Any]:
    one = ah.parse(content, "applicationHost.config")
    source = rw.Source(one, ring(cng=False))
    rows = ["\t".join([str(number), *source.wrap(public(OTHER))]) for number in range(servers)]
    return {
        "sha256": one.sha256,
        "_paths": list(source.paths),
        "_wrapped": _action.pack(("\n".join(rows) + "\n").encode()),
    }


def targets(*names: str, keys: dict[str, str] | None = None) -> list[dict[str, Any]]:
    return [{"name": name, "dest": f"out/{name}.config", "public_keys": facts(keys or OTHER)} for name in names]


def test_one_call_for_all_servers_and_none_for_those_that_are_right(folder: Path) -> None:  # noqa: F811
    content = portable().content
    source = Target(base_answer(content), wrapped_answer(content, 2))
    first = run(
        "config_rewrap", source, folder, dest="out/base.config", cng="portable", targets=targets("web2", "web3")
    )
    assert not first.get("failed"), first.get("msg")
    assert [report["changed"] for report in first["targets"]] == [True, True]
    assert len(source.calls) == 2
    asked = _action.unpack(source.calls[1]["_targets"], "").decode().splitlines()
    assert sorted(line.split("\t")[:2] for line in asked) == sorted(
        [number, container] for number in ("0", "1") for container in OTHER
    )
    for name in ("web2", "web3"):
        path = folder / "out" / f"{name}.config"
        assert path.stat().st_mode & 0o777 == 0o600
        assert texts(path.read_bytes(), private(OTHER)) == texts(content, ring())
    assert first["invocation"]["module_args"]["targets"] == ["web2", "web3"]
    assert not [name for name in first if name.startswith("_")]
    wrapped = ah.parse((folder / "out" / "web2.config").read_bytes(), "x").provider("AesProvider")
    assert wrapped is not None and str(wrapped.session_key) not in json.dumps(first)

    # The same again: the source is asked for the copy only.
    same = base_answer(content, same_content=True)
    again = run("config_rewrap", Target(same), folder, dest="out/base.config", targets=targets("web2", "web3"))
    assert again["changed"] is False

    # One server has a new key: it alone is served, and the others stay in the record.
    before = (folder / "out" / "web3.config").read_bytes()
    renewed = targets("web2", keys=THIRD)
    answer = Target(same, wrapped_answer(content, 1))
    third = run("config_rewrap", answer, folder, dest="out/base.config", targets=[*renewed, *targets("web3")])
    assert [report["changed"] for report in third["targets"]] == [True, False]
    assert (folder / "out" / "web3.config").read_bytes() == before

    # A file that somebody touched is made again.
    (folder / "out" / "web3.config").write_bytes(before + b" ")
    mended = run(
        "config_rewrap",
        Target(same, wrapped_answer(content, 1)),
        folder,
        dest="out/base.config",
        targets=targets("web3"),
    )
    assert mended["targets"][0]["changed"]


def test_check_mode_writes_to_the_folder_that_ends_with_the_run(
    folder: Path,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passing = tmp_path_factory.mktemp("local")
    monkeypatch.setattr("ansible.constants.DEFAULT_LOCAL_TMP", str(passing))
    content = portable().content
    lacking = targets("web3", keys={"iisWasKey": "TestKeyOther"})
    result = run(
        "config_rewrap",
        Target(base_answer(content), wrapped_answer(content, 1)),
        folder,
        check=True,
        dest="out/base.config",
        targets=[*targets("web2"), *lacking],
    )
    assert not (folder / "out").exists()
    made, missing = result["targets"]
    assert Path(made["src"]).is_relative_to(passing)
    assert texts(Path(made["src"]).read_bytes(), private(OTHER)) == texts(content, ring())
    assert missing["src"] is None
    assert "web3 has no public key for iisConfigurationKey" in missing["message"]

    real = run("config_rewrap", Target(base_answer(content)), folder, dest="out/base.config", targets=lacking)
    assert real["failed"]
    assert "web3 has no public key" in real["msg"]


def test_an_answer_that_does_not_fit_is_refused(folder: Path) -> None:  # noqa: F811
    content = portable().content
    good = wrapped_answer(content, 1)
    for wrong in (wrapped_answer(content, 2), {**good, "sha256": "0" * 64}, {**good, "_paths": good["_paths"][1:]}):
        result = run(
            "config_rewrap",
            Target(base_answer(content), wrong),
            folder,
            dest="out/base.config",
            targets=targets("web2"),
        )
        assert result["failed"], wrong
        assert not (folder / "out" / "web2.config").exists()


def test_with_a_bundle_no_server_is_asked(folder: Path, bundle: dict[str, str]) -> None:  # noqa: F811
    content = portable().content
    (folder / "base.config").write_bytes(content)
    arguments = {"src": "base.config", "targets": targets("web2"), **trust(bundle)}
    result = run("config_rewrap", Target(), folder, session_key="per_host", **arguments)
    assert not result.get("failed"), result.get("msg")
    made = (folder / "out" / "web2.config").read_bytes()
    assert texts(made, private(OTHER)) == texts(content, ring())
    assert made.count(b"[enc:") == content.count(b"[enc:")
    assert run("config_rewrap", Target(), folder, session_key="per_host", **arguments)["changed"] is False
    assert run("config_rewrap", Target(), folder, session_key="shared", **arguments)["changed"] is True

    (folder / "base.config").write_bytes(filled_configuration())
    refused = run("config_rewrap", Target(), folder, **arguments)
    assert refused["failed"]
    assert "made portable on their own server" in refused["msg"]
    assert configuration_keys()


def test_options_that_contradict(folder: Path) -> None:  # noqa: F811
    twice = targets("web2", "web2")
    twice[1]["dest"] = "out/other.config"
    result = run("config_rewrap", Target(), folder, dest="out/base.config", targets=twice)
    assert result["failed"] and "web2 is given twice" in result["msg"]
    twice[1]["name"], twice[1]["dest"] = "web3", twice[0]["dest"]
    result = run("config_rewrap", Target(), folder, dest="out/base.config", targets=twice)
    assert result["failed"] and "every server needs its own" in result["msg"]
