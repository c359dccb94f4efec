# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No input makes a parser slow out of proportion: four times the size takes no more than some ten times as long."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import pytest
from _fuzz import limited

from ansible_collections.webfarm.iis.plugins.plugin_utils import _apphost as ah
from ansible_collections.webfarm.iis.plugins.plugin_utils import _bundle as bu
from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyblob as kb
from ansible_collections.webfarm.iis.plugins.plugin_utils import _keyfile as kf
from ansible_collections.webfarm.iis.plugins.plugin_utils import _protection as pr

# Four times the size: 4 is linear, 16 is quadratic.
RATIO = 11


def around(inner: bytes) -> bytes:
    return b"<configuration>" + inner + b"</configuration>"


# Each makes a file of about n parts.
SHAPES: dict[str, Callable[[int], bytes]] = {
    "plain": lambda n: around(b'<add name="x" value="1"/>' * n),
    "siblings": lambda n: around(b"".join(b'<add name="n%d" password="[enc:A:QUJD:enc]"/>' % i for i in range(n))),
    "long names": lambda n: around(b'<site name="' + b"x" * 8000 + b'">' + b"<a b='1'/>" * n + b"</site>"),
    "attributes": lambda n: around(b"<a " + b" ".join(b"a%d='1'" % i for i in range(n)) + b"/>"),
    "prefixes": lambda n: (
        b"<configuration "
        + b" ".join(b"xmlns:p%d='u%d'" % (i, i) for i in range(min(n, 1000)))
        + b">"
        + b"<p1:a p2:b='1'/>" * n
        + b"</configuration>"
    ),
    "references": lambda n: around(b"<a b='" + b"&#x41;&amp;" * n + b"'/>"),
    "quotes": lambda n: around(b"<a b='" + b'"' * 20 * n + b"'/>"),
    "lines": lambda n: around(b"\n" * 20 * n + b"<a b='1'/>"),
    "spaces": lambda n: around(b"<a" + b" " * 20 * n + b"b" + b" " * n + b"=" + b" " * n + b"'1'" + b" " * n + b"/>"),
    "comments": lambda n: around(b"<!-- < -->" * n),
    "open comments": lambda n: around(b"<!--" * 5 * n),
    "open tags": lambda n: around(b"<a b='" * n),
    "instructions": lambda n: b"<?a?> " * n + b"<configuration/>",
    "declaration": lambda n: b"<?xml version='1.0' " + b"encoding  " * n + b"?><configuration/>",
    "brackets": lambda n: around(b"<a>" + b"]" * 10 * n + b"</a>"),
    "values": lambda n: around(b"<a b='[enc:" + b":" * 10 * n + b":enc]'/>"),
    "providers": lambda n: around(
        b"<configProtectedData><providers>"
        + b"".join(b"<add name='p%d' sessionKey='AQID'/>" % i for i in range(n))
        + b"</providers></configProtectedData>"
    ),
}


def seconds(call: Callable[[], object], allowed: type[Exception]) -> float:
    best = 1e9
    for _turn in range(3):
        begin = time.process_time()
        with limited(120):
            try:
                call()
            except allowed:
                pass
        best = min(best, time.process_time() - begin)
    return best


def grows(
    make: Callable[[int], bytes], use: Callable[[bytes], object], allowed: type[Exception], n: int = 4000
) -> None:
    small, large = make(n), make(4 * n)
    first = seconds(lambda: use(small), allowed)
    second = seconds(lambda: use(large), allowed)
    assert second < 0.1 + RATIO * first, f"{len(small)} bytes {first:.3f} s, {len(large)} bytes {second:.3f} s"


def edit_all(data: bytes) -> None:
    one = ah.parse(data, "x")
    paths = one.paths()
    one.replace(dict.fromkeys(paths[:: max(1, len(paths) // 2000)], "new"))


@pytest.mark.parametrize("name", SHAPES)
def test_configuration(name: str) -> None:
    grows(SHAPES[name], edit_all, ah.ConfigurationError)


def test_many_changes_at_once() -> None:
    def use(data: bytes) -> None:
        one = ah.parse(data, "x")
        one.replace(dict.fromkeys(one.paths(), "new"))

    grows(lambda n: around(b"".join(b'<a name="n%d" b="1"/>' % i for i in range(n))).replace(b'name="', b'id="'), use,
          ah.ConfigurationError, 1500)  # fmt: skip


BYTES: dict[str, tuple[Callable[[int], bytes], Callable[[bytes], object], type[Exception]]] = {
    "key in XML": (
        lambda n: b"<RSAKeyValue><Modulus>" + b"AQAB" * 50 * n + b"</Modulus></RSAKeyValue>",
        kb.read_xml,
        kb.KeyBlobError,
    ),
    "key in XML, white space": (
        lambda n: b"<RSAKeyValue>" + b"\n" * 50 * n + b"</RSAKeyValue>",
        kb.read_xml,
        kb.KeyBlobError,
    ),
    "blob": (lambda n: b"\x07\x02\0\0\0\xa4\0\0RSA2" + b"\xff" * 50 * n, kb.read_blob, kb.KeyBlobError),
    "key file of spaces": (lambda n: b" " * 100 * n, lambda data: kf.read_key_file(data, None, "x"), kf.KeyFileError),
    "key file of base64": (
        lambda n: base64.b64encode(b"\x07\x02" * 50 * n),
        lambda data: kf.read_key_file(data, None, "x"),
        kf.KeyFileError,
    ),
    "key file of headers": (
        lambda n: b"-----BEGIN PRIVATE KEY-----\n" * 4 * n,
        lambda data: kf.read_key_file(data, None, "x"),
        kf.KeyFileError,
    ),
    "bundle": (
        lambda n: b'{"containers": [' + b"{}," * 10 * n + b"{}]}",
        lambda data: bu.parse_bundle(data, "x"),
        bu.BundleError,
    ),
    "bundle, deep": (lambda n: b"[" * 50 * n, lambda data: bu.parse_bundle(data, "x"), bu.BundleError),
    "bundle, number": (lambda n: b"9" * 5 * n, lambda data: bu.parse_bundle(data, "x"), bu.BundleError),
    "opened value": (lambda n: b"\x41\0" * 50 * n + b"\x01", pr.judge_aes_plaintext, pr.ProtectionError),
    "opened value, zeros": (lambda n: b"\0\1" * 50 * n + b"\x01", pr.judge_rsa_plaintext, pr.ProtectionError),
    "base64": (
        lambda n: json.dumps("A" * 400 * n).encode(),
        lambda data: pr.strict_base64(data.decode()),
        kb.KeyBlobError,
    ),
}


@pytest.mark.parametrize("name", BYTES)
def test_other_parsers(name: str) -> None:
    grows(*BYTES[name], 1000)
