"""What each cheap operation may be and costs: the values behind its name, before any tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ghostify.errors import SpecError, nearest

__all__ = ["CHEAP_COSTS", "MAX_KERNEL", "CheapCost", "block_sizes", "check_name", "check_sides"]

MAX_KERNEL = 99
"""Far beyond any use; a larger side is a slip of the pen."""


@dataclass(frozen=True, slots=True)
class CheapCost:
    """One linear operation on each intrinsic map (GhostNet, sec. 3.1 and 4.1.1).

    Whatever its filters are, they run as one d x d depthwise convolution (d = 1 as a product),
    so a ghost map takes d x d multiply-adds per pixel. They differ in what is learned.
    """

    learned: int | None = 1  # weights of one ghost map; None: all d x d
    least: int = 1  # smallest d
    only: int | None = None  # the one d that there is
    own_offset: bool = False  # each ghost map learns one, whatever the convolution has
    moves: bool = False  # maps have to be larger than the step

    def weights(self, kernel: int) -> int:
        """Return how many weights one ghost map of side ``kernel`` learns, offsets left out."""
        return kernel * kernel if self.learned is None else self.learned


CHEAP_COSTS: Mapping[str, CheapCost] = {
    "depthwise": CheapCost(learned=None),
    "affine": CheapCost(only=1, own_offset=True),
    "wavelet": CheapCost(only=3),
    "shift": CheapCost(least=3, moves=True),
    "blur": CheapCost(least=3),
}
"""By name; the operations themselves are in :data:`ghostify.nn.cheap.CHEAP_OPERATIONS`."""


def check_name(cheap: object) -> None:
    """Make sure that there is such an operation.

    Raises:
        SpecError: there is none; the message names the nearest.
    """
    if not isinstance(cheap, str) or cheap not in CHEAP_COSTS:
        known = ", ".join(CHEAP_COSTS)
        raise SpecError(
            f"GhostSpec.cheap must be one of: {known} (got {cheap!r})"
            + nearest(str(cheap), CHEAP_COSTS)
        )


def check_sides(cheap: str, sides: tuple[int, ...]) -> None:
    """Make sure that an operation can have filters of these sides.

    Raises:
        SpecError: it cannot; the message says which it can have.
    """
    cost = CHEAP_COSTS[cheap]
    if cost.only is not None and sides != (cost.only,):
        got = "+".join(map(str, sides))
        raise SpecError(
            f"GhostSpec.kernel (d) of {cheap} is always {cost.only} (got {got}); leave it out"
        )
    if min(sides) < cost.least:
        raise SpecError(
            f"GhostSpec.kernel (d) of {cheap} must be at least {cost.least} (got {min(sides)}); "
            "3 is the paper's choice"
        )


def block_sizes(maps: int, sides: int) -> tuple[int, ...]:
    """Return how many maps of a branch get each of so many sides, the smallest side first.

    As equal as can be; the smaller sides take what is left over.
    """
    each, rest = divmod(maps, sides)
    return tuple(each + (place < rest) for place in range(sides))
