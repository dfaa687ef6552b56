"""The columns of a comparison's table, and how each makes its cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ghostify.reports.cells import (
    UNITS,
    accuracy_cell,
    count_cell,
    mean_cell,
    published_cell,
    ratio_cell,
    timing_cell,
)
from ghostify.reports.layouts import Layout
from ghostify.reports.lines import Line, original_top1, swept
from ghostify.reports.notes import ABOVE, BELOW, Notes
from ghostify.reports.results import LatencyKey, Result, anchor
from ghostify.reports.significance import Verdict
from ghostify.reports.statistics import estimate
from ghostify.reports.sweep import setting
from ghostify.reports.values import EMPTY, PUBLISHED_MARK, Cell, Column

__all__ = ["Kind", "Shape", "kinds_of"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What all columns of one table need to know."""

    layout: Layout
    reference: str | None
    results: tuple[Result, ...]
    verdicts: Mapping[str, Verdict]
    notes: Notes
    general: tuple[str, ...] = ()  # sentences on all published figures


@dataclass(frozen=True, slots=True)
class Kind:
    """A column, and how its cells are made."""

    column: Column
    cell: Callable[[Line], Cell]
    wanted: bool = True  # False: left out if all its cells are empty


def kinds_of(shape: Shape, lines: Sequence[Line]) -> list[Kind]:
    """Return the columns in order."""
    unit, notes, beside = shape.layout.unit, shape.notes, shape.layout.beside
    own = not beside  # published rows fill the measured columns, as rows with a mark

    general = tuple(notes.letter(text) for text in shape.general)

    def published(key: str, title: str, name: str, scale: float = 1.0) -> Kind:
        column = Column(
            f"{key}-published", f"{title} {PUBLISHED_MARK}", source="published",
            marks=general if name == "macs" else (),
        )  # fmt: skip
        return Kind(
            column,
            lambda line: _published_cell(line, name, scale, notes) if beside else EMPTY,
            wanted=False,
        )

    budgets = {line.result.first.budget for line in lines if line.result} - {None}
    kinds = [Kind(_method_column(shape.layout), lambda line: _name_cell(line, shape))]
    if len(budgets) > 1:
        kinds.append(Kind(Column("budget", "Budget", numeric=False), _budget_cell))
    kinds += [
        Kind(
            Column("params", "Weights, M", better="lower", title_long="parameters in millions"),
            lambda line: _count(line, "params", "M", own, notes),
        ),
        published("params", "Weights, M", "params", UNITS["M"]),
        Kind(
            Column(
                "macs",
                f"MACs, {unit}",
                marks=general if own else (),
                title_long="multiply-adds, which the paper calls FLOPs",
            ),
            lambda line: _count(line, "macs", unit, own, notes),
        ),
        published("macs", f"MACs, {unit}", "macs", UNITS[unit]),
        Kind(
            Column("macs-ratio", "Fewer MACs", title_long="the original's over the network's"),
            _macs_ratio,
        ),
    ]
    runtimes = sorted({key for line in lines for key in line.timings})
    kinds += [_latency_kind(key, notes) for key in runtimes]
    kinds += [
        Kind(
            Column("start-top1", "Top-1 before training, %", better="higher",
                   title_long="after conversion, pruning or fit, before any training"),
            lambda line: _accuracy(line, "start_top1", shape), wanted=False,
        ),
        Kind(
            Column("top1", "Top-1, %", better="higher", title_long="after the last epoch"),
            lambda line: _accuracy(line, "top1", shape), wanted=False,
        ),
        published("top1", "Top-1, %", "top1"),
        Kind(
            Column("best-top1", "Best epoch, %",
                   title_long="the highest top-1 of any epoch, so chosen by test images"),
            lambda line: _accuracy(line, "best_top1", shape), wanted=False,
        ),
        Kind(
            Column("top5", "Top-5, %", better="higher"),
            lambda line: _accuracy(line, "top5", shape) if shape.layout.top5 else EMPTY,
            wanted=False,
        ),
        published("top5", "Top-5, %", "top5"),
        Kind(
            Column("map", "mAP, %", source="published" if beside else None),
            lambda line: published_cell(line.published.map, "map") if line.published else EMPTY,
            wanted=False,
        ),
        Kind(
            Column("seeds", "Seeds", title_long="how many runs the row sums up"),
            _seeds, wanted=False,
        ),
    ]  # fmt: skip
    return kinds


def _method_column(layout: Layout) -> Column:
    title = {"s": "s", "d": "d"}.get(layout.sweep, "Method")
    return Column("method", title, numeric=bool(layout.sweep))


def _name_cell(line: Line, shape: Shape) -> Cell:
    sweep = shape.layout.sweep
    if sweep:
        value = swept(line, sweep)
        twins = [
            one
            for one in shape.results
            if one.first.network == line.network and setting(one, sweep) == value
        ]
        text = line.name if value is None or len(twins) > 1 else f"{value:g}"
        return Cell(text, value, title=line.name)
    if line.result is None and line.original is None:
        marks: tuple[str, ...] = (PUBLISHED_MARK,)
        if line.published is not None and not shape.layout.beside:
            marks += tuple(shape.notes.letter(text) for text in line.published.footnotes)
        return Cell(line.name, marks=marks)
    return Cell(line.name, marks=_teacher_marks(line, shape))


def _teacher_marks(line: Line, shape: Shape) -> tuple[str, ...]:
    """Mark who learnt from another teacher than most rows of the network."""
    if line.result is None or not line.result.first.steps:
        return ()
    mates = [
        one.teacher
        for one in shape.results
        if one.first.network == line.network and one.first.steps
    ]
    usual = max(sorted(set(mates), key=str), key=mates.count)
    if line.result.teacher == usual:
        return ()
    text = (
        f"Learnt from {line.result.teacher} as its teacher, unlike the rows without this mark."
        if line.result.teacher
        else "Learnt from labels alone, without the teacher that the other rows have."
    )
    return (shape.notes.letter(text),)


def _budget_cell(line: Line) -> Cell:
    budget = line.result.first.budget if line.result else None
    return Cell(budget) if budget else EMPTY


def _count(line: Line, name: str, unit: str, own: bool, notes: Notes) -> Cell:
    if line.result is not None:
        return count_cell(line.result.values(name), unit)
    if line.original is not None:
        return count_cell(line.original.values(f"{name}_before"), unit)
    return _published_cell(line, name, UNITS[unit], notes, mark=False) if own else EMPTY


def _published_cell(
    line: Line, name: str, scale: float, notes: Notes, *, mark: bool = True
) -> Cell:
    """Show a published figure; by ``mark`` with the footnotes that speak of it."""
    if line.published is None:
        return EMPTY
    value = getattr(line.published, name)
    cell = published_cell(None if value is None else value / scale, name)
    if mark and cell.value is not None:
        marks = tuple(notes.letter(text) for text in line.published.footnotes_of(name))
        return dataclasses.replace(cell, marks=marks)
    return cell


def _macs_ratio(line: Line) -> Cell:
    if line.result is None:
        return EMPTY
    return ratio_cell(line.result.mean("macs_before"), line.result.mean("macs"))


def _latency_kind(key: LatencyKey, notes: Notes) -> Kind:
    return Kind(_latency_column(key), lambda line: _latency(line, key, notes))


def _latency_column(key: LatencyKey) -> Column:
    runtime, device, threads, batch = key
    details = [f"{threads} thread{'s' * (threads != 1)}", f"batch {batch}"]
    if device != "cpu":
        details.insert(0, device)
    return Column(
        f"latency-{anchor('-'.join(map(str, key)))}",
        f"ms, {runtime}",
        better="lower",
        title_long=f"median of one run in {runtime}: {', '.join(details)}; in brackets how many "
        "times faster than the original, measured in turns with it",
    )


def _latency(line: Line, key: LatencyKey, notes: Notes) -> Cell:
    cell = timing_cell(line.timings.get(key))
    timing = line.timings.get(key)
    if timing is not None and timing.noisy:
        return dataclasses.replace(
            cell, marks=(notes.letter("A noisy measurement: the spread is over 10 %."),)
        )
    return cell


def _accuracy(line: Line, name: str, shape: Shape) -> Cell:
    if line.original is not None:
        if name != "top1":
            return EMPTY
        values = original_top1(line.original)
        return mean_cell(estimate(values)) if values else EMPTY
    if line.result is None:
        own = not shape.layout.beside and name in ("top1", "top5")
        return published_cell(getattr(line.published, name), name) if own else EMPTY
    if name == "start_top1":
        return _start(line.result)
    if not line.result.first.steps:
        return EMPTY  # the accuracy before training stands in a column of its own
    cell = accuracy_cell(line.result, name)
    verdict = shape.verdicts.get(line.id)
    if name != "top1" or verdict is None or not verdict.significant:
        return cell
    against = f"than {verdict.reference.name} (Welch's t-test, corrected after Holm, p < 0.05)"
    mark = (
        shape.notes.fixed(ABOVE, f"Significantly better {against}.")
        if verdict.difference.value > 0
        else shape.notes.fixed(BELOW, f"Significantly worse {against}.")
    )
    return dataclasses.replace(cell, marks=(*cell.marks, mark))


def _start(result: Result) -> Cell:
    if result.kind == "dense":
        return EMPTY  # that is the original's accuracy
    if result.values("start_top1") or result.first.steps:
        return accuracy_cell(result, "start_top1")
    return accuracy_cell(result, "top1")


def _seeds(line: Line) -> Cell:
    if line.result is None or line.result.first.kind == "count":
        return EMPTY
    count = len(line.result.records)
    seeds = ", ".join(map(str, line.result.seeds))
    return Cell(str(count), float(count), title=f"seed{'s' * (count != 1)} {seeds}")
