# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""What a configuration file says, whatever its spelling and its keys: the canonical form and its digest.

The servers compute the digest with module_utils/_Canonical.cs. This is the second implementation, with another
parser: tests compare the two over real files, and a file on the controller can be compared with a server's facts.
The form is defined in the compliance guide.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import re
import typing as t
import zlib
from dataclasses import dataclass, field
from xml.parsers import expat

FORM: t.Final = "webfarm.iis canonical 1"
MAXIMUM_DEPTH: t.Final = 128
MAXIMUM_UNPACKED: t.Final = 256 * 1024 * 1024
_SHOWN_VALUE = 80
_IDENTITY = ("name", "path", "id", "key")
_BLANK = " \t\r\n"

# Collections in which the order of the elements carries no meaning: parent and child.
UNORDERED: t.Final = frozenset(
    {
        "appSettings/add",
        "application/virtualDirectory",
        "applicationPools/add",
        "bindings/binding",
        "configSections/section",
        "configSections/sectionGroup",
        "configuration/location",
        "connectionStrings/add",
        "customHeaders/add",
        "environmentVariables/add",
        "environmentVariables/environmentVariable",
        "fileExtensions/add",
        "headerLimits/add",
        "hiddenSegments/add",
        "httpErrors/error",
        "isapiCgiRestriction/add",
        "listenerAdapters/add",
        "profiles/add",
        "providers/add",
        "redirectHeaders/add",
        "schedule/add",
        "sectionGroup/section",
        "sectionGroup/sectionGroup",
        "site/application",
        "sites/site",
        "staticContent/mimeMap",
        "traceProviderDefinitions/add",
        "verbs/add",
        "webFarm/server",
        "webFarms/webFarm",
    }
)
# Elements whose children keep their order whatever their names.
ORDERED: t.Final = frozenset({"authorization"})
SECRET_NAMES: t.Final = frozenset(
    {
        "accesskey",
        "apikey",
        "clientsecret",
        "connectionstring",
        "decryptionkey",
        "encryptedvalue",
        "pwd",
        "secret",
        "sqlconnectionstring",
        "stateconnectionstring",
        "token",
        "validationkey",
    }
)
# The attribute value of these is whatever somebody put there.
SECRET_PARENTS: t.Final = frozenset({"appSettings", "environmentVariables"})


class CanonicalError(ValueError):
    """A file that has no canonical form because it cannot be parsed, or facts that cannot be unpacked."""


@dataclass(slots=True)
class _Node:
    name: str
    parent: _Node | None
    attributes: dict[str, str]
    children: list[_Node] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    path: str = ""
    # Names only, without location: as the schema has it.
    plain: str = ""

    def label(self) -> str:
        for name in _IDENTITY:
            value = self.attributes.get(name)
            if value is None:
                continue
            quote = "'"
            if "'" in value:
                if '"' in value:
                    value = value.replace("'", "&apos;")
                else:
                    quote = '"'
            return f"{self.name}[@{name}={quote}{value}{quote}]"
        return self.name


@dataclass(frozen=True, slots=True)
class Canonical:
    """A file in canonical form. ``attributes``: a comparable value, no secret, by attribute path."""

    digest: str
    keyed_digest: str | None
    attributes: dict[str, str]
    text: str = field(repr=False)


def _order(text: str) -> bytes:
    # As .NET compares: by UTF-16 code units.
    return text.encode("utf-16-be", "surrogatepass")


def _escape(value: str) -> str:
    for character, reference in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ('"', "&quot;"),
        ("\t", "&#9;"),
        ("\n", "&#10;"),
        ("\r", "&#13;"),
    ):
        if character in value:
            value = value.replace(character, reference)
    return value


def _unescape(value: str) -> str:
    if "&" not in value:
        return value
    for character, reference in (
        ("\r", "&#13;"),
        ("\n", "&#10;"),
        ("\t", "&#9;"),
        ('"', "&quot;"),
        (">", "&gt;"),
        ("<", "&lt;"),
        ("&", "&amp;"),
    ):
        value = value.replace(reference, character)
    return value


def _patterns(paths: t.Iterable[str]) -> list[re.Pattern[str]]:
    return [re.compile(".*".join(re.escape(part) for part in path.split("*")), re.DOTALL) for path in paths]


def _matches(patterns: list[re.Pattern[str]], path: str) -> bool:
    return any(pattern.fullmatch(path) for pattern in patterns)


def _parse(content: bytes) -> _Node:
    parser = expat.ParserCreate()
    parser.ordered_attributes = False
    parser.buffer_text = True
    root: _Node | None = None
    current: _Node | None = None
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal root, current, depth
        depth += 1
        if depth > MAXIMUM_DEPTH:
            raise CanonicalError(f"elements are nested deeper than {MAXIMUM_DEPTH}")
        node = _Node(name, current, attributes)
        if current is None:
            root = node
        else:
            current.children.append(node)
        current = node

    def end(name: str) -> None:
        nonlocal current, depth
        depth -= 1
        if current is None:
            raise AssertionError("expat ends only what it began")
        current = current.parent

    def data(text: str) -> None:
        if current is not None:
            current.text.append(text)

    def doctype(*dummy: t.Any) -> None:
        raise CanonicalError("a document type declaration (<!DOCTYPE ...>) is not accepted")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = data
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise CanonicalError(f"line {error.lineno}: not well-formed XML: {expat.ErrorString(error.code)}") from None
    if root is None:
        raise CanonicalError("the file is empty")
    return root


def _number(root: _Node) -> None:
    pending = [root]
    while pending:
        parent = pending.pop()
        labels = [child.label() for child in parent.children]
        counts: dict[str, int] = {}
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
        seen: dict[str, int] = {}
        for child, plain_label in zip(parent.children, labels, strict=True):
            label = plain_label
            if counts[label] > 1:
                seen[label] = seen.get(label, 0) + 1
                label = f"{label}[{seen[plain_label]}]"
            child.path = f"{parent.path}/{label}" if parent.path else label
            if parent.parent is None and child.name == "location":
                child.plain = ""
            else:
                child.plain = f"{parent.plain}/{child.name}" if parent.plain else child.name
            pending.append(child)


class _Writer:
    def __init__(
        self, ignore: t.Iterable[str], overrides: t.Iterable[str], declared: t.Iterable[str], run_key: bytes | None
    ) -> None:
        self.ignore = _patterns(ignore)
        self.overrides = _patterns(overrides)
        self.declared = frozenset(declared)
        self.run_key = run_key
        self.values: dict[str, str] = {}
        self.secrets: dict[str, str] = {}

    def write(self, node: _Node) -> str | None:
        if node.path and _matches(self.ignore, node.path):
            return None
        pieces = [f"<{node.name}"]
        for name in sorted(node.attributes, key=_order):
            path = f"{node.path}/@{name}" if node.path else f"@{name}"
            if not _matches(self.ignore, path):
                pieces.append(f' {name}="{_escape(self.value(node, path, name, node.attributes[name]))}"')
        empty = len(pieces) == 1
        pieces.append(">")
        if node.name == "EncryptedData":
            self.values[f"{node.path}/text()"] = "[enc]"
            return "".join(pieces) + "[enc]</EncryptedData>"
        content = "".join(node.text).strip(_BLANK)
        if content:
            pieces.append(self.secret(f"{node.path}/text()", content))
        elif empty and not node.children:
            self.values[node.path] = ""
        pieces += self.sorted(node)
        pieces.append(f"</{node.name}>")
        return "".join(pieces)

    def sorted(self, node: _Node) -> list[str]:
        children = [(child.name, text) for child in node.children if (text := self.write(child)) is not None]
        if node.name in ORDERED or any(child.name in ("remove", "clear") for child in node.children):
            return [text for dummy, text in children]
        groups: dict[str, list[str]] = {}
        for name, text in children:
            groups.setdefault(name, []).append(text)
        result: list[str] = []
        for name in sorted(groups, key=_order):
            group = groups[name]
            result += sorted(group, key=_order) if f"{node.name}/{name}" in UNORDERED else group
        return result

    def value(self, node: _Node, path: str, name: str, value: str) -> str:
        shown = value
        if _matches(self.overrides, path):
            shown = "[override]"
        elif value.startswith("[enc:") and value.endswith(":enc]"):
            provider, colon, data = value[5:-5].partition(":") if len(value) >= 10 else ("", "", "")
            shown = "" if provider and colon and not data else "[enc]"
        elif name == "sessionKey" and node.plain == "configProtectedData/providers/add":
            shown = "[session]"
        elif value and (
            (f"{node.plain}/@{name}" if node.plain else f"@{name}") in self.declared or _is_secret(node, name, value)
        ):
            return self.secret(path, value)
        if len(shown) + sum(character > "\uffff" for character in shown) <= _SHOWN_VALUE:
            self.values[path] = shown
        else:
            self.values[path] = "sha256:" + hashlib.sha256(shown.encode()).hexdigest()[:32]
        return shown

    def secret(self, path: str, value: str) -> str:
        self.secrets[path] = value
        if self.run_key is None:
            self.values[path] = "[secret]"
        else:
            self.values[path] = "hmac:" + _hmac(self.run_key, f"{path}\n{value}")[:32]
        return "[secret]"


def _hmac(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _is_secret(node: _Node, name: str, value: str) -> bool:
    if name == "value" and node.parent is not None and node.parent.name in SECRET_PARENTS:
        return True
    if value.casefold().startswith("autogenerate"):
        return False
    return name.lower() in SECRET_NAMES or name.lower().endswith("password")


def canonical(
    content: bytes,
    *,
    ignore: t.Iterable[str] = (),
    overrides: t.Iterable[str] = (),
    declared: t.Iterable[str] = (),
    run_key: bytes | None = None,
) -> Canonical:
    """The canonical form of a file.

    ignore: paths of attributes or elements that do not count, ``*`` stands for anything. overrides: paths of attributes
    whose value is each server's own. declared: what the schema says is encrypted, such as
    ``system.webServer/odbcLogging/@password``. Raises :class:`CanonicalError`.
    """
    root = _parse(content)
    _number(root)
    writer = _Writer(ignore, overrides, declared, run_key)
    text = writer.write(root) or ""
    digest = hashlib.sha256(f"{FORM}\n{text}".encode()).hexdigest()
    keyed = None
    if run_key is not None:
        secrets = sorted(writer.secrets.items(), key=lambda pair: _order(pair[0]))
        keyed = _hmac(run_key, "".join(f"{_escape(path)}\t{_escape(value)}\n" for path, value in secrets))
    attributes = dict(sorted(writer.values.items(), key=lambda pair: _order(pair[0])))
    return Canonical(digest, keyed, attributes, text)


def unpack(packed: str) -> dict[str, str]:
    """The attributes as server_info returns them: base64 of gzip of one line per attribute, path, tab, value."""
    try:
        unzip = zlib.decompressobj(wbits=31)
        data = unzip.decompress(base64.b64decode(packed, validate=True), MAXIMUM_UNPACKED)
        text = data.decode("utf-8")
    except (ValueError, zlib.error):
        raise CanonicalError("the attributes are not base64 of gzip of UTF-8") from None
    if unzip.unconsumed_tail or not unzip.eof:
        raise CanonicalError(f"the attributes are cut off, or larger than {MAXIMUM_UNPACKED} bytes")
    result: dict[str, str] = {}
    for line in text.split("\n")[:-1]:
        path, tab, value = line.partition("\t")
        if not tab:
            raise CanonicalError("a line of the attributes has no tab")
        result[_unescape(path)] = _unescape(value)
    return result


def pack(attributes: t.Mapping[str, str]) -> str:
    """The other way round."""
    text = "".join(f"{_escape(path)}\t{_escape(value)}\n" for path, value in attributes.items())
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 6, mtime=0)).decode("ascii")
