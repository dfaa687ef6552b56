"""Means over seeds, and whether two methods differ: Student's t, Welch's test, Holm."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["LEVEL", "Difference", "Estimate", "difference", "estimate", "holm", "pareto_front"]

LEVEL = 0.95
"""Of confidence intervals; a difference is significant where the corrected p is below the rest."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of one figure over seeds."""

    mean: float
    n: int
    sd: float | None  # sample standard deviation; None for one value
    half_width: float | None  # of the 95 % confidence interval of the mean; None for one value


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean less the reference's mean, and how likely chance alone is to make it."""

    value: float
    half_width: float | None  # of the 95 % confidence interval; None where no variance is known
    p: float | None  # two-sided, not corrected for several comparisons
    freedom: float | None  # degrees of freedom after Welch and Satterthwaite


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean and confidence interval (Student's t with n - 1 degrees of freedom).

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("a mean needs a value")
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Estimate(mean, len(values), None, None)
    sd = statistics.stdev(values)
    half = _quantile(len(values) - 1) * sd / math.sqrt(len(values))
    return Estimate(mean, len(values), sd, half)


def difference(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """Compare two means by Welch's t-test, which assumes neither equal variances nor equal n.

    Without two values on each side nothing is known of chance; with no variance at all on both
    sides a t-test says nothing either, and ``p`` is None.

    Raises:
        ValueError: a side has no value.
    """
    ours, theirs = estimate(values), estimate(reference)
    value = ours.mean - theirs.mean
    if ours.sd is None or theirs.sd is None:
        return Difference(value, None, None, None)
    parts = (ours.sd**2 / ours.n, theirs.sd**2 / theirs.n)
    error = math.sqrt(sum(parts))
    if error == 0:
        return Difference(value, None, None, None)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (ours.n - 1) + parts[1] ** 2 / (theirs.n - 1))
    from scipy import stats

    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    return Difference(value, _quantile(freedom) * error, p, freedom)


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for being several (Holm 1979): the chance of one false alarm among all.

    The smallest is multiplied by their number, the next by one less and so on; none gets below
    one that is smaller, and none above 1.
    """
    corrected: dict[str, float] = {}
    floor = 0.0
    for rank, (name, p) in enumerate(sorted(values.items(), key=lambda one: one[1])):
        floor = max(floor, min(1.0, (len(values) - rank) * p))
        corrected[name] = floor
    return {name: corrected[name] for name in values}


def pareto_front(points: Mapping[str, tuple[float, float]]) -> frozenset[str]:
    """Return the names that no other beats: ``(cost, gain)``, where less and more are better.

    One beats another if it is no worse in both and better in one, so equal points stay.
    """
    return frozenset(
        name
        for name, (cost, gain) in points.items()
        if not any(
            other_cost <= cost and other_gain >= gain and (other_cost, other_gain) != (cost, gain)
            for other_cost, other_gain in points.values()
        )
    )


def _quantile(freedom: float) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.5 + LEVEL / 2, freedom))
