"""How much work goes into a fit, as a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ghostify.errors import SpecError

__all__ = ["STREAM_ORDERS", "SYNTHETIC", "FitOptions", "StreamOrder"]

SYNTHETIC = "synthetic"
"""In place of images: make some from the network's own batch-norm statistics."""

StreamOrder = Literal["common", "own"]
STREAM_ORDERS: tuple[str, ...] = get_args(StreamOrder)
"""Whether layers that write to one residual stream choose their ghosts together or alone."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How much work goes into a fit."""

    rounds: int = 1  # alternations of primary filters and branches, per layer
    iterations: int = 6  # of conjugate gradients in each
    block_steps: int = 60  # of gradient descent for each block, behind its last layer
    joint_steps: int | None = None  # on all blocks together, at the end; None: by what one costs
    rate: float = 2e-3  # of the block steps; the joint ones take half of it
    positions: int = 1 << 16  # of a layer's output that its algebra looks at
    memory_bytes: int = 2 << 30  # of activations; what is beyond goes to a temporary file
    seed: int = 0  # of the order of the images in the steps
    stream_order: StreamOrder = "common"  # of maps: "own" of each layer costs a copy at each

    def __post_init__(self) -> None:
        least = {
            "rounds": 0, "iterations": 0, "block_steps": 0, "joint_steps": 0, "positions": 1,
            "memory_bytes": 0, "seed": 0,
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if name == "joint_steps" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise SpecError(f"FitOptions.{name} is a whole number >= {low} (got {value!r})")
        if self.stream_order not in STREAM_ORDERS:
            raise SpecError(
                f"FitOptions.stream_order is one of {', '.join(STREAM_ORDERS)} "
                f"(got {self.stream_order!r})"
            )
        if not isinstance(self.rate, float | int) or not 0 < self.rate < math.inf:
            raise SpecError(f"FitOptions.rate must be above 0 (got {self.rate!r})")
