"""All figures of a report, from run records; what cannot be drawn is said in a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ghostify.reports.figures_cost import accuracy_points, draw_costs, speed_points
from ghostify.reports.figures_data import (
    PublishedPoint,
    Runtime,
    Series,
    controls_of,
    curve_of,
    methods_of,
    runtimes_of,
    series_of,
)
from ghostify.reports.figures_plan import draw_plans, rows_of
from ghostify.reports.figures_rows import draw_finals, draw_starts
from ghostify.reports.figures_style import COLOURS, Style, drawing, png_of, styles_of, svg_of
from ghostify.reports.figures_training import draw_curves
from ghostify.reports.statistics import Estimate
from ghostify.reports.values import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from ghostify.runs.record import RunRecord

__all__ = ["Drawn", "PublishedPoint", "draw_figures"]

_ACCURACY = "Top-1 accuracy, %"
_INTERVALS = "Bars are 95 % confidence intervals over seeds, where there are several. "


@dataclass(frozen=True, slots=True)
class Drawn:
    """The figures, and why others are missing."""

    figures: tuple[Figure, ...]
    remarks: tuple[str, ...] = ()


def draw_figures(
    records: Sequence[RunRecord],
    *,
    order: Sequence[str] = (),
    published: Sequence[PublishedPoint] = (),
) -> Drawn:
    """Draw all that there are data for; the same records give the same bytes.

    Each method has one colour, marker and dash in all figures. Where there are more methods
    than colours, a figure comes in parts with as many as there are colours.

    Args:
        records: of any kind; runs that tried learning rates are left out.
        order: names of networks and methods, in the suite's order.
        published: points of a paper, drawn hollow beside the network that they came from.
    """
    series = series_of(records, order)
    counted = series_of(records, order, kinds=("test", "count"))
    if not counted:
        return Drawn((), ("no figure: there is no finished run",))
    gathered = _Gathered(styles_of(methods_of(counted, order), controls_of(counted)))
    with drawing():
        _draw_finals(gathered, series)
        _draw_accuracy(gathered, series, published)
        _draw_training(gathered, series)
        _draw_speed(gathered, counted)
        _draw_plans(gathered, counted)
    return Drawn(tuple(gathered.figures), tuple(gathered.remarks))


@dataclass(slots=True)
class _Gathered:
    styles: Mapping[str, Style]
    figures: list[Figure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, name: str, title: str, caption: str, figure: Drawing) -> None:
        svg, png = svg_of(figure, f"figure-{name}", title), png_of(figure)
        self.figures.append(Figure(name, title, caption, svg, png))

    def parts(self, series: Sequence[Series]) -> Iterator[tuple[str, str, list[Series]]]:
        """Yield suffixes of id and title, and the series of one part; controls are in each."""
        controls = controls_of(series)
        methods = [name for name in self.styles if name not in controls]
        methods = [name for name in methods if any(one.method == name for one in series)]
        count = max(1, -(-len(methods) // len(COLOURS)))
        for part in range(count):
            mine = {*methods[part * len(COLOURS) : (part + 1) * len(COLOURS)], *controls}
            chosen = [one for one in series if one.method in mine]
            if count == 1:
                yield "", "", chosen
            else:
                yield f"-{part + 1}", f" ({part + 1} of {count})", chosen


def _draw_finals(gathered: _Gathered, series: Sequence[Series]) -> None:
    """Draw the accuracy of each method, where several can be compared."""
    ended = [one for one in series if one.trained and one.mean(lambda record: record.top1)]
    if len(ended) < 2:
        return
    gathered.add(
        "accuracy",
        "Accuracy of each method",
        "Top-1 accuracy on the test images after the last step of training: the mean over seeds "
        f"with each seed as a dot. {_INTERVALS}The dashed line is the dense control.",
        draw_finals(ended, gathered.styles),
    )


def _draw_accuracy(
    gathered: _Gathered, series: Sequence[Series], published: Sequence[PublishedPoint]
) -> None:
    """Draw accuracy against multiply-adds, then against each latency."""
    if not any(one.mean(lambda record: record.top1) for one in series):
        gathered.remarks.append("no figure of accuracy: no record has one")
        return
    most = max(record.macs for one in series for record in one.records)
    scale, unit = (1e-9, "G") if most >= 2e9 else (1e-6, "M")
    known = [(one, one.macs) for one in published if one.macs is not None]
    front = "The broad line joins those that no other one beats in both (Pareto front). "
    hollow = (
        "Hollow marks are published results of other people's training, not comparable to the "
        "last tenth. "
    )
    for suffix, more, mine in gathered.parts(series):
        points = accuracy_points(
            mine, lambda one: one.mean(lambda record: record.macs), known, scale=scale
        )
        if not points:
            gathered.remarks.append("no figure of accuracy against multiply-adds: nothing trained")
            return
        theirs = hollow if any(point.published for point in points) else ""
        figure = draw_costs(points, gathered.styles, x=f"Multiply-adds, {unit}", y=_ACCURACY)
        gathered.add(
            f"accuracy-macs{suffix}",
            f"Accuracy against multiply-adds{more}",
            f"Top-1 accuracy on the test images against multiply-adds of one image. {_INTERVALS}"
            f"{front}{theirs}".strip(),
            figure,
        )
    runtimes = runtimes_of(series)
    if not runtimes:
        gathered.remarks.append("no figure of accuracy against latency: no record has a latency")
    for runtime in runtimes:
        name = "" if len(runtimes) == 1 else f"-{_slug(str(runtime))}"
        times = [(one, one.latency_ms) for one in published if one.latency_ms is not None]
        for suffix, more, mine in gathered.parts(series):
            points = accuracy_points(mine, _latency_by(runtime), times)
            if not points:
                continue
            figure = draw_costs(points, gathered.styles, x=f"Latency, ms ({runtime})", y=_ACCURACY)
            gathered.add(
                f"accuracy-latency{name}{suffix}",
                f"Accuracy against latency, {runtime}{more}",
                "Top-1 accuracy on the test images against the median time of one forward pass, "
                f"{runtime}. {_INTERVALS}{front}".strip(),
                figure,
            )


def _latency_by(runtime: Runtime) -> Callable[[Series], Estimate | None]:
    return lambda one: one.latency(runtime)


def _draw_training(gathered: _Gathered, series: Sequence[Series]) -> None:
    """Draw curves, and what lies before training beside what lies behind it."""
    curved = [one for one in series if one.trained and curve_of(one) is not None]
    if not curved:
        gathered.remarks.append(
            "no figure of training curves: no run has its accuracy at two steps or more"
        )
    else:
        for suffix, more, mine in gathered.parts(curved):
            gathered.add(
                f"curves{suffix}",
                f"Accuracy over training{more}",
                "Top-1 accuracy on the test images after so many optimiser steps: the mean over "
                "seeds, and a band from the lowest to the highest of them. The axis begins at the "
                "first measured step; lines from below it began lower.",
                draw_curves(mine, gathered.styles, budgets=True),
            )
    started = [
        one
        for one in series
        if not one.control and one.mean(lambda record: record.start_top1) is not None
    ]
    if not started:
        gathered.remarks.append("no figure of accuracy before training: no record has it")
        return
    shown = [one for one in series if one in started or one.control]
    gathered.add(
        "before-training",
        "Accuracy before any training, and after it",
        "What conversion, pruning and fitting alone leave of the accuracy, and where training "
        "leads from there: means over seeds. The dashed line is the original network.",
        draw_starts(shown, gathered.styles),
    )


def _draw_speed(gathered: _Gathered, series: Sequence[Series]) -> None:
    """Draw what fewer multiply-adds bring in time, for each runtime."""
    runtimes = runtimes_of(series)
    for runtime in runtimes:
        name = "" if len(runtimes) == 1 else f"-{_slug(str(runtime))}"
        for suffix, more, mine in gathered.parts(series):
            points = speed_points(mine, runtime)
            if len({round(point.x, 1) for point in points}) < 3:
                continue  # one budget and the control: no more than the table tells
            gathered.add(
                f"latency-macs{name}{suffix}",
                f"What fewer multiply-adds bring, {runtime}{more}",
                f"Latency ({runtime}) against multiply-adds, both as shares of the original "
                "network's. On the dashed line a network is as much faster as it is smaller; "
                "above it, it is less so.",
                draw_costs(
                    points,
                    gathered.styles,
                    x="Multiply-adds, share of the original's",
                    y="Latency, share of the original's",
                    front=False,
                    diagonal=True,
                ),
            )


def _draw_plans(gathered: _Gathered, series: Sequence[Series]) -> None:
    """Draw a map of the plans for each network that has some."""
    networks = list(dict.fromkeys(one.network for one in series))
    missing = []
    for network in networks:
        mine = [one for one in series if one.network == network]
        label = mine[0].network_label
        layers, rows = rows_of(mine)
        if not rows:
            missing.append(label)
            continue
        name = "plans" if len(networks) == 1 else f"plans-{_slug(network)}"
        gathered.add(
            name,
            f"What becomes of each layer of {label}",
            "For each method, which convolutions stay as they are, become Ghost modules (s: how "
            "many maps of each one that is computed; d where it is not 3) or are pruned (the "
            "number is the share of maps left, in percent). Where the plan differs by seed, it "
            "is the first seed's.",
            draw_plans(label, layers, rows),
        )
    if missing:
        gathered.remarks.append(f"no map of plans for {', '.join(missing)}: no record has a plan")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-") or "x"
