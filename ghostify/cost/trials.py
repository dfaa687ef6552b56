"""Which network is faster: ratios of times in the same round, and how sure they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ghostify.cost.latency import measure, spread
from ghostify.runtimes.base import Session

__all__ = ["Trial", "try_against"]

_SERIES = 4  # of so many rounds, at most, until it is clear which network is faster
_CLEAR = 0.005  # noise below which a further series would not change the decision


@dataclass(frozen=True, slots=True)
class Trial:
    """A whole network that was measured in turns with the original."""

    original_ms: float
    ms: float
    noise: float  # half the width of the 95 % interval of the median of ms / original_ms
    layers: int = 0  # Ghost modules in it

    @property
    def speedup(self) -> float:
        """How many times faster than the original."""
        return self.original_ms / self.ms

    @property
    def faster(self) -> bool:
        """Whether it is faster than the original beyond the noise."""
        return self.ms / self.original_ms + self.noise <= 1


def try_against(original: Session, others: Sequence[Session], *, rounds: int) -> list[Trial]:
    """Time networks in turns with the original, until it is clear whether each is faster.

    What counts is the median of the ratios within rounds: whatever slows the machine down for
    longer than a round slows down both.
    """
    ratios: list[list[float]] = [[] for _ in others]
    befores: list[float] = []
    numbered = {str(number): session for number, session in enumerate(others)}
    for _ in range(_SERIES):
        found = measure({"": original, **numbered}, rounds=rounds, tries=1)
        befores += found[""].ms
        for number, listed in enumerate(ratios):
            pairs = zip(found[str(number)].ms, found[""].ms, strict=True)
            listed += [after / before for after, before in pairs]
        if not any(_unclear(listed) for listed in ratios):
            break
    before = statistics.median(befores)
    return [Trial(before, before * statistics.median(one), _noise(one)) for one in ratios]


def _noise(ratios: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of a median (McGill, Tukey and Larsen)."""
    return 1.57 * spread(list(ratios)) / math.sqrt(len(ratios))


def _unclear(ratios: Sequence[float]) -> bool:
    noise = _noise(ratios)
    return noise > _CLEAR and abs(statistics.median(ratios) - 1) <= 1.5 * noise
