"""A report as one HTML page that needs nothing else: no network, no file beside it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ghostify.reports.notes import FRONT
from ghostify.reports.values import Command, Figure, Report, Row, Table

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["render_page"]

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_SVG = "{http://www.w3.org/2000/svg}"
_DRAWN = {"svg", "title", "style", "defs", "g", "path", "text", "tspan", "use", "clipPath", "rect",
          "image", "circle", "line", "polygon", "polyline", "ellipse", "desc"}  # fmt: skip


def render_page(report: Report) -> str:
    """Return the page: tables that can be sorted, figures, methods, commands and provenance.

    All texts are escaped. The page's own policy forbids every request and every script but its
    own, which is named by its hash. The same report gives the same page.

    Raises:
        ValueError: a figure is no SVG, or holds more than a drawing.
    """
    from markupsafe import Markup

    script = Markup(_read("page.js"))
    text = _environment().get_template("page.html.j2").render(
        report=report,
        style=Markup(_read("page.css")),
        script=script,
        policy=_policy(str(script)),
        front=FRONT,
        notes={table.id: _notes(table) for table in report.tables},
        anchor_of=_Anchors(report),
        commands=_commands(report),
        names={row.id: _name(row) for table in report.tables for row in table.rows},
        svg_of=_svg,
        width_of=_width,
        png_of=lambda figure: f"data:image/png;base64,{base64.b64encode(figure.png).decode()}",
    )  # fmt: skip
    return "\n".join(line for line in _lines(text)) + "\n"


class _Anchors:
    """Names of places in the page: no spaces, and no two the same."""

    def __init__(self, report: Report) -> None:
        self._names: dict[str, str] = {}
        self._placed: dict[str, str] = {}
        taken: set[str] = set()
        rows = [row.id for table in report.tables for row in table.rows]
        for one in dict.fromkeys([*rows, *(command.row for command in report.commands)]):
            name = base = re.sub(r"[^A-Za-z0-9_.-]+", "-", one).strip("-") or "row"
            number = 2
            while name in taken:
                name, number = f"{base}-{number}", number + 1
            taken.add(name)
            self._names[one] = name
        for table in report.tables:
            for row in table.rows:
                self._placed.setdefault(row.id, table.id)

    def __call__(self, row: str) -> str:
        """Return the name of a row."""
        return self._names[row]

    def stands_in(self, row: str, table: str) -> bool:
        """Whether this table is the first one that shows the row."""
        return self._placed[row] == table


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        autoescape=True,
        finalize=_printable,
        loader=PackageLoader("ghostify.reports", "templates"),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )


def _read(name: str) -> str:
    return (resources.files("ghostify.reports") / "templates" / name).read_text(encoding="utf-8")


def _printable(value: object) -> object:
    """Return what a page can hold: a text loses control characters and halves of characters."""
    from markupsafe import Markup

    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNPRINTABLE.sub("\ufffd", value)
    return value


def _policy(script: str) -> str:
    """Return the content security policy: nothing from anywhere, and this one script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _notes(table: Table) -> dict[str, str]:
    """Return the name of each footnote's place, by its mark."""
    return {
        note.mark: f"note-{table.id}-{number}" for number, note in enumerate(table.footnotes, 1)
    }


def _commands(report: Report) -> Mapping[str, list[Command]]:
    """Return the commands by row, in the order of the rows."""
    found: dict[str, list[Command]] = {}
    for command in report.commands:
        found.setdefault(command.row, []).append(command)
    rows = [row.id for table in report.tables for row in table.rows]
    order = dict.fromkeys([*(row for row in rows if row in found), *found])
    return {row: found[row] for row in order}


def _name(row: Row) -> str:
    return f"{row.group}: {row.cells[0].text}" if row.group else row.cells[0].text


def _svg(figure: Figure) -> Markup:
    """Return a drawing as it may stand in the page.

    Raises:
        ValueError: it is none.
    """
    from markupsafe import Markup

    try:
        root = ElementTree.fromstring(figure.svg)
    except ElementTree.ParseError as error:
        raise ValueError(f"figure {figure.id}: it is no SVG ({error})") from None
    for element in root.iter():
        name = str(element.tag).removeprefix(_SVG)
        if name not in _DRAWN or any(key.casefold().startswith("on") for key in element.attrib):
            raise ValueError(f"figure {figure.id}: a drawing may not hold {name}")
    start = figure.svg.index("<svg")
    return Markup(figure.svg[start:].strip())


def _width(figure: Figure) -> int:
    """Return how wide a drawing is by itself, in pixels."""
    box = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+)', figure.svg)
    return round(float(box[1])) if box else 800


def _lines(text: str) -> Iterator[str]:
    """Yield the lines without spaces at their ends, and no two empty ones on end."""
    before = "first"
    for line in text.splitlines():
        line = line.rstrip()
        if line or before:
            yield line
        before = line
