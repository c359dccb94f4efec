# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One network and host-name namespace per simulated server, kept by a small holder process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import LabUnavailable


def start_holder(name: str) -> subprocess.Popen[bytes]:
    """Start a holder; it ends when the returned process's stdin is closed or the caller ends."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("holder.py")), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    if process.stdout.readline().strip() != b"ready":
        text = process.stderr.read().decode(errors="replace").strip().splitlines()
        process.wait()
        reason = text[-1] if text else "no reason given"
        raise LabUnavailable(
            f"a network namespace per host cannot be made ({reason}): run as root, in a container with CAP_SYS_ADMIN"
        )
    return process


def enter_command(pid: int) -> Sequence[str]:
    """The command prefix that runs a program inside a holder's namespaces."""
    return ("/usr/bin/nsenter", f"--net=/proc/{pid}/ns/net", f"--uts=/proc/{pid}/ns/uts", "--")
