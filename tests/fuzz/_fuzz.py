# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fuzz tests share: seeds, mutations, the time budget, and the limit of a single call.

The mutations follow from the seed alone, so that a finding comes back with ``./run fuzz SECONDS SEED``. Without a seed
``./run test`` uses the same one every time, ``./run fuzz`` another one at each run.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"
OWN = ROOT / "tests" / "lab" / "files" / "applicationHost.config"

SEED = int(os.environ.get("FUZZ_SEED", "20260401"))
SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))
# One call may take this long, on a slow machine too; a hang takes longer.
LIMIT_SECONDS = 60

SMALL = b"""<?xml version="1.0" encoding="UTF-8"?>
<!-- [enc:AesProvider:QUJD:enc] in a comment is no value -->
<configuration xmlns:b="urn:b">
  <configProtectedData><providers>
    <add name="IISWASOnlyRsaProvider" type="" keyContainerName="iisWasKey" useOAEP="false" />
    <add name='AesProvider' type='Microsoft.ApplicationHost.AesProtectedConfigurationProvider'
         keyContainerName="iisConfigurationKey" useOAEP="TRUE" sessionKey="AQID" />
  </providers></configProtectedData>
  <system.applicationHost>
    <applicationPools>
      <add name="O'Brien &amp; &quot;Sons&quot;"><processModel a=" &#9;x&#xE4;&gt;
 y" password = '[enc:AesProvider:QUJD:enc]' /></add>
      <add name="O'Brien &amp; &quot;Sons&quot;"/>
    </applicationPools>
    <sites><site name="Shop" id="1">
      <application path="/"><virtualDirectory path="/" password="[enc:x::enc]" /></application>
      <bindings><binding protocol="http" bindingInformation="[::1]:80:shop.example" b:c="1" /></bindings></site></sites>
  </system.applicationHost>
  <?pi <a q="[enc:x:y:enc]"?><![CDATA[<a q="[enc:x:y:enc]">]]>
  <location path="Shop"><system.webServer><x v="1"/><x v="2"/></system.webServer></location>
</configuration>
"""

# What parsers stumble over.
TOKENS: Sequence[bytes] = (
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"<!ENTITY % x SYSTEM 'file:///etc/passwd'>", b"&b;", b"&#0;", b"&#x110000;",
    b"&#" + b"0" * 5000 + b"65;", b"&#xD800;", b"&amp", b"&lt;", b"]]>", b"<![CDATA[", b"<!--", b"-->", b"--", b"<?",
    b"?>", b"<?xml version='1.1'?>", b"<a>", b"</a>", b"<a/>", b"<", b">", b"'", b'"', b"=", b"\x00",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbf\xbe", b"\xe2\x80\xa8",
    b"\xc2\x85", b"\r", b"\r\n", b"\t", b" xmlns='urn:x'", b" xmlns:b='urn:c'", b" b:d='1'", b" xml:lang='en'",
    b" name='a'", b" path=''", b" id='1'", b"[enc:", b":enc]", b"[enc:AesProvider:QUJD:enc]", b"[enc::enc]",
    b"[enc:a:enc]", b"AQIAAA5mAAAApAAA", b"====", b"{", b"}", b"[", b"]", b"null", b"1e999", b"-1",
    b"99999999999999999999", b"\\ud800", b"true", b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----",
    b"\x1e\xf1\xb5\xb0", b"RSA2", b"RSA1", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\xff" * 8, b"\x00" * 8,
)  # fmt: skip


def configurations(largest: int = 1 << 20) -> list[bytes]:
    """Real files, and two that hold everything at once."""
    found = [SMALL, SMALL.replace(b"\n", b"\r\n"), OWN.read_bytes()]
    for folder in ("applicationHost", "administration", "redirection", "fragments"):
        for path in sorted((CORPUS / folder).glob("*")):
            if path.suffix in (".config", ".xml") and path.stat().st_size <= largest:
                found.append(path.read_bytes())
    return found


def mutate(source: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """*source* with one to four accidents."""
    data = bytearray(source)
    for _number in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        size = len(data)
        at = rng.randrange(size + 1)
        end = min(size, at + rng.choice((1, 1, 2, 4, 8, 16, 64, 512)))
        what = rng.randrange(9)
        if what == 0 and at < size:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del data[at:end]
        elif what == 2:
            data[at:at] = data[at:end] * rng.choice((1, 1, 2, 50))
        elif what == 3:
            data[at:end] = rng.choice(TOKENS)
        elif what == 4:
            data[at:at] = rng.choice(TOKENS)
        elif what == 5:
            del data[at:]
        elif what == 6:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[at:end] = other[start : start + rng.choice((1, 8, 64, 1024))]
        elif what == 7:
            data[at:end] = rng.randbytes(end - at)
        elif what == 8 and size:
            # Two pieces change places.
            first = rng.randrange(size)
            piece = bytes(data[first : first + 32])
            data[first : first + 32] = data[at:end]
            data[at:at] = piece
    return bytes(data)


class Hang(Exception):
    """A call that did not come back in time."""


@contextmanager
def limited(seconds: float = LIMIT_SECONDS) -> Iterator[None]:
    def ring(_number: int, _frame: object) -> None:
        raise Hang(f"no answer within {seconds:.0f} s")

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def fuzz(
    name: str,
    seeds: Sequence[bytes],
    target: Callable[[bytes, random.Random], Any],
    allowed: type[Exception],
    share: float,
) -> int:
    """Feed *target* with mutations of *seeds* for its *share* of the time. Anything but *allowed* is a finding."""
    print(f"fuzz {name}: FUZZ_SEED={SEED}")
    end = time.monotonic() + SECONDS * share
    count = 0
    while time.monotonic() < end or count < 3 * len(seeds):
        # Each input depends on the seed and its number only: a finding comes back without those before it.
        rng = random.Random(f"{SEED} {name} {count}")
        source = seeds[count] if count < len(seeds) else rng.choice(seeds)
        data = source if count < len(seeds) else mutate(source, seeds, rng)
        try:
            with limited():
                target(data, rng)
        except allowed:
            pass
        except (Exception, Hang) as error:
            kept = ROOT / ".build" / "fuzz" / f"{name}-{SEED}-{count}.bin"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(data)
            raise AssertionError(f"fuzz {name}, FUZZ_SEED={SEED}, input {count} ({kept}): {error!r}") from error
        count += 1
    print(f"fuzz {name}: {count} inputs")
    return count
