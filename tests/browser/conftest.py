# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501 - JavaScript in strings, and small helpers beside their use
"""Headless Chromium from Debian, driven by selenium, and pages to look at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1440,900",
    # Nothing outside is ever reached: whatever a page asked for would fail, and be seen in the log.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
SHOTS = Path(__file__).resolve().parents[2] / ".build" / "browser"


def _programs() -> tuple[str, str] | None:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver) and os.geteuid() == 0 and shutil.which("apt-get"):
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "chromium-driver"],
        ):
            subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@pytest.fixture(scope="session")
def _browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = _programs()
    if programs is None:
        reason = "Chromium is not installed and cannot be: apt-get install chromium chromium-driver"
        if os.environ.get("CI", "").lower() in ("true", "1", "yes"):
            pytest.fail(f"in CI nothing may be missing: {reason}", pytrace=False)
        pytest.skip(reason)
    os.environ["SE_OFFLINE"] = "true"
    with tempfile.TemporaryDirectory(prefix="webfarm-chromium-") as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = programs[0]
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
        try:
            yield driver
        finally:
            driver.quit()


class Page:
    """A report in the browser, by what a reader does with it."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver = driver
        self.path = path
        driver.get_log("browser")
        driver.get_log("performance")
        driver.get(path.as_uri())
        self.wait("document.documentElement.dataset.ready === 'yes'")

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str) -> None:
        self.driver.set_script_timeout(20)
        found = self.driver.execute_async_script(
            "const done = arguments[1], until = performance.now() + 15000;"
            "const look = () => { if (eval(arguments[0])) done(true); else if (performance.now() > until) done(false); else setTimeout(look, 10); }; look();".replace(
                "arguments[0]", "condition"
            ).replace("const done", "const condition = arguments[0], done"),
            condition,
        )
        assert found, f"never true: {condition}"

    def frame(self) -> None:
        """Let the page draw."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
        )

    def find(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def all(self, css: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", css))

    def hosts(self) -> list[str]:
        """The hosts whose rows are drawn."""
        return list(
            self.js("return [...document.querySelectorAll('#body tr[data-at] th')].map(one => one.textContent)")
        )

    def cell(self, host: str, rule: str) -> str:
        """The verdict that the matrix shows, as a screen reader says it."""
        self.search(host)
        return str(
            self.js(
                "const at = [...document.querySelectorAll('#head th')].findIndex(one => one.querySelector('button')?.getAttribute('aria-label') === arguments[1]);"
                "const row = [...document.querySelectorAll('#body tr[data-at]')].find(one => one.cells[0].textContent === arguments[0]);"
                "return row.cells[at].querySelector('[role=img]').getAttribute('aria-label')",
                host,
                rule,
            )
        )

    def select(self, name: str, label: str) -> None:
        from selenium.webdriver.support.select import Select

        Select(self.find(f"#{name}")).select_by_visible_text(label)
        self.frame()

    def search(self, text: str) -> None:
        field = self.find("#search")
        field.clear()
        field.send_keys(text)
        self.frame()

    def click(self, css: str) -> None:
        self.find(css).click()
        self.frame()

    def focused(self) -> str:
        return str(self.js("return document.activeElement.textContent"))

    def shot(self, name: str) -> Path:
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}.png"
        self.driver.save_screenshot(str(path))
        return path

    def errors(self) -> list[str]:
        return [
            str(entry["message"]) for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
        ]

    def requests(self) -> list[str]:
        """Everything that the page asked for."""
        import json

        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(str(message["params"]["request"]["url"]))
        return [url for url in found if not url.startswith(("data:", "blob:"))]


@pytest.fixture(scope="session")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A farm with every kind of trouble, a second one in which all is well, a third with a cloned key; and drift."""
    import _fleet

    from ansible_collections.webfarm.iis.plugins.plugin_utils import _page, _policy, _report
    from ansible_collections.webfarm.iis.plugins.plugin_utils._rules import KeySet

    top: Path = tmp_path_factory.mktemp("report")
    known = [
        KeySet(
            "shop",
            1,
            {name: _fleet.digest("shop", name, 1) for name in ("iisWasKey", "iisConfigurationKey")},
            "shop.keyset.json",
        )
    ]
    policy = _policy.load_policy(
        {
            "name": "Shop baseline",
            "waivers": [
                {
                    "rule": "backup_recent",
                    "hosts": ["bad-no-backup"],
                    "reason": "rebuilt next week",
                    "until": "2026-12-31",
                }
            ],
        }
    )
    before = _fleet.write(
        top / "before", [_fleet.record(f"web{number}") for number in range(1, 7)] + [_fleet.record("gone1")]
    )
    old = _report.evaluate(before, policy, known=known, now=_fleet.NOW.replace(day=22))
    with (top / "old.json").open("w") as stream:
        _report.write_json(old, stream)

    def clone(data: dict[str, Any]) -> None:
        _fleet.container(data, "iisWasKey").update(fingerprint=_fleet.digest("shop", "iisWasKey", 1))

    records = (
        _fleet.troubled()
        + [_fleet.record(f"blog{number}", "blog") for number in (1, 2)]
        + [_fleet.record("old1", "legacy", clone)]
    )
    records.append(_fleet.record("web2", change=_fleet.TROUBLE["other_key"]))
    folder = _fleet.write(top / "records", records)
    report = _report.evaluate(folder, policy, known=known, now=_fleet.NOW)
    report.drift = _report.drift(_report.read_json(top / "old.json"), report)
    path = top / "compliance.html"
    path.write_text(_page.render(report), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 hosts."""
    import _fleet

    from ansible_collections.webfarm.iis.plugins.plugin_utils import _page, _policy, _report

    folder = _fleet.large(tmp_path_factory.mktemp("large"), 10_000)
    path: Path = tmp_path_factory.mktemp("page") / "large.html"
    path.write_text(_page.render(_report.evaluate(folder, _policy.load_policy({}), now=_fleet.NOW)), encoding="utf-8")
    shutil.rmtree(folder)
    return path


@pytest.fixture
def open_page(_browser: Any) -> Callable[[Path], Page]:
    def go(path: Path) -> Page:
        _browser.get("about:blank")
        return Page(_browser, path)

    return go


@pytest.fixture
def page(open_page: Callable[[Path], Page], report_file: Path) -> Page:
    return open_page(report_file)
