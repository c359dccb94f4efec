# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A callback that ends the controller, all of it, at the first step that no run before was ended at.

A step is the end of a task of this collection on one host, or the beginning of a run's first: before another one is
after the one that came before it. LAB_INTERRUPT names the file that holds the steps already used, one a line; a run
that finds no new one is left alone.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Enabled by name."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "interrupt"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._play = ""
        self._begun = False

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play.get_name()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._step("begin", host, task)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._step("end", result._host, result._task)

    def _step(self, when: str, host: Any, task: Any) -> None:
        if not task.action.startswith("webfarm.iis.") or (when == "begin" and self._begun):
            return
        self._begun = True
        step = f"{self._play} | {task.action} | {host.get_name()} | {when}"
        file = Path(os.environ["LAB_INTERRUPT"])
        used = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        if step in used:
            return
        file.write_text("\n".join([*used, step]) + "\n", encoding="utf-8")
        if os.getpgrp() != os.getsid(0):
            raise SystemExit("the run is not the leader of a session of its own")
        os.killpg(os.getpgrp(), signal.SIGKILL)
