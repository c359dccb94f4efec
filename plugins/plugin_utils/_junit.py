# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""JUnit XML as CI systems read it: suites of cases, each passed, failed, in error or skipped."""

from __future__ import annotations

import re
import typing as t
from collections import Counter

from ansible_collections.webfarm.iis.plugins.plugin_utils import _libraries, _record

try:
    from lxml import etree
except ImportError as error:
    _libraries.note(error)

FAILURE = "failures"
ERROR = "errors"
SKIPPED = "skipped"
_LABEL = {FAILURE: "failure", ERROR: "error", SKIPPED: "skipped"}
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Detail(t.NamedTuple):
    """What is said of a case that did not pass."""

    message: str
    type: str = ""
    text: str = ""


class Case(t.NamedTuple):
    """One test. kind: FAILURE, ERROR, SKIPPED, or empty for one that passed."""

    name: str
    kind: str = ""
    detail: Detail | None = None
    output: str = ""


class Suite(t.NamedTuple):
    """The tests of one host."""

    name: str
    hostname: str
    classname: str
    timestamp: str
    cases: t.Sequence[Case]


def _xml(text: str) -> str:
    return _NOT_IN_XML.sub("?", _record.mask(text))


def _counts(counts: Counter[str]) -> dict[str, str]:
    return {name: str(counts[name]) for name in ("tests", FAILURE, ERROR, SKIPPED)}


def write(stream: t.BinaryIO, title: str, suites: t.Sequence[Suite]) -> None:
    """All suites with their counts. Secrets that slipped into a text are masked, what is no XML is replaced."""
    counted = [
        Counter({"tests": len(suite.cases), **Counter(c.kind for c in suite.cases if c.kind)}) for suite in suites
    ]
    clean: dict[Detail, Detail] = {}
    with etree.xmlfile(stream, encoding="utf-8") as xml:
        xml.write_declaration()
        with xml.element("testsuites", name=_xml(title), **_counts(sum(counted, Counter()))):
            for suite, counts in zip(suites, counted, strict=True):
                xml.write(_suite(suite, counts, clean))
                xml.write("\n")


def _suite(suite: Suite, counts: Counter[str], clean: dict[Detail, Detail]) -> etree._Element:
    element = etree.Element(
        "testsuite",
        name=_xml(suite.name),
        timestamp=suite.timestamp.rstrip("Z"),
        hostname=_xml(suite.hostname),
        time="0",
        **_counts(counts),
    )
    classname = _xml(suite.classname)
    for one in suite.cases:
        case = etree.SubElement(element, "testcase", name=one.name, classname=classname, time="0")
        if one.kind and one.detail is not None:
            if one.detail not in clean:
                clean[one.detail] = Detail(*map(_xml, one.detail))
            detail = clean[one.detail]
            item = etree.SubElement(case, _LABEL[one.kind], message=detail.message)
            if one.kind != SKIPPED:
                item.set("type", detail.type)
                item.text = detail.text
        if one.output:
            etree.SubElement(case, "system-out").text = _xml(one.output)
    return element
