# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Appends one line per finished task to the file in BENCH_TIMES: host, task, seconds as the controller saw them."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_times
type: aggregate
short_description: Task times for the bench
description: Task times for the bench.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_times"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._began: dict[tuple[str, str], float] = {}

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._began[host.get_name(), task._uuid] = time.monotonic()

    def _done(self, result: Any) -> None:
        host, task = result._host.get_name(), result._task
        seconds = time.monotonic() - self._began[host, task._uuid]
        with open(os.environ["BENCH_TIMES"], "a", encoding="utf-8") as stream:
            stream.write(f"{host}\t{task.get_name()}\t{seconds:.4f}\n")

    v2_runner_on_ok = _done
