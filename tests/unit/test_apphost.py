# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration files: parsing, attribute paths, byte-exact edits, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from _support import CORPUS, NO_CORPUS, OWN_CONFIGURATION, corpus, name_of
from lxml import etree

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost as ah

CONFIGURATIONS = ("applicationHost", "administration", "redirection")

# Files of the corpus that a server would refuse, and the line to blame.
MALFORMED = {
    "Jexus_Tests_original2_missing_closing.config": 1134,
    "odd_DataDog_placeholder_malformed.config": 1038,
    "greenv4_second_xml_decl_inside.config": 28,
}

SMALL = """<?xml version="1.0" encoding="UTF-8"?>
<!-- [enc:AesProvider:QUJD:enc] in a comment is no value -->
<configuration>
  <configProtectedData>
    <providers>
      <add name="IISWASOnlyRsaProvider" type="" keyContainerName="iisWasKey" useOAEP="false" />
      <add name='AesProvider' type='Microsoft.ApplicationHost.AesProtectedConfigurationProvider'
           keyContainerName="iisConfigurationKey" useOAEP="TRUE" sessionKey="AQID" />
      <add name="Dpapi" type="System.Configuration.DpapiProtectedConfigurationProvider" />
    </providers>
  </configProtectedData>
  <system.applicationHost>
    <applicationPools>
      <add name="Shop" />
      <add name="O'Brien &amp; &quot;Sons&quot;">
        <processModel identityType="SpecificUser"
                      password = '[enc:AesProvider:QUJD:enc]' />
      </add>
      <applicationPoolDefaults><processModel password="[enc:IISWASOnlyCngProvider::enc]"/></applicationPoolDefaults>
    </applicationPools>
    <sites>
      <site name="Shop" id="1">
        <application path="/"><virtualDirectory path="/" password="[enc:aesprovider:QUJDRA==:enc]" /></application>
        <application path="/"><virtualDirectory path="/" password="[enc:57686f:enc]" /></application>
        <bindings><binding protocol="http" bindingInformation="*:80:shop.example" /></bindings>
      </site>
    </sites>
  </system.applicationHost>
  <location path="Shop"><system.webServer><x v="1"/><x v="2"/></system.webServer></location>
  <location path=""><a/></location>
</configuration>
"""


def small() -> ah.Configuration:
    return ah.parse(SMALL.encode(), "small.config")


def test_providers() -> None:
    one = small()
    assert [(p.name, p.kind, p.container, p.use_oaep, p.line) for p in one.providers] == [
        ("IISWASOnlyRsaProvider", "rsa", "iisWasKey", False, 6),
        ("AesProvider", "aes", "iisConfigurationKey", True, 7),
        ("Dpapi", "unsupported", "", False, 9),
    ]
    assert one.providers[1].session_key == "AQID"
    assert one.providers[1].path == "configProtectedData/providers/add[@name='AesProvider']"
    assert one.providers[0].was_only
    assert not one.providers[1].was_only
    found = one.provider("AESPROVIDER")
    assert found is one.providers[1]
    assert one.provider("none") is None
    assert one.provider(None) is None
    assert "AQID" not in repr(found)


def test_values_and_their_paths() -> None:
    one = small()
    pool = "system.applicationHost/applicationPools/add[@name='O&apos;Brien & \"Sons\"']/processModel/@password"
    site = "system.applicationHost/sites/site[@name='Shop']/application[@path='/']"
    assert [(v.path, v.line, v.provider, v.data) for v in one.values] == [
        (pool, 17, "AesProvider", "QUJD"),
        (f"{site}[1]/virtualDirectory[@path='/']/@password", 23, "aesprovider", "QUJDRA=="),
        (f"{site}[2]/virtualDirectory[@path='/']/@password", 24, None, None),
    ]
    assert one.containers() == ("iisConfigurationKey",)
    assert [(x.location, x.path, x.line) for x in one.locations] == [
        ("Shop", "location[@path='Shop']", 29),
        ("", "location[@path='']", 30),
    ]
    assert one.sites == (ah.Site("Shop", (("http", "*:80:shop.example"),), ("DefaultAppPool", "DefaultAppPool")),)
    assert one.pools == ("Shop", 'O\'Brien & "Sons"')
    assert one.get("location[@path='Shop']/system.webServer/x[2]/@v") == "2"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_edit_touches_nothing_else(newline: str, bom: bytes) -> None:
    content = bom + SMALL.replace("\n", newline).encode()
    one = ah.parse(content, "small.config")
    assert one.replace({}) == content
    assert one.replace({path: one.get(path) for path in one.paths()}) == content
    path = one.values[0].path
    changed = one.replace({path: "[enc:AesProvider:WFla:enc]", one.values[1].path: "plain 'and' \"quoted\" <&>"})
    expected = content.replace(b"'[enc:AesProvider:QUJD:enc]'", b"'[enc:AesProvider:WFla:enc]'")
    expected = expected.replace(
        b'"[enc:aesprovider:QUJDRA==:enc]"', b"\"plain 'and' &quot;quoted&quot; &lt;&amp;&gt;\""
    )
    assert changed == expected
    assert ah.parse(changed, "x").get(one.values[1].path) == "plain 'and' \"quoted\" <&>"
    assert [v.line for v in one.values] == [17, 23, 24]


def test_edit_refusals() -> None:
    one = small()
    with pytest.raises(ah.ConfigurationError, match="there is no attribute nowhere/@x"):
        one.replace({"nowhere/@x": "1"})
    for bad in ("a\x00b", "a\x0bb", "\ufffe", "\ud800"):
        with pytest.raises(ah.ConfigurationError):
            one.replace({one.values[0].path: bad})
    kept = one.replace({one.values[0].path: "tab\tand\nline"})
    assert ah.parse(kept, "x").get(one.values[0].path) == "tab\tand\nline"


def test_utf16_is_refused_and_can_be_read_leniently() -> None:
    for codec in ("utf-16", "utf-16-le", "utf-16-be"):
        content = SMALL.replace("UTF-8", "UTF-16").encode(codec)
        with pytest.raises(ah.ConfigurationError, match="line 1: the file is UTF-16; IIS writes UTF-8"):
            ah.parse(content, "x.config")
        one = ah.parse(content, "x.config", lenient=True)
        assert len(one.values) == 3
        assert one.replace({}) == content
        again = one.replace({one.values[0].path: "🔑"})
        assert ah.parse(again, "x", lenient=True).get(one.values[0].path) == "🔑"


def test_ascii_declaration_keeps_ascii() -> None:
    content = SMALL.replace("UTF-8", "us-ascii").encode()
    one = ah.parse(content, "x")
    assert b"&#xE4;&#x1F511;" in one.replace({one.values[0].path: "ä🔑"})


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", 0, "the file is empty"),
        (b"   ", 0, "not well-formed"),
        (b"<configuration>", 1, "not well-formed"),
        (b"<configuration>\n<a b='1' b='2'/></configuration>", 2, "not well-formed"),
        (b"<configuration>\n\n&unknown;</configuration>", 3, "not well-formed"),
        (b"\n<!DOCTYPE configuration [<!ENTITY a 'b'>]><configuration/>", 2, "document type"),
        (
            b"<?xml version='1.0'?>\n<!-- x -->\n<!DOCTYPE configuration SYSTEM 'http://x/y'><configuration/>",
            3,
            "document type",
        ),
        (b"<web/>", 1, "the root element is <web>"),
        (b"<?xml version='1.0' encoding='iso-8859-1'?><configuration/>", 1, "encoding 'iso-8859-1'"),
        (b"<?xml version='1.0' encoding='utf-16'?><configuration/>", 1, "encoding 'utf-16'"),
        (b"<configuration>\n\xff</configuration>", 2, "not valid UTF-8"),
        (b"<configuration>" + b"<a>" * 130 + b"</a>" * 130 + b"</configuration>", 1, "nested deeper than 128"),
    ],
)
def test_refused_files(content: bytes, line: int, reason: str) -> None:
    with pytest.raises(ah.ConfigurationError, match=reason) as caught:
        ah.parse(content, "x.config")
    assert caught.value.file == "x.config"
    if line:
        assert caught.value.line == line


def test_very_deep_and_very_wide_files_end_in_an_error_or_a_result() -> None:
    with pytest.raises(ah.ConfigurationError):
        ah.parse(b"<configuration>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</configuration>", "deep")
    wide = ah.parse(b"<configuration>" + b"<a x='1'/>" * 20_000 + b"</configuration>", "wide")
    assert wide.paths()[-1] == "a[20000]/@x"


def test_provider_declared_twice() -> None:
    twice = SMALL.replace('name="Dpapi"', 'name="AESPROVIDER"')
    with pytest.raises(
        ah.ConfigurationError, match="line 9: provider 'AESPROVIDER' is declared again, first in line 7"
    ):
        ah.parse(twice.encode(), "x.config")


def test_namespaces_cdata_and_instructions() -> None:
    text = (
        '<configuration xmlns:b="urn:b"><?pi <a q="[enc:x:y:enc]"?><![CDATA[<a q="[enc:x:y:enc]">]]>'
        '<b:x b:name="n" xml:lang="en" p=" &#9;[enc:A:QUJD:enc]"/>'
        '<y p="[enc:A:QUJD:enc]" xmlns="urn:c"><z name="1"/></y></configuration>'
    )
    one = ah.parse(text.encode(), "x")
    assert [v.path for v in one.values] == ["y/@p"]
    assert one.get("b:x/@p") == " \t[enc:A:QUJD:enc]"
    assert one.get("y/z[@name='1']/@name") == "1"
    assert one.replace({}) == text.encode()


def test_load_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ah.ConfigurationError, match=r"none\.config: the file cannot be read: No such file"):
        ah.load(tmp_path / "none.config")
    broken = tmp_path / "broken.config"
    broken.write_bytes(b"<configuration>\n<a>")
    with pytest.raises(ah.ConfigurationError, match=r"broken\.config, line 2: not well-formed"):
        ah.load(broken)
    with pytest.raises(ah.ConfigurationError, match="cannot be read"):
        ah.load(tmp_path)
    broken.write_bytes(SMALL.encode())
    assert ah.load(broken).name == "broken.config"


def test_own_configuration() -> None:
    one = ah.load(OWN_CONFIGURATION)
    assert [p.name for p in one.providers] == [
        "IISWASOnlyRsaProvider",
        "IISCngProvider",
        "IISWASOnlyCngProvider",
        "AesProvider",
        "IISWASOnlyAesProvider",
    ]
    markers = [one.get(path) for path in one.paths() if "@@" in one.get(path)]
    for provider in one.providers:
        assert any(marker.startswith(f"@@secret:{provider.name}:") for marker in markers)
        if provider.kind == "aes":
            assert provider.session_key == f"@@sessionkey:{provider.name}@@"
    hosts = {binding[1] for site in one.sites for binding in site.bindings}
    assert {"*:80:shop.example", "*:80:portal.example", "*:80:static.example"} <= hosts
    assert one.content.count(b"\r\n") == one.content.count(b"\n") > 900
    assert len(one.content) > 60_000


# --- the corpus ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not CORPUS.exists(), reason=NO_CORPUS)
@pytest.mark.parametrize(
    "path", [p for p in corpus(*CONFIGURATIONS, "fragments", "schema") if p.suffix in (".config", ".xml")], ids=name_of
)
def test_every_file_of_the_corpus(path: Path) -> None:
    content = path.read_bytes()
    if path.name in MALFORMED:
        for lenient in (False, True):
            with pytest.raises(ah.ConfigurationError, match="not well-formed") as caught:
                ah.load(path, lenient=lenient)
            assert caught.value.line == MALFORMED[path.name]
            assert str(path) in str(caught.value)
        return
    tree = etree.fromstring(content)
    one = ah.load(path, lenient=True)
    if tree.tag == "configuration":
        assert [v.path for v in ah.load(path).values] == [v.path for v in one.values]
    else:
        with pytest.raises(ah.ConfigurationError, match="the root element is"):
            ah.load(path)

    # byte-exact: a no-op edit gives the same bytes, whatever is named in it
    paths = one.paths()
    assert len(set(paths)) == len(paths)
    assert one.replace({}) == content
    sample = paths[:: max(1, len(paths) // 40)]
    assert one.replace({p: one.get(p) for p in sample}) == content

    # a second reading of the same file by lxml alone
    raw = [str(v) for node in tree.iter(etree.Element) for v in node.attrib.values()]
    expected = [v for v in raw if v.startswith("[enc:") and v.endswith(":enc]") and not v.endswith("::enc]")]
    assert len(one.values) == len(expected)
    for value, text in zip(one.values, expected, strict=True):
        assert one.get(value.path) == text

    # an edit changes what it names and leaves the rest of the bytes
    for value in one.values:
        old = one.get(value.path)
        changed = one.replace({value.path: "[enc:AesProvider:QUJD:enc]"})
        start = next(i for i, (a, b) in enumerate(zip(content, changed, strict=False)) if a != b)
        assert len(changed) - len(content) == len("[enc:AesProvider:QUJD:enc]") - len(old)
        assert content[:start] == changed[:start]
        assert ah.parse(changed, path.name, lenient=True).replace({value.path: old}) == content


# --- through lxml alone, and by the tokenizer ------------------------------------------------------------------------

VALUE = "[enc:A:QUJD:enc]"
PLAIN = {
    "comments": f'{VALUE}<!-- <a p="{VALUE}"> --><![CDATA[<b>{VALUE}]]><?pi <a p="{VALUE}"?>\n<a p="{VALUE}"/>',
    "references": f"<a p='&#91;enc:A:QUJD:enc]'/>\n<b p='x \"{VALUE}\"'/>",
    "lines": f'<a\n\n q="1"\r\n p\r=\r"{VALUE}"\n r="{VALUE}"/>\n<location\npath="x"/>',
    "same names": f'<a name="x"><b p="{VALUE}"/><b p="{VALUE}"/></a><a name="x"><b p="{VALUE}"/></a>',
    "almost too deep": "<a>" * 126 + f'<b p="{VALUE}"/>' * 2 + "</a>" * 126,
    "long, but no name": f'<a q="{"x" * 9000}" p="{VALUE}"/>',
}
UNCOMMON = {
    "namespaces": f'<a xmlns="urn:a" xml:lang="en" p="{VALUE}"/>',
    "one deeper": "<a>" * 128 + "<b/>" + "</a>" * 128,
}


@pytest.mark.parametrize("name", [*PLAIN, *UNCOMMON])
def test_both_ways_of_reading_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = f"<configuration>{(PLAIN | UNCOMMON)[name]}</configuration>".encode()

    def read() -> tuple[bool, object]:
        try:
            one = ah.parse(content, "x")
        except ah.ConfigurationError as error:
            return False, str(error)
        return one._reader is None, (one.values, one.providers, one.locations, one.sites, one.pools)

    fast, mine = read()
    assert fast == (name in PLAIN)

    def unsure(*_arguments: object) -> None:
        raise ah._Unsure

    monkeypatch.setattr(ah._File, "__init__", unsure)
    fast, other = read()
    assert not fast and mine == other
