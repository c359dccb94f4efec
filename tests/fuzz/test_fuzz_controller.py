# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parsers of the controller under damaged input: their own error class or a result, never anything else."""

from __future__ import annotations

import base64
import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from _fuzz import CORPUS, Hang, configurations, fuzz, limited
from _support import configuration_keys, filled_configuration, key, vectors

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost as ah
from ansible_collections.webfarm.iis.plugins.plugin_utils import _bundle as bu
from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyblob as kb
from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyfile as kf
from ansible_collections.webfarm.iis.plugins.plugin_utils import _protection as pr
from ansible_collections.webfarm.iis.plugins.plugin_utils import _seal as se
from ansible_collections.webfarm.iis.plugins.plugin_utils import _xml as xm

VALUES = (
    "plain",
    "",
    "[enc:AesProvider:QUJD:enc]",
    "a&b<c>d\"e'f",
    "tab\tline\nreturn\r",
    "äöü 🔑",
    "]]>",
    "&#0;",
    "\x01",
)


def edit(one: ah.Configuration, rng: random.Random) -> None:
    """A no-op edit gives the same bytes; a changed attribute changes only its value, or is refused."""
    assert one.replace({}) == one.content
    paths = one.paths()
    if not paths:
        return
    path = rng.choice(paths)
    if paths.count(path) > 1:
        with pytest.raises(ah.ConfigurationError, match="is not unique"):
            one.replace({path: "x"})
        return
    old = one.get(path)
    assert one.replace({path: old}) == one.content
    value = rng.choice(VALUES)
    try:
        changed = one.replace({path: value})
    except ah.ConfigurationError as error:
        assert "\x01" in value or "declares" in str(error) or path.partition("@")[2].startswith("xmlns"), error
        return
    start = next((i for i, (a, b) in enumerate(zip(one.content, changed, strict=False)) if a != b), 0)
    tail = min(len(one.content), len(changed)) - start
    tail = next((i for i in range(tail) if one.content[-1 - i] != changed[-1 - i]), tail)
    # What was taken out holds no quote of its own: it lies inside one attribute value.
    assert not set(one.content[start : len(one.content) - tail]) & set(b"<")
    assert value == old or changed != one.content


def test_configuration() -> None:
    outcomes = {"read": 0, "refused": 0}

    def target(data: bytes, rng: random.Random) -> None:
        for lenient in (False, True):
            try:
                one = ah.parse(data, "x", lenient=lenient)
            except ah.ConfigurationError:
                outcomes["refused"] += 1
                continue
            outcomes["read"] += 1
            for value in one.values:
                pr.judge(value.provider, value.data, one.provider(value.provider), pr.KeyRing())
            edit(one, rng)

    fuzz("configuration", [*configurations(20_000), filled_configuration()], target, ah.ConfigurationError, 0.3)
    # Both happen, or the mutations are of no use.
    assert min(outcomes.values()) > 5, outcomes


def test_xml() -> None:
    fuzz("xml", configurations(20_000), lambda data, _rng: xm.parse_utf8(data), xm.XmlError, 0.05)


def test_protection() -> None:
    content = ah.parse(filled_configuration(), "x")
    ring = pr.KeyRing(configuration_keys())
    seeds = [content.get(value.path).encode() for value in content.values]
    seeds += [(provider.session_key or "AQID").encode() for provider in content.providers]
    seeds += [base64.b64decode(case["value"]) for case in (*vectors()["aes"], *vectors()["rsa"])]
    opened = []

    def target(data: bytes, rng: random.Random) -> None:
        text = data.decode("utf-8", "replace")
        name, coded = pr.split_value(text)
        if pr.is_protected(text):
            provider = content.provider(name)
            opened.append(pr.judge(name, coded, provider, ring).verdict)
        for parse in (pr.strict_base64, pr.session_key_bits):
            try:
                parse(text)
            except kb.KeyBlobError:
                pass
        pr.kind_of_type(text)
        for judge in (pr.judge_aes_plaintext, pr.judge_rsa_plaintext, pr.judge_cng_plaintext):
            try:
                judge(data)
            except pr.ProtectionError:
                pass
        for kind in content.providers:
            try:
                pr.open_data(kind, data, ring)
            except pr.ProtectionError:
                pass
        pr.unwrap_session_key(data, key("TestKey1024"), oaep=rng.random() < 0.5)

    fuzz("protection", seeds, target, pr.ProtectionError, 0.15)
    assert "ok" in opened and len(set(opened)) > 2, set(opened)


def test_keys() -> None:
    seeds = [base64.b64decode(one[half]) for one in vectors()["keys"].values() for half in ("private", "public")]
    seeds += [path.read_bytes() for path in sorted((CORPUS / "rsa_keys").glob("*")) if path.stat().st_size < 8000]
    seeds += [kb.write_xml(key("TestKey1024"), private=True).encode(), b"f0e91f6485ac2d09485e4ec18135601e_" + b"0" * 36]
    seeds += [base64.b64decode(one["session_key"]) for one in vectors()["wrong"] if one.get("session_key")]

    def target(data: bytes, _rng: random.Random) -> None:
        for read in (kb.read_xml, kb.read_blob, kb.read_private_blob, kb.read_public_blob, kb.read_simple_blob):
            try:
                read(data)
            except kb.KeyBlobError:
                pass
        text = data.decode("latin-1")
        try:
            kb.read_xml(text)
        except kb.KeyBlobError:
            pass
        kb.container_of_file(text)

    fuzz("keyblob", seeds, target, kb.KeyBlobError, 0.15)


def test_key_files() -> None:
    from test_keyfile import PASSWORD, WRITTEN, openssl, pem_of

    pem = pem_of("TestKey1024")
    seeds = [openssl(*arguments, data=pem) for arguments, _kind in WRITTEN.values()]
    seeds += [base64.b64encode(seeds[-1]), kb.write_xml(key("TestKey1024"), private=True).encode("utf-16")]

    def target(data: bytes, rng: random.Random) -> None:
        kf.read_key_file(data, rng.choice((PASSWORD, None, "", "ä")), "import_from: x")

    fuzz("keyfile", seeds, target, kf.KeyFileError, 0.15)


def test_bundles() -> None:
    from test_bundle import Identity, make_bundle

    ann, ben = Identity("Ann"), Identity("Ben")
    made = make_bundle(ann, ben)
    seeds = [made.to_bytes(), json.dumps(json.loads(made.to_bytes())).encode(), ann.pem]

    def target(data: bytes, _rng: random.Random) -> None:
        bundle = bu.parse_bundle(data, "bundle: x")
        assert bu.parse_bundle(bundle.to_bytes(), "again") == bundle
        bundle.recipient_facts()
        bu.open_bundle(bundle, ann.opening)

    fuzz("bundle", seeds, target, bu.BundleError, 0.1)

    def open_sealed(data: bytes, _rng: random.Random) -> None:
        part, _recipients = se.disassemble(data, "x")
        se.unseal(part, ann.opening)

    fuzz("seal", [one.sealed for one in made.containers], open_sealed, se.SealError, 0.05)


# --- entities --------------------------------------------------------------------------------------------------------

BILLION = b"<!DOCTYPE a [<!ENTITY a '1234567890'>%s]>" % b"".join(
    b"<!ENTITY %c '%s'>" % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(12)
)
ENTITIES = {
    "expansion": BILLION + b"<configuration a='&m;'/>",
    "external": b"<!DOCTYPE configuration [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><configuration>&x;</configuration>",
    "parameter": b"<!DOCTYPE configuration [<!ENTITY % x SYSTEM 'http://127.0.0.1:9/x'> %x;]><configuration/>",
    "subset": b"<!DOCTYPE configuration SYSTEM 'http://127.0.0.1:9/x.dtd'><configuration/>",
    "late": b"<?xml version='1.0'?><!-- c --><?p i?>\n<!DOCTYPE configuration><configuration/>",
    "marked": b"\xef\xbb\xbf<!DOCTYPE configuration [<!ENTITY x 'y'>]><configuration a='&x;'/>",
}


@pytest.mark.parametrize("name", ENTITIES)
def test_entities_are_refused(name: str) -> None:
    for data in (ENTITIES[name], ENTITIES[name].decode("utf-8-sig").encode("utf-16")):
        with limited(30), pytest.raises(ah.ConfigurationError):
            ah.parse(data, "x")
        with limited(30), pytest.raises(ah.ConfigurationError, match="document type"):
            ah.parse(data, "x", lenient=True)
    with limited(30), pytest.raises(kb.KeyBlobError):
        kb.read_xml(ENTITIES[name].replace(b"configuration", b"RSAKeyValue"))


def test_the_limit_rings() -> None:
    with pytest.raises(Hang), limited(0.2):
        while True:
            pass


def test_a_finding_is_reported() -> None:
    def target(data: bytes, _rng: random.Random) -> None:
        raise KeyError(len(data))

    with pytest.raises(AssertionError, match="FUZZ_SEED="):
        fuzz("sample", [b"x"], target, kb.KeyBlobError, 0)
