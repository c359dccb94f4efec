# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""WS-Management over TLS for all hosts of a farm: what ansible-core's winrm and psrp connections talk to.

One thread per connection, one port per host. A command runs in the host's namespaces; its output is collected by
threads, and Receive answers with what is there, or with the time-out fault after OperationTimeout.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from . import psrp, wine
from .errors import LabError
from .faults import Fault, FaultFile, met

SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
WSMAN_FAULT = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault"
NS = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "rsp": SHELL,
}
TIMED_OUT = 2150858793  # WSMan: the operation did not complete within OperationTimeout
TIMED_OUT_TEXT = (
    "The WS-Management service cannot complete the operation within the time specified in OperationTimeout."
)
NO_SHELL = 2150858843  # WSMan: the shell was not found
NO_COMMAND = 2150858844
BAD_REQUEST = 2150858752
# As much of a stream as one answer carries; with base64 that stays below pywinrm's envelope of 150 KiB.
CHUNK = 96 * 1024
POWERSHELL = {"powershell", "powershell.exe", "pwsh", "pwsh.exe"}


class SoapFault(Exception):
    """Answered as a WS-Management fault."""

    def __init__(self, code: int, text: str, subcode: str = "w:InternalError") -> None:
        super().__init__(text)
        self.code, self.text, self.subcode = code, text, subcode


def split_command_line(line: str) -> list[str]:
    """The words of a Windows command line (the rules of CommandLineToArgvW)."""
    words: list[str] = []
    current: list[str] | None = None
    quoted = False
    at = 0
    while at < len(line):
        char = line[at]
        if char == "\\":
            end = at
            while end < len(line) and line[end] == "\\":
                end += 1
            count = end - at
            current = current if current is not None else []
            if end < len(line) and line[end] == '"':
                current.append("\\" * (count // 2))
                if count % 2:
                    current.append('"')
                    end += 1
            else:
                current.append("\\" * count)
            at = end
            continue
        if char == '"':
            current = current if current is not None else []
            quoted = not quoted
        elif char in " \t" and not quoted:
            if current is not None:
                words.append("".join(current))
                current = None
        else:
            current = current if current is not None else []
            current.append(char)
        at += 1
    if current is not None:
        words.append("".join(current))
    return words


class Command:
    """A running Windows process and what it has written so far."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, marker: str, console: bool) -> None:
        self.marker = marker
        self._no_input_yet = console
        self.changed = threading.Condition()
        self._buffers = {"stdout": bytearray(), "stderr": bytearray()}
        self._open = {"stdout", "stderr"}
        self._input: list[bytes | None] = []
        self.exit_code: int | None = None
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        for name in ("stdout", "stderr"):
            threading.Thread(target=self._read, args=(name,), daemon=True).start()
        threading.Thread(target=self._write, daemon=True).start()
        threading.Thread(target=self._wait, daemon=True).start()

    def _read(self, name: str) -> None:
        stream = self._process.stdout if name == "stdout" else self._process.stderr
        assert stream is not None
        pending = b""
        while True:
            data = os.read(stream.fileno(), 65536)
            if name == "stderr":
                # whole lines only, so that Wine's noise can be told from the program's text
                pending += data
                lines, pending = (pending, b"") if not data else self._whole_lines(pending)
                data_out = wine.clean(lines)
            else:
                data_out = data
            with self.changed:
                self._buffers[name] += data_out
                if not data:
                    self._open.discard(name)
                self.changed.notify_all()
            if not data:
                stream.close()
                return

    @staticmethod
    def _whole_lines(data: bytes) -> tuple[bytes, bytes]:
        end = data.rfind(b"\n") + 1
        return data[:end], data[end:]

    def _write(self) -> None:
        stream = self._process.stdin
        assert stream is not None
        while True:
            with self.changed:
                while not self._input:
                    if self.exit_code is not None:
                        with contextlib.suppress(OSError):
                            stream.close()
                        return
                    self.changed.wait()
                data = self._input.pop(0)
            try:
                if data is None:
                    stream.close()
                    return
                stream.write(data)
                stream.flush()
            except OSError:  # the process ended or closed its input
                with contextlib.suppress(OSError):
                    stream.close()
                return

    def _wait(self) -> None:
        code = self._process.wait()
        # A child that outlives the process may hold the pipes: give the readers a moment, then call it done.
        end = time.monotonic() + 1
        with self.changed:
            while self._open and time.monotonic() < end:
                self.changed.wait(end - time.monotonic())
            self.exit_code = code if code >= 0 else 1
            self.changed.notify_all()

    def send(self, data: bytes, end: bool) -> None:
        """Queue standard input; a slow reader does not block the client."""
        with self.changed:
            self._no_input_yet = False
            if data:
                self._input.append(data)
            if end:
                self._input.append(None)
            self.changed.notify_all()

    def receive(self, timeout: float) -> tuple[dict[str, bytes], int | None] | None:
        """New output and, when everything has been handed out, the exit code; None after the time-out."""
        end = time.monotonic() + timeout
        with self.changed:
            if self._no_input_yet:
                # Console mode: on Windows the program has a console and waits for nothing; here it would wait for
                # the pipe.
                self._no_input_yet = False
                self._input.append(None)
                self.changed.notify_all()
            while True:
                streams: dict[str, bytes] = {}
                for name, buffer in self._buffers.items():
                    if buffer:
                        streams[name] = bytes(buffer[:CHUNK])
                        del buffer[:CHUNK]
                done = self.exit_code is not None and not any(self._buffers.values())
                if streams or done:
                    return streams, self.exit_code if done else None
                rest = end - time.monotonic()
                if rest <= 0:
                    return None
                self.changed.wait(rest)

    @property
    def running(self) -> bool:
        return self.exit_code is None

    def kill(self) -> None:
        """End the process and its children. The children carry the marker in their environment; services do not."""
        for pid in [self._process.pid, *self._children()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _children(self) -> list[int]:
        wanted = b"LAB_COMMAND=" + self.marker.encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    if wanted in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                        found.append(int(entry))
        return found


class EndpointHost:
    """What the endpoint knows of one host."""

    def __init__(
        self,
        name: str,
        prefix: Path,
        enter: Sequence[str],
        user: str,
        password: str,
        pwsh: Sequence[str],
        faults: FaultFile,
        environment: Mapping[str, str],
        log: Callable[[str], None],
    ) -> None:
        self.name, self.prefix, self.enter, self.pwsh, self.faults, self.log = (
            name,
            prefix,
            tuple(enter),
            tuple(pwsh),
            faults,
            log,
        )
        self.environment = dict(environment)
        self.authorization = b"Basic " + base64.b64encode(f"{user}:{password}".encode())
        self.lock = threading.Lock()
        self.shells: dict[str, dict[str, Command]] = {}
        self.shell_environment: dict[str, dict[str, str]] = {}
        self.pools: dict[str, psrp.Pool] = {}
        # those that wait for an answer, and the fault that has cut them
        self.connections: set[socket.socket] = set()
        self.cut = ""

    # --- the six operations ---

    def create(self, variables: Mapping[str, str], shell: str = "") -> str:
        shell = shell or str(uuid.uuid4()).upper()
        with self.lock:
            self.shells[shell] = {}
            self.shell_environment[shell] = dict(variables)
        return shell

    def create_pool(self, shell: str, creation: bytes) -> None:
        """A shell that speaks PSRP: one PowerShell, which serves a runspace pool."""
        if not self.pwsh:
            raise SoapFault(BAD_REQUEST, "This lab has no PowerShell.")
        self.create(psrp.ENVIRONMENT, shell)
        process = self.start(["pwsh", "-NoProfile"], str(uuid.uuid4()).upper(), False, shell)
        with self.lock:
            self.shells[shell][psrp.POOL] = process
        self.log(f"{self.name}: a runspace pool in shell {shell[:8]}")
        pool = psrp.Pool(process, creation)
        with self.lock:
            self.pools[shell] = pool

    def shell(self, shell: str) -> dict[str, Command]:
        with self.lock:
            if shell not in self.shells:
                raise SoapFault(NO_SHELL, f"The shell {shell} is not open on this server.", "w:InvalidSelectors")
            return self.shells[shell]

    def command(self, shell: str, command: str) -> Command:
        commands = self.shell(shell)
        with self.lock:
            if command not in commands:
                raise SoapFault(NO_COMMAND, f"The command {command} is not known in this shell.", "w:InvalidSelectors")
            return commands[command]

    def run(self, shell: str, line: str, console: bool) -> str:
        commands = self.shell(shell)
        words = split_command_line(line)
        if not words:
            raise SoapFault(BAD_REQUEST, "The command line is empty.", "w:SchemaValidationError")
        identity = str(uuid.uuid4()).upper()
        command = self.start(words, identity, console, shell)
        with self.lock:
            commands[identity] = command
        return identity

    def start(self, words: Sequence[str], identity: str, console: bool, shell: str) -> Command:
        """Start a command in a shell."""
        if words[0].lower().rsplit("\\", 1)[-1] in POWERSHELL:
            if not self.pwsh:
                raise SoapFault(BAD_REQUEST, "This lab has no PowerShell.")
            words = [*self.pwsh, *words[1:]]
        elif words[0].lower() in ("chcp", "type", "dir", "echo"):
            words = ["cmd.exe", "/c", *words]
        env = {**self.environment, **self.shell_environment.get(shell, {}), "LAB_COMMAND": identity}
        kills: list[Fault] = []
        for fault in self.faults.take("environment", "unelevated", "wrap", "kill"):
            if fault["kind"] == "environment":
                env.update({str(key): str(value) for key, value in fault["variables"].items()})
            elif fault["kind"] == "unelevated":
                words = ["C:\\lab\\iissvc.exe", "unelevated", *words]
            elif fault["kind"] == "wrap":
                words = [*fault["argv"], *words]
            else:
                kills.append(fault)
        command = Command(
            [*self.enter, wine.loader(), *words],
            wine.environment(self.prefix, env),
            self.prefix / "drive_c/users" / "root"
            if (self.prefix / "drive_c/users/root").is_dir()
            else self.prefix / "drive_c",
            identity,
            console,
        )
        for fault in kills:
            threading.Thread(target=self._kill_later, args=(command, fault), daemon=True).start()
        return command

    def _kill_later(self, command: Command, fault: Fault) -> None:
        due = time.monotonic() + float(fault.get("after", 0))
        while command.running:
            if not met(fault, self.prefix / "drive_c"):
                due = time.monotonic() + float(fault.get("after", 0))
            elif time.monotonic() >= due:
                if fault.get("drop"):
                    self.cut = fault["id"]
                    for connection in list(self.connections):
                        with contextlib.suppress(OSError):
                            connection.shutdown(socket.SHUT_RDWR)
                if not fault.get("spare"):
                    command.kill()
                self.log(f"{self.name}: fault kill: command {command.marker[:8]}, {fault}")
                return
            time.sleep(0.005)

    def terminate(self, shell: str, command: str) -> None:
        commands = self.shell(shell)
        with self.lock:
            found = commands.pop(command, None)
        if found is not None and found.running:
            found.kill()

    def delete(self, shell: str) -> None:
        with self.lock:
            commands = self.shells.pop(shell, {})
            self.shell_environment.pop(shell, None)
            self.pools.pop(shell, None)
        for command in commands.values():
            if command.running:
                command.kill()

    def close(self) -> None:
        """End everything that runs."""
        for shell in list(self.shells):
            self.delete(shell)


def _seconds(duration: str | None, default: float = 60) -> float:
    """An XML Schema duration such as PT20S or PT1M30.000S."""
    match = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?", (duration or "").strip())
    if not match:
        return default
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


class _DropConnection(Exception):
    """A fault asks for the connection to end here."""


class Handler(BaseHTTPRequestHandler):
    """One client connection."""

    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 300
    disable_nagle_algorithm = True

    def setup(self) -> None:
        # The handshake happens in the connection's own thread: a silent client holds nobody up.
        self.request.settimeout(30)
        self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:
        """The farm's own log is enough."""

    def _reply(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/soap+xml;charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if cut is not None and cut < len(body):
            self.wfile.write(body[:cut])
            self.wfile.flush()
            raise _DropConnection
        self.wfile.write(body)

    @property
    def host(self) -> EndpointHost:
        """The host that this request is for."""
        return self.server.host_of(self.path)

    def do_POST(self) -> None:
        try:
            host = self.host
        except LookupError:
            self.close_connection = True
            self._reply(404, b"")
            return
        try:
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(length)
            if not hmac.compare_digest((self.headers.get("Authorization") or "").encode(), host.authorization):
                self._reply(401, b"", {"WWW-Authenticate": 'Basic realm="WSMAN"'})
                return
            self._answer(data)
        except _DropConnection:
            self._abort()
        except (ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True
        finally:
            host.connections.discard(self.connection)

    def _abort(self) -> None:
        """End the connection the rude way."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, data: bytes) -> None:
        host = self.host
        message = ""
        action = "unknown"
        started = time.monotonic()
        try:
            root = ET.fromstring(data)
            action = (root.findtext(".//a:Action", namespaces=NS) or "").rsplit("/", 1)[-1]
            message = root.findtext(".//a:MessageID", namespaces=NS) or ""
            cut: int | None = None
            byte_faults: list[Fault] = []
            if host.cut and any(fault["id"] == host.cut for fault in host.faults.read()):
                host.log(f"{host.name}: connection cut: {action}")
                raise _DropConnection
            host.connections.add(self.connection)
            for fault in host.faults.take("delay", "drop", action=action):
                if fault["kind"] == "delay":
                    time.sleep(float(fault.get("seconds", 1)))
                elif "after_bytes" in fault:
                    byte_faults.append(fault)
                else:
                    host.log(f"{host.name}: fault drop: {action}")
                    raise _DropConnection
            status, body = 200, self._operation(action, root)
        except SoapFault as fault:
            status, body = 500, self._fault(fault)
            byte_faults, cut = [], None
        except ET.ParseError as error:
            status, body = (
                500,
                self._fault(SoapFault(BAD_REQUEST, f"The message is no XML: {error}", "w:SchemaValidationError")),
            )
            byte_faults, cut = [], None
        except (OSError, LabError) as error:
            status, body = 500, self._fault(SoapFault(BAD_REQUEST, f"The lab cannot do this: {error}"))
            byte_faults, cut = [], None
        envelope = (
            f'<s:Envelope xmlns:s="{NS["s"]}" xmlns:a="{NS["a"]}" xmlns:w="{NS["w"]}" xmlns:rsp="{SHELL}">'
            f"<s:Header>"
            f"<a:Action>{escape(action)}Response</a:Action><a:MessageID>uuid:{uuid.uuid4()}</a:MessageID>"
            f"<a:RelatesTo>{escape(message)}</a:RelatesTo></s:Header><s:Body>{body}</s:Body></s:Envelope>"
        ).encode()
        for one in byte_faults:
            sent = host.faults.add_bytes(one, len(envelope))
            if sent + len(envelope) > int(one["after_bytes"]):
                cut = max(0, int(one["after_bytes"]) - sent)
                host.log(f"{host.name}: fault drop: {action} cut at {cut} of {len(envelope)} bytes")
        host.log(
            f"{host.name}: {action} {len(data)} -> {status} {len(envelope)} bytes, {time.monotonic() - started:.2f} s"
        )
        self._reply(status, envelope, cut=cut)

    @staticmethod
    def _fault(fault: SoapFault) -> str:
        return (
            f"<s:Fault><s:Code><s:Value>s:Receiver</s:Value>"
            f"<s:Subcode><s:Value>{fault.subcode}</s:Value></s:Subcode></s:Code>"
            f'<s:Reason><s:Text xml:lang="en-US">{escape(fault.text)}</s:Text></s:Reason>'
            f'<s:Detail><f:WSManFault xmlns:f="{WSMAN_FAULT}" Code="{fault.code}" Machine="127.0.0.1">'
            f"<f:Message>{escape(fault.text)}</f:Message></f:WSManFault></s:Detail></s:Fault>"
        )

    def _operation(self, action: str, root: ET.Element) -> str:
        host = self.host
        shell = root.findtext(".//w:Selector[@Name='ShellId']", namespaces=NS) or ""
        if (root.findtext(".//w:ResourceURI", namespaces=NS) or "").startswith(psrp.RESOURCE):
            try:
                return self._pool_operation(action, shell, root)
            except psrp.PoolEnded:
                raise SoapFault(NO_SHELL, f"The PowerShell of shell {shell} has ended.", "w:InvalidSelectors") from None
        if action == "Create":
            variables = {node.get("Name") or "": node.text or "" for node in root.iterfind(".//rsp:Variable", NS)}
            shell = host.create({name: value for name, value in variables.items() if name})
            return (
                '<x:ResourceCreated xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer">'
                "<a:Address>/wsman</a:Address><a:ReferenceParameters>"
                f"<w:ResourceURI>{SHELL}/cmd</w:ResourceURI>"
                f'<w:SelectorSet><w:Selector Name="ShellId">{shell}</w:Selector></w:SelectorSet>'
                f"</a:ReferenceParameters></x:ResourceCreated><rsp:Shell><rsp:ShellId>{shell}</rsp:ShellId>"
                "<rsp:InputStreams>stdin</rsp:InputStreams>"
                "<rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>"
            )
        if action == "Command":
            words = [root.findtext(".//rsp:Command", namespaces=NS) or ""]
            words += [node.text or "" for node in root.iterfind(".//rsp:Arguments", NS)]
            console = (
                root.findtext(".//w:Option[@Name='WINRS_CONSOLEMODE_STDIN']", namespaces=NS) or "TRUE"
            ).upper() == "TRUE"
            command = host.run(shell, " ".join(words), console)
            return f"<rsp:CommandResponse><rsp:CommandId>{command}</rsp:CommandId></rsp:CommandResponse>"
        if action == "Send":
            for stream in root.iterfind(".//rsp:Stream", NS):
                try:
                    data = base64.b64decode(stream.text or "", validate=False)
                except binascii.Error as error:
                    raise SoapFault(
                        BAD_REQUEST, f"The stream is no base64: {error}", "w:SchemaValidationError"
                    ) from error
                host.command(shell, stream.get("CommandId") or "").send(
                    data, (stream.get("End") or "").lower() == "true"
                )
            return "<rsp:SendResponse/>"
        if action == "Receive":
            wanted = root.find(".//rsp:DesiredStream", NS)
            identity = (wanted.get("CommandId") if wanted is not None else None) or ""
            limit = _seconds(root.findtext(".//w:OperationTimeout", namespaces=NS))
            answer = host.command(shell, identity).receive(limit)
            if answer is None:
                raise SoapFault(TIMED_OUT, TIMED_OUT_TEXT, "w:TimedOut")
            return self._received(identity, *answer)
        if action == "Signal":
            node = root.find(".//rsp:Signal", NS)
            host.terminate(shell, (node.get("CommandId") if node is not None else None) or "")
            return "<rsp:SignalResponse/>"
        if action == "Delete":
            host.delete(shell)
            return ""
        raise SoapFault(BAD_REQUEST, f"The action {action} is not supported.", "a:ActionNotSupported")

    def _pool_operation(self, action: str, shell: str, root: ET.Element) -> str:
        """The six operations for a runspace pool; a command is a pipeline."""
        host = self.host
        if action == "Create":
            node = root.find(".//rsp:Shell", NS)
            shell = ((node.get("ShellId") if node is not None else None) or str(uuid.uuid4())).upper()
            creation = root.findtext(".//{http://schemas.microsoft.com/powershell}creationXml") or ""
            host.create_pool(shell, base64.b64decode(creation))
            return (
                '<x:ResourceCreated xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer">'
                "<a:Address>/wsman</a:Address><a:ReferenceParameters>"
                f"<w:ResourceURI>{psrp.RESOURCE}Microsoft.PowerShell</w:ResourceURI>"
                f'<w:SelectorSet><w:Selector Name="ShellId">{shell}</w:Selector></w:SelectorSet>'
                f"</a:ReferenceParameters></x:ResourceCreated><rsp:Shell><rsp:ShellId>{shell}</rsp:ShellId>"
                "<rsp:InputStreams>stdin pr</rsp:InputStreams><rsp:OutputStreams>stdout</rsp:OutputStreams></rsp:Shell>"
            )
        if action == "Delete":
            host.delete(shell)
            return ""
        host.shell(shell)
        pool = host.pools[shell]
        if action == "Command":
            line = root.find(".//rsp:CommandLine", NS)
            identity = ((line.get("CommandId") if line is not None else None) or str(uuid.uuid4())).upper()
            given = [base64.b64decode(node.text or "") for node in root.iterfind(".//rsp:Arguments", NS)]
            pool.start(identity, b"".join(given))
            return f"<rsp:CommandResponse><rsp:CommandId>{identity}</rsp:CommandId></rsp:CommandResponse>"
        if action == "Send":
            for stream in root.iterfind(".//rsp:Stream", NS):
                data = base64.b64decode(stream.text or "")
                pool.send(stream.get("CommandId") or psrp.POOL, data, stream.get("Name") or "")
            return "<rsp:SendResponse/>"
        if action == "Signal":
            node = root.find(".//rsp:Signal", NS)
            identity = (node.get("CommandId") if node is not None else None) or ""
            pool.signal(identity, root.findtext(".//rsp:Code", namespaces=NS) or "")
            return "<rsp:SignalResponse/>"
        if action == "Receive":
            wanted = root.find(".//rsp:DesiredStream", NS)
            identity = (wanted.get("CommandId") if wanted is not None else None) or ""
            limit = _seconds(root.findtext(".//w:OperationTimeout", namespaces=NS))
            fragments = pool.receive(identity or psrp.POOL, limit)
            if fragments is None:
                raise SoapFault(TIMED_OUT, TIMED_OUT_TEXT, "w:TimedOut")
            of = f' CommandId="{identity}"' if identity else ""
            parts = [
                f'<rsp:Stream Name="stdout"{of}>{base64.b64encode(data).decode("ascii")}</rsp:Stream>'
                for data in fragments
            ]
            if identity:
                parts.append(f'<rsp:CommandState{of} State="{SHELL}/CommandState/Running"/>')
            return f"<rsp:ReceiveResponse>{''.join(parts)}</rsp:ReceiveResponse>"
        raise SoapFault(BAD_REQUEST, f"The action {action} is not supported.", "a:ActionNotSupported")

    @staticmethod
    def _received(command: str, streams: Mapping[str, bytes], code: int | None) -> str:
        parts = [
            f'<rsp:Stream Name="{name}" CommandId="{command}">{base64.b64encode(data).decode("ascii")}</rsp:Stream>'
            for name, data in streams.items()
        ]
        if code is None:
            parts.append(f'<rsp:CommandState CommandId="{command}" State="{SHELL}/CommandState/Running"/>')
        else:
            parts += [f'<rsp:Stream Name="{name}" CommandId="{command}" End="true"/>' for name in ("stdout", "stderr")]
            parts.append(
                f'<rsp:CommandState CommandId="{command}" State="{SHELL}/CommandState/Done">'
                f"<rsp:ExitCode>{code}</rsp:ExitCode></rsp:CommandState>",
            )
        return f"<rsp:ReceiveResponse>{''.join(parts)}</rsp:ReceiveResponse>"


class Server(ThreadingHTTPServer):
    """One host's port."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: EndpointHost, certificate: Path, key: Path, port: int = 0) -> None:
        self.host = host
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self.tls.load_cert_chain(certificate, key)
        super().__init__(("127.0.0.1", port), Handler)

    def host_of(self, path: str) -> EndpointHost:
        """The host behind a path. Raises LookupError; a port of one host takes every path for its own."""
        return self.host

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away or does not trust us is no event worth a traceback."""
