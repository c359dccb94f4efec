# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The canonical form of a configuration: two implementations agree, and it says neither too much nor too little."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from _support import CORPUS, NO_CORPUS, OWN_CONFIGURATION, ROOT, corpus, filled_configuration, name_of
from test_windows_powershell import run_work

from ansible_collections.webfarm.iis.plugins.plugin_utils import _canonical as can

RUN_KEY = "a key of this run"


def windows(folder: Path, cases: list[dict[str, Any]], schema: list[Path]) -> dict[str, Any]:
    found: dict[str, Any] = run_work(
        "canonical.ps1",
        folder,
        [ROOT / "plugins" / "module_utils" / "_Canonical.cs"],
        schema=[str(path) for path in schema],
        cases=[
            {"ignore": [], "overrides": [], "declared": False, "run_key": None} | case | {"path": str(case["path"])}
            for case in cases
        ],
    )
    return found


def lines(attributes: dict[str, str]) -> str:
    return "".join(f"{can._escape(path)}\t{can._escape(value)}\n" for path, value in attributes.items())


ODD = """<?xml version="1.0"?>
<!-- a comment -->
<configuration xmlns:x="urn:x">
  <system.webServer>
    <handlers><add name="b" path="*" /><clear /><add name="a" path="*" /></handlers>
    <x:odd x:a="1" a="&lt;&amp;&#9;&#10;&quot;'" B="\U0001f511" \u00e9="\U0001f511\ue000" />
    <authorization><deny users="?" /><allow users="*" /></authorization>
    <text>  hidden <![CDATA[<text>]]> </text>
  </system.webServer>
  <appSettings><add key="z" value="Pa55" /><add key="O'Brien &quot;x&quot;" value="1" />
    <add key="\U0001f511" /><add key="\ue000" /></appSettings>
  <system.web><machineKey validationKey="AutoGenerate,IsolateApps" decryptionKey="0123" /></system.web>
  <connectionStrings configProtectionProvider="P"><EncryptedData Type="t"><CipherData/></EncryptedData>
  </connectionStrings>
  <location path="Shop"><system.webServer><odbcLogging password="clear" userName="" /></system.webServer></location>
</configuration>
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    made = {
        "odd": ODD.encode(),
        "odd-16": ODD.replace("\n", "\r\n").encode("utf-16"),
        "odd-bom": b"\xef\xbb\xbf" + ODD.encode(),
        "filled": filled_configuration(),
        "doctype": b'<!DOCTYPE a [<!ENTITY b "c">]><configuration a="&b;"/>',
        "deep": b"<a>" * 200 + b"</a>" * 200,
        "empty": b"",
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in made} | {"own": OWN_CONFIGURATION}


def test_both_implementations_agree(files: dict[str, Path], tmp_path: Path) -> None:
    if not corpus("applicationHost"):
        pytest.skip(NO_CORPUS)
    real = corpus("applicationHost", "administration", "redirection", "fragments", "schema")
    schema = sorted((CORPUS / "schema").glob("RedHatSE_*.xml")) + sorted((CORPUS / "schema").glob("lextm_*.xml"))
    options = {
        "ignore": ["system.applicationHost/sites*", "*/@id"],
        "overrides": ["*/@bindingInformation"],
        "declared": True,
        "run_key": RUN_KEY,
    }
    paths = [*files.values(), *real]
    cases = [{"path": path} for path in paths] + [{"path": path} | options for path in paths]
    found = windows(tmp_path, cases, schema)
    good, refused = 0, set()
    for case, theirs in zip(cases, found["results"], strict=True):
        given = dict(case)
        path = given.pop("path")
        if given:
            given |= {"declared": found["declared"], "run_key": RUN_KEY.encode()}
        try:
            mine = can.canonical(path.read_bytes(), **given)
        except can.CanonicalError:
            assert theirs["error"], f"{name_of(path)}: .NET reads what expat refuses"
            refused.add(path.name)
            continue
        assert not theirs["error"], f"{name_of(path)}: expat reads what .NET refuses: {theirs['error']}"
        assert mine.digest == theirs["digest"], name_of(path)
        assert mine.keyed_digest == theirs["keyed_digest"], name_of(path)
        assert lines(mine.attributes) == theirs["attributes"], name_of(path)
        assert can.unpack(can.pack(mine.attributes)) == mine.attributes
        good += 1
    assert good > 60 and {"doctype", "deep", "empty"} <= refused
    # What the schema declares as encrypted, against a list that was made by hand.
    text = (CORPUS / "schema" / "ENCRYPTED_ATTRIBUTES.txt").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?m)^  (system\.\S+|administrators) +(\S*) ?@(\w+)", text))
    for section, element, attribute in listed:
        assert "/".join(filter(None, (section, element))) + f"/@{attribute}" in found["declared"]
    assert len(listed) >= 10 and "webFarms/webFarm/@adminPassword" in found["declared"]
    assert "configurationRedirection/@password" in found["declared"]
    assert (
        "system.applicationHost/sites/siteDefaults/ftpServer/userIsolation/activeDirectory/@adPassword"
        in (found["declared"])
    )
    # Encrypted attributes: as the other parser of this project finds them, and the one that should be encrypted.
    by_path = dict(zip(map(str, paths), found["results"][len(paths) :], strict=True))
    odd = by_path[str(files["odd"])]
    assert [(one["Path"], one["State"]) for one in odd["encrypted"]] == [
        ("location[@path='Shop']/system.webServer/odbcLogging/@password", "clear")
    ]
    assert odd["encrypted"][0]["Schema"] == "RedHatSE_IIS_schema.xml"
    assert [(one["Path"], one["Sections"]) for one in odd["locations"]] == [("Shop", ["system.webServer/odbcLogging"])]
    assert by_path[str(files["odd-16"])]["encoding"] == "utf-16-le" and odd["encoding"] == "utf-8"
    filled = by_path[str(files["filled"])]
    from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost

    values = _apphost.parse(filled_configuration(), "filled").values
    assert [(v.path, v.provider) for v in sorted(values, key=lambda v: (v.path, v.line))] == sorted(
        (one["Path"], one["Provider"]) for one in filled["encrypted"] if one["State"] == "encrypted"
    )


def digest(text: str | bytes, **options: Any) -> str:
    return can.canonical(text.encode() if isinstance(text, str) else text, **options).digest


def test_spelling_does_not_matter() -> None:
    wanted = digest(ODD)
    assert digest(ODD.encode("utf-16")) == wanted
    assert digest(b"\xef\xbb\xbf" + ODD.replace("\n", "\r\n").encode()) == wanted
    assert digest(ODD.replace("<!-- a comment -->", "").replace("\n  ", "\n\t\t")) == wanted
    assert digest(ODD.replace('name="b" path="*"', "path='*'  name='&#98;'")) == wanted
    assert digest(ODD.replace("<clear />", "<clear></clear>")) == wanted
    # Sections and named things in another order.
    moved = ODD.replace('<add key="z" value="Pa55" />', "").replace(
        "</appSettings>", '<add key="z" value="Pa55" /></appSettings>'
    )
    assert digest(moved) == wanted
    begin, end = ODD.index("  <appSettings>"), ODD.index("  <system.web>")
    assert digest(ODD[:begin] + ODD[end:].replace("</configuration>", ODD[begin:end] + "</configuration>")) == wanted


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('name="b" path="*" /><clear />', 'name="b" path="*" />'),
        ('<add name="b" path="*" /><clear />', '<clear /><add name="b" path="*" />'),
        ('<deny users="?" /><allow users="*" />', '<allow users="*" /><deny users="?" />'),
        ('name="a" path="*"', 'name="a" path="*" verb="GET"'),
        ('path="Shop"', 'path="shop"'),
        ("<text>", "<texts>"),
        ("AutoGenerate,IsolateApps", "AutoGenerate"),
    ],
)
def test_meaning_matters(before: str, after: str) -> None:
    assert before in ODD
    changed = ODD.replace(before, after).replace("</text>", "</texts>" if "texts" in after else "</text>")
    assert digest(changed) != digest(ODD)


def test_no_secret_and_no_key_in_it() -> None:
    text = filled_configuration()
    form = can.canonical(text, run_key=b"k")
    everything = form.text + json.dumps(form.attributes)
    assert "[enc:" not in everything and "AQIAAA5m" not in everything
    other = re.sub(rb":[A-Za-z0-9+/=]{40,}:enc\]", b":QUJDRA==:enc]", text)
    other = re.sub(rb'sessionKey="[^"]+"', b'sessionKey="AQID"', other)
    other = other.replace(b"[enc:AesProvider:", b"[enc:IISCngProvider:")
    assert other != text and digest(other) == form.digest
    odd = can.canonical(ODD.encode(), run_key=b"k", declared=["system.webServer/odbcLogging/@password"])
    for secret in ("Pa55", 'clear"', "hidden", "0123"):
        assert secret not in odd.text + json.dumps(odd.attributes).replace("/clear", "")


def test_secrets_in_clear_are_compared_under_the_run_key() -> None:
    one, other = ODD.encode(), ODD.replace("Pa55", "Pa56").encode()
    assert can.canonical(one).digest == can.canonical(other).digest
    assert can.canonical(one).keyed_digest is None
    first, second = (can.canonical(content, run_key=b"k") for content in (one, other))
    assert first.keyed_digest != second.keyed_digest
    differing = [path for path in first.attributes if first.attributes[path] != second.attributes[path]]
    assert differing == ["appSettings/add[@key='z']/@value"]
    assert first.attributes[differing[0]] != can.canonical(one, run_key=b"l").attributes[differing[0]]


def test_ignore_and_overrides() -> None:
    text = '<configuration><a name="x" id="1"><b /></a><c ip="10.0.0.1" /></configuration>'
    assert digest(text.replace('id="1"', 'id="2"'), ignore=["a*/@id"]) == digest(text, ignore=["a*/@id"])
    assert digest(text.replace("<b />", ""), ignore=["a[@name='x']/b"]) == digest(text, ignore=["a[@name='x']/b"])
    assert digest(text.replace("10.0.0.1", "10.0.0.2"), overrides=["c/@ip"]) == digest(text, overrides=["c/@ip"])
    # An override still has to be there, and a pattern is no regular expression.
    assert digest(text.replace(' ip="10.0.0.1"', ""), overrides=["c/@ip"]) != digest(text, overrides=["c/@ip"])
    assert digest(text.replace('id="1"', 'id="2"'), ignore=["a.*/@id"]) != digest(text, ignore=["a.*/@id"])


@pytest.mark.parametrize("packed", ["", "?", "QUJD", can.pack({"a": "b"})[:-8]])
def test_unpack_refuses_what_is_damaged(packed: str) -> None:
    with pytest.raises(can.CanonicalError):
        can.unpack(packed)
