"""What scoring says of a plan, and what it may cost: values."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from ghostify.errors import SpecError
from ghostify.graph.fit_options import FitOptions

__all__ = ["Options", "Point", "Score"]

Point = tuple[int, float, float | None]
"""Of a training: after how many steps, divergence, top-1 in percent."""


@dataclass(frozen=True, slots=True)
class Score:
    """How nearly a converted network says what the original says, on images held back.

    ``divergence`` is the Kullback-Leibler divergence from the original's softened output
    (T = 4, times T squared, as in distillation), so lower is better; no label has a part in it.
    """

    divergence: float
    top1: float | None = None  # percent, where there are labels
    seconds: float = 0.0
    steps: int = 0  # of gradient descent
    curve: tuple[Point, ...] = ()
    stopped: bool = False  # before its last step, since it was told to

    @property
    def score(self) -> float:
        """The negative divergence: higher is better."""
        return -self.divergence

    def as_json(self) -> dict[str, Any]:
        """Return plain values; a divergence that is not finite is left as None."""
        plain = dataclasses.asdict(self)
        plain["curve"] = [list(point) for point in self.curve]
        finite = math.isfinite(self.divergence)
        plain["divergence"] = self.divergence if finite else None
        return {
            "score": self.score if finite else None,
            "objective": "negative divergence",
            **plain,
        }


@dataclass(frozen=True, slots=True)
class Options:
    """How much work goes into a score.

    ``fit`` is for the fit of a whole network, of which only ``rounds``, ``iterations`` and
    ``positions`` also count for layers fitted alone.
    """

    positions: int = 1 << 16  # of a layer's output that its fit alone looks at
    correcting: int = 128  # calibration images that correct an assembled network on its way
    single: int = 256  # images held back that show what one layer alone does
    chunk: int = 64  # images that go through the network together
    temperature: float = 4.0
    reports: int = 10  # at how many places of a training it is judged
    fit: FitOptions = field(default_factory=FitOptions)

    def __post_init__(self) -> None:
        for name in ("positions", "correcting", "single", "chunk", "reports"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SpecError(f"Options.{name} is a whole number >= 1 (got {value!r})")
        if not 0 < self.temperature < math.inf:
            raise SpecError(f"Options.temperature must be above 0 (got {self.temperature!r})")
