# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holds the namespaces of one simulated server; runs as a program of its own, without the rest of the package.

`python holder.py NAME` makes a network and a host-name namespace, so that port 80 and the computer name are the
server's own, raises the loopback device by ioctl (no iproute2 needed), prints "ready" and waits until its standard
input closes, that is until its owner ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


def unshare(flags: int) -> None:
    """Python 3.11 has no os.unshare."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, "unshare: " + os.strerror(number))


def loopback_up() -> None:
    """Raise lo in the present network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


if __name__ == "__main__":
    unshare(CLONE_NEWNET | CLONE_NEWUTS)
    socket.sethostname(sys.argv[1].upper())
    loopback_up()
    print("ready", flush=True)
    sys.stdin.buffer.read()
