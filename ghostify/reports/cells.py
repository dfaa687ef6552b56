"""Figures as cells: how many digits, what stands behind ±, and what is not known."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ghostify.reports.results import Result, Timing
from ghostify.reports.statistics import Estimate, estimate
from ghostify.reports.values import EMPTY, Cell

__all__ = [
    "UNITS",
    "accuracy_cell",
    "count_cell",
    "digits",
    "mean_cell",
    "published_cell",
    "ratio_cell",
    "timing_cell",
]

UNITS = {"": 1.0, "M": 1e6, "G": 1e9}
"""That counts are told in."""


def digits(value: float) -> int:
    """Return the decimals of a count: four figures from 1 on, as 2.151, 25.56 and 158.1."""
    return 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1


def count_cell(values: Sequence[float], unit: str) -> Cell:
    """Show parameters or multiply-adds in a unit; the mean where the seeds differ."""
    if not values:
        return EMPTY
    scaled = [value / UNITS[unit] for value in values]
    mean = statistics.fmean(scaled)
    text = f"{mean:,.{digits(mean)}f}" if unit else f"{mean:,.0f}"
    differ = min(scaled) != max(scaled)
    title = (
        f"mean; from {min(values):,.0f} to {max(values):,.0f}" if differ else f"{values[0]:,.0f}"
    )
    return Cell(text, mean, title=title)


def ratio_cell(before: float | None, after: float | None) -> Cell:
    """Show how many times less it is."""
    if not before or not after:
        return EMPTY
    return Cell(f"{before / after:.2f}x", before / after)


def published_cell(value: float | None, name: str) -> Cell:
    """Show a figure with as many digits as the paper has.

    Args:
        name: of the field: "params" (in M), "macs" (in M, or in G below 10), or a share in %.
    """
    if value is None:
        return EMPTY
    if name == "macs":
        return Cell(f"{value:.1f}" if value < 10 else f"{value:.0f}", value)
    return Cell(f"{value:.2f}" if name == "params" and value < 1 else f"{value:.1f}", value)


def mean_cell(found: Estimate | None, *, title: str = "", decimals: int = 2) -> Cell:
    """Show a mean with its interval, or without one where there is one value only."""
    if found is None:
        return EMPTY
    text = f"{found.mean:.{decimals}f}"
    if found.half_width is not None:
        text += f" ± {found.half_width:.{decimals}f}"
    return Cell(text, found.mean, found.half_width, title=title)


def accuracy_cell(result: Result, name: str) -> Cell:
    """Show one field of a result's records as mean ± interval, in percent."""
    known = [
        f"seed {record.seed}: {getattr(record, name):.2f}"
        for record in result.records
        if getattr(record, name) is not None
    ]
    values = result.values(name)
    return mean_cell(estimate(values) if values else None, title=", ".join(known))


def timing_cell(timing: Timing | None) -> Cell:
    """Show a latency in ms and how many times faster that is than the original."""
    if timing is None:
        return EMPTY
    ms = f"{timing.median_ms:.{max(0, digits(timing.median_ms) - 1)}f}"
    title = f"interquartile range {timing.iqr_ms:.3g} ms"
    if timing.before_ms:
        ms += f" ({timing.before_ms / timing.median_ms:.2f}x)"
        title += f"; the original {timing.before_ms:.3g} ms"
    return Cell(ms, timing.median_ms, title=title)
