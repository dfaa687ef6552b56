"""Which maps go, until a network fits its budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ghostify.errors import PruneError
from ghostify.pruners.groups import Group
from ghostify.pruners.scores import Scores

__all__ = ["TOLERANCE", "Removed", "order_of_removal", "within_budget"]

TOLERANCE = 0.01
"""How far below the budget a pruned network may stay, as a share of it."""

_FLOOR = 10  # a ranking over all layers leaves each layer a tenth of its maps

Removed = dict[str, set[int]]
"""The maps that go, by the groups' layers."""


def order_of_removal(
    groups: Sequence[Group], scores: Scores, *, everywhere: bool
) -> list[tuple[str, tuple[int, ...]]]:
    """Return families of maps in the order in which they go, with their groups' layers.

    ``everywhere`` ranks all of them together and leaves every layer a tenth of its maps, since
    a layer that is all but closed cannot be trained. Else the k-th of n families of any layer
    goes at the share k / n, and one is left.
    """
    found: list[tuple[float, int, int, str, tuple[int, ...]]] = []
    for place, group in enumerate(groups):
        values = scores[group.layer]
        ranked = np.argsort(values, kind="stable")
        count = len(ranked)
        left = -(-count // _FLOOR) if everywhere else 1
        for rank, number in enumerate(ranked[: count - left]):
            key = float(values[number]) if everywhere else (rank + 1) / count
            found.append((key, place, rank, group.layer, group.families[number]))
    return [(layer, family) for _, _, _, layer, family in sorted(found, key=lambda one: one[:3])]


def within_budget(
    order: Sequence[tuple[str, tuple[int, ...]]],
    cost: Callable[[Removed], Mapping[str, float]],
    limits: Mapping[str, float],
    *,
    name: str,
    say: Callable[[str, float], str],
    on_try: Callable[[int, int], None] | None = None,
) -> Removed:
    """Return the fewest maps, in this order, without which all limits are kept.

    Found by bisection, since every map that goes makes the network cheaper. In a small network
    one map may be more than 1 % of a limit; then those that need not go come back, the last first.

    Args:
        cost: what is left of each limited resource.
        name: of the method, for messages.
        say: writes an amount of a resource for people.

    Raises:
        PruneError: not even all of them suffice, or one map makes more than 1 % of a limit.
    """
    tries = max(1, len(order).bit_length()) + 2

    def at(count: int) -> tuple[Removed, Mapping[str, float]]:
        gone = _gone(order[:count])
        return gone, cost(gone)

    def over(costs: Mapping[str, float]) -> bool:
        return any(costs[key] > limit for key, limit in limits.items())

    low, high = 0, len(order)  # what is over the budget, and what is not
    gone, costs = at(high)
    if over(costs):
        key = max(limits, key=lambda one: costs[one] / max(limits[one], 1.0))
        raise PruneError(
            f"{name} cannot bring {key} to {say(key, limits[key])}: the least that it can reach "
            f"is {say(key, costs[key])}; ask for that or more"
        )
    if not over(cost({})):
        raise PruneError(
            f"the network keeps the budget as it is ({_listed(limits, say)}); ask for less"
        )
    done = 1
    while high - low > 1:
        middle = (low + high) // 2
        tried = at(middle)
        done += 1
        if on_try is not None:
            on_try(min(done, tries), tries)
        if over(tried[1]):
            low = middle
        else:
            high, gone, costs = middle, *tried
    left = list(order[:high])
    for family in reversed(order[:high]):
        if _closest(costs, limits) >= 1 - TOLERANCE:
            break
        fewer = [one for one in left if one is not family]
        tried = _gone(fewer), cost(_gone(fewer))
        if not over(tried[1]):
            left, gone, costs = fewer, *tried
    if _closest(costs, limits) < 1 - TOLERANCE:
        told = ", ".join(f"{key} {say(key, costs[key])}" for key in limits)
        raise PruneError(
            f"{name} comes no closer to {_listed(limits, say)} than {told}, more than "
            f"{TOLERANCE:.0%} below; ask for that"
        )
    return gone


def _gone(families: Iterable[tuple[str, tuple[int, ...]]]) -> Removed:
    gone: Removed = {}
    for layer, family in families:
        gone.setdefault(layer, set()).update(family)
    return gone


def _closest(costs: Mapping[str, float], limits: Mapping[str, float]) -> float:
    return max(costs[key] / limits[key] for key in limits)


def _listed(limits: Mapping[str, Any], say: Callable[[str, float], str]) -> str:
    return ", ".join(f"{key} {say(key, limit)}" for key, limit in limits.items())
