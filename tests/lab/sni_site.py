# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An https site that only the name in the TLS greeting leads to, as a binding with SNI and a certificate for one name.

`python sni_site.py CERTIFICATE KEY PORT NAME` prints its port, then one line per connection: the name of the greeting
(or -) and the Host header. Without the right name the greeting is refused; a Host header of another site gets 404.
"""

from __future__ import annotations

import socket
import ssl
import sys


def serve(certificate: str, key: str, port: int, name: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    asked: list[str] = []

    def greeted(_socket: object, server_name: str | None, _context: object) -> int | None:
        asked.append(server_name or "-")
        return None if server_name == name else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context.sni_callback = greeted
    with socket.create_server(("127.0.0.1", port)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            plain, _address = listener.accept()
            asked.clear()
            header = ""
            try:
                plain.settimeout(20)
                with context.wrap_socket(plain, server_side=True) as secure:
                    text = b""
                    while b"\r\n\r\n" not in text and (more := secure.recv(4096)):
                        text += more
                    lines = text.decode("latin-1").split("\r\n")
                    header = next((line[5:].strip() for line in lines if line.lower().startswith("host:")), "")
                    status = "200 OK" if header.split(":")[0] == name else "404 Not Found"
                    secure.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            except OSError:
                pass
            print(*(asked or ["-"]), header or "-", flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
