"""The tables behind the main one: how certain the differences are, and how rates were chosen."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ghostify.reports.results import Result
from ghostify.reports.significance import Verdict, reference_of, trained_top1
from ghostify.reports.statistics import LEVEL, estimate
from ghostify.reports.values import EMPTY, UNKNOWN, Cell, Column, Footnote, Row, Table

__all__ = ["p_text", "statistics_table", "tuning_table"]


def statistics_table(
    results: Sequence[Result], verdicts: Mapping[str, Verdict], *, reference: str | None
) -> Table | None:
    """Return each method's seeds, mean and interval, and its test against the reference.

    None where nothing was trained with two seeds.
    """
    trained = [one for one in results if trained_top1(one)]
    if not any(len(trained_top1(one)) > 1 for one in trained):
        return None
    columns = [
        Column("method", "Method", numeric=False),
        Column("seeds", "Top-1 of the seeds, %", numeric=False),
        Column("n", "n"),
        Column("mean", "Mean, %", better="higher"),
        Column("sd", "SD", title_long="standard deviation over seeds"),
        Column("interval", f"{100 * LEVEL:.0f} % interval", title_long="of the mean, Student's t"),
    ]
    if verdicts:
        columns += [
            Column("difference", "Difference", title_long="from the reference, with its interval"),
            Column("p", "p", title_long="two-sided, Welch's t-test"),
            Column("p-holm", "p, corrected", title_long="after Holm, within the network"),
        ]
    several = len({one.first.budget for one in trained} - {None}) > 1
    rows = [
        Row(
            id=f"statistics.{one.id}",
            cells=tuple(_statistics(one, verdicts.get(one.id), several=several)[: len(columns)]),
            group=one.network,
            reference=bool(
                reference
                and (other := reference_of(one, results, reference))
                and other.id == one.id
            ),
            records=tuple(record.id for record in one.records),
        )
        for one in trained
    ]
    notes: tuple[Footnote, ...] = ()
    if verdicts and any(one.difference.p is None for one in verdicts.values()):
        notes = (
            Footnote(UNKNOWN, "No test: that needs two seeds on both sides and some variation."),
        )
    names = dict.fromkeys(one.reference.name for one in verdicts.values())
    against = f" against {', '.join(names)}" if names else ""
    return Table(
        "statistics",
        "How certain the differences are",
        tuple(columns),
        tuple(rows),
        footnotes=notes,
        caption=(
            f"Welch's t-test{against}, two-sided, corrected for several comparisons after Holm "
            "within each network. Intervals of differences are not corrected."
            if verdicts
            else "Over seeds."
        ),
    )


def tuning_table(results: Sequence[Result]) -> Table | None:
    """Return what each learning rate gave on the validation images; None where none was tuned."""
    tuned = [one for one in results if one.tried]
    if not tuned:
        return None
    rates = sorted({record.lr for one in tuned for record in one.tried if record.lr is not None})
    columns = (
        Column("method", "Method", numeric=False),
        *(Column(f"lr-{rate:g}", f"{rate:g}") for rate in rates),
        Column("chosen", "Chosen"),
    )
    several = len({one.first.budget for one in tuned} - {None}) > 1
    rows = []
    for one in tuned:
        cells: list[Cell] = [Cell(_name(one, several=several))]
        means = {rate: _validation(one, rate) for rate in rates}
        known = {rate: value for rate, value in means.items() if value is not None}
        chosen = one.first.lr
        for rate in rates:
            value = known.get(rate)
            cells.append(
                EMPTY if value is None else Cell(f"{value:.2f}", value, bold=rate == chosen)
            )
        cells.append(EMPTY if chosen is None else Cell(f"{chosen:g}", chosen))
        rows.append(
            Row(
                id=f"tuning.{one.id}",
                cells=tuple(cells),
                group=one.network,
                records=tuple(record.id for record in one.tried),
            )
        )
    steps = sorted({record.steps for one in tuned for record in one.tried})
    return Table(
        "tuning",
        "Learning rates that were tried",
        columns,
        tuple(rows),
        caption="Top-1 in per cent on validation images held back from training, after "
        f"{' or '.join(f'{step:,}' for step in steps)} steps; bold: the rate that the runs of the "
        "table took. The same rates for each method; no test image was looked at.",
    )


def p_text(p: float | None) -> str:
    """Write a p-value as it is read."""
    if p is None:
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _name(result: Result, *, several: bool) -> str:
    budget = result.first.budget
    return f"{result.name}, {budget}" if several and budget else result.name


def _statistics(result: Result, verdict: Verdict | None, *, several: bool) -> list[Cell]:
    values = trained_top1(result)
    found = estimate(values)
    low_high = EMPTY
    if found.half_width is not None:
        low, high = found.mean - found.half_width, found.mean + found.half_width
        low_high = Cell(f"{low:.2f} to {high:.2f}", low)
    cells = [
        Cell(_name(result, several=several)),
        Cell(", ".join(f"{value:.2f}" for value in values)),
        Cell(str(found.n), float(found.n)),
        Cell(f"{found.mean:.2f}", found.mean),
        EMPTY if found.sd is None else Cell(f"{found.sd:.2f}", found.sd),
        low_high,
    ]
    if verdict is None:
        return [*cells, EMPTY, EMPTY, EMPTY]
    difference = verdict.difference
    text = f"{difference.value:+.2f}"
    if difference.half_width is not None:
        text += f" ± {difference.half_width:.2f}"
    return [
        *cells,
        Cell(text, difference.value, difference.half_width),
        Cell(p_text(difference.p), difference.p),
        Cell(p_text(verdict.corrected), verdict.corrected, bold=verdict.significant),
    ]


def _validation(result: Result, rate: float) -> float | None:
    values = [one.top1 for one in result.tried if one.lr == rate and one.top1 is not None]
    return statistics.fmean(values) if values else None
