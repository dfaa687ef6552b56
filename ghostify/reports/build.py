"""From the directories of comparisons to one report: tables, figures, words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ghostify.errors import RecordError, nearest
from ghostify.published.tables import PublishedTable, read_published
from ghostify.reports import account, words
from ghostify.reports.gather import Gathered, gather
from ghostify.reports.layouts import Layout, read_layouts
from ghostify.reports.main_table import main_table
from ghostify.reports.results import Result
from ghostify.reports.side_tables import statistics_table, tuning_table
from ghostify.reports.significance import Verdict, trained_top1, verdicts
from ghostify.reports.sweep import in_sweep
from ghostify.reports.values import Command, Figure, Report, Table

__all__ = ["build_report", "report_of"]


def build_report(
    runs: str | Path | Sequence[str | Path],
    *,
    layout: str | Sequence[str] | None = None,
    reference: str | None = None,
    published: Sequence[str] | None = None,
    title: str | None = None,
    figures: bool = True,
) -> Report:
    """Read one or several comparisons and say all that they tell; nothing is written.

    Args:
        runs: directories that ``ghostify compare`` wrote, or a report's own directory.
        layout: of the table, as in :data:`ghostify.reports.layouts.LAYOUTS`; several make
            several tables. By default the suite's.
        reference: the method that others are tested against. By default the suite's, else a
            dense network that was trained.
        published: tables of the paper to show beside. By default the suite's.
        title: by default the suite's.
        figures: whether to draw them.

    Raises:
        RecordError: no records, another format, an unknown layout or reference.
        DataFileError: there is no such published table.
    """
    paths = [runs] if isinstance(runs, str | Path) else list(runs)
    return report_of(
        gather(paths),
        layout=layout, reference=reference, published=published, title=title, figures=figures,
    )  # fmt: skip


def report_of(
    gathered: Gathered,
    *,
    layout: str | Sequence[str] | None = None,
    reference: str | None = None,
    published: Sequence[str] | None = None,
    title: str | None = None,
    figures: bool = True,
) -> Report:
    """Return the report of records that were read; arguments as of :func:`build_report`."""
    results = gathered.results
    wishes = [suite.report for suite in gathered.suites]
    if layout is None:
        layout = list(dict.fromkeys(name for one in wishes for name in one.layout.split(","))) or [
            "plain"
        ]
    layouts = read_layouts(layout)
    if published is None:
        published = list(dict.fromkeys(name for one in wishes for name in one.published))
    papers = [read_published(name) for name in dict.fromkeys(published)]
    against = _reference(results, reference, [one.reference for one in wishes])
    tested = verdicts(results, against)
    tables = _tables(gathered, layouts, papers, against, tested)
    drawn, remarks = _figures(gathered, papers) if figures else ((), ())
    return Report(
        title=title or words.title_of(gathered),
        summary=words.summary(results, tested),
        methods=account.methods(gathered, tested, papers),
        tables=tables,
        figures=drawn,
        commands=_commands(results),
        provenance=account.provenance(gathered),
        remarks=(*gathered.remarks, *remarks),
    )


def _tables(
    gathered: Gathered,
    layouts: Sequence[Layout],
    papers: Sequence[PublishedTable],
    reference: str | None,
    tested: Mapping[str, Verdict],
) -> tuple[Table, ...]:
    results = gathered.results
    names = {one.name for one in layouts}
    tables = []
    for number, layout in enumerate(layouts):
        rows = in_sweep(results, layout.sweep) if layout.sweep else results
        if not any(one.kind == "ghost" for one in rows) and layout.sweep:
            raise RecordError(
                f"the layout {layout.name} needs methods of the kind ghost, of which there is "
                "none; choose the layout plain"
            )
        own = [one for one in papers if one.name == layout.name]
        others = [one for one in papers if one.name not in names]
        tables.append(
            main_table(
                rows,
                layout,
                published=own or ([] if layout.sweep else others),
                reference=reference,
                verdicts=tested,
                missing=gathered.missing if number == 0 else (),
            )
        )
    extra = (statistics_table(results, tested, reference=reference), tuning_table(results))
    return (*tables, *(table for table in extra if table is not None))


def _reference(
    results: Sequence[Result], asked: str | None, suites: Sequence[str | None]
) -> str | None:
    """Return the method to test against.

    Raises:
        RecordError: the one that was asked for is not there.
    """
    known = list(dict.fromkeys(one.first.method for one in results))
    if asked is not None:
        if asked not in known:
            raise RecordError(
                f"there is no method {asked!r} to test against; there are {', '.join(known)}"
                + nearest(asked, known)
            )
        return asked
    found = [one for one in suites if one in known]
    dense = [one.first.method for one in results if one.kind == "dense" and trained_top1(one)]
    return next(iter([*found, *dense]), None)


def _commands(results: Sequence[Result]) -> tuple[Command, ...]:
    return tuple(
        Command(
            row=one.id,
            label=", ".join(
                part
                for part in (one.network, one.name, record.budget, f"seed {record.seed}")
                if part
            ),
            text=record.command,
        )
        for one in results
        for record in one.records
        if record.command
    )


def _figures(
    gathered: Gathered, papers: Sequence[PublishedTable]
) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    from ghostify.reports.figures import PublishedPoint, draw_figures

    points = tuple(
        PublishedPoint(network=row.network, label=row.method, top1=row.top1, macs=row.macs)
        for paper in papers
        for row in paper.rows
        if row.top1 is not None and row.macs is not None
    )
    order = [
        name
        for suite in gathered.suites
        for name in (*(one.name for one in suite.networks), *(one.name for one in suite.methods))
    ]
    records = [
        dataclasses.replace(
            record,
            method=f"{record.method} ({one.variant})",
            method_label=one.name,
        )
        if one.variant
        else record
        for one in gathered.results
        for record in one.records
    ]
    drawn = draw_figures(records, order=order, published=points)
    return drawn.figures, drawn.remarks
