"""The page as text: valid, escaped, alone in the world."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import html5lib
import pytest

from ghostify.reports.figures import draw_figures
from ghostify.reports.page import render_page
from ghostify.reports.values import Report
from tests.reports import drawable, pages


def parsed(html: str) -> html5lib.HTMLParser:
    """Parse by the rules of HTML; any mistake raises."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)


def test_the_page_is_valid_html() -> None:
    parsed(render_page(pages.report()))


def test_a_report_of_nothing_but_a_title_is_a_page() -> None:
    html = render_page(Report("Empty", (), (), ()))

    assert parsed(html).find(".//h1").text == "Empty"
    assert "<section" not in html


def test_ids_are_unique_and_links_inside_the_page_lead_somewhere() -> None:
    drawn = draw_figures(drawable.comparison({"resnet20": 2}, methods=("dense", "l1")))
    tree = parsed(render_page(pages.report(figures=drawn.figures)))
    ids = [one.get("id") for one in tree.iter() if one.get("id")]
    links = [one.get("href") for one in tree.iter() if (one.get("href") or "").startswith("#")]

    assert len(drawn.figures) > 2
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links} <= set(ids)


def test_every_text_is_escaped() -> None:
    tree = parsed(render_page(pages.report()))
    text = "".join(tree.find("body").itertext())

    assert tree.find(".//title").text == "Nets & <others>"
    assert pages.WICKED in text
    for words in ("By <b>much</b>.", "<n> = 3", "A caption <i>here</i>.", "<cpu>", "<cut>", "<x>"):
        assert words in text
    assert len(list(tree.iter("script"))) == 1


def test_characters_that_no_page_can_hold_are_replaced() -> None:
    report = pages.report(title="a\x00b\x1b\ud800c", summary=("\x7f",))
    html = render_page(report)

    assert html.encode()
    assert parsed(html).find(".//h1").text == "a\ufffdb\ufffd\ufffdc"


def test_nothing_is_loaded_from_anywhere() -> None:
    class Addresses(HTMLParser):
        found: list[str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            loads = {"src", "srcset", "poster", "action", "data", "xlink:href"}
            self.found += [
                value or ""
                for name, value in attrs
                if name in loads or (name == "href" and tag in ("link", "use", "image"))
            ]

    html = render_page(pages.report())
    reader = Addresses()
    reader.found = []
    reader.feed(html)

    assert all(one.startswith(("data:", "#")) for one in reader.found)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_rows_carry_values_marks_and_commands() -> None:
    tree = parsed(render_page(pages.report()))
    rows = {one.get("data-row"): one for one in tree.iter("tr") if one.get("data-row")}
    wicked = rows[f"net.{pages.WICKED}"]

    assert [cell.get("data-value") for cell in wicked.findall("td")] == ["99.0", "100.0", None]
    assert "pareto" in wicked.get("class")
    assert "◆" in "".join(wicked.find("th").itertext())
    assert wicked.find(".//button").get("data-copy") == (
        "ghostify finetune 'a b' --seed 0 && <x>\nghostify finetune 'a b' --seed 1"
    )
    assert "published" in rows["net.Others"].get("class")
    assert rows["net.Others"].find(".//button") is None


def test_files_beside_the_page_are_linked_by_their_quoted_names() -> None:
    tree = parsed(render_page(pages.report()))
    links = {one.text: one.get("href") for one in tree.iter("a")}

    assert links["tables/a b.csv"] == "tables/a%20b.csv"


def test_the_same_report_gives_the_same_page() -> None:
    assert render_page(pages.report()) == render_page(pages.report())


@pytest.mark.parametrize(
    ("svg", "message"),
    [
        ("<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "may not hold script"),
        ("<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>", "may not hold svg"),
        ("<svg", "is no SVG"),
    ],
)
def test_a_figure_that_is_more_than_a_drawing_is_refused(svg: str, message: str) -> None:
    report = pages.report()
    figure = dataclasses.replace(report.figures[0], svg=svg)

    with pytest.raises(ValueError, match=message):
        render_page(dataclasses.replace(report, figures=(figure,)))
