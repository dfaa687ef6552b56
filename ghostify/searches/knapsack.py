"""A problem's plans as the whole-number points of a polytope, for a MILP solver."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from ghostify.searches.problem import FloatArray, IntArray, Problem
from ghostify.searches.quiet import quiet_output
from ghostify.searches.terms import Terms

__all__ = ["Knapsack", "Solved"]

_LARGEST = 1e3  # coefficient of a row, which HiGHS likes best


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """A plan that the solver has found, and how far from the optimum it may be (a share)."""

    assignment: IntArray
    gap: float


class Knapsack:
    """The multiple-choice knapsack of a problem under limits.

    One binary for each choice of each variable, of which one is taken. Two variables that
    cost something together have products of their choices beside them, tied by the
    reformulation of Sherali and Adams (1990): with whole choices the products are exact.
    Choices that make no difference in such a product share one.

    Rows of whole numbers are divided by their greatest common divisor and given half a unit of
    slack, so that the solver's tolerances decide nothing. Every plan is checked by exact
    arithmetic; one that the solver lets through by mistake is cut off, and it tries again.

    Args:
        limits: the most that a plan may take, by resource.
        objective: a further resource, whose :meth:`coefficients` are asked for.
        elastic: limits may be exceeded, all by the same share, which is minimised.
    """

    def __init__(
        self,
        problem: Problem,
        limits: Mapping[str, float],
        *,
        objective: str = "",
        elastic: bool = False,
    ) -> None:
        self.problem = problem
        self.limits = dict(limits)
        self._elastic = elastic
        self._starts = np.cumsum([0, *problem.shape])
        self._columns = int(self._starts[-1])
        self._products: dict[tuple[int, int], IntArray] = {}  # (K_u, K_v) columns
        self._entries: list[tuple[int, int, float]] = []
        self._bounds: list[tuple[float, float]] = []
        for first, size in zip(self._starts, problem.shape, strict=False):
            self._add(range(first, first + size), [1.0] * size, 1.0, 1.0)
        involved = dict.fromkeys([*limits, *([objective] if objective else [])])
        self._multiply([problem.terms[name] for name in involved])
        self._forbid()
        self._stretch = self._column() if elastic else -1
        for name, limit in limits.items():
            self._limit(problem.terms[name], limit)
        rows, columns, values = zip(*self._entries, strict=True)
        shape = len(self._bounds), self._columns
        matrix = sparse.csr_matrix((values, (rows, columns)), shape=shape)
        low, high = np.array(self._bounds).T
        self._constraint = LinearConstraint(matrix, low, high)

    def coefficients(self, name: str) -> FloatArray:
        """Return what a resource costs by column, beside its constant."""
        terms = self.problem.terms[name]
        found = np.zeros(self._columns)
        found[: self._starts[-1]] = np.concatenate(terms.tables)
        for pair in terms.pairs:
            found[self._products[pair.first, pair.second]] = pair.table
        return found

    def spread(self, scores: Sequence[FloatArray]) -> FloatArray:
        """Return numbers by variable and choice as coefficients of the columns."""
        found = np.zeros(self._columns)
        found[: self._starts[-1]] = np.concatenate(scores)
        return found

    def least_stretch(self) -> Solved | None:
        """Return the plan that exceeds elastic limits by the smallest share."""
        objective = np.zeros(self._columns)
        objective[self._stretch] = 1.0
        return self.solve(objective)

    def solve(
        self,
        objective: FloatArray,
        *,
        banned: Iterable[IntArray] = (),
        seconds: float | None = None,
        gap: float = 0.0,
    ) -> Solved | None:
        """Return the feasible plan of the smallest objective, or None if there is none.

        Args:
            objective: by column, from :meth:`spread` or :meth:`coefficients`.
            banned: assignments that do not count.
            seconds: after which the best plan so far is good enough.
            gap: to the optimum that is good enough, as a share.
        """
        steep = float(np.abs(objective).max())
        scale = 1.0 / steep if steep else 1.0  # its gaps are absolute, too: 1e-6
        bans = list(banned)
        upper = np.ones(self._columns) if bans else self._undominated(objective)
        integral = np.zeros(self._columns)
        integral[: self._starts[-1]] = 1
        if self._elastic:
            upper[self._stretch] = np.inf
        options = {"mip_rel_gap": gap} | ({} if seconds is None else {"time_limit": seconds})
        while True:
            with quiet_output():  # HiGHS says now and then that it looks closer
                found = milp(
                    objective * scale,
                    integrality=integral,
                    bounds=Bounds(0.0, upper),
                    constraints=[self._constraint, *([self._cut(bans)] if bans else [])],
                    options=options,
                )
            if found.x is None:
                return None
            assignment = self._read(found.x)
            if self._elastic or self.problem.feasible(assignment, self.limits):
                return Solved(assignment, max(0.0, float(found.mip_gap or 0.0)))
            bans.append(assignment)

    def _undominated(self, objective: FloatArray) -> FloatArray:
        """Return upper bounds: 0 for choices that another of the variable beats in everything."""
        upper = np.ones(self._columns)
        bound = {v for pair in self._products for v in pair}
        bound |= {v for wishes in self.problem.forbidden for wish in wishes for v, _ in wish}
        for v, (first, size) in enumerate(zip(self._starts, self.problem.shape, strict=False)):
            if v in bound or self._elastic:
                continue
            worth = np.stack(
                [objective[first : first + size]]
                + [self.problem.terms[name].tables[v] for name in self.limits]
            )
            better = (worth[:, :, None] <= worth[:, None, :]).all(0)  # k at least as good as l
            alike = better & better.T & (np.arange(size)[:, None] > np.arange(size))
            beaten = (better & ~alike & ~np.eye(size, dtype=np.bool_)).any(0)
            upper[first : first + size][beaten] = 0.0
        return upper

    def _read(self, values: FloatArray) -> IntArray:
        parts = np.split(values[: self._starts[-1]], self._starts[1:-1])
        return np.array([int(part.argmax()) for part in parts], dtype=np.int64)

    def _multiply(self, involved: Sequence[Terms]) -> None:
        """Make products for pairs of variables, and tie them to the binaries."""
        tables: dict[tuple[int, int], list[FloatArray]] = {}
        for terms in involved:
            for pair in terms.pairs:
                tables.setdefault((pair.first, pair.second), []).append(pair.table)
        for (u, v), stacked in tables.items():
            whole = np.stack(stacked, 2)
            kinds = (_kinds(whole), _kinds(whole.swapaxes(0, 1)))
            products = np.array(
                [
                    [self._column() for _ in range(max(kinds[1]) + 1)]
                    for _ in range(max(kinds[0]) + 1)
                ]
            )
            for variable, kind, slices in ((u, kinds[0], products), (v, kinds[1], products.T)):
                for number, slice_ in enumerate(slices):
                    binaries = [
                        self._starts[variable] + k for k, one in enumerate(kind) if one == number
                    ]
                    signs = [1.0] * len(slice_) + [-1.0] * len(binaries)
                    self._add([*slice_, *binaries], signs, 0.0, 0.0)
            self._products[u, v] = products[np.ix_(kinds[0], kinds[1])]

    def _forbid(self) -> None:
        """Of choices that must not meet, leave at least one part unfulfilled."""
        for wishes in self.problem.forbidden:
            met = [self._column() for _ in wishes]
            for column, wish in zip(met, wishes, strict=True):
                for variable, choices in wish:
                    binaries = [self._starts[variable] + choice for choice in choices]
                    signs = [1.0] * len(binaries) + [-1.0]
                    self._add([*binaries, column], signs, -np.inf, 0.0)
            self._add(met, [1.0] * len(met), -np.inf, len(met) - 1.0)

    def _limit(self, terms: Terms, limit: float) -> None:
        """Add ``base + sum of choices and products <= limit``, in units that suit the solver."""
        columns: list[int] = list(range(self._starts[-1]))
        values = list(np.concatenate(terms.tables))
        for pair in terms.pairs:
            places, first = np.unique(self._products[pair.first, pair.second], return_index=True)
            columns += places.tolist()
            values += pair.table.ravel()[first].tolist()
        largest = max(map(abs, values), default=0.0) or 1.0
        unit, room, scale = 1.0, limit - terms.base, _LARGEST / largest
        if terms.whole and not self._elastic:
            unit = float(math.gcd(*map(int, values)) or 1)
            room = (math.floor(limit) - int(terms.base)) // int(unit) + 0.5
            scale = min(1.0, _LARGEST * unit / largest)
        else:
            room += 1e-7 * abs(limit) * (not self._elastic)  # exact arithmetic decides
        if self._elastic:
            columns.append(self._stretch)
            values.append(-abs(limit))
        self._add(columns, np.array(values) / unit * scale, -np.inf, room * scale)

    def _cut(self, bans: Sequence[IntArray]) -> LinearConstraint:
        """At least one choice differs from each of these."""
        rows = np.zeros((len(bans), self._columns))
        for row, ban in zip(rows, bans, strict=True):
            row[self._starts[:-1] + ban] = 1.0
        return LinearConstraint(sparse.csr_matrix(rows), -np.inf, len(self.problem.shape) - 1.0)

    def _column(self) -> int:
        self._columns += 1
        return self._columns - 1

    def _add(
        self, columns: Iterable[int], values: Iterable[float], low: float, high: float
    ) -> None:
        row = len(self._bounds)
        self._entries += [
            (row, int(column), float(value))
            for column, value in zip(columns, values, strict=True)
            if value
        ]
        self._bounds.append((low, high))


def _kinds(table: FloatArray) -> list[int]:
    """Number the slices along the first axis so that equal ones have one number."""
    numbers: dict[bytes, int] = {}
    return [numbers.setdefault(np.ascontiguousarray(one).tobytes(), len(numbers)) for one in table]
