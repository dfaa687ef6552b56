"""The table of a comparison: a row for each method, under its network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ghostify.published.tables import PublishedTable
from ghostify.reports.columns import Kind, Shape, kinds_of
from ghostify.reports.layouts import Layout
from ghostify.reports.lines import Line, lines_of
from ghostify.reports.notes import FRONT, Notes
from ghostify.reports.results import Result
from ghostify.reports.significance import Verdict, reference_of, trained_top1
from ghostify.reports.statistics import LEVEL, pareto_front
from ghostify.reports.values import PUBLISHED_MARK, Column, Row, Table

__all__ = ["main_table"]

_PUBLISHED = (
    "Published in the paper, not measured here: other training, other counting, one run each."
)


def main_table(
    results: Sequence[Result],
    layout: Layout,
    *,
    published: Sequence[PublishedTable] = (),
    reference: str | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
    missing: Sequence[str] = (),
) -> Table:
    """Lay the results out, with published figures beside or below them.

    Args:
        published: tables of the paper to show; those of other networks are left out.
        reference: the method that the others were tested against.
        verdicts: what these tests found, by the id of the result.
        missing: what was asked for and is not there, to be told below the table.
    """
    notes = Notes()
    general = tuple(dict.fromkeys(text for table in published for text in table.footnotes))
    shape = Shape(layout, reference, tuple(results), verdicts or {}, notes, general)
    lines = lines_of(results, layout, published)
    kinds = [kind for kind in kinds_of(shape, lines) if kind.wanted or _any(kind, lines)]
    rows = [_row(line, kinds, shape) for line in lines]
    rows = _bold(_on_front(rows, lines, notes), lines, [kind.column for kind in kinds])
    if any(row.source == "published" for row in rows) or any(
        kind.column.source == "published" for kind in kinds
    ):
        notes.fixed(PUBLISHED_MARK, _PUBLISHED)
    return Table(
        id=layout.name if layout.name != "plain" else "methods",
        title=layout.title,
        columns=tuple(kind.column for kind in kinds),
        rows=tuple(rows),
        footnotes=notes.all(),
        caption=_caption(shape, kinds, missing),
    )


def _row(line: Line, kinds: Sequence[Kind], shape: Shape) -> Row:
    result = line.result
    other = None if result is None or shape.reference is None else (
        reference_of(result, shape.results, shape.reference)
    )  # fmt: skip
    return Row(
        id=line.id,
        cells=tuple(kind.cell(line) for kind in kinds),
        group=line.group,
        source="measured" if result or line.original else "published",
        reference=bool(other and result and other.id == result.id),
        records=tuple(record.id for record in result.records) if result else (),
    )


def _on_front(rows: Sequence[Row], lines: Sequence[Line], notes: Notes) -> list[Row]:
    """Mark the rows of each network that no other beats in multiply-adds and accuracy both."""
    front: set[str] = set()
    for network in dict.fromkeys(line.network for line in lines if line.network):
        points = {
            line.id: line.point
            for line in lines
            if line.network == network and line.point is not None
        }
        if len(points) > 1:
            front |= pareto_front({name: point for name, point in points.items() if point})
    if front:
        notes.fixed(
            FRONT, "On the Pareto front of its network: no other row has both fewer MACs and more "
            "accuracy (by means).",
        )  # fmt: skip
    return [dataclasses.replace(row, pareto=row.id in front) for row in rows]


def _bold(rows: Sequence[Row], lines: Sequence[Line], columns: Sequence[Column]) -> list[Row]:
    """Set the best of each network (at each budget) in bold, dense networks apart."""
    budgets = {line.result.first.budget for line in lines if line.result} - {None}
    rivals: dict[tuple[str, str | None], list[int]] = {}
    for place, line in enumerate(lines):
        if line.result is not None and line.result.kind != "dense":
            budget = line.result.first.budget if len(budgets) > 1 else None
            rivals.setdefault((line.network, budget), []).append(place)
    found = list(rows)
    for places in rivals.values():
        for number, column in enumerate(columns):
            cells = {place: rows[place].cells[number] for place in places}
            known = {place: cell.value for place, cell in cells.items() if cell.value is not None}
            if not column.better or len(known) < 2:
                continue
            best = (max if column.better == "higher" else min)(known.values())
            text = next(cells[place].text for place, value in known.items() if value == best)
            winners = [
                place for place in known if cells[place].text.split(" ")[0] == text.split(" ")[0]
            ]
            if len(winners) == len(known):
                continue  # all alike: nobody is the best
            for place in winners:
                changed = list(found[place].cells)
                changed[number] = dataclasses.replace(changed[number], bold=True)
                found[place] = dataclasses.replace(found[place], cells=tuple(changed))
    return found


def _any(kind: Kind, lines: Sequence[Line]) -> bool:
    return any(kind.cell(line).value is not None for line in lines)


def _caption(shape: Shape, kinds: Sequence[Kind], missing: Sequence[str]) -> str:
    """Say what ±, bold and the reference are, as far as they occur, and what is not there."""
    parts = _accuracies(shape) if any(kind.column.key == "top1" for kind in kinds) else []
    if not any(one.first.steps for one in shape.results):
        parts.append("Nothing was trained.")
    if missing:
        parts.append(f"Not there (yet): {'; '.join(missing)}.")
    return " ".join(parts)


def _accuracies(shape: Shape) -> list[str]:
    counts = {len(trained_top1(one)) for one in shape.results if trained_top1(one)}
    parts = []
    if counts and max(counts) > 1:
        parts.append(
            f"Mean ± half the width of the {100 * LEVEL:.0f} % confidence interval over seeds "
            "(Student's t)."
        )
    if 1 in counts:
        parts.append("A row with one seed has no interval: nothing is known of its variation.")
    if counts:
        parts.append(
            "Top-1 is that of the last epoch. Bold: the best of a network, dense rows apart."
        )
    if shape.reference and shape.verdicts:
        names = dict.fromkeys(one.reference.name for one in shape.verdicts.values())
        parts.append(f"Tested against {', '.join(names)}.")
    return parts
