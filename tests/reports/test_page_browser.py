"""The page in a browser: silent, alone, sortable, readable in both colour schemes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ghostify.reports.figures import draw_figures
from ghostify.reports.page import render_page
from tests.reports import drawable, pages

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1300,900",
)  # fmt: skip
TEXTS = """
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim()) continue;
      if (element.closest("script, style, title, .unseen")) continue;
      if (!element.checkVisibility({ visibilityProperty: true })) continue;
      const style = getComputedStyle(element);
      let opacity = 1;
      let ground = null;
      for (let one = element; one; one = one.parentElement) {
        opacity *= Number(getComputedStyle(one).opacity);
        const colour = getComputedStyle(one).backgroundColor;
        if (ground === null && colour !== "rgba(0, 0, 0, 0)") ground = colour;
      }
      const ink = element instanceof SVGElement ? style.fill : style.color;
      found.push([walker.currentNode.data.trim(), ink, ground, opacity]);
    }
    return found;
"""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="neither chromium nor chromedriver is installed"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    records = drawable.comparison({"resnet20": 2}, methods=("dense", "l1", "searched"))
    path: Path = tmp_path_factory.mktemp("report") / "index.html"
    html = render_page(pages.report(figures=draw_figures(records).figures))
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Any:
    browser.get_log("browser")
    browser.get_log("performance")
    scheme(browser, "light")
    browser.get(address)
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    return browser


def scheme(browser: Any, name: str, media: str = "") -> None:
    features = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def background(browser: Any) -> str:
    return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))


def first_column(browser: Any) -> list[str]:
    """Return the names of the rows as they stand, shortened."""
    names = browser.execute_script(
        "return [...document.querySelectorAll('tbody tr[data-row]')].map(row => row.dataset.row)"
    )
    return [name.removeprefix("net.").split(">")[0].split(" ")[-1] for name in names]


def heading(browser: Any, key: str) -> Any:
    return browser.find_element("css selector", f"th[data-key='{key}']")


def press(browser: Any, key: str) -> str | None:
    """Press a heading by the keyboard; return how its column is sorted then."""
    from selenium.webdriver.common.keys import Keys

    button = heading(browser, key).find_element("tag name", "button")
    button.send_keys(Keys.ENTER)
    sorted_as: str | None = heading(browser, key).get_attribute("aria-sort")
    return sorted_as


def test_the_console_stays_empty_and_no_request_leaves_the_file(page: Any, address: str) -> None:
    for button in page.find_elements("css selector", "th button, fieldset label"):
        button.click()
    page.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    events = [json.loads(one["message"])["message"] for one in page.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]

    assert page.get_log("browser") == []
    assert address in asked
    assert {one for one in asked if not one.startswith("data:")} == {address}


def test_a_script_in_a_name_stays_text(page: Any) -> None:
    assert page.execute_script("return typeof window.wicked") == "undefined"
    assert pages.WICKED in page.find_element("tag name", "table").text


def test_numbers_are_sorted_by_value_each_group_by_itself(page: Any) -> None:
    before = first_column(page)

    assert before == ["Dense", "<script", "10", "9", "†", "Others"]
    assert press(page, "macs") == "ascending"  # 99 before 300.5 before 1,200
    assert first_column(page) == ["<script", "9", "10", "Dense", "†", "Others"]
    assert press(page, "macs") == "descending"
    assert first_column(page) == ["Dense", "10", "9", "<script", "Others", "†"]
    assert press(page, "macs") is None
    assert first_column(page) == before


def test_figures_with_intervals_are_sorted_with_the_best_first_and_unknown_last(page: Any) -> None:
    assert press(page, "top1") == "descending"  # 100.00 ± 0.40 before 92.50 before 9.75
    assert first_column(page) == ["<script", "Dense", "9", "10", "Others", "†"]
    assert press(page, "top1") == "ascending"
    assert first_column(page) == ["9", "Dense", "<script", "10", "†", "Others"]


def test_names_are_sorted_as_people_count(page: Any) -> None:
    press(page, "macs")
    press(page, "method")

    assert heading(page, "macs").get_attribute("aria-sort") is None
    assert first_column(page)[1:4] == ["Dense", "9", "10"]


@pytest.mark.parametrize("name", ["light", "dark"])
def test_all_texts_can_be_read(page: Any, name: str) -> None:
    scheme(page, name)
    page.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    texts = page.execute_script(TEXTS)
    poor = {
        (text, round(contrast(ink, ground, opacity), 2))
        for text, ink, ground, opacity in texts
        if contrast(ink, ground, opacity) < 4.5
    }

    assert len(texts) > 60
    assert poor == set()


def test_the_colours_follow_the_system_and_the_switch(page: Any) -> None:
    light = background(page)
    scheme(page, "dark")
    dark = background(page)
    page.find_element("css selector", "input[value=light] + span").click()
    chosen = background(page)
    page.refresh()
    kept = background(page)
    page.find_element("css selector", "input[value=auto] + span").click()

    assert luminance(light) > 0.8
    assert luminance(dark) < 0.05
    assert (chosen, kept, background(page)) == (light, light, dark)


def test_a_command_is_copied_and_shown(page: Any, address: str) -> None:
    page.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    row = page.find_element("css selector", "tr.pareto")
    row.find_element("tag name", "button").click()
    copied = page.execute_async_script(
        "const done = arguments[0];"
        "setTimeout(() => navigator.clipboard.readText().then(done, () => done(null)), 100)"
    )
    row.find_element("css selector", ".do a").click()
    opened = page.find_element("css selector", "details:target")

    assert copied == "ghostify finetune 'a b' --seed 0 && <x>\nghostify finetune 'a b' --seed 1"
    assert opened.get_attribute("open") == "true"


def test_nothing_is_wider_than_a_telephone(page: Any) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    width = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    assert width <= 380


def test_on_paper_there_are_no_buttons_and_no_dark(page: Any) -> None:
    page.find_element("css selector", "input[value=dark] + span").click()
    scheme(page, "dark", media="print")
    shown = page.execute_script(
        "return [...document.querySelectorAll('nav, fieldset, .copy, .downloads')]"
        ".filter(one => one.checkVisibility()).length"
    )

    assert shown == 0
    assert luminance(background(page)) > 0.9


def test_the_policy_forbids_requests_and_foreign_scripts(page: Any) -> None:
    found = page.execute_async_script(
        "const done = arguments[0]; const seen = [];"
        "addEventListener('securitypolicyviolation', e => seen.push(e.effectiveDirective));"
        "const script = document.createElement('script');"
        "script.textContent = 'window.foreign = 1';"
        "document.body.append(script);"
        "fetch('http://127.0.0.1:9/').catch(() => {})"
        ".then(() => setTimeout(() => done([seen, typeof window.foreign]), 100));"
    )
    page.get_log("browser")

    assert found == [["script-src-elem", "connect-src"], "undefined"]


def contrast(ink: str, ground: str, opacity: float = 1.0) -> float:
    """Return the contrast of two colours as the WCAG defines it, 1 to 21."""
    front, back = numbers(ink), numbers(ground)
    strength = front[3] * opacity
    mixed = [strength * a + (1 - strength) * b for a, b in zip(front[:3], back[:3], strict=True)]
    one, two = relative(mixed), relative(back[:3])
    return (max(one, two) + 0.05) / (min(one, two) + 0.05)


def luminance(colour: str) -> float:
    return relative(numbers(colour)[:3])


def numbers(colour: str) -> list[float]:
    found = [float(one) for one in re.findall(r"[\d.]+", colour)]
    assert colour.startswith("rgb"), colour
    return found if len(found) == 4 else [*found, 1.0]


def relative(colour: list[float]) -> float:
    parts = [one / 255 for one in colour]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
