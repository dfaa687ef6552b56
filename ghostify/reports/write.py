"""Write a report to a directory: page, Markdown, LaTeX, CSV, pictures, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ghostify.errors import OutputError
from ghostify.files import check_output, fresh_directory
from ghostify.reports.build import report_of
from ghostify.reports.gather import gather
from ghostify.reports.texts import latex_document, latex_table, markdown
from ghostify.reports.values import UNKNOWN, Report, Table

if TYPE_CHECKING:
    import pandas

__all__ = ["frame", "report", "write_report"]

Step = Callable[[str], None]


def write_report(
    runs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    layout: str | Sequence[str] | None = None,
    reference: str | None = None,
    published: Sequence[str] | None = None,
    title: str | None = None,
    force: bool = False,
    on_step: Step = lambda _: None,
) -> Report:
    """Write the report of one or several comparisons to a directory: whole, or not at all.

    ``index.html`` is one file for a browser; ``report.md`` and ``report.tex`` tell the same,
    with the tables as ``.csv`` and ``.tex`` and the figures as ``.svg`` and ``.png`` beside
    them. The records and the suite lie there too, so the directory can be reported again. The
    same records give the same bytes.

    Args:
        runs: directories that ``ghostify compare`` wrote.
        layout: of the table, as the paper's; by default the suite's.
        reference: the method that others are tested against; by default the suite's.
        published: tables of the paper to show beside; by default the suite's.
        title: by default the suite's.
        force: whether what is there is replaced.

    Raises:
        RecordError: no records, another format, an unknown layout or reference.
        DataFileError: there is no such published table.
        OutputError: the directory exists (and not ``force``), or cannot be written.
    """
    paths = [Path(runs)] if isinstance(runs, str | Path) else [Path(one) for one in runs]
    path = Path(output)
    if any(one.resolve() == path.resolve() for one in paths):
        raise OutputError(
            f"{path} holds the records that the report is made from; choose another directory"
        )
    check_output(path, force=force)
    on_step("reading the records")
    gathered = gather(paths)
    on_step("drawing")
    told = report_of(gathered, layout=layout, reference=reference, published=published, title=title)
    names = [
        "index.html",
        "report.md",
        "report.tex",
        *(f"{table.id}.{end}" for table in told.tables for end in ("csv", "tex")),
        *(f"{figure.id}.{end}" for figure in told.figures for end in ("svg", "png")),
        *(name for name, _ in gathered.raw),
    ]
    told = replace(told, files=tuple(names))
    on_step("writing")
    with fresh_directory(path, force=force) as new:
        for name, content in (*_files(told), *gathered.raw):
            (new / name).write_bytes(content)
    return told


def report(
    runs: str | Path | Sequence[str | Path], output: str | Path | None = None, **settings: object
) -> Report:
    """Return the report of one or several comparisons; with ``output``, write it there too.

    ``settings`` are those of :func:`write_report`, and without ``output`` those of
    :func:`ghostify.reports.build.build_report`.

    Raises:
        GhostifyError: as they do.
    """
    if output is not None:
        return write_report(runs, output, **settings)  # type: ignore[arg-type]  # checked there
    from ghostify.reports.build import build_report

    return build_report(runs, **settings)  # type: ignore[arg-type]  # checked there


def frame(table: Table) -> pandas.DataFrame:
    """Return a table as a pandas frame: its figures as numbers, one row for each row.

    Beside a figure with an interval stands ``KEY_ci95``, half of its width.
    """
    import pandas

    spread = {
        column.key
        for place, column in enumerate(table.columns)
        if any(row.cells[place].spread is not None for row in table.rows)
    }
    rows = []
    for row in table.rows:
        found: dict[str, object] = {"group": row.group}
        for column, cell in zip(table.columns, row.cells, strict=True):
            text = None if cell.text == UNKNOWN else cell.text
            name = column.key == table.columns[0].key
            found[column.key] = cell.value if column.numeric and not name else text
            if column.key in spread:
                found[f"{column.key}_ci95"] = cell.spread
        rows.append(
            found
            | {
                "source": row.source,
                "pareto": row.pareto,
                "reference": row.reference,
                "row": row.id,
                "records": " ".join(row.records),
            }
        )
    return pandas.DataFrame(rows)


def _files(told: Report) -> list[tuple[str, bytes]]:
    from ghostify.reports.page import render_page

    files = [
        ("index.html", render_page(told).encode("utf-8", "replace")),
        ("report.md", markdown(told).encode("utf-8", "replace")),
        ("report.tex", latex_document(told).encode("utf-8", "replace")),
    ]
    for table in told.tables:
        text = frame(table).to_csv(index=False, float_format="%.10g", lineterminator="\n")
        files += [
            (f"{table.id}.csv", text.encode("utf-8", "replace")),
            (f"{table.id}.tex", latex_table(table).encode("utf-8", "replace")),
        ]
    for figure in told.figures:
        files += [
            (f"{figure.id}.svg", figure.svg.encode("utf-8", "replace")),
            (f"{figure.id}.png", figure.png),
        ]
    return files
