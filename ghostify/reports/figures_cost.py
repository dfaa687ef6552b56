"""Accuracy against multiply-adds and latency, with the front (GhostNet, Figs. 6 and 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostify.reports.figures_data import PublishedPoint, Runtime, Series, plain
from ghostify.reports.figures_style import (
    INK,
    PUBLISHED,
    Style,
    legend_beside,
    panels,
    tidy,
)
from ghostify.reports.lines import same_network
from ghostify.reports.statistics import Estimate, pareto_front

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

__all__ = ["Point", "accuracy_points", "draw_costs", "speed_points"]

_FRONT = "Pareto front"
_IDEAL = "as much faster as smaller"


@dataclass(frozen=True, slots=True)
class Point:
    """One mark: a cost and what is got for it, each with half its confidence interval."""

    network: str
    name: str  # unique within its network
    method: str
    label: str
    x: float
    y: float
    x_spread: float | None = None
    y_spread: float | None = None
    published: bool = False


def accuracy_points(
    series: Sequence[Series],
    cost: Callable[[Series], Estimate | None],
    published: Sequence[tuple[PublishedPoint, float]] = (),
    *,
    scale: float = 1.0,
) -> tuple[Point, ...]:
    """Pair each series' accuracy with its cost; ``published`` comes with its costs.

    A network without any training stands beside trained ones only where it is the dense
    control, for all others the accuracy would be of another kind.
    """
    points = []
    trained = {one.network for one in series if one.trained}
    for one in series:
        if one.network in trained and not one.trained and not one.control:
            continue
        x, y = cost(one), one.mean(lambda record: record.top1)
        if x is None or y is None:
            continue
        points.append(
            Point(
                one.network_label, f"{one.method} {one.budget}", one.method, one.method_label,
                x.mean * scale, y.mean, (x.half_width or 0) * scale or None, y.half_width,
            )
        )  # fmt: skip
    for index, (theirs, price) in enumerate(published):
        ours = next((p.network for p in points if same_network(theirs.network, p.network)), None)
        if ours is not None:
            points.append(
                Point(
                    ours, f"published {index}", "", plain(theirs.label), price * scale, theirs.top1,
                    published=True,
                )
            )  # fmt: skip
    return tuple(points)


def speed_points(series: Sequence[Series], runtime: Runtime) -> tuple[Point, ...]:
    """Pair multiply-adds and latency, both as shares of the original's."""
    points = []
    for one in series:
        now, before = one.latency(runtime), one.latency(runtime, before=True)
        if before is None:
            control = [other for other in series if other.control and other.network == one.network]
            before = control[0].latency(runtime) if control else None
        macs = one.mean(lambda record: record.macs / record.macs_before)
        if now is None or before is None or macs is None or before.mean <= 0:
            continue
        points.append(
            Point(
                one.network_label, f"{one.method} {one.budget}", one.method, one.method_label,
                macs.mean, now.mean / before.mean,
            )
        )  # fmt: skip
    return tuple(points)


def draw_costs(
    points: Sequence[Point],
    styles: Mapping[str, Style],
    *,
    x: str,
    y: str,
    front: bool = True,
    diagonal: bool = False,
) -> Figure:
    """Draw one panel for each network, and one legend for all.

    Args:
        points: of all networks.
        styles: of each method.
        x: what the lower axis is called.
        y: what the left axis is called.
        front: whether to join the points that no other one beats; published points, which
            come from other training, are left out of it.
        diagonal: whether to draw where both shares are equal.
    """
    networks = list(dict.fromkeys(point.network for point in points))
    figure, axes = panels(len(networks), width=4.4, height=3.7, beside=2.3)
    handles: list[tuple[str, Artist]] = []
    labels: list[tuple[Axes, Sequence[Point]]] = []
    order = list(styles)
    for axis, network in zip(axes, networks, strict=True):
        mine = [point for point in points if point.network == network]
        measured = [point for point in mine if not point.published]
        if diagonal:
            handles.append((_IDEAL, _draw_diagonal(axis)))
        if front and (line := _draw_front(axis, measured)) is not None:
            handles.append((_FRONT, line))
        handles += _draw_measured(axis, measured, styles)
        published = [point for point in mine if point.published]
        if published:
            marks = axis.plot(
                [point.x for point in published], [point.y for point in published], ls="",
                marker=PUBLISHED, ms=7.5, mfc="none", mec=INK, mew=1.1, alpha=0.75, zorder=3,
            )  # fmt: skip
            handles.append(("published", marks[0]))
            labels.append((axis, published))
        tidy(axis, x=x, y=y, title=network)
        axis.margins(0.11, 0.13)
        if diagonal:
            axis.set_xlim(0, max(1.08, *(1.05 * point.x for point in mine)))
            axis.set_ylim(0, max(1.08, *(1.08 * point.y for point in mine)))
    rank = {name: index for index, name in enumerate(order)}
    by_label = {point.label: rank.get(point.method, 0) for point in points if not point.published}
    handles.sort(key=lambda one: by_label.get(one[0], len(order)))
    legend_beside(figure, handles)
    for axis, named in labels:
        _name_points(figure, axis, named, points)
    return figure


def _draw_measured(
    axis: Axes, points: Sequence[Point], styles: Mapping[str, Style]
) -> list[tuple[str, Artist]]:
    """Draw the marks of each method with their intervals; return one of each for the legend."""
    handles: list[tuple[str, Artist]] = []
    for method in dict.fromkeys(point.method for point in points):
        mine = sorted((point for point in points if point.method == method), key=lambda p: p.x)
        style = styles[method]
        xs, ys = [point.x for point in mine], [point.y for point in mine]
        axis.errorbar(
            xs, ys,
            xerr=[point.x_spread or 0 for point in mine] if any(p.x_spread for p in mine) else None,
            yerr=[point.y_spread or 0 for point in mine] if any(p.y_spread for p in mine) else None,
            fmt="none", color=style.colour, elinewidth=1, capsize=2.5, alpha=0.6, zorder=3,
        )  # fmt: skip
        axis.plot(xs, ys, color=style.colour, lw=1, alpha=0.5, zorder=3)  # over its budgets
        marks = axis.plot(
            xs, ys, color=style.colour, marker=style.marker, ms=7, mew=0, ls="", alpha=0.95,
            zorder=4,
        )  # fmt: skip
        handles.append((mine[0].label, marks[0]))
    return handles


def _draw_front(axis: Axes, points: Sequence[Point]) -> Artist | None:
    """Join the points that no other one beats; None where it is one point alone."""
    front = pareto_front({point.name: (point.x, point.y) for point in points})
    line = sorted((point for point in points if point.name in front), key=lambda p: (p.x, p.y))
    if len(line) < 2:
        return None
    drawn = axis.plot(
        [point.x for point in line], [point.y for point in line], color=INK, alpha=0.22, lw=3.2,
        solid_capstyle="round", solid_joinstyle="round", zorder=1,
    )  # fmt: skip
    return drawn[0]


def _draw_diagonal(axis: Axes) -> Artist:
    return axis.axline((0, 0), slope=1, color=INK, alpha=0.5, lw=1, ls=(0, (4, 3)), zorder=1)


def _name_points(
    figure: Figure, axis: Axes, points: Sequence[Point], others: Sequence[Point]
) -> None:
    """Write the names of published points where they cover neither points nor each other."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    frame = axis.get_window_extent().padded(-4)
    marks = [
        axis.transData.transform((point.x, point.y))
        for point in others
        if point.network == points[0].network
    ]
    reach = figure.dpi / 72 * 5
    taken = [Bbox.from_extents(x - reach, y - reach, x + reach, y + reach) for x, y in marks]
    for point in sorted(points, key=lambda one: -one.y):
        best: tuple[float, tuple[float, float, str, str]] | None = None
        for place in _PLACES:
            text = _write(axis, point, place)
            box = text.get_window_extent()
            text.remove()
            cover = sum(_shared(box, other) for other in taken)
            cover += 4 * (box.width * box.height - _shared(box, frame))
            if best is None or cover < best[0]:
                best = cover, place
            if not cover:
                break
        assert best is not None
        taken.append(_write(axis, point, best[1]).get_window_extent())


_PLACES = (
    (7.0, 0.0, "left", "center"), (-7.0, 0.0, "right", "center"), (0.0, 7.0, "center", "bottom"),
    (0.0, -7.0, "center", "top"), (5.0, 5.0, "left", "bottom"), (5.0, -5.0, "left", "top"),
    (-5.0, 5.0, "right", "bottom"), (-5.0, -5.0, "right", "top"), (7.0, 12.0, "left", "bottom"),
    (7.0, -12.0, "left", "top"), (-7.0, 12.0, "right", "bottom"), (-7.0, -12.0, "right", "top"),
)  # fmt: skip
"""Offset of a name from its point in points of type, and how it is set."""


def _write(axis: Axes, point: Point, place: tuple[float, float, str, str]) -> Annotation:
    across, up, horizontal, vertical = place
    return axis.annotate(
        point.label, (point.x, point.y), (across, up), textcoords="offset points",
        ha=horizontal, va=vertical, fontsize=7.8, alpha=0.85,
    )  # fmt: skip


def _shared(one: Bbox, other: Bbox) -> float:
    """Return the area that two boxes share."""
    from matplotlib.transforms import Bbox

    both = Bbox.intersection(one, other)
    return 0.0 if both is None else float(both.width * both.height)
