# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""XML read defensively: no network, no document type, no entities of its own, no recovery from errors."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.webfarm.iis.plugins.plugin_utils import _libraries

try:
    from lxml import etree
except ImportError as error:
    _libraries.note(error)


# What may stand before the root element besides a document type: white space, declaration, comments, instructions.
_PROLOG = re.compile(rb"(?:\s+|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)
_POSITION = re.compile(r",? ?line \d+, column \d+.*$", re.DOTALL)


class XmlError(ValueError):
    """Not acceptable XML. ``line`` is 1-based, 0 where there is none; ``reason`` is a phrase without position."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.line = line
        self.reason = reason


def parse_utf8(data: bytes) -> t.Any:
    """The root element (lxml) of *data*, UTF-8 without a byte-order mark; the declared encoding is ignored.

    Limits of libxml2 stay on (depth, length of a text node). Raises :class:`XmlError`.
    """
    prolog = _PROLOG.match(data)
    end = prolog.end() if prolog else 0
    if data[end : end + 2] == b"<!":
        line = len(re.findall(rb"\r\n|\n|\r", data[:end])) + 1
        raise XmlError(line, "a document type declaration (<!DOCTYPE ...>) is not accepted; remove it")
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        dtd_validation=False,
        recover=False,
        huge_tree=False,
        remove_blank_text=False,
    )
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        line = int(error.lineno or 0)
        reason = _POSITION.sub("", str(error.msg or "empty document")).strip()
        raise XmlError(line, "not well-formed XML: " + (reason or "the document is empty")) from None
