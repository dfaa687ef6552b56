"""From the sum of layers' times to that of the whole network: a line, fitted on a few networks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Correction", "fit_correction"]

_LEAST_SPREAD = 0.02  # of predictions, below which no slope can be fitted
_STEEPEST = 2.0


@dataclass(frozen=True, slots=True)
class Correction:
    """What whole networks take beside the sum of their layers: ``offset + slope * sum``."""

    offset_ms: float = 0.0
    slope: float = 1.0
    networks: int = 0  # that it was fitted on
    error: float | None = None  # median of the relative errors, each network left out in turn

    def apply(self, summed_ms: float) -> float:
        """Return the corrected milliseconds."""
        return self.offset_ms + self.slope * summed_ms


def fit_correction(pairs: Sequence[tuple[float, float]]) -> Correction:
    """Fit a line through (sum of layers, measured) by least squares of the relative errors.

    With one network, or several that are expected to take equally long, only the offset is
    fitted.
    """
    error = None
    if len(pairs) >= 3:
        errors = []
        for place, (summed, measured) in enumerate(pairs):
            line = _line([*pairs[:place], *pairs[place + 1 :]])
            errors.append(abs(line.apply(summed) / measured - 1))
        error = statistics.median(errors)
    line = _line(pairs)
    return Correction(line.offset_ms, line.slope, len(pairs), error)


def _line(pairs: Sequence[tuple[float, float]]) -> Correction:
    summed = np.array([one for one, _ in pairs])
    measured = np.array([other for _, other in pairs])
    if np.ptp(summed) > _LEAST_SPREAD * summed.mean():
        rows = np.stack([1 / measured, summed / measured], 1)
        offset, slope = np.linalg.lstsq(rows, np.ones(len(pairs)), rcond=None)[0]
        if 1 / _STEEPEST <= slope <= _STEEPEST:
            return Correction(float(offset), float(slope))
    return Correction(float(np.mean(measured - summed)))
