"""Accuracies with a row for each method: after training with each seed, and before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ghostify.reports.figures_data import Series, by_budget
from ghostify.reports.figures_style import INK, Style, panels, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["draw_finals", "draw_starts"]

_ROW = 0.32  # inches of one method


def draw_finals(series: Sequence[Series], styles: Mapping[str, Style]) -> Figure:
    """Draw the mean over seeds with its interval, and each seed as a dot; a panel per network."""
    figure = _rows(series, styles, _draw_final)
    _explain(figure, [_key("mean", "o", 6.5), _key("one seed", "o", 3.2, 0.5), _line("control")])
    return figure


def draw_starts(series: Sequence[Series], styles: Mapping[str, Style]) -> Figure:
    """Draw for each method how far training carries it: a bar before it, a full mark after it."""
    figure = _rows(series, styles, _draw_start)
    keys = [_key("before any training", "|", 11), _key("after training", "o", 6.5)]
    _explain(figure, [*keys, _line("original network")])
    return figure


def _rows(
    series: Sequence[Series],
    styles: Mapping[str, Style],
    draw: Callable[[Axes, Sequence[Series], Mapping[str, Style]], list[str]],
) -> Figure:
    """Set one panel for each network; ``draw`` returns what to write right of each row."""
    networks = list(dict.fromkeys(one.network_label for one in series))
    most = max(sum(one.network_label == name for one in series) for name in networks)
    figure, axes = panels(
        len(networks), width=5.4, height=max(2.2, 0.95 + _ROW * most), beside=0.15
    )
    for axis, network in zip(axes, networks, strict=True):
        mine = by_budget(one for one in series if one.network_label == network)
        words = draw(axis, mine, styles)
        for row, text in enumerate(words):
            axis.annotate(
                text, (1, row), (9, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", fontsize=8.5,
            )  # fmt: skip
        several = len({one.budget for one in mine if one.budget}) > 1
        names = [
            f"{one.method_label}, {one.budget}" if several and one.budget else one.method_label
            for one in mine
        ]
        axis.set_yticks(range(len(mine)), names)
        axis.set_ylim(len(mine) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
        low, high = axis.get_xlim()
        axis.set_xlim(max(low, -1.0), min(high, 101.0))
        tidy(axis, x="Top-1 accuracy, %", y="", title=network)
    return figure


def _draw_final(axis: Axes, series: Sequence[Series], styles: Mapping[str, Style]) -> list[str]:
    words = []
    for row, one in enumerate(series):
        style = styles[one.method]
        end = one.mean(lambda record: record.top1)
        assert end is not None
        if one.control:
            axis.axvline(end.mean, color=INK, alpha=0.6, lw=1.1, ls=(0, (4, 3)), zorder=1)
        seeds = [record.top1 for record in one.records if record.top1 is not None]
        if len(seeds) > 1:
            axis.plot(
                seeds, [row + 0.3] * len(seeds), ls="", marker="o", ms=3.2, mew=0, alpha=0.5,
                color=style.colour, zorder=3,
            )  # fmt: skip
        axis.errorbar(
            end.mean, row, xerr=end.half_width, fmt=style.marker, ms=7, mew=0, capsize=3,
            color=style.colour, elinewidth=1.3, zorder=4,
        )  # fmt: skip
        spread = "" if end.half_width is None else f" ± {end.half_width:.2f}"
        words.append(f"{end.mean:.2f}{spread}")
    return words


def _draw_start(axis: Axes, series: Sequence[Series], styles: Mapping[str, Style]) -> list[str]:
    original = next((e for one in series if (e := one.mean(lambda r: r.original_top1))), None)
    if original is not None:
        axis.axvline(original.mean, color=INK, alpha=0.6, lw=1.1, ls=(0, (4, 3)), zorder=1)
    words = []
    for row, one in enumerate(series):
        style = styles[one.method]
        start, end = one.mean(lambda r: r.start_top1), one.mean(lambda r: r.top1)
        if not one.trained:
            start, end = start or end, None
        if start and end:
            axis.plot([start.mean, end.mean], [row, row], color=style.colour, lw=2, alpha=0.4)
        if start:
            axis.plot(start.mean, row, marker="|", ms=12, mew=2.6, color=style.colour, ls="")
        if end:
            axis.plot(end.mean, row, marker=style.marker, ms=7, mew=0, color=style.colour, ls="")
        words.append(" → ".join(f"{known.mean:.1f}" for known in (start, end) if known))
    return words


def _explain(figure: Figure, keys: Sequence[Line2D]) -> None:
    figure.legend(
        list(keys), [str(key.get_label()) for key in keys], loc="outside lower center",
        ncols=len(keys), borderaxespad=0.4, columnspacing=2.2,
    )  # fmt: skip


def _key(label: str, marker: str, size: float, alpha: float = 1.0) -> Line2D:
    from matplotlib.lines import Line2D

    edge = 2.4 if marker == "|" else 0
    return Line2D(
        [], [], color=INK, marker=marker, ms=size, mew=edge, ls="", alpha=alpha, label=label
    )


def _line(label: str) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=INK, alpha=0.6, lw=1.1, ls=(0, (4, 3)), label=label)
