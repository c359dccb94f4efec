# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""IIS configuration files: providers, protected values, locations, sites; byte-exact changes of attribute values.

A file is read twice: by lxml, which decides what is well-formed, and by a small tokenizer, which knows where every
attribute value stands in the text. Both must see the same elements and attributes in the same order, otherwise the
file is refused. The tokenizer is slow. A file that it cannot refuse is read through lxml alone, with the tokenizer
for the elements that may hold protected values, and for the whole file when attributes are asked for by their path.

**Attribute path**, the same words as the target uses: relative to ``configuration``, elements joined by ``/``, the
attribute last as ``@name``. An element is its qualified name and a predicate from the first of the attributes name,
path, id, key that it has. Siblings with the same label get ``[k]``, counted from 1.

What the target refuses is refused here as well: UTF-16 and other encodings, a root element other than
``configuration``, document types, elements nested deeper than 128, a provider declared twice, and what only makes
reading slow: a naming attribute longer than 8,192 characters, more than 1,024 namespace prefixes or
attributes of one element. ``lenient=True`` reads UTF-16 and any root element, for files that never go to a server.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import re
import typing as t
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate, count, repeat
from pathlib import Path

from ansible_collections.webfarm.iis.plugins.plugin_utils import _libraries
from ansible_collections.webfarm.iis.plugins.plugin_utils._protection import (
    Kind,
    is_protected,
    kind_of_type,
    split_value,
)
from ansible_collections.webfarm.iis.plugins.plugin_utils._xml import XmlError, parse_utf8

try:
    from lxml import etree
except ImportError as error:
    _libraries.note(error)

MAXIMUM_BYTES = 64 * 1024 * 1024
MAXIMUM_DEPTH = 128
MAXIMUM_LABEL = 8192
MAXIMUM_PREFIXES = 1024
MAXIMUM_ATTRIBUTES = 1024

# The attributes that tell collection elements apart, in this order; the same list as in module_utils/_Configuration.cs.
_IDENTITY = ("name", "path", "id", "key")

_WAS_ONLY = frozenset({"iiswaskey", "iiscngwaskey"})


class ConfigurationError(ValueError):
    """A configuration file that cannot be used. ``line`` is 0 where no line is to blame."""

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(f"{file}, line {line}: {reason}" if line else f"{file}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


@dataclass(frozen=True)
class Provider:
    """One entry of configProtectedData/providers. ``path`` is the path of its element."""

    name: str
    type: str
    kind: Kind
    container: str
    use_oaep: bool
    session_key: str | None = field(repr=False)
    line: int
    path: str

    @property
    def was_only(self) -> bool:
        """Is its container one that only WAS may open?"""
        return self.container.casefold() in _WAS_ONLY


@dataclass(frozen=True)
class ProtectedValue:
    """An attribute ``[enc:Provider:data:enc]``. Provider and data are None where the value is malformed."""

    path: str
    line: int
    provider: str | None
    data: str | None = field(repr=False)


@dataclass(frozen=True)
class Location:
    """A location tag: its path (may be empty), element path and line."""

    location: str
    path: str
    line: int


@dataclass(frozen=True)
class Site:
    """A site: name, bindings as (protocol, bindingInformation), application pools with the root application's first."""

    name: str
    bindings: tuple[tuple[str, str], ...]
    pools: tuple[str, ...]


class _Attribute:
    __slots__ = ("end", "line", "name", "owner", "start", "value")

    def __init__(self, owner: _Element, name: str, value: str, start: int, end: int, line: int) -> None:
        self.owner = owner
        self.name = name
        self.value = value
        self.start = start  # of the raw value in the text, behind its quote
        self.end = end
        self.line = line

    @property
    def path(self) -> str:
        owner = self.owner.path
        return f"{owner}/@{self.name}" if owner else f"@{self.name}"


class _Element:
    __slots__ = ("attributes", "children", "label", "line", "name", "parent")

    def __init__(self, name: str, line: int, parent: _Element | None) -> None:
        self.name = name
        self.line = line
        self.label = name
        self.parent = parent
        self.attributes: list[_Attribute] = []
        self.children: list[_Element] = []

    @property
    def path(self) -> str:
        """Made when it is asked for: the paths of all elements together can be far longer than the file."""
        labels = []
        element = self
        while element.parent is not None:
            labels.append(element.label)
            element = element.parent
        return "/".join(reversed(labels))

    def get(self, name: str) -> str | None:
        for attribute in self.attributes:
            if attribute.name == name:
                return attribute.value
        return None

    def at(self, steps: str) -> list[_Element]:
        found = [self]
        for step in steps.split("/"):
            found = [child for element in found for child in element.children if child.name == step]
        return found


@dataclass(repr=False)
class Configuration:
    """A parsed file. ``content`` is kept as it is; nothing is ever re-serialised."""

    name: str
    content: bytes
    encoding: str
    providers: tuple[Provider, ...]
    values: tuple[ProtectedValue, ...]
    locations: tuple[Location, ...]
    _text: str
    _bom: bytes
    _tree: _Element | _Node
    _reader: _Reader | None

    def __repr__(self) -> str:
        return f"<Configuration {self.name} {len(self.content)} bytes, {len(self.values)} protected values>"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @functools.cached_property
    def sites(self) -> tuple[Site, ...]:
        return _sites(self._tree)

    @functools.cached_property
    def pools(self) -> tuple[str, ...]:
        return tuple(pool.get("name") or "" for pool in self._tree.at("system.applicationHost/applicationPools/add"))

    @functools.cached_property
    def _attributes(self) -> list[_Attribute]:
        if self._reader is None:
            if not isinstance(self._tree, _Node):
                raise AssertionError("without lxml's tree there was a reader from the start")
            self._reader = _Reader(self._text, self.name)
            self._reader.read()
            _cross_check(self._tree.node, self._reader)
        return self._reader.attributes

    @functools.cached_property
    def _by_name(self) -> dict[str, Provider]:
        return {provider.name.casefold(): provider for provider in self.providers}

    def provider(self, name: str | None) -> Provider | None:
        """The provider of that name; the case does not matter, real files mix it."""
        return None if name is None else self._by_name.get(name.casefold())

    def containers(self) -> tuple[str, ...]:
        """The containers that the protected values of this file need, each once, in order of first use."""
        found: dict[str, str] = {}
        for value in self.values:
            provider = self.provider(value.provider)
            if provider is not None and provider.container:
                found.setdefault(provider.container.casefold(), provider.container)
        return tuple(found.values())

    def get(self, path: str) -> str:
        """The value of the attribute at *path*. Raises :class:`ConfigurationError` where there is none."""
        return self._find(path).value

    def paths(self) -> list[str]:
        """The paths of all attributes in document order."""
        return [attribute.path for attribute in self._attributes]

    def _find(self, path: str) -> _Attribute:
        return self._search({path})[path]

    def _search(self, paths: t.Collection[str]) -> dict[str, _Attribute]:
        """The attributes at these paths, in one pass over the file."""
        found: dict[str, _Attribute] = {}
        names = {path.rpartition("@")[2] for path in paths}
        for attribute in self._attributes:
            if attribute.name not in names or (path := attribute.path) not in paths:
                continue
            if path in found:
                raise ConfigurationError(
                    self.name, attribute.line, f"{path} is not unique, it stands in line {found[path].line} as well"
                )
            found[path] = attribute
        for path in paths:
            if path not in found:
                raise ConfigurationError(self.name, 0, f"there is no attribute {path}")
        return found

    def replace(self, changes: t.Mapping[str, str]) -> bytes:
        """The file with other attribute values (by attribute path); every other byte stays.

        The result is parsed again and compared, so that a change can never touch anything else. Raises
        :class:`ConfigurationError` for a path that is not there and for a text that XML cannot hold.
        """
        found = self._search(changes.keys())
        spots = sorted(((found[path], value) for path, value in changes.items()), key=lambda spot: spot[0].start)
        pieces: list[str] = []
        position = 0
        for attribute, value in spots:
            pieces.append(self._text[position : attribute.start])
            # An unchanged value keeps its spelling, character references included.
            raw = self._text[attribute.start : attribute.end]
            pieces.append(
                raw if value == attribute.value else _escape(value, self._text[attribute.start - 1], self.encoding)
            )
            position = attribute.end
        pieces.append(self._text[position:])
        try:
            content = self._bom + "".join(pieces).encode(self.encoding, "strict")
        except UnicodeEncodeError:
            raise ConfigurationError(
                self.name, 0, "a new value cannot be written in the encoding of the file"
            ) from None
        self._compare(parse(content, self.name, lenient=True), {id(attribute): value for attribute, value in spots})
        return content

    def template(self, paths: t.Sequence[str]) -> Template:
        """This file as a form whose attribute values at *paths* are filled in many times, without parsing it again.

        The new values are base64 data: session keys, and protected values under the provider that they have.
        Raises :class:`ConfigurationError` for a path that is not there.
        """
        wanted = set(paths)
        found: dict[str, _Attribute] = {}
        for attribute in self._attributes:
            path = attribute.path
            if path in wanted and found.setdefault(path, attribute) is not attribute:
                self._find(path)  # says which lines it stands in
        for path in paths:
            if path not in found:
                self._find(path)
        order = sorted(range(len(paths)), key=lambda number: found[paths[number]].start)
        pieces: list[bytes] = []
        fixed: list[str] = []
        position = 0
        for number in order:
            attribute = found[paths[number]]
            lead = self._text[position : attribute.start]
            if is_protected(attribute.value):
                provider, dummy = split_value(attribute.value)
                fixed.append(f"[enc:{provider}:")
                lead += _escape(f"[enc:{provider}:", self._text[attribute.start - 1], self.encoding)
            else:
                fixed.append("")
            pieces.append(lead.encode(self.encoding, "strict"))
            position = attribute.end
        pieces.append(self._text[position:].encode(self.encoding, "strict"))
        return Template(self, tuple(paths), tuple(order), tuple(fixed), tuple(pieces))

    def _compare(self, other: Configuration, changed: dict[int, str]) -> None:
        same = len(self._attributes) == len(other._attributes)
        for mine, theirs in zip(self._attributes, other._attributes, strict=False):
            expected = changed.get(id(mine), mine.value)
            same = (
                same and mine.name == theirs.name and mine.owner.name == theirs.owner.name and theirs.value == expected
            )
        if not same:
            raise ConfigurationError(self.name, 0, "a new value cannot be written: XML would read it back differently")


_FILLING = re.compile(r"[A-Za-z0-9+/]+={0,2}(?::enc\])?")


@dataclass(frozen=True, repr=False)
class Template:
    """A configuration file with blanks, see :meth:`Configuration.template`. Filling it costs a join of its pieces."""

    configuration: Configuration
    paths: tuple[str, ...]
    _order: tuple[int, ...]
    _fixed: tuple[str, ...]
    _pieces: tuple[bytes, ...]

    def fill(self, values: t.Sequence[str]) -> bytes:
        """The file with these attribute values, one for each path. Raises :class:`ConfigurationError`.

        Only what cannot mean anything to XML is taken: base64, and the frame of a protected value of the same
        provider. So no other byte can change its meaning.
        """
        if len(values) != len(self.paths):
            raise ConfigurationError(
                self.configuration.name, 0, f"{len(values)} values were given for {len(self.paths)} attributes"
            )
        parts = [self.configuration._bom]
        for lead, fixed, number in zip(self._pieces, self._fixed, self._order, strict=False):
            value = values[number]
            rest = value[len(fixed) :]
            if not value.startswith(fixed) or rest.endswith(":enc]") != bool(fixed) or not _FILLING.fullmatch(rest):
                raise ConfigurationError(
                    self.configuration.name, 0, f"the new value for {self.paths[number]} is not what it should be"
                )
            parts += (lead, rest.encode(self.configuration.encoding))
        parts.append(self._pieces[-1])
        return b"".join(parts)


def _escape(value: str, quote: str, encoding: str) -> str:
    pieces = []
    for character in value:
        if character in "&<>" or character == quote:
            pieces.append({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}[character])
        elif character in "\t\n\r" or (encoding == "ascii" and ord(character) > 126):
            pieces.append(f"&#x{ord(character):X};")
        else:
            pieces.append(character)
    return "".join(pieces)


# --- decoding -------------------------------------------------------------------------------------------------------

_DECLARATION = re.compile(r"<\?xml\s[^?]*?encoding\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")


def _decode(content: bytes, name: str, lenient: bool) -> tuple[str, str, bytes]:
    """Text, codec and byte-order mark."""
    if not content:
        raise ConfigurationError(name, 0, "the file is empty")
    if len(content) > MAXIMUM_BYTES:
        raise ConfigurationError(name, 0, f"the file has {len(content)} bytes, more than {MAXIMUM_BYTES}")
    encoding, bom = "utf-8", b""
    for mark, codec in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if content.startswith(mark):
            encoding, bom = codec, mark
    if not bom and content[:2].count(0) == 1:
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    if encoding != "utf-8" and not lenient:
        raise ConfigurationError(name, 1, "the file is UTF-16; IIS writes UTF-8: save it as UTF-8 and try again")
    try:
        text = content[len(bom) :].decode(encoding, "strict")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, len(bom) + error.start) + 1
        shown = "UTF-8" if encoding == "utf-8" else "UTF-16"
        raise ConfigurationError(name, line, f"the file is not valid {shown}: save it as UTF-8 and try again") from None
    if text.startswith("\ufeff"):
        raise ConfigurationError(name, 1, "the file has two byte-order marks: save it as UTF-8 and try again")
    declared = _DECLARATION.match(text)
    said = (declared.group(1) or declared.group(2) or "").lower() if declared else ""
    accepted = {"", "utf-8", "us-ascii"} if encoding == "utf-8" else {"", "utf-16"}
    if said not in accepted:
        shown = (declared.group(1) or declared.group(2)) if declared else ""
        reason = f"the XML declaration says encoding '{shown}'; IIS writes UTF-8: save it as UTF-8 and try again"
        raise ConfigurationError(name, 1, reason)
    return text, "ascii" if said == "us-ascii" and text.isascii() else encoding, bom


# --- tokenizer ------------------------------------------------------------------------------------------------------

_NAME = r"[^\s<>/=\"'&?!]+"
_MARKUP = re.compile(
    rf"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|</({_NAME})\s*>|<({_NAME})((?:[^<>\"']|\"[^<\"]*\"|'[^<']*')*)>",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(rf"\s+({_NAME})\s*=\s*(?:\"([^<\"]*)\"|'([^<']*)')", re.DOTALL)
_REFERENCE = re.compile(r"&(?:#x([0-9a-fA-F]+)|#([0-9]+)|(lt|gt|amp|quot|apos));")
_SPACE = re.compile(r"\r\n|[\r\n\t]")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}


def _unescape(raw: str) -> str:
    """The value of an attribute as XML defines it: line ends and tabs are spaces, references are resolved."""
    if "&" not in raw and not _SPACE.search(raw):
        return raw

    def one(match: re.Match[str]) -> str:
        if match.group(3):
            return _ENTITIES[match.group(3)]
        # Leading zeros are legal in any number; int() takes no more than some thousand digits.
        return chr(int(match.group(1), 16) if match.group(1) else int(match.group(2).lstrip("0")))

    return _REFERENCE.sub(one, _SPACE.sub(" ", raw))


def _scan(text: str, position: int, end: int) -> t.Iterator[re.Match[str]]:
    """The attributes from *position*, behind the name of an element."""
    while found := _ATTRIBUTE.match(text, position, end):
        yield found
        position = found.end()


class _Lines:
    """The numbers of the lines of a text."""

    def __init__(self, text: str) -> None:
        if text.count("\r") != text.count("\r\n"):
            self.starts = [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", text))]
        else:
            # A line begins behind all that were before it and their line feeds.
            self.starts = [0, *map(operator.add, accumulate(map(len, text.split("\n")[:-1])), count(1))]

    def at(self, offset: int) -> int:
        return bisect_right(self.starts, offset)


def _protected(text: str) -> tuple[str | None, str | None] | None:
    """Provider and data, where the text of an attribute is a protected value."""
    if not is_protected(text):
        return None
    provider, data = split_value(text)
    # An empty one is a default of the schema, not a secret.
    return None if data == "" else (provider, data)


class _Reader:
    """The tokenizer: builds the tree with positions. It trusts that lxml has found the text well-formed."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.line = _Lines(text).at
        self.order: list[_Element] = []
        self.attributes: list[_Attribute] = []

    def lost(self, offset: int) -> ConfigurationError:
        return ConfigurationError(self.name, self.line(offset), "the place of an element in the text cannot be found")

    def read(self) -> _Element:
        stack: list[_Element] = []
        root: _Element | None = None
        position = self.text.find("<")
        while position >= 0:
            match = _MARKUP.match(self.text, position)
            if not match:
                raise self.lost(position)
            if match.group(2):
                element = self._element(match, stack[-1] if stack else None)
                if stack:
                    stack[-1].children.append(element)
                elif root is None:
                    root = element
                else:
                    raise self.lost(position)
                if not match.group(0).endswith("/>"):
                    stack.append(element)
                if len(stack) > MAXIMUM_DEPTH:
                    raise ConfigurationError(
                        self.name, element.line, f"elements are nested deeper than {MAXIMUM_DEPTH}"
                    )
            elif match.group(1) and (not stack or stack.pop().name != match.group(1)):
                raise self.lost(position)
            position = self.text.find("<", match.end())
        if root is None or stack:
            raise self.lost(len(self.text))
        _label(root, self.name)
        return root

    def _element(self, match: re.Match[str], parent: _Element | None) -> _Element:
        element = _Element(match.group(2), self.line(match.start()), parent)
        position = match.start(3)
        end = match.end(3)
        for found in _scan(self.text, position, end):
            group = 2 if found.group(2) is not None else 3
            value = _unescape(found.group(group))
            line = self.line(found.start(1))
            element.attributes.append(
                _Attribute(element, found.group(1), value, found.start(group), found.end(group), line)
            )
            position = found.end()
        if self.text[position:end].strip() not in ("", "/"):
            raise self.lost(position)
        if len(element.attributes) > MAXIMUM_ATTRIBUTES:
            raise ConfigurationError(
                self.name, element.line, f"<{element.name}> has more than {MAXIMUM_ATTRIBUTES} attributes"
            )
        self.order.append(element)
        self.attributes += element.attributes
        return element


def _identity(get: t.Callable[[str], str | None]) -> tuple[str, str] | None:
    """Name and value of the attribute that tells an element from others."""
    for name in _IDENTITY:
        value = get(name)
        if value is not None:
            return name, value
    return None


def _predicate(element: str, identity: tuple[str, str] | None) -> str:
    if identity is None:
        return element
    name, value = identity
    quote = "'"
    if "'" in value:
        if '"' in value:
            value = value.replace("'", "&apos;")
        else:
            quote = '"'
    return f"{element}[@{name}={quote}{value}{quote}]"


def _number(labels: list[str]) -> list[str]:
    """The labels of all children of an element, with numbers where several are the same."""
    if len(set(labels)) == len(labels):
        return labels
    counts = Counter(labels)
    seen: Counter[str] = Counter()
    numbered = []
    for label in labels:
        seen[label] += 1
        numbered.append(f"{label}[{seen[label]}]" if counts[label] > 1 else label)
    return numbered


def _label(root: _Element, file: str) -> None:
    """Labels for all elements, without recursion."""
    pending = [root]
    while pending:
        parent = pending.pop()
        labels = []
        for child in parent.children:
            identity = _identity(child.get)
            if identity and len(identity[1]) > MAXIMUM_LABEL:
                reason = f"attribute '{identity[0]}' of <{child.name}> has more than {MAXIMUM_LABEL} characters"
                raise ConfigurationError(file, child.line, f"{reason}: no name is so long")
            labels.append(_predicate(child.name, identity))
        for child, label in zip(parent.children, _number(labels), strict=True):
            child.label = label
        pending += parent.children


# --- through lxml alone ---------------------------------------------------------------------------------------------

_STARTS = re.compile(r"<(?:!--.*?-->|!\[CDATA\[.*?\]\]>|\?.*?\?>|([^/!?]))", re.DOTALL)
# How a protected value may begin in the text; of the references, only those to numbers can stand for a part of it.
_SUSPECTS = (re.compile(r"\[enc:"), re.compile("&#"))
# What the tokenizer does not see as lxml does: namespaces, an end of the text, a space that is a letter of XML.
_UNCOMMON = ("xmlns", "xml:", "\0", "\u1680")
# No element of so few characters can be beyond a limit.
_SMALL_ELEMENT = 4 * MAXIMUM_ATTRIBUTES


@functools.cache
def _beyond_limits() -> tuple[t.Callable[[t.Any], bool], t.Callable[[t.Any], bool]]:
    """Two questions to a root element: is the tree too deep, is a label too long or an element too wide."""
    return (
        etree.XPath(f"boolean({'/*' * (MAXIMUM_DEPTH + 1)})"),
        etree.XPath(
            f"boolean(//*[count(@*) > {MAXIMUM_ATTRIBUTES}])"
            + "".join(f" or boolean(//@{name}[string-length(.) > {MAXIMUM_LABEL}])" for name in _IDENTITY)
        ),
    )


class _Unsure(Exception):
    """Whether the tokenizer would read this file as lxml does is not certain."""


class _Node:
    """An element of lxml in the manner of :class:`_Element`."""

    __slots__ = ("file", "node")

    def __init__(self, node: t.Any, file: _File) -> None:
        self.node = node
        self.file = file

    @property
    def name(self) -> str:
        return str(self.node.tag)

    @property
    def line(self) -> int:
        return self.file.lines.at(self.file.start(self.node))

    @property
    def path(self) -> str:
        return self.file.path(self.node)

    def get(self, name: str) -> str | None:
        value: str | None = self.node.get(name)
        return value

    def at(self, steps: str) -> list[_Node]:
        found = [self.node]
        for step in steps.split("/"):
            found = [child for node in found for child in node.iterchildren(step)]
        return [_Node(node, self.file) for node in found]


class _File:
    """A file read through lxml: the n-th element of the tree is the n-th start of an element in the text.

    Raises :class:`_Unsure` for every file that the tokenizer might refuse or read in another way.
    """

    def __init__(self, root: t.Any, text: str, name: str) -> None:
        if any(mark in text for mark in _UNCOMMON):
            raise _Unsure
        self.text = text
        self.name = name
        self.nodes = list(root.iter("*"))
        self.starts = [match.start() for match in _STARTS.finditer(text) if match.lastindex]
        self.lines = _Lines(text)
        self._numbers: dict[t.Any, int] = {}
        self._labels: dict[t.Any, str] = {}
        large = max(map(operator.sub, [*self.starts[1:], len(text)], self.starts), default=0) > _SMALL_ELEMENT
        too_deep, too_large = _beyond_limits()
        try:
            if len(self.nodes) != len(self.starts) or too_deep(root) or (large and too_large(root)):
                raise _Unsure
        except etree.XPathError:  # a limit of libxml2
            raise _Unsure from None

    def start(self, node: t.Any) -> int:
        """Where the element begins in the text."""
        if not self._numbers:
            self._numbers = {node: number for number, node in enumerate(self.nodes)}
        return self.starts[self._numbers[node]]

    def path(self, node: t.Any) -> str:
        labels = []
        while (parent := node.getparent()) is not None:
            if node not in self._labels:
                children = list(parent.iterchildren("*"))
                alone = [_predicate(child.tag, _identity(child.get)) for child in children]
                self._labels.update(zip(children, _number(alone), strict=True))
            labels.append(self._labels[node])
            node = parent
        return "/".join(reversed(labels))

    def values(self) -> list[ProtectedValue]:
        """The protected values, found in the text and read by lxml."""
        last: dict[int, int] = {}
        for suspect in _SUSPECTS:
            for match in suspect.finditer(self.text):
                number = bisect_right(self.starts, match.start()) - 1
                last[number] = max(match.start(), last.get(number, 0))
        last.pop(-1, None)  # before the root element there may be a comment
        return [value for number in sorted(last) for value in self._values(number, last[number])]

    def _values(self, number: int, last: int) -> t.Iterator[ProtectedValue]:
        """Those of one element. The names of their attributes stand before *last*."""
        node, start = self.nodes[number], self.starts[number]
        attributes = [_protected(value) if value.startswith("[") else None for value in node.values()]
        if not any(attributes):
            return
        behind = start + 1 + len(node.tag)
        if self.text[start + 1 : behind] != node.tag:
            raise _Unsure
        line = self.lines.at(start)
        lines: t.Iterable[int] = repeat(line, len(attributes))
        if self.lines.at(last) != line:
            lines = [self.lines.at(one.start(1)) for one in _scan(self.text, behind, len(self.text))]
            if len(lines) != len(attributes):
                raise _Unsure
        path = self.path(node)
        for name, value, line in zip(node.keys(), attributes, lines, strict=True):
            if value:
                yield ProtectedValue(f"{path}/@{name}" if path else f"@{name}", line, *value)


# --- parsing --------------------------------------------------------------------------------------------------------


def _qualified(node: t.Any, tag: str, prefixes: t.Mapping[str | None, str]) -> set[str]:
    """The spellings that an lxml name may have in the text."""
    if not tag.startswith("{"):
        return {tag}
    space, dummy, local = tag[1:].partition("}")
    names = {f"{prefix}:{local}" if prefix else local for prefix, uri in prefixes.items() if uri == space}
    if space == "http://www.w3.org/XML/1998/namespace":
        names.add(f"xml:{local}")
    return names


def _cross_check(root: t.Any, reader: _Reader) -> None:
    """lxml and the tokenizer must agree on every element, attribute and value."""
    nodes = [node for node in root.iter() if isinstance(node.tag, str)]
    if len(nodes) != len(reader.order):
        raise ConfigurationError(reader.name, 0, "the places of the elements in the text cannot be found")
    for node, element in zip(nodes, reader.order, strict=True):
        # Most files have no namespaces; collecting them for every element is slow.
        spaced = node.tag.startswith("{") or any(name.startswith("{") for name in node.attrib)
        prefixes = node.nsmap if spaced else {}
        mine = [a for a in element.attributes if a.name != "xmlns" and not a.name.startswith("xmlns:")]
        theirs = list(node.attrib.items())
        same = element.name in _qualified(node, node.tag, prefixes) and len(mine) == len(theirs)
        for attribute, (name, value) in zip(mine, theirs, strict=False):
            same = same and attribute.name in _qualified(node, name, prefixes) and attribute.value == value
        if not same:
            raise ConfigurationError(
                reader.name, element.line, f"the attributes of <{element.name}> cannot be found in the text"
            )


def _providers(root: _Element | _Node, name: str) -> tuple[Provider, ...]:
    found: dict[str, Provider] = {}
    for element in root.at("configProtectedData/providers/add"):
        provider = Provider(
            name=element.get("name") or "",
            type=element.get("type") or "",
            kind=kind_of_type(element.get("type") or ""),
            container=element.get("keyContainerName") or "",
            use_oaep=(element.get("useOAEP") or "").casefold() == "true",
            session_key=element.get("sessionKey"),
            line=element.line,
            path=element.path,
        )
        other = found.setdefault(provider.name.casefold(), provider)
        if other is not provider:
            reason = (
                f"provider '{provider.name}' is declared again, first in line {other.line}; "
                "IIS refuses such a file: remove one of them"
            )
            raise ConfigurationError(name, provider.line, reason)
    return tuple(found.values())


def _sites(root: _Element | _Node) -> tuple[Site, ...]:
    common = "DefaultAppPool"
    for element in root.at("system.applicationHost/sites/applicationDefaults"):
        common = element.get("applicationPool") or common
    sites = []
    for site in root.at("system.applicationHost/sites/site"):
        inherited = common
        for element in site.at("applicationDefaults"):
            inherited = element.get("applicationPool") or inherited
        pools: list[str] = []
        for application in site.at("application"):
            pool = application.get("applicationPool") or inherited
            pools.insert(0 if application.get("path") == "/" else len(pools), pool)
        bindings = tuple(
            (b.get("protocol") or "", b.get("bindingInformation") or "") for b in site.at("bindings/binding")
        )
        sites.append(Site(site.get("name") or "", bindings, tuple(pools)))
    return tuple(sites)


def parse(content: bytes, name: str, *, lenient: bool = False) -> Configuration:
    """Parse the bytes of a configuration file. *name* is used in messages and results.

    Raises :class:`ConfigurationError` with file, line and reason.
    """
    text, encoding, bom = _decode(content, name, lenient)
    if text.count("xmlns:") > MAXIMUM_PREFIXES:
        raise ConfigurationError(name, 0, f"the file declares more than {MAXIMUM_PREFIXES} namespace prefixes")
    try:
        root = parse_utf8(text.encode("utf-8"))
    except XmlError as error:
        raise ConfigurationError(name, error.line, error.reason) from None
    tree: _Element | _Node
    reader: _Reader | None = None
    try:
        file = _File(root, text, name)
        tree = _Node(root, file)
        values = file.values()
    except _Unsure:
        reader = _Reader(text, name)
        tree = reader.read()
        _cross_check(root, reader)
        values = [
            ProtectedValue(attribute.path, attribute.line, *value)
            for attribute in reader.attributes
            if (value := _protected(attribute.value))
        ]
    if tree.name != "configuration" and not lenient:
        raise ConfigurationError(
            name, tree.line, f"the root element is <{tree.name}>, an IIS configuration has <configuration>"
        )
    return Configuration(
        name=name,
        content=content,
        encoding=encoding,
        providers=_providers(tree, name),
        values=tuple(values),
        locations=tuple(Location(e.get("path") or "", e.path, e.line) for e in tree.at("location")),
        _text=text,
        _bom=bom,
        _tree=tree,
        _reader=reader,
    )


def load(path: str | Path, *, lenient: bool = False) -> Configuration:
    """Read and parse a file; messages name it by its whole path, results by its file name."""
    source = Path(path)
    try:
        if source.stat().st_size > MAXIMUM_BYTES:
            raise ConfigurationError(str(source), 0, f"the file is larger than {MAXIMUM_BYTES} bytes")
        content = source.read_bytes()
    except OSError as error:
        raise ConfigurationError(str(source), 0, f"the file cannot be read: {error.strerror}") from None
    try:
        return parse(content, source.name, lenient=lenient)
    except ConfigurationError as error:
        raise ConfigurationError(str(source), error.line, error.reason) from None
