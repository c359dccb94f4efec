# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The C# libraries against the C oracle and against the Python libraries, value by value.

The oracle (CryptoAPI in C) makes the keys and the values, so the expected verdict of each is known by how it was made.
All C# work runs in one PowerShell process.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import ansible
import pytest

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost, _keyblob, _proof, _protection

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"
UTILS = ("_KeyContainer", "_Configuration", "_Protection")
MAIN, WAS, OAEP, FOREIGN = "webfarmTestMain", "iisWasKey", "webfarmTestOaep", "webfarmTestForeign"
TEXTS = {
    "empty": "",
    "short": "x",
    "plain": "Test-Pass-1",
    "long": "y" * 300,
    "umlaut": "Grüße €",
    "surrogates": "🔑 key 𝒳",
}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def provider(name: str, kind: str, container: str, session: str = "", oaep: bool = False) -> str:
    type_name = {
        "aes": "Microsoft.ApplicationHost.AesProtectedConfigurationProvider",
        "rsa": "",
        "cng": "Microsoft.ApplicationHost.CngProtectedConfigurationProvider",
        "odd": "Contoso.OwnProvider",
    }[kind]
    key = f' sessionKey="{session}"' if kind == "aes" else ""
    return (
        f'      <add name="{name}" type="{type_name}" keyContainerName="{container}" useMachineContainer="true" '
        f'useOAEP="{str(oaep).lower()}"{key} />\r\n'
    )


def document(providers: str, values: dict[str, str]) -> bytes:
    pools = "".join(
        f"<add name={quoteattr(name)}>\r\n  <processModel password={quoteattr(value)} />\r\n</add>\r\n"
        for name, value in values.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\r\n<!-- [enc:AesProvider:commented:enc] -->\r\n<configuration>\r\n'
        f"  <configProtectedData>\r\n    <providers>\r\n{providers}    </providers>\r\n  </configProtectedData>\r\n"
        f"  <system.applicationHost>\r\n    <applicationPools>\r\n{pools}    </applicationPools>\r\n"
        "  </system.applicationHost>\r\n</configuration>\r\n"
    ).encode()


def path_of(name: str) -> str:
    return f"system.applicationHost/applicationPools/add[@name='{name}']/processModel/@password"


class Work:
    """The files, the expectations and the results of the one PowerShell process."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.folder = host.drive_c / "lab" / "protection"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.expected: dict[str, str] = {}
        self.results: dict[str, Any] = {}

    def windows(self, name: str) -> str:
        return f"C:\\lab\\protection\\{name}"


def oracle(host: Any, *commands: list[str]) -> list[str]:
    return host.oracle_batch(commands)


def text_argument(text: str | bytes) -> str:
    return "@" + b64(text.encode() if isinstance(text, str) else text)


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


def build(work: Work) -> None:
    """Make the keys, the values and the files."""
    host = work.host
    for name, bits in ((MAIN, "2048"), (OAEP, "4096"), (FOREIGN, "2048"), ("webfarmTestSmall", "1024")):
        oracle(host, ["create", name, bits, "exportable"])
    main, foreign, oaep, small, was = oracle(
        host,
        ["sessionkey", MAIN],
        ["sessionkey", FOREIGN],
        ["sessionkey", OAEP, "oaep", "256"],
        ["sessionkey", "webfarmTestSmall"],
        ["sessionkey", WAS],
    )
    values: dict[str, str] = {}

    def add(name: str, verdict: str, value: str) -> None:
        values[name] = value
        work.expected[path_of(name)] = verdict

    sets = {"Main": (MAIN, main, []), "Oaep": (OAEP, oaep, ["oaep"]), "Small": ("webfarmTestSmall", small, [])}
    for label, (container, session, extra) in sets.items():
        made = oracle(
            host, *[["encrypt", "aes", container, session, *extra, text_argument(text)] for text in TEXTS.values()]
        )
        for name, data in zip(TEXTS, made, strict=True):
            add(f"{label} {name}", "ok", f"[enc:{label}:{data}:enc]")
    for name, data in zip(
        ("plain", "surrogates"),
        oracle(host, *[["encrypt", "rsa", MAIN, text_argument(TEXTS[name])] for name in ("plain", "surrogates")]),
        strict=True,
    ):
        add(f"rsa {name}", "ok", f"[enc:Direct:{data}:enc]")
    for layout in (["nul"], ["prefix"], ["nul", "prefix"]):
        (data,) = oracle(host, ["encrypt", "rsa", MAIN, *layout, text_argument("Layout-1")])
        if layout != ["prefix"]:  # a prefix without an end is not a layout that exists
            add(f"rsa {' '.join(layout)}", "ok", f"[enc:Direct:{data}:enc]")
    (wrong,) = oracle(host, ["encrypt", "rsa", FOREIGN, text_argument("x")])
    add("rsa foreign", "bad_data", f"[enc:Direct:{wrong}:enc]")
    for name, data in zip(
        ("plain", "empty"),
        oracle(host, *[["encrypt", "cng", "iisCngWasKey", text_argument(TEXTS[name])] for name in ("plain", "empty")]),
        strict=True,
    ):
        add(f"cng {name}", "ok", f"[enc:Cng:{data}:enc]")

    # What is wrong with a value, and nothing else; the bytes are encrypted as they are.
    junk = b"\x01\x02\x03\x04"
    raw = {
        "control character": (junk + utf16("a\u0007b") + b"\0\0", "garbage"),
        "c1 control": (junk + utf16("a\u0085") + b"\0\0", "garbage"),
        "line feed": (junk + utf16("a\nb") + b"\0\0", "garbage"),
        "lone high surrogate": (junk + b"\x00\xd8" + utf16("a") + b"\0\0", "garbage"),
        "lone low surrogate": (junk + b"\x00\xdc" + b"\0\0", "garbage"),
        "noncharacter": (junk + b"\xff\xff" + b"\0\0", "garbage"),
        "noncharacter plane 1": (junk + utf16("\U0001fffe") + b"\0\0", "garbage"),
        "no end": (junk + utf16("abc"), "garbage"),
        "tail of 15": (junk + utf16("abc") + b"\0\0" + b"\x05" * 15, "ok"),
        "tail of 16": (junk + utf16("abc") + b"\0\0" + b"\x05" * 16, "garbage"),
        "only random bytes": (junk, "garbage"),
        "nothing": (b"", "garbage"),
        "unaligned end": (junk + b"a\0b\0\0", "garbage"),
    }
    for name, (data, verdict) in raw.items():
        (made,) = oracle(host, ["rawencrypt", "aes", MAIN, main, text_argument(b64(data))])
        add(name, verdict, f"[enc:Main:{made}:enc]")
    good = values["Main long"].split(":")[2]
    blocks = base64.b64decode(good)
    add("foreign session key", "bad_data", f"[enc:Foreign:{good}:enc]")
    add("cut inside a block", "bad_data", f"[enc:Main:{b64(blocks[:-3])}:enc]")
    add("cut at a block", "garbage", f"[enc:Main:{b64(blocks[:-16])}:enc]")
    (other,) = oracle(host, ["sessionkey", MAIN])
    (mixed,) = oracle(host, ["encrypt", "aes", MAIN, other, text_argument("Test-Pass-1")])
    add("other session key of the same key", "garbage", f"[enc:Main:{mixed}:enc]")
    add("no provider of that name", "unknown_provider", f"[enc:Nobody:{good}:enc]")
    add("unknown kind", "unsupported", f"[enc:Odd:{good}:enc]")
    add("no base64", "malformed", "[enc:Main:hello world!:enc]")
    add("base64 of wrong length", "malformed", "[enc:Main:abcde:enc]")
    add("no provider name", "malformed", f"[enc::{good}:enc]")
    add("one part", "malformed", "[enc:Main:enc]")
    add("session key missing", "bad_data", f"[enc:Without:{good}:enc]")
    add("session key damaged", "bad_data", f"[enc:Damaged:{good}:enc]")
    add("container missing", "missing_key", f"[enc:Absent:{good}:enc]")
    add("lower case provider", "ok", f"[enc:main:{good}:enc]")
    add("quote ' in the name", "ok", f"[enc:Main:{good}:enc]")
    add("short cng", "bad_data", f"[enc:Cng:{b64(b'x' * 48)}:enc]")
    values["default, not a secret"] = "[enc:Main::enc]"
    values["plain text"] = "no secret"
    broken = bytearray(base64.b64decode(main))
    broken[40] ^= 0x55
    providers = "".join(
        (
            provider("Main", "aes", MAIN, main),
            provider("Oaep", "aes", OAEP, oaep, True),
            provider("Small", "aes", "webfarmTestSmall", small),
            # wrapped for another key pair
            provider("Foreign", "aes", MAIN, foreign),
            provider("Direct", "rsa", MAIN),
            provider("Cng", "cng", "iisCngWasKey"),
            provider("Odd", "odd", MAIN),
            provider("Without", "aes", MAIN),
            provider("Damaged", "aes", MAIN, b64(bytes(broken))),
            provider("Absent", "aes", "webfarmTestAbsent", main),
        )
    )
    work.expected = {
        path.replace("'quote ' in the name'", '"quote \' in the name"'): verdict
        for path, verdict in work.expected.items()
    }
    (work.folder / "all.config").write_bytes(document(providers, values))

    # A file that opens completely, for the edits: CNG value, AES values of both kinds, one direct RSA value.
    secret = oracle(
        host,
        ["encrypt", "cng", "iisCngWasKey", text_argument("Cng-Secret-1")],
        ["encrypt", "aes", WAS, was, text_argument("Was-Secret-1")],
        ["encrypt", "aes", MAIN, main, text_argument("Main-Secret-1")],
        ["encrypt", "rsa", WAS, text_argument("Rsa-Secret-1")],
    )
    clean = document(
        provider("IISWASOnlyCngProvider", "cng", "iisCngWasKey")
        + provider("IISWASOnlyAesProvider", "aes", WAS, was)
        + provider("AesProvider", "aes", MAIN, main)
        + provider("IISWASOnlyRsaProvider", "rsa", WAS),
        {
            "Cng": f"[enc:IISWASOnlyCngProvider:{secret[0]}:enc]",
            "Was": f"[enc:IISWASOnlyAesProvider:{secret[1]}:enc]",
            "Main": f"[enc:AesProvider:{secret[2]}:enc]",
            "Rsa": f"[enc:IISWASOnlyRsaProvider:{secret[3]}:enc]",
            "Plain": "not secret",
        },
    )
    (work.folder / "clean.config").write_bytes(b"\xef\xbb\xbf" + clean)


REFUSED = {
    "utf16.config": ('<?xml version="1.0" encoding="UTF-16"?><configuration />'.encode("utf-16"), "UTF-16"),
    "latin1.config": (b'<?xml version="1.0" encoding="iso-8859-1"?><configuration />', "iso-8859-1"),
    "notutf8.config": (b"<configuration a='\xe4' />", "UTF-8"),
    "empty.config": (b"", "empty"),
    "open.config": (b"<configuration><a></configuration>", "not well-formed"),
    "dtd.config": (b'<!DOCTYPE x [<!ENTITY a "b">]><configuration a="&a;" />', "DTD"),
    "external.config": (b'<!DOCTYPE x SYSTEM "file:///c:/windows/win.ini"><configuration />', "DTD"),
    "root.config": (b"<other />", "<configuration>"),
    "deep.config": (b"<configuration>" + b"<a>" * 200 + b"</a>" * 200 + b"</configuration>", "deeper"),
    "twice.config": (
        b'<configuration><configProtectedData><providers>\n<add name="A" type="" />\n<add name="a" type="" />\n'
        b"</providers></configProtectedData></configuration>",
        "line 3",
    ),
}


@pytest.fixture(scope="module")
def work(pwsh_farm: Any) -> Work:
    host = pwsh_farm.host("web1")
    host.reset()
    work = Work(host)
    build(work)
    for name, (content, _text) in REFUSED.items():
        (work.folder / name).write_bytes(content)
    add_type = Path(ansible.__file__).parent / "module_utils" / "powershell" / "Ansible.ModuleUtils.AddType.psm1"
    unix = {"add_type": add_type, **{name: ROOT / "plugins" / "module_utils" / f"{name}.cs" for name in UTILS}}
    corpus = sorted(
        path
        for folder in ("applicationHost", "administration", "redirection")
        for path in (CORPUS / folder).glob("*.config")
    )
    job = {
        "add_type": "Z:" + str(unix["add_type"]).replace("/", "\\"),
        "sources": ["Z:" + str(unix[name]).replace("/", "\\") for name in UTILS],
        "file": work.windows("all.config"),
        "clean": work.windows("clean.config"),
        "candidates": [MAIN, WAS],
        "new_containers": {MAIN: "webfarmTestNewMain", WAS: "webfarmTestNewWas"},
        "portable": work.windows("portable.config"),
        "reencrypted": work.windows("reencrypted.config"),
        "changed": work.windows("changed.config"),
        "edited": work.windows("edited.config"),
        "set": {"path": path_of("Plain"), "provider": "AesProvider", "text": "Set-Secret <&\"'> 1"},
        "edits": {
            path_of("Plain"): "a<b & \"c\" 'd'",
            "system.applicationHost/applicationPools/add[@name='Was']/@autoStart": "false",
        },
        "corpus": ["Z:" + str(path).replace("/", "\\") for path in corpus],
        "refused": [work.windows(name) for name in REFUSED],
    }
    (work.folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    script = str(Path(__file__).with_name("protection.ps1")).replace("/", "\\")
    output = host.pwsh(f"& 'Z:{script}' -Job 'C:\\lab\\protection\\job.json'", timeout=180)
    work.results = json.loads(output[output.index("{") :])
    yield work
    host.reset()


def verdicts(results: list[dict[str, Any]]) -> dict[str, str]:
    return {item["path"]: item["verdict"] for item in results}


def test_every_value_gets_the_verdict_that_it_was_made_for(work: Work) -> None:
    assert verdicts(work.results["live"]) == work.expected


def test_candidate_keys_give_the_same_verdicts_as_the_containers(work: Work) -> None:
    assert verdicts(work.results["candidates"]) == work.expected


def test_without_the_containers_their_values_are_missing_keys(work: Work) -> None:
    got = verdicts(work.results["without"])
    assert got[path_of("Main plain")] == "missing_key"
    assert got[path_of("rsa plain")] == "missing_key"
    assert got[path_of("Oaep plain")] == "ok"


def test_python_and_csharp_agree_on_every_value(work: Work) -> None:
    names = (MAIN, OAEP, "webfarmTestSmall", WAS)
    blobs = oracle(work.host, *[["export", name, "private"] for name in names])
    keys = _protection.KeyRing(
        {name: _keyblob.read_private_blob(base64.b64decode(blob)) for name, blob in zip(names, blobs, strict=True)}
    )
    cng = work.host.key_file("iisCngWasKey", cng=True).read_bytes()
    keys.add_cng("iisCngWasKey", cng[-32:])
    configuration = _apphost.parse((work.folder / "all.config").read_bytes(), "all.config")
    proof = _proof.prove([configuration], keys)
    assert verdicts(proof.protected_values) == verdicts(work.results["live"])
    assert {v["path"]: v["line"] for v in proof.protected_values} == {
        v["path"]: v["line"] for v in work.results["live"]
    }
    assert {
        s["provider"]: (s["verdict"], s["algorithm"], s["key_bits"]) for s in proof.session_keys if s["verdict"] == "ok"
    } == {
        s["provider"]: (s["verdict"], s["algorithm"], s["key_bits"])
        for s in work.results["sessions"]
        if s["verdict"] == "ok"
    }


def test_no_message_shows_a_text(work: Work) -> None:
    shown = json.dumps(work.results)
    for text in ("Test-Pass-1", "Cng-Secret-1", "Was-Secret-1", "Main-Secret-1", "Rsa-Secret-1"):
        assert text not in shown


def oracle_texts(work: Work, file: str, containers: dict[str, str]) -> dict[str, str]:
    """What the oracle reads in a file, with other containers where asked."""
    configuration = _apphost.parse((work.folder / file).read_bytes(), file)
    texts = {}
    for value in configuration.values:
        declared = configuration.provider(value.provider)
        assert declared is not None and value.data is not None
        container = containers.get(declared.container, declared.container)
        session = [declared.session_key or ""] if declared.kind == "aes" else []
        (text,) = oracle(work.host, ["decrypt", declared.kind, container, *session, text_argument(value.data)])
        texts[value.path] = text
    return texts


CLEAN = {
    path_of("Cng"): "Cng-Secret-1",
    path_of("Was"): "Was-Secret-1",
    path_of("Main"): "Main-Secret-1",
    path_of("Rsa"): "Rsa-Secret-1",
}


def test_portable_copy_says_the_same_without_cng(work: Work) -> None:
    assert work.results["conversions"] == [
        {"path": path_of("Cng"), "from": "IISWASOnlyCngProvider", "to": "IISWASOnlyAesProvider"}
    ]
    assert oracle_texts(work, "portable.config", {}) == CLEAN
    assert work.results["same_content"] is True
    assert work.results["same_bytes"] is False


def test_reencrypted_copy_opens_with_the_new_keys_only(work: Work) -> None:
    assert sorted(work.results["reencrypted"]) == sorted(CLEAN)
    assert work.results["lost"] == []
    assert oracle_texts(work, "reencrypted.config", {MAIN: "webfarmTestNewMain", WAS: "webfarmTestNewWas"}) == CLEAN
    assert set(verdicts(work.results["old_keys_on_new_file"]).values()) == {"bad_data"}
    assert work.results["same_content_new_keys"] is True


def test_set_value_encrypts_and_knows_its_text_again(work: Work) -> None:
    assert oracle_texts(work, "changed.config", {})[path_of("Plain")] == "Set-Secret <&\"'> 1"
    assert work.results["set_again_is_null"] is True
    assert work.results["same_after_change"] is False


def test_edit_changes_nothing_else(work: Work) -> None:
    before = (work.folder / "clean.config").read_bytes()
    after = (work.folder / "edited.config").read_bytes()
    expected = before.replace(b'"not secret"', b"\"a&lt;b &amp; &quot;c&quot; 'd'\"").replace(
        b'<add name="Was">', b'<add name="Was" autoStart="false">'
    )
    assert after == expected


def test_no_op_edit_keeps_every_byte_of_the_corpus(work: Work) -> None:
    results = work.results["no_op"]
    if not results:
        assert not CORPUS.is_dir()
        return
    parsed = [name for name, outcome in results.items() if outcome == "same"]
    errors = {name: outcome for name, outcome in results.items() if outcome != "same"}
    assert len(parsed) >= 15
    for name, outcome in errors.items():
        assert outcome.startswith("WebfarmConfigurationException: "), (name, outcome)
        assert os.path.basename(name.replace("\\", "/")) in outcome and "line " in outcome, (name, outcome)


def test_unusable_files_are_refused_with_the_reason(work: Work) -> None:
    for name, (_content, text) in REFUSED.items():
        outcome = work.results["refused"][work.windows(name)]
        assert outcome.startswith("WebfarmConfigurationException: "), (name, outcome)
        assert text in outcome and name in outcome, (name, outcome)
