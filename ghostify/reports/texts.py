"""Reports as Markdown and LaTeX: templates in which every value is escaped unless told not to."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ghostify.reports.notes import ABOVE, BELOW, FRONT
from ghostify.reports.values import PUBLISHED_MARK, UNKNOWN, Cell, Report, Row, Table

__all__ = ["latex_document", "latex_table", "markdown", "to_latex", "to_markdown"]

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~$])")
_TEX_SIGNS = {
    FRONT: r"\ensuremath{\blacklozenge}",
    ABOVE: r"\ensuremath{\blacktriangle}",
    BELOW: r"\ensuremath{\blacktriangledown}",
    PUBLISHED_MARK: r"\ensuremath{\dagger}",
    "\N{MULTIPLICATION SIGN}": r"\ensuremath{\times}",
    UNKNOWN: "--",
}
"""Set in fonts that every TeX has, unlike those of the encoder's commands."""

_SIGNS = re.compile(f"([{''.join(_TEX_SIGNS)}])")
_OPENING = re.compile(r"(^|[\s(\[])\"")


class _Done(str):
    """A text that is escaped already."""

    __slots__ = ()


def markdown(report: Report) -> str:
    """Return the report as Markdown, with tables and pictures as GitHub shows them."""
    text = _markdown().get_template("report.md.j2").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def latex_table(table: Table) -> str:
    r"""Return one table for ``\input``; it needs booktabs, graphicx and amssymb."""
    return _tidy(_latex().get_template("table.tex.j2").render(table=table))


def latex_document(report: Report) -> str:
    """Return a document with all tables and pictures, which pdflatex compiles as it is."""
    return _tidy(_latex().get_template("report.tex.j2").render(report=report))


def to_markdown(value: object) -> str:
    """Escape a value so that Markdown shows it as it is, on one line."""
    text = _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))
    return text.replace("\\<", "&lt;").replace("\\>", "&gt;")


def to_latex(value: object) -> str:
    """Escape a value so that LaTeX sets it as it is; what LaTeX has no letter for becomes ``?``."""
    text = _OPENING.sub(r"\1“", " ".join(str(value).split()))
    return "".join(_TEX_SIGNS.get(part) or _encode(part) for part in _SIGNS.split(text))


@functools.cache
def _encoder() -> Any:
    from pylatexenc.latexencode import UnicodeToLatexEncoder

    return UnicodeToLatexEncoder(unknown_char_policy="replace", unknown_char_warning=False)


def _encode(text: str) -> str:
    encoded: str = _encoder().unicode_to_latex(text)
    return encoded.replace("--", "-{}-")  # else two hyphens of an option become a dash


@functools.cache
def _markdown() -> Environment:
    found = _environment(to_markdown)
    found.filters |= {"cell": _markdown_cell, "name": _markdown_name, "fenced": _fenced}
    return found


@functools.cache
def _latex() -> Environment:
    found = _environment(
        to_latex,
        block_start_string="<%", block_end_string="%>",
        variable_start_string="<<", variable_end_string=">>",
        comment_start_string="<#", comment_end_string="#>",
    )  # fmt: skip
    found.filters |= {"cell": _latex_cell, "name": _latex_name}
    return found


def _environment(escape: Callable[[object], str], **delimiters: str) -> Environment:
    """Return templates that escape whatever an expression gives, once."""
    found = Environment(
        loader=PackageLoader("ghostify.reports"),
        undefined=StrictUndefined,
        autoescape=False,  # these are no HTML: finalize escapes for the format at hand
        finalize=lambda value: value if isinstance(value, _Done) else _Done(escape(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **delimiters,  # type: ignore[arg-type]  # all of them are texts
    )
    found.filters["runs"] = _runs
    return found


def _runs(table: Table) -> Iterator[tuple[str, list[Row]]]:
    """Yield the groups of a table with their rows, as they stand."""
    for group, rows in itertools.groupby(table.rows, key=lambda row: row.group):
        yield group, list(rows)


def _markdown_cell(cell: Cell) -> _Done:
    text = to_markdown(cell.text)
    text = f"**{text}**" if cell.bold and text else text
    marks = "".join(f"<sup>{to_markdown(mark)}</sup>" for mark in cell.marks)
    return _Done(text + marks)


def _markdown_name(row: Row) -> _Done:
    return _Done(_markdown_cell(row.cells[0]) + (f" {FRONT}" if row.pareto else ""))


def _latex_cell(cell: Cell) -> _Done:
    text = to_latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold and text else text
    return _Done(text + _superscript(cell.marks))


def _latex_name(row: Row) -> _Done:
    front = f" {_TEX_SIGNS[FRONT]}" if row.pareto else ""
    return _Done(_latex_cell(row.cells[0]) + front)


def _superscript(marks: tuple[str, ...]) -> str:
    return rf"\textsuperscript{{{','.join(to_latex(mark) for mark in marks)}}}" if marks else ""


def _fenced(text: str) -> _Done:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return _Done(f"{fence}\n{text.strip()}\n{fence}")


def _tidy(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
