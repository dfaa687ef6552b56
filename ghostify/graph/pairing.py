"""Choose which output maps are computed and which are ghosts, and of which map each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ghostify.spec import intrinsic_maps

__all__ = ["Costs", "Pairing", "choose"]

Costs = npt.NDArray[np.float64]

_DENSE = 512  # maps up to which every pair takes part in the exact matching
_PARTNERS = 48  # else each map's cheapest partners
_SWEEPS = 4
_NEVER = 1e30


@dataclass(frozen=True, slots=True)
class Pairing:
    """The output maps in the order in which a Ghost module makes them.

    ``intrinsic`` lists m maps. ``ghosts`` lists the other n - m: the ghost at position k
    is made from ``intrinsic[k % m]``, by branch ``k // m``.
    """

    intrinsic: tuple[int, ...]
    ghosts: tuple[int, ...]

    @property
    def made(self) -> tuple[int, ...]:
        """The original output map that each of the module's n maps stands for."""
        return self.intrinsic + self.ghosts

    @property
    def order(self) -> tuple[int, ...]:
        """Where among the module's maps each original output map is found."""
        positions = [0] * len(self.made)
        for position, original in enumerate(self.made):
            positions[original] = position
        return tuple(positions)

    def cost(self, costs: Costs) -> float:
        """Sum the costs of the ghosts."""
        maps = len(self.intrinsic)
        return float(
            sum(costs[self.intrinsic[k % maps], ghost] for k, ghost in enumerate(self.ghosts))
        )


def choose(costs: Costs, *, ratio: int, groups: int = 1, round_to: int = 1) -> Pairing:
    """Choose intrinsic maps and their ghosts so that the ghosts cost as little as possible.

    Where half of the maps are computed, in equal shares of each group, this is a perfect
    matching of minimum weight, which is found exactly (Edmonds' blossom algorithm) up to 512
    maps; beyond, among each map's 48 cheapest partners. The cheaper direction decides which of
    the two is computed. Otherwise the intrinsic maps are found as k medians, greedily and then
    by swaps, and the ghosts are given to them by an exact assignment with capacities. A grouped
    convolution of which half is computed gets the cheaper of both, since only the assignment
    gives ghosts across groups.

    Args:
        costs: ``(n, n)``, of making map g from map i at ``costs[i, g]``; the diagonal is ignored.
        ratio: s.
        groups: of the convolution; each group computes equally many maps, from its own.
        round_to: of which the number of computed maps is a multiple, if it can be.
    """
    maps = len(costs)
    wanted = intrinsic_maps(maps, ratio, groups, round_to)
    size = maps // groups
    matched: Pairing | None = None
    if 2 * wanted == maps:
        pairs = [
            pair
            for start in range(0, maps, size)
            for pair in _matching(costs[start : start + size, start : start + size], start)
        ]
        matched = Pairing(tuple(i for i, _ in pairs), tuple(g for _, g in pairs))
        if groups == 1:
            return matched
    assigned = _improved(costs, _medians(costs, wanted, groups), groups)
    if matched is None:
        return assigned
    return min(matched, assigned, key=lambda one: one.cost(costs))


def _matching(costs: Costs, start: int) -> list[tuple[int, int]]:
    """Match all maps into pairs (intrinsic, ghost), in the order of the intrinsic ones."""
    import rustworkx

    maps = len(costs)
    both = np.minimum(costs, costs.T)
    np.fill_diagonal(both, np.inf)
    first, second = np.triu_indices(maps, 1)
    if maps > _DENSE:
        near = np.zeros((maps, maps), dtype=bool)
        partners = np.argpartition(both, _PARTNERS, axis=1)[:, :_PARTNERS]
        near[np.arange(maps)[:, None], partners] = True
        near |= near.T
        spare = np.arange(0, maps - 1, 2)  # so that some perfect matching always exists
        near[spare, spare + 1] = True
        kept = near[first, second]
        first, second = first[kept], second[kept]
    weights = both[first, second]
    span = float(weights.max() - weights.min()) or 1.0
    scaled = np.rint((weights.max() - weights) / span * 2**40).astype(np.int64)
    graph = rustworkx.PyGraph(multigraph=False)
    graph.add_nodes_from(range(maps))
    graph.add_edges_from(list(zip(first.tolist(), second.tolist(), scaled.tolist(), strict=True)))
    matched = rustworkx.max_weight_matching(graph, max_cardinality=True, weight_fn=int)
    pairs = [(a, b) if costs[a, b] <= costs[b, a] else (b, a) for a, b in matched]
    return [(start + i, start + g) for i, g in sorted(pairs)]


def _medians(costs: Costs, wanted: int, groups: int) -> list[int]:
    """Pick maps one by one, each time the one that makes all others cheapest to derive."""
    maps = len(costs)
    size = maps // groups
    free = costs.copy()
    np.fill_diagonal(free, 0.0)
    best = np.full(maps, free.max() * 2 + 1)
    chosen: list[int] = []
    room = np.full(groups, wanted // groups)
    open_ = np.ones(maps, dtype=bool)
    for _ in range(wanted):
        gains = np.minimum(best[None, :], free).sum(axis=1)
        gains[~open_] = np.inf
        one = int(np.argmin(gains))
        chosen.append(one)
        best = np.minimum(best, free[one])
        open_[one] = False
        room[one // size] -= 1
        if room[one // size] == 0:
            open_[one // size * size : (one // size + 1) * size] = False
    return sorted(chosen)


def _improved(costs: Costs, intrinsic: list[int], groups: int) -> Pairing:
    """Swap intrinsic maps for ghosts as long as the assignment gets cheaper."""
    maps = len(costs)
    size = maps // groups
    best = _assigned(costs, intrinsic, groups)
    lowest = best.cost(costs)
    for _ in range(_SWEEPS if maps <= 64 else 1 if maps <= 128 else 0):
        before = lowest
        for ghost in best.ghosts:
            for position, old in enumerate(sorted(best.intrinsic)):
                if old // size != ghost // size or ghost in best.intrinsic:
                    continue
                trial = sorted(best.intrinsic)
                trial[position] = ghost
                if _bound(costs, trial) >= lowest:
                    continue
                found = _assigned(costs, sorted(trial), groups)
                if found.cost(costs) < lowest:
                    best, lowest = found, found.cost(costs)
        if lowest >= before:
            break
    return best


def _bound(costs: Costs, intrinsic: list[int]) -> float:
    """Return what the ghosts would cost without any capacity."""
    cheapest = costs[intrinsic].min(axis=0)
    cheapest[intrinsic] = 0.0
    return float(cheapest.sum())


def _assigned(costs: Costs, intrinsic: list[int], groups: int) -> Pairing:
    """Give every ghost an intrinsic map, so that each branch is filled from the first on.

    Every intrinsic map makes one ghost for each full branch; ``rest`` of them make one more,
    and come first. In a grouped convolution the order is bound to the groups, so these are
    the first ones.
    """
    from scipy.optimize import linear_sum_assignment

    maps, wanted = len(costs), len(intrinsic)
    ghosts = sorted(set(range(maps)) - set(intrinsic))
    full, rest = divmod(len(ghosts), wanted)
    slots = np.repeat(costs[np.ix_(intrinsic, ghosts)], full, axis=0)
    if rest:
        extra = costs[np.ix_(intrinsic, ghosts)].copy()
        if groups > 1:
            extra[rest:] = _NEVER
        unused = np.zeros((len(slots) + wanted, wanted - rest))
        unused[: len(slots)] = _NEVER
        if groups > 1:
            unused[len(slots) : len(slots) + rest] = _NEVER
        slots = np.concatenate([np.concatenate([slots, extra]), unused], axis=1)
    rows, columns = linear_sum_assignment(slots)
    made: dict[int, list[int]] = {i: [] for i in intrinsic}
    last: dict[int, int] = {}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if column >= len(ghosts):
            continue
        if row < full * wanted:
            made[intrinsic[row // full]].append(ghosts[column])
        else:
            last[intrinsic[row - full * wanted]] = ghosts[column]
    ordered = sorted(intrinsic, key=lambda i: (i not in last, i)) if groups == 1 else intrinsic
    branches = [[made[i][branch] for i in ordered] for branch in range(full)]
    tail = [last[i] for i in ordered if i in last]
    return Pairing(tuple(ordered), tuple(g for branch in (*branches, tail) for g in branch))
