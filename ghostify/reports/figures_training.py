"""Accuracy over training, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ghostify.reports.figures_data import Series, curve_of
from ghostify.reports.figures_style import Style, legend_beside, panels, tidy

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves"]


def draw_curves(series: Sequence[Series], styles: Mapping[str, Style], *, budgets: bool) -> Figure:
    """Draw accuracy by step: a line for each method, a band from the lowest to the highest seed.

    Args:
        series: those that have curves; a panel for each network, or network and budget.
        styles: of each method.
        budgets: whether panels must tell budgets apart.
    """
    places = _places(series, budgets=budgets)
    figure, axes = panels(len(places), width=4.4, height=3.5, beside=2.3)
    handles: dict[str, Artist] = {}
    for axis, (title, mine) in zip(axes, places.items(), strict=True):
        lowest: list[float] = []
        for one in mine:
            curve = curve_of(one)
            if curve is None:
                continue
            style = styles[one.method]
            line = axis.plot(
                curve.steps, curve.mean, color=style.colour, lw=1.7, marker=style.marker, ms=4.5,
                mew=0, ls=(0, style.dash) if style.dash else "-", zorder=3,
                markevery=max(1, len(curve.steps) // 8),
            )  # fmt: skip
            if curve.seeds > 1:
                axis.fill_between(
                    curve.steps, curve.low, curve.high, color=style.colour, alpha=0.16, lw=0
                )
            handles.setdefault(one.method_label, line[0])
            lowest += [low for step, low in zip(curve.steps, curve.low, strict=True) if step]
        _from_first_trained(axis, lowest)
        tidy(axis, x="optimiser steps", y="Top-1 accuracy, %", title=title)
        axis.margins(x=0.02)
    legend_beside(figure, handles.items())
    return figure


def _from_first_trained(axis: Axes, values: Sequence[float]) -> None:
    """Begin the axis below the first measured step; where training began may lie far lower."""
    high = axis.get_ylim()[1]
    if not values:
        return
    low = min(values)
    axis.set_ylim(max(0.0, low - 0.12 * (high - low) - 0.2), high)


def _places(series: Sequence[Series], *, budgets: bool) -> dict[str, list[Series]]:
    """Sort series into panels; what takes no budget stands in each panel of its network."""
    places: dict[str, list[Series]] = {}
    for network in dict.fromkeys(one.network_label for one in series):
        mine = [one for one in series if one.network_label == network]
        found = list(dict.fromkeys(one.budget for one in mine if one.budget))
        if not budgets or len(found) < 2:
            places[network] = mine
            continue
        for budget in found:
            places[f"{network}, {budget}"] = [one for one in mine if one.budget in (None, budget)]
    return places
