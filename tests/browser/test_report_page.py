# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501 - JavaScript in strings, and small helpers beside their use
"""The report page in a browser: clicked, typed into, read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys


def test_it_opens_without_errors_and_asks_for_nothing(page: Any) -> None:
    page.find("#tab-keys").click()
    page.find("#tab-rules").click()
    page.find("#tab-drift").click()
    assert page.errors() == []
    assert page.requests() == [page.path.as_uri()]


def test_the_summary_counts(page: Any) -> None:
    tiles = {
        tile.get_attribute("data-status"): int(tile.find_element("css selector", "b").text)
        for tile in page.all(".tile")
    }
    total = tiles.pop("")
    assert total == sum(tiles.values())
    assert tiles["unreachable"] == 3
    assert page.find("#count").text == f"{total} hosts"
    assert "Shop baseline" in page.find(".sub").text


def test_the_matrix_says_what_the_verdicts_are(page: Any) -> None:
    assert page.cell("bad-small-key", "Key size") == "fail"
    assert page.cell("bad-small-key", "Every value decrypts") == "pass"
    assert page.cell("bad-without-new-facts", "Configuration history on") == "unknown"
    assert page.cell("bad-unreachable", "Host answered") == "fail"
    assert page.cell("bad-no-backup", "Recent backup") == "waived"
    assert page.cell("old1", "Keys equal in the group") == "not applicable"
    assert page.cell("blog1", "No cloned keys") == "flagged"


def test_the_worst_come_first(page: Any) -> None:
    statuses = page.js("return [...document.querySelectorAll('#body tr[data-at] .s')].map(one => one.className)")
    order = ["unreachable", "fail", "unknown", "warn", "pass"]
    found = [next(number for number, name in enumerate(order) if name in one.split()) for one in statuses]
    assert found == sorted(found)


def test_silence_says_which_kind(page: Any) -> None:
    text = page.find("#body").text
    assert all(word in text for word in ("unreachable", "failed", "stale"))


def test_search(page: Any) -> None:
    page.search("small")
    assert page.hosts() == ["bad-small-key"]
    assert page.find("#count").text.startswith("1 of ")
    page.search("shop web3")
    assert page.hosts() == ["web3"]
    page.search("nothing like this")
    assert "No host matches" in page.find("#body").text
    page.click("button[type=reset]")
    assert page.find("#count").text.endswith(" hosts")


def test_search_by_fingerprint(page: Any) -> None:
    import _fleet

    page.search(_fleet.digest("somebody else")[:16])
    assert sorted(page.hosts()) == ["bad-other-key", "web2"]


def test_filters_work_together(page: Any) -> None:
    page.select("farm", "blog")
    assert sorted(page.hosts()) == ["blog1", "blog2"]
    page.select("farm", "all farms")
    page.select("rule", "Key size")
    page.select("verdict", "fail")
    assert page.hosts() == ["bad-small-key"]
    page.select("verdict", "unknown")
    assert "bad-denied" in page.hosts()
    page.select("rule", "any rule")
    page.select("verdict", "waived")
    assert page.hosts() == ["bad-no-backup"]


def test_a_tile_filters_and_filters_no_more(page: Any) -> None:
    page.click(".tile[data-status=unreachable]")
    assert sorted(page.hosts()) == ["bad-failed", "bad-stale", "bad-unreachable"]
    assert page.find(".tile[data-status=unreachable]").get_attribute("aria-pressed") == "true"
    page.click(".tile[data-status=unreachable]")
    assert page.find("#count").text.endswith(" hosts")


def test_sorting_by_name_and_by_rule(page: Any) -> None:
    page.search("web")
    page.click("#head th:first-child button")
    hosts = page.hosts()
    assert hosts.index("web2") < hosts.index("web3")
    head = page.find("#head th:first-child")
    assert head.get_attribute("aria-sort") == "ascending"
    page.click("#head th:first-child button")
    assert page.find("#head th:first-child").get_attribute("aria-sort") == "descending"
    page.search("bad")
    page.click("#head button[aria-label='Key size']")
    assert page.hosts()[0] == "bad-small-key"


def test_a_host_opens_with_everything_about_it(page: Any) -> None:
    page.search("bad-access")
    page.click("#body th button")
    sheet = page.find("#sheet")
    assert sheet.is_displayed()
    text = sheet.text
    assert text.startswith("bad-access")
    for words in (
        "Worker processes (IIS_IUSRS) can read iisWasKey",
        "Remove the entry of IIS_IUSRS",
        "S-1-5-32-568",
        "iisConfigurationKey",
        "@password",
        "applicationHost.config",
        "2048",
        "AppHostSvc",
        "daily",
        r"C:\inetpub\history",
        "DefaultAppPool",
    ):
        assert words in text, words
    # The rule that fails stands above those that pass.
    verdicts = page.js(
        "return [...document.querySelectorAll('#sheet table')][0].querySelectorAll('tbody .s')[0].textContent"
    )
    assert verdicts == "fail"
    assert "enc:" not in text
    page.find("#sheet header button").click()
    assert not sheet.is_displayed()


def test_a_host_that_did_not_answer(page: Any) -> None:
    page.search("bad-unreachable")
    page.click("#body th button")
    text = page.find("#sheet").text
    assert "connection refused" in text
    assert "Key containers" not in text


def test_keys_by_farm_make_the_odd_one_obvious(page: Any) -> None:
    page.click("#tab-keys")
    first = page.find("#view-keys article")
    assert first.get_attribute("data-farm") == "shop"
    assert "keys differ" in first.text
    assert "differs" in first.text
    odd = page.all("article[data-farm=shop] .sq.odd")
    even = page.all("article[data-farm=shop] .farm-head + .keyrow .sq:not(.odd):not(.none)")
    assert len(odd) == 2

    def style(node: Any) -> Any:
        return page.js(
            "const s = getComputedStyle(arguments[0]);"
            "return [s.outlineStyle, s.outlineWidth, s.getPropertyValue('--h')]",
            node,
        )

    assert style(odd[0])[:2] == ["solid", "2px"]
    assert style(even[0])[0] == "none"
    # Equal keys have equal colours, in their own farm and in another one.
    hues = {
        style(node)[2] for node in page.all("article[data-farm=shop] .farm-head + .keyrow .sq:not(.odd):not(.none)")
    }
    assert len(hues) == 1
    assert style(odd[0])[2] == style(odd[1])[2]
    assert style(odd[0])[2] not in hues
    assert style(page.find("article[data-farm=legacy] .sq"))[2] in hues
    assert "all equal" in page.find("article[data-farm=blog]").text


def test_from_a_key_to_its_host_and_to_its_farm(page: Any) -> None:
    page.click("#tab-keys")
    page.js(
        "[...document.querySelectorAll('#view-keys button.link')].find(one => one.textContent === 'bad-other-key').click()"
    )
    assert page.find("#sheet").text.startswith("bad-other-key")
    page.find("#sheet header button").click()
    page.js(
        "[...document.querySelectorAll('article[data-farm=blog] button.link')].find(one => one.textContent === 'show its hosts').click()"
    )
    page.frame()
    assert sorted(page.hosts()) == ["blog1", "blog2"]


def test_only_farms_that_differ(page: Any) -> None:
    page.click("#tab-keys")
    page.click("#odd-only")
    assert [one.get_attribute("data-farm") for one in page.all("#view-keys article")] == ["shop"]


def test_rules_lead_to_their_hosts(page: Any) -> None:
    page.click("#tab-rules")
    text = page.find("#view-rules").text
    assert "CIS Microsoft IIS 10 3.11" in text
    assert "V-218806" in text
    assert "rebuilt next week" in text
    page.js(
        "const card = [...document.querySelectorAll('#view-rules article')].find(one => one.querySelector('code').textContent === 'key_size');"
        "[...card.querySelectorAll('.counts button')].find(one => one.textContent.endsWith('fail')).click()"
    )
    page.frame()
    assert page.find("#tab-hosts").get_attribute("aria-selected") == "true"
    assert page.hosts() == ["bad-small-key"]


def test_drift(page: Any) -> None:
    page.click("#tab-drift")
    text = page.find("#view-drift").text
    assert "2026-11-22T18:00:00Z" in text
    assert "web2" in text
    assert "gone1" in text
    page.js("[...document.querySelectorAll('#view-drift button.link')].find(one => one.textContent === 'web2').click()")
    assert page.find("#sheet").text.startswith("web2")


# --- keyboard and screen readers ------------------------------------------------------------------------------------


def test_everything_by_keyboard(page: Any) -> None:
    field = page.find("#search")
    field.send_keys("web")
    page.frame()
    # Tab past the filters and the heads into the matrix.
    for _step in range(40):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        if page.js("return document.getElementById('body').contains(document.activeElement)"):
            break
    first = page.focused()
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    second = page.focused()
    assert first != second
    page.driver.switch_to.active_element.send_keys(Keys.END)
    assert page.focused() == page.hosts()[-1]
    page.driver.switch_to.active_element.send_keys(Keys.HOME)
    assert page.focused() == first
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.find("#sheet").is_displayed()
    assert page.focused() == "Close"
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not page.find("#sheet").is_displayed()
    assert page.focused() == first


def test_tabs_by_arrow_keys(page: Any) -> None:
    page.find("#tab-hosts").send_keys(Keys.ARROW_RIGHT)
    assert page.focused() == "Keys by farm"
    assert page.find("#view-keys").is_displayed()
    assert not page.find("#view-hosts").is_displayed()


def test_tables_are_tables(page: Any) -> None:
    assert page.find("#matrix").get_attribute("aria-rowcount") == str(
        int(re.sub(r"\D", "", page.find("#count").text)) + 1
    )
    assert page.js(
        "return [...document.querySelectorAll('#head th')].every(one => one.scope === 'col' && one.hasAttribute('aria-sort'))"
    )
    assert page.js(
        "return [...document.querySelectorAll('#body tr[data-at]')].every(one => one.cells[0].scope === 'row')"
    )
    page.click("#body th button")
    assert page.js(
        "return [...document.querySelectorAll('#sheet table')].every(one => one.caption && one.querySelector('thead th[scope=col]'))"
    )


def test_every_control_has_a_name(page: Any) -> None:
    nameless = page.js(
        "return [...document.querySelectorAll('button, input, select')].filter(one => !(one.textContent.trim() || one.getAttribute('aria-label')"
        " || (one.labels && one.labels.length))).map(one => one.outerHTML)"
    )
    assert nameless == []


CONTRAST = """
const luminance = rgb => { const [r, g, b] = rgb.map(one => { one /= 255; return one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const parse = text => { const all = text.match(/[\\d.]+/g).map(Number); return { rgb: all.slice(0, 3), alpha: all.length > 3 ? all[3] : 1 }; };
const ground = node => { for (let one = node; one; one = one.parentElement) { const found = parse(getComputedStyle(one).backgroundColor); if (found.alpha > 0.99) return found.rgb; }
  return [255, 255, 255]; };
const bad = [];
for (const node of document.querySelectorAll(arguments[0])) {
  const own = [...node.childNodes].some(one => one.nodeType === 3 && one.textContent.trim());
  if (!own || !node.checkVisibility() || node.closest('.sr, .off, #wait, .na')) continue;
  const front = parse(getComputedStyle(node).color), back = ground(node);
  const [a, b] = [luminance(front.rgb), luminance(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${node.className} ${node.textContent.slice(0, 40)}`);
}
return [...new Set(bad)];
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(page: Any, theme: str) -> None:
    page.js(
        "document.documentElement.dataset.theme = arguments[0]; document.head.append(Object.assign(document.createElement('style'), {textContent: '* { transition: none !important }'}))",
        theme,
    )
    for tab in ("hosts", "keys", "rules", "drift"):
        page.click(f"#tab-{tab}")
        page.js("document.activeElement.blur()")
        assert page.js(CONTRAST, "#app *, .top *") == []
    page.click("#tab-hosts")
    page.search("bad-access")
    page.click("#body th button")
    assert page.js(CONTRAST, "#sheet *") == []


def test_the_theme_button(page: Any) -> None:
    def background() -> Any:
        return page.js("return getComputedStyle(document.documentElement).backgroundColor")

    page.js("localStorage.clear()")
    page.click("#theme")
    light = background()
    page.click("#theme")
    assert background() != light
    assert page.find("#theme").get_attribute("aria-label") == "Colours: dark"
    page.click("#theme")
    assert page.find("#theme-name").text == "Auto"


def test_paper(page: Any) -> None:
    """Printed, all hosts and the findings are there, and the controls are not."""
    import base64

    pdf = base64.b64decode(
        page.driver.execute_cdp_cmd("Page.printToPDF", {"landscape": True, "printBackground": True})["data"]
    )
    assert pdf.startswith(b"%PDF")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        page.js("dispatchEvent(new Event('beforeprint'))")
        assert not page.find("#filters").is_displayed()
        assert len(page.hosts()) == int(
            re.sub(r"\D", "", page.js("return document.getElementById('count').textContent"))
        )
        assert "Remove the entry of IIS_IUSRS" in page.find("#print-findings").text
    finally:
        page.js("dispatchEvent(new Event('afterprint'))")
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_small_screens_do_not_scroll_sideways(page: Any) -> None:
    page.driver.set_window_size(500, 900)
    try:
        page.frame()
        assert page.js("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.driver.set_window_size(1440, 900)


# --- ten thousand hosts ---------------------------------------------------------------------------------------------

# The worst case: every frame shows other rows. The first half of the frames show the same ones, for comparison.
JANK = """
const done = arguments[arguments.length - 1], times = [];
const scroll = document.getElementById('scroll'), middle = list => list.sort((a, b) => a - b)[Math.floor(list.length / 2)];
let step = 0, last = performance.now();
const next = now => {
  times.push(now - last); last = now; step++;
  if (step > 80) return done({ still: middle(times.slice(2, 40)), moving: middle(times.slice(42)), rows: document.querySelectorAll('#body tr').length });
  if (step > 40) scroll.scrollTop = scroll.scrollHeight * (step % 2 ? step / 80 : 1 - step / 80);
  requestAnimationFrame(next);
};
requestAnimationFrame(next);
"""
TYPING = """
const done = arguments[arguments.length - 1], field = document.getElementById('search'), words = ['w', 'we', 'web', 'web0', 'web00', 'web001', 'farm1', 'farm12', 'farm123', ''], times = [];
const next = () => {
  if (!words.length) return done(Math.max(...times));
  const began = performance.now();
  field.value = words.shift();
  field.dispatchEvent(new Event('input'));
  requestAnimationFrame(() => setTimeout(() => { times.push(performance.now() - began); next(); }));
};
next();
"""


def test_ten_thousand_hosts(open_page: Callable[[Path], Any], large_file: Path) -> None:
    page = open_page(large_file)
    figures: dict[str, Any] = {"page_mb": round(large_file.stat().st_size / 1e6, 1)}
    figures["open_ms"] = round(
        page.js("return performance.getEntriesByType('mark').find(one => one.name === 'ready').startTime")
    )
    figures["scroll"] = page.driver.execute_async_script(JANK)
    figures["filter_worst_ms"] = round(page.driver.execute_async_script(TYPING))
    figures["memory_mb"] = round(page.js("return performance.memory.usedJSHeapSize / 1e6"))
    began = "const began = performance.now(); document.getElementById(arguments[0]).click(); document.body.offsetHeight; return Math.round(performance.now() - began)"
    figures["views_ms"] = {name: page.js(began, f"tab-{name}") for name in ("keys", "rules", "drift", "hosts")}
    page.click("#head button[aria-label='Key size']")
    page.click("#body th button")
    assert page.find("#sheet").is_displayed()
    page.shot("large")
    (page.shot("large-sheet").parent / "figures.json").write_text(json.dumps(figures, indent=1))
    print(figures)
    # Bounds that a busy machine keeps; a page that draws every row misses them by far.
    busy = max(1.0, figures["scroll"]["still"] / 16.7)
    assert figures["open_ms"] < 3000 * busy
    assert figures["scroll"]["rows"] < 100
    assert figures["scroll"]["moving"] < 150 * busy
    assert figures["filter_worst_ms"] < 200 * busy
    assert max(figures["views_ms"].values()) < 700 * busy


def test_screenshots(page: Any) -> None:
    """What the guides show."""
    page.js("localStorage.clear(); document.documentElement.dataset.theme = 'light'")
    page.frame()
    assert page.shot("hosts").stat().st_size > 20_000
    page.search("bad-access")
    page.click("#body th button")
    page.shot("host")
    page.find("#sheet header button").click()
    page.search("")
    for name in ("keys", "rules", "drift"):
        page.click(f"#tab-{name}")
        page.shot(name)
    page.click("#tab-hosts")
    page.js("document.documentElement.dataset.theme = 'dark'")
    page.frame()
    page.shot("hosts-dark")
    page.click("#tab-keys")
    page.shot("keys-dark")
