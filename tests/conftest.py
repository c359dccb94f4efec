# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of all tests: the simulated farm, single module calls, playbooks; and the closing count.

A part that is missing here (Wine, PowerShell, root) skips the tests that need it, with the reason; in CI it fails them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "lab"))

from lab import Farm, LabUnavailable, setup  # noqa: E402
from lab.errors import LabError  # noqa: E402

# At about 4 s a module call, two at a time, this is what a test run may cost.
CALL_BUDGET = 900
IN_CI = os.environ.get("CI", "").lower() in ("true", "1", "yes")
# Tests that run side by side (pytest-xdist) have a farm each.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
FARM = os.environ.get("LAB_FARM") or "-".join(filter(None, ("test", WORKER)))
KEEP_FARM = bool(os.environ.get("LAB_KEEP"))

_calls = {"before": 0, "farm": None}


def unavailable(reason: str) -> NoReturn:
    """A part is missing: skip with the reason, or fail where everything has to be there."""
    if IN_CI:
        pytest.fail(f"in CI nothing may be missing: {reason}", pytrace=False)
    pytest.skip(reason)


# --- the lab ---------------------------------------------------------------------------------------------------------


def _commands_run(farm: Farm) -> int:
    """Processes that the farm's endpoint has started: one per module call."""
    try:
        return (farm.folder / "endpoint.log").read_text(encoding="utf-8").count(": Command ")
    except FileNotFoundError:
        return 0


@pytest.fixture(scope="session")
def farm() -> Iterator[Farm]:
    """The farm of this session: web1 golden, web2 new, web3 without iisWasKey. Hosts come from host()."""
    hosts = ("web1", "web2", "web3")
    try:
        raised = Farm.up(hosts, name=FARM, progress=lambda text: print(f"lab: {text}", file=sys.stderr))
    except LabUnavailable as error:
        unavailable(str(error))
    _calls["before"] = _commands_run(raised)
    _calls["farm"] = raised
    yield raised
    if KEEP_FARM:
        raised.reset()
    else:
        raised.down()


@pytest.fixture(scope="session")
def pwsh_farm(farm: Farm) -> Farm:
    """The farm, where modules can run."""
    if not farm.has_pwsh():
        unavailable("no PowerShell for the lab: set LAB_PWSH or put ../shared/labpwsh beside the repository")
    return farm


@pytest.fixture(scope="session")
def pwsh_linux() -> Path:
    """A PowerShell 7 for Linux: syntax trees, argument specs."""
    try:
        return setup.pwsh_linux(lambda _text: None).path
    except LabError as error:
        unavailable(f"no PowerShell for Linux: {error}")


# --- single module calls ---------------------------------------------------------------------------------------------


@pytest.fixture
def ansible_module(pwsh_farm: Farm, ansible_adhoc: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """ansible_module(host, module, check=False, diff=False, **options) -> the result as a dictionary.

    A failed module answers {"failed": True, "msg": ...}, an unreachable host {"unreachable": True, ...}; nothing is
    raised. The name without dots means this collection's module.
    """
    from pytest_ansible.errors import AnsibleConnectionFailure

    def call(host: Any, module: str, /, check: bool = False, diff: bool = False, **options: Any) -> dict[str, Any]:
        name = str(getattr(host, "name", host))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pytest-ansible announces the end of its host management
            dispatcher = ansible_adhoc(inventory=str(pwsh_farm.inventory), host_pattern=name, connection="winrm")[name]
        # Set here and not by attribute: pytest-ansible would not find a module that is an action plugin alone.
        dispatcher.options["module_name"] = module if "." in module else f"webfarm.iis.{module}"
        build = dispatcher._build_play_ds

        def play(arguments: dict[str, Any]) -> dict[str, Any]:
            source: dict[str, Any] = build(arguments)
            source["tasks"] = [{dispatcher.options["module_name"]: arguments, "check_mode": check, "diff": diff}]
            return source

        dispatcher._build_play_ds = play
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                contacted = dispatcher._run(**options).contacted
        except AnsibleConnectionFailure as error:
            return {"unreachable": True, **dict(error.dark[name])}
        # through JSON: plain types, as a playbook would register them; first what a failing assertion should show
        result = dict(json.loads(json.dumps(contacted[name], default=str)))
        return {key: result[key] for key in ("failed", "msg") if key in result} | result

    return call


# --- playbooks -------------------------------------------------------------------------------------------------------


@dataclass
class PlaybookResult:
    """An ansible-playbook process that has ended."""

    rc: int
    stdout: str
    stderr: str
    seconds: float
    recap: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Everything it printed."""
        return self.stdout + self.stderr

    @property
    def changed(self) -> int:
        """The sum of changed tasks over all hosts."""
        return sum(host["changed"] for host in self.recap.values())


_RECAP = re.compile(r"^(\S+)\s+: (ok=\d+.*)$", re.MULTILINE)


def _recap(stdout: str) -> dict[str, dict[str, int]]:
    _before, _line, after = stdout.rpartition("PLAY RECAP")
    return {
        match[1]: {key: int(value) for key, value in (pair.split("=") for pair in match[2].split())}
        for match in _RECAP.finditer(re.sub(r"\x1b\[[0-9;]*m", "", after))
    }


@pytest.fixture
def playbook(pwsh_farm: Farm, tmp_path: Path) -> Callable[..., PlaybookResult]:
    """playbook(what, *arguments, extra_vars={}, env={}, inventory=None, timeout=600) -> PlaybookResult

    what: a path, the name of a collection's playbook (webfarm.iis.NAME), or a list of plays.
    """

    def run(
        what: str | Path | Sequence[Mapping[str, Any]],
        *arguments: str,
        extra_vars: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        inventory: Path | None = None,
        timeout: float = 600,
    ) -> PlaybookResult:
        if isinstance(what, (str, Path)):
            target = str(what)
        else:
            path = tmp_path / f"play-{time.monotonic_ns()}.yml"
            path.write_text(json.dumps(list(what)), encoding="utf-8")
            target = str(path)
        command = ["ansible-playbook", "-i", str(inventory or pwsh_farm.inventory), target, *arguments]
        if extra_vars:
            file = tmp_path / f"vars-{time.monotonic_ns()}.json"
            file.write_text(json.dumps(extra_vars), encoding="utf-8")
            command += ["-e", f"@{file}"]
        variables = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "ANSIBLE_NOCOLOR": "1",
            **(env or {}),
        }
        began = time.monotonic()
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            env=variables,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
            cwd=tmp_path,
        )
        return PlaybookResult(done.returncode, done.stdout, done.stderr, time.monotonic() - began, _recap(done.stdout))

    return run


# --- the closing count -----------------------------------------------------------------------------------------------


_calls_of_workers: list[int] = []


def _module_calls() -> int | None:
    farm = _calls["farm"]
    if isinstance(farm, Farm):
        return _commands_run(farm) - int(_calls["before"] or 0)
    return sum(_calls_of_workers) if _calls_of_workers else None


class _WorkerCalls:
    """Adds up what the workers of pytest-xdist report."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        calls = getattr(node, "workeroutput", {}).get("module_calls")
        if calls is not None:
            _calls_of_workers.append(int(calls))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_WorkerCalls())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """More module calls than budgeted make the run fail."""
    calls = _module_calls()
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["module_calls"] = calls
        return
    if calls is not None and calls > CALL_BUDGET and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What it cost, and what could not run and why."""
    calls = _module_calls()
    if calls is not None:
        over = " - OVER THE BUDGET" if calls > CALL_BUDGET else ""
        terminalreporter.write_line(f"module calls: {calls} of at most {CALL_BUDGET}{over}")
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"could not run: {count} test(s): {reason}")
