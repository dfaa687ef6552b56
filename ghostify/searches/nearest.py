"""The nearest feasible plan, by dynamic programming over the prices of changes.

Variables that cost something together mostly form chains (a layer that may be pruned and the
one that reads it), so the least cost at each price is found by a recursion over trees; one
more, over the trees, gives that of the whole network, and so the lowest price that holds a limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ghostify.searches.problem import Problem
from ghostify.searches.terms import FloatArray

__all__ = ["Nearest", "nearest_plan"]

_IntArray = NDArray[np.int64]
_GRID = 64  # steps from no change to the price of the plan with the fewest changes
_TRIES = 32  # of weights between several limits
_PATIENCE = 6  # tries without progress
_HURRY = 10.0  # how fast the weights follow what is exceeded
_NEARLY = 1e-9  # of a weighted sum of shares


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """A feasible plan, if one was found, and whether a cheaper one is out of the question."""

    assignment: _IntArray | None
    price: int
    proven: bool


@dataclass(slots=True, eq=False)
class _Tree:
    """The least cost of a variable and all below it, by its choice and the price ``(K, J)``."""

    variable: int
    cost: FloatArray
    below: list[tuple[_Tree, NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=list)


def nearest_plan(
    problem: Problem,
    asked: _IntArray,
    limits: Mapping[str, float],
    weights: Sequence[FloatArray] | None = None,
) -> Nearest:
    """Find a feasible plan with the cheapest changes to ``asked`` ``(V,)``.

    Args:
        weights: price of changing a variable to each choice, ``(K_v,)`` each; 1 for each
            changed variable if None. Prices are rounded up to a 64th of what the plan with the
            fewest changes would cost.

    Several limits are weighed into one, which bounds the price from below; a plan at that price
    is proven to be nearest, others are the best that were met. Forbidden combinations are only
    looked at afterwards.
    """
    parents = _forest(problem, limits)
    if parents is None or not limits:
        return Nearest(None, 0, False)
    sizes = problem.shape
    ones = [(np.arange(size) != k).astype(np.int64) for size, k in zip(sizes, asked, strict=True)]
    fewest = _cheapest(problem, asked, limits, ones, parents, len(sizes))
    if weights is None or fewest.assignment is None:
        return fewest
    changed = fewest.assignment != asked
    highest = sum(
        float(row[k])
        for row, k, new in zip(weights, fewest.assignment, changed, strict=True)
        if new
    )
    if highest <= 0:
        return Nearest(fewest.assignment, 0, True)
    prices = [
        np.where(one > 0, np.ceil(np.clip(row / highest * _GRID - 1e-9, 0, _GRID + 1)), 0).astype(
            np.int64
        )
        for one, row in zip(ones, weights, strict=True)
    ]
    found = _cheapest(problem, asked, limits, prices, parents, _GRID + len(sizes))
    return fewest if found.assignment is None else found


def _cheapest(
    problem: Problem,
    asked: _IntArray,
    limits: Mapping[str, float],
    prices: Sequence[_IntArray],
    parents: Mapping[int, int | None],
    highest: int,
) -> Nearest:
    share = {name: 1.0 / len(limits) for name in limits}
    best, best_price, least, idle = None, highest + 1, 0, 0
    for _ in range(_TRIES if len(limits) > 1 else 1):
        forest = _Forest(problem, limits, share, prices, parents, highest)
        enough = np.flatnonzero(forest.costs <= forest.room)
        if not enough.size:
            break
        idle = 0 if int(enough[0]) > least else idle + 1
        least = max(least, int(enough[0]))
        first = forest.plan(least)
        for price in _steps(least, min(best_price, len(forest.costs))):
            if not np.isfinite(forest.costs[price]):
                continue  # no plan has exactly this price
            plan = first if price == least else forest.plan(price)
            if bool(problem.feasible(plan, limits)):
                best, best_price, idle = plan, price, 0
                break
        if best_price <= least or idle > _PATIENCE:
            break
        costs = problem.cost(first)
        share = {
            name: share[name] * float(np.exp(np.clip(_HURRY * (costs[name] / limit - 1), -2, 2)))
            for name, limit in limits.items()
        }
        total = sum(share.values())
        share = {name: value / total for name, value in share.items()}
    return Nearest(best, best_price, best is not None and best_price <= least)


class _Forest:
    """The least cost of all plans at each price, with the limits weighed into one."""

    def __init__(
        self,
        problem: Problem,
        limits: Mapping[str, float],
        share: Mapping[str, float],
        prices: Sequence[_IntArray],
        parents: Mapping[int, int | None],
        highest: int,
    ) -> None:
        tables, pairs, self.room = _weighed(problem, limits, share)
        self._count = len(tables)
        made: dict[int, _Tree] = {}
        for v in range(self._count):
            made[v] = _leaf(v, tables[v], prices[v], highest)
        for v, parent in reversed([*parents.items()]):  # children first
            if parent is None:
                continue
            below = made[v]
            table = pairs[parent, v] if (parent, v) in pairs else pairs[v, parent].T
            ways = table[:, :, None] + below.cost[None]  # (K, K', J')
            best = ways.argmin(1)
            cheapest = np.take_along_axis(ways, best[:, None], 1)[:, 0]
            upper = made[parent]
            upper.cost, split = _convolve(upper.cost, cheapest, highest)
            upper.below.append((below, best, split))
        self._trees = [made[v] for v, parent in parents.items() if parent is None]
        self.costs = self._trees[0].cost.min(0)
        self._splits: list[NDArray[np.int64]] = []
        for tree in self._trees[1:]:
            joint, split = _convolve(self.costs[None], tree.cost.min(0)[None], highest)
            self.costs = joint[0]
            self._splits.append(split[0])

    def plan(self, price: int) -> _IntArray:
        """Return the plan of the least cost at a price that some plan has."""
        found = np.zeros(self._count, dtype=np.int64)
        shares = []
        for split in reversed(self._splits):
            shares.append(int(split[price]))
            price -= shares[-1]
        for tree, one in zip(self._trees, [price, *reversed(shares)], strict=True):
            _read(tree, int(tree.cost[:, one].argmin()), one, found)
        return found


def _leaf(variable: int, table: FloatArray, prices: _IntArray, highest: int) -> _Tree:
    affordable = np.flatnonzero(prices <= highest)
    cost = np.full((len(table), int(prices[affordable].max(initial=0)) + 1), np.inf)
    cost[affordable, prices[affordable]] = table[affordable]
    return _Tree(variable, cost)


def _weighed(
    problem: Problem, limits: Mapping[str, float], share: Mapping[str, float]
) -> tuple[list[FloatArray], dict[tuple[int, int], FloatArray], float]:
    """Return one cost in place of several, by variable and pair, and its limit."""
    alone = len(limits) == 1  # kept whole, so that sums are exact
    factors = {name: 1.0 if alone else share[name] / abs(limits[name]) for name in limits}
    tables = [np.zeros(size) for size in problem.shape]
    pairs: dict[tuple[int, int], FloatArray] = {}
    room = 0.0
    for name, factor in factors.items():
        terms = problem.terms[name]
        room += factor * (limits[name] - terms.base)
        tables = [one + factor * table for one, table in zip(tables, terms.tables, strict=True)]
        for pair in terms.pairs:
            key = pair.first, pair.second
            pairs[key] = pairs.get(key, 0.0) + factor * pair.table
    return tables, pairs, room if alone else room + _NEARLY


def _forest(problem: Problem, limits: Mapping[str, float]) -> dict[int, int | None] | None:
    """Return the parent of every variable, parents first, or None if there is a ring."""
    neighbours: dict[int, set[int]] = {}
    for name in limits:
        for pair in problem.terms[name].pairs:
            neighbours.setdefault(pair.first, set()).add(pair.second)
            neighbours.setdefault(pair.second, set()).add(pair.first)
    parents: dict[int, int | None] = {}
    for root in range(len(problem.shape)):
        if root in parents:
            continue
        parents[root] = None
        waiting = [root]
        while waiting:
            here = waiting.pop()
            for other in sorted(neighbours.get(here, ())):
                if other == parents[here]:
                    continue
                if other in parents:
                    return None
                parents[other] = here
                waiting.append(other)
    return parents


def _convolve(
    one: FloatArray, two: FloatArray, highest: int
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the least ``one[k, i] + two[k, j]`` by ``(k, i + j)``, and the j that gives it."""
    size, left = one.shape
    right = two.shape[1]
    width = min(left + right - 1, highest + 1)
    ways = np.full((right, size, width), np.inf)
    for j in range(right):
        reach = min(left, width - j)
        ways[j, :, j : j + reach] = one[:, :reach] + two[:, j : j + 1]
    split = ways.argmin(0)
    return np.take_along_axis(ways, split[None], 0)[0], split


def _read(tree: _Tree, choice: int, price: int, into: _IntArray) -> None:
    into[tree.variable] = choice
    for below, best, split in reversed(tree.below):
        taken = int(split[choice, price])
        price -= taken
        _read(below, int(best[choice, taken]), taken, into)


def _steps(first: int, end: int) -> Iterator[int]:
    """Count up from ``first`` in growing steps."""
    step, price = 1, first
    while price < end:
        yield price
        price += step
        step += price > first + 2
