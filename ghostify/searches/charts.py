"""Pictures of a search: its progress, the Pareto front, the plan by layers, what mattered."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostify.searches.outcome import Outcome, best_so_far
from ghostify.searches.run import put
from ghostify.searches.study.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_all", "importance", "pareto", "plan_map", "progress"]

_ORIGINS = {
    "exact": "#D55E00",
    "neighbour": "#E69F00",
    "uniform": "#009E73",
    "original": "#009E73",
    "warm": "#CC79A7",
}
_SAMPLED, _LINE = "#56B4E9", "#0072B2"
_MOST = 20  # variables in the picture of importance
_OPERATIONS = "#999999"


def draw_all(outcome: Outcome, importances: Mapping[str, float], folder: Path) -> tuple[str, ...]:
    """Write all pictures that there is something for, as SVG and PNG; return their names.

    Raises:
        OutputError: the directory cannot be written.
    """
    if not best_so_far(outcome.records):
        return ()
    pictures = {"progress": progress(outcome), "pareto": pareto(outcome)}
    if outcome.best is not None and not outcome.layout.values:
        pictures["plan"] = plan_map(outcome)
    if importances:
        pictures["importance"] = importance(importances)
    folder.mkdir(exist_ok=True)
    for name, figure in pictures.items():
        for suffix in ("svg", "png"):
            put(folder / f"{name}.{suffix}", _drawn(figure, suffix))
    return tuple(pictures)


def progress(outcome: Outcome) -> Figure:
    """Draw each trial's divergence by its number, and the best so far; a panel for each rung."""
    kinds = [
        rung.kind
        for rung in outcome.rungs
        if any(record.finished and record.rung == rung.kind for record in outcome.records)
    ]
    figure = _figure(5.6 * max(1, len(kinds)), 3.6)
    axes = figure.subplots(1, max(1, len(kinds)), squeeze=False)[0]
    for axis, kind in zip(axes, kinds, strict=False):
        records = [one for one in outcome.records if one.rung == kind and one.finished]
        upper = kind != outcome.rungs[0].kind
        for origin, label in {"": "sampler", **{one: one for one in _ORIGINS}}.items():
            mine = [
                one for one in records
                if (one.origin == origin or (not origin and one.origin not in _ORIGINS))
            ]  # fmt: skip
            if mine:
                axis.scatter(
                    [one.number for one in mine],
                    [one.loss for one in mine],
                    s=14,
                    color=_ORIGINS.get(origin, _SAMPLED),
                    label="from the rung below" if label == "sampler" and upper else label,
                )
        numbers = [one.number for one in records]
        axis.step(
            numbers,
            [-best for _, best in best_so_far(records)],
            where="post",
            color=_LINE,
            label="best so far",
        )
        axis.set_yscale("log")
        axis.set_xlabel("trial")
        axis.set_title(f"rung {kind}", fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylabel(_name_of(outcome.records))
    return figure


def pareto(outcome: Outcome) -> Figure:
    """Draw divergence against what is limited, with the Pareto front."""
    extra = [name for name in outcome.objectives if name in outcome.original]
    key = (extra or list(outcome.limits) or ["macs"])[0]
    front = outcome.front
    kind = front[0].rung if front else outcome.rungs[0].kind
    records = [one for one in outcome.records if one.finished and one.rung == kind]
    figure = _figure(5.6, 3.6)
    axis = figure.subplots()
    whole = outcome.original[key]
    use_top1 = "top1" in outcome.objectives

    def high(record: Any) -> float:
        return float(record.score["top1"] if use_top1 else record.loss)

    axis.scatter(
        [one.costs[key] / whole for one in records],
        [high(one) for one in records],
        s=14,
        color=_SAMPLED,
        label="trials",
    )
    line = sorted(front, key=lambda one: one.costs[key])
    axis.plot(
        [one.costs[key] / whole for one in line],
        [high(one) for one in line],
        "o-",
        markersize=5,
        color=_LINE,
        label="Pareto front",
    )
    if key in outcome.limits:
        axis.axvline(outcome.limits[key] / whole, color=_OPERATIONS, ls="--", label="budget")
    axis.set_xlabel(f"{key}, as a share of the original's")
    axis.set_ylabel("top-1, %" if use_top1 else _name_of(records))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def plan_map(outcome: Outcome) -> Figure:
    """Draw what the best plan makes of each layer: its ratio or pruned share, and its kernel."""
    best = outcome.best
    assert best is not None
    assert best.assignment is not None
    plan = outcome.layout.plan(best.assignment)
    layers = [layer for group in outcome.layout.layers for layer in group]
    figure = _figure(max(5.6, 0.22 * len(layers) + 1.2), 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for place, layer in enumerate(layers):
        setting = plan.get(layer, "")
        ratio, kernel = _parts(setting)
        if setting.startswith("p"):
            kept = 1 - float(setting[1:])
            upper.bar(place, 1 / kept if kept else 1, color=_ORIGINS["warm"], label="pruned")
        else:
            upper.bar(place, ratio, color=_LINE if setting else _OPERATIONS,
                      label="Ghost" if setting else "kept")  # fmt: skip
        if kernel:
            lower.bar(place, kernel, color=_SAMPLED)
    upper.set_ylabel("fewer maps (s)")
    lower.set_ylabel("kernel (d)")
    lower.set_xticks(range(len(layers)), layers, rotation=90, fontsize=6)
    upper.set_title(f"the best plan, trial {best.number}", fontsize=10)
    _legend_once(upper)
    for axis in (upper, lower):
        axis.grid(axis="y", alpha=0.3)
    return figure


def importance(importances: Mapping[str, float]) -> Figure:
    """Draw how much each variable decides whether a plan is among the good ones."""
    first = sorted(importances.items(), key=lambda pair: -pair[1])[:_MOST]
    figure = _figure(5.6, 0.24 * len(first) + 1.0)
    axis = figure.subplots()
    names = [name for name, _ in reversed(first)]
    axis.barh(names, [value for _, value in reversed(first)], color=_LINE)
    axis.set_xlabel("importance (PED-ANOVA)")
    axis.tick_params(axis="y", labelsize=7)
    axis.grid(axis="x", alpha=0.3)
    return figure


def _name_of(records: Sequence[Record]) -> str:
    """Return what is drawn upwards, lower is better."""
    lost = any(record.measure == "loss" for record in records)
    return "loss on images held back" if lost else "divergence from the original"


def _parts(setting: str) -> tuple[float, int]:
    """Return s and d of ``"s2,d3"``; 1 and 0 for a layer that stays."""
    ratio, kernel = 1.0, 0
    for part in setting.split(","):
        if part[:1] == "s" and part[1:].isdigit():
            ratio = float(part[1:])
        elif part[:1] == "d" and part[1:].isdigit():
            kernel = int(part[1:])
    return ratio, kernel


def _legend_once(axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), fontsize=8)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _drawn(figure: Figure, suffix: str) -> bytes:
    """Return a picture's bytes, the same each time."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "ghostify", "svg.fonttype": "none"}):
        metadata = {"Date": None} if suffix == "svg" else None
        figure.savefig(buffer, format=suffix, metadata=metadata)
    return buffer.getvalue()
