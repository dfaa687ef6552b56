"""``ghostify report``: run records set as tables, figures and a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table as Grid

from ghostify.cli import render
from ghostify.cli.progress import Steps
from ghostify.reports.build import build_report
from ghostify.reports.notes import FRONT
from ghostify.reports.values import Cell, Report, Row, Table
from ghostify.reports.write import frame, write_report

__all__ = ["run"]

_STEPS = 3


def run(
    runs: Sequence[Path],
    output: Path | None,
    *,
    layout: str | None,
    reference: str | None,
    published: Sequence[str] | None,
    title: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write or only print a report; return the exit code."""
    with Steps(_STEPS, quiet=quiet or as_json) as step:
        if output is None:
            step("reading the records")
            told = build_report(
                runs, layout=layout, reference=reference, published=published, title=title,
                figures=False,
            )  # fmt: skip
        else:
            told = write_report(
                runs, output, layout=layout, reference=reference, published=published,
                title=title, force=force, on_step=step,
            )  # fmt: skip
    if as_json:
        render.print_json(_as_json(told, output))
    elif not quiet:
        _show(told)
    if not quiet:
        render.notes(told.remarks)
        if output is not None and not as_json:
            render.notes([f"wrote {output}"])
    return 0


def _as_json(told: Report, output: Path | None) -> dict[str, Any]:
    return {
        "report": None if output is None else str(output),
        "title": told.title,
        "summary": list(told.summary),
        "tables": [
            {
                "id": table.id,
                "title": table.title,
                "rows": json.loads(frame(table).to_json(orient="records", double_precision=10)),
            }
            for table in told.tables
        ],
        "files": list(told.files),
        "remarks": list(told.remarks),
    }


def _show(told: Report) -> None:
    parts: list[Any] = [f"[bold]{escape(told.title)}[/bold]"]
    parts += [escape(sentence) for sentence in told.summary]
    for table in told.tables:
        parts += ["", f"[bold]{escape(table.title)}[/bold]", _grid(table)]
        parts += [escape(f"{note.mark} {note.text}") for note in table.footnotes]
        if table.caption:
            parts.append(f"[dim]{escape(table.caption)}[/dim]")
    render.page(*parts)


def _grid(table: Table) -> Grid:
    grid = Grid(header_style="bold", pad_edge=False, box=None)
    for place, column in enumerate(table.columns):
        marks = "".join(column.marks)
        grid.add_column(
            escape(f"{column.title} {marks}".rstrip()),
            justify="right" if column.numeric and place else "left",
            overflow="fold",
        )
    group = ""
    for row in table.rows:
        if row.group != group:
            group = row.group
            grid.add_row(f"[bold]{escape(group)}[/bold]")
        grid.add_row(_name(row), *(_cell(cell) for cell in row.cells[1:]))
    return grid


def _name(row: Row) -> str:
    return _cell(row.cells[0]) + (f" {FRONT}" if row.pareto else "")


def _cell(cell: Cell) -> str:
    text = escape(" ".join([cell.text, *cell.marks]))
    return f"[bold]{text}[/bold]" if cell.bold else text
