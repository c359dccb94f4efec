# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PowerShell remoting (PSRP) over WS-Management: what ansible-core's psrp connection and pypsrp talk to.

The server is PowerShell's own, which speaks PSRP over its standard streams, one element a line: Data with a fragment,
Command, Signal and Close, each answered by an element of the same name with Ack. HostHook.cs starts it. Here fragments
only pass from one to the other.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .endpoint import Command

RESOURCE = "http://schemas.microsoft.com/powershell/"
# Tells HostHook.cs to serve instead of starting a console host.
ENVIRONMENT = {"LAB_PSRP": "1"}
POOL = "00000000-0000-0000-0000-000000000000"
ANSWER_SECONDS = 300
CHUNK = 96 * 1024

_LINE = re.compile(rb"<(\w+)[^>]*?PSGuid='([0-9A-Fa-f-]+)'[^>]*?(?:/>|>([A-Za-z0-9+/=]*)</\w+>)")


class PoolEnded(Exception):
    """The PowerShell behind a runspace pool has ended."""


class Pool:
    """A runspace pool: a process, and what it has said so far for the pool itself and for each pipeline."""

    def __init__(self, process: Command, creation: bytes) -> None:
        self.process = process
        self._changed = threading.Condition()
        self._fragments: dict[str, list[bytes]] = {POOL: []}
        self._answers: list[tuple[str, str]] = []
        self._ended = False
        # The server takes each line in a thread of its own: the next one has to wait for its answer.
        self._order = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()
        self.send(POOL, creation)

    def _read(self) -> None:
        rest = b""
        code: int | None = None
        while code is None:
            answer = self.process.receive(60)
            if answer is None:
                continue
            streams, code = answer
            *lines, rest = (rest + streams.get("stdout", b"")).split(b"\n")
            with self._changed:
                for line in lines:
                    found = _LINE.match(line)
                    if not found:
                        continue
                    kind, identity = found[1].decode(), found[2].decode().upper()
                    if kind == "Data":
                        self._fragments.setdefault(identity, []).append(base64.b64decode(found[3]))
                    else:
                        self._answers.append((kind, identity))
                self._ended = code is not None
                self._changed.notify_all()

    def _say(self, kind: str, identity: str, attribute: str = "", text: str | None = None) -> None:
        identity = identity.upper()
        end = " />" if text is None else f">{text}</{kind}>"
        wanted = (f"{kind}Ack", identity)
        with self._order:
            self.process.send(f"<{kind}{attribute} PSGuid='{identity.lower()}'{end}\n".encode(), False)
            due = time.monotonic() + ANSWER_SECONDS
            with self._changed:
                while wanted not in self._answers:
                    left = due - time.monotonic()
                    if self._ended or left <= 0:
                        raise PoolEnded
                    self._changed.wait(left)
                self._answers.remove(wanted)

    def send(self, identity: str, data: bytes, stream: str = "stdin") -> None:
        """Fragments for the pool or a pipeline."""
        name = "PromptResponse" if stream == "pr" else "Default"
        self._say("Data", identity, f" Stream='{name}'", base64.b64encode(data).decode("ascii"))

    def start(self, identity: str, data: bytes) -> None:
        """A new pipeline."""
        with self._changed:
            self._fragments[identity.upper()] = []
        self._say("Command", identity)
        self.send(identity, data)

    def signal(self, identity: str, code: str) -> None:
        """Stop a pipeline, or forget one that has ended."""
        self._say("Close" if code.lower().endswith("/terminate") else "Signal", identity)

    def receive(self, identity: str, timeout: float) -> list[bytes] | None:
        """What has come since, whole fragments; None after the time-out."""
        due = time.monotonic() + timeout
        with self._changed:
            while True:
                waiting = self._fragments.setdefault(identity.upper(), [])
                if waiting:
                    taken = [waiting.pop(0)]
                    while waiting and sum(map(len, taken)) + len(waiting[0]) <= CHUNK:
                        taken.append(waiting.pop(0))
                    return taken
                if self._ended:
                    raise PoolEnded
                left = due - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)
