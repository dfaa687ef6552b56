"""Searching the arguments of the function that builds a network: its width, its ratio, ..."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ghostify.cost.budget import say_amount
from ghostify.cost.table_file import TableFile
from ghostify.errors import BudgetError, GhostifyError, PlanError
from ghostify.searches.choices import Argument, SearchSpace, same
from ghostify.searches.problem import BoolArray, FloatArray, IntArray

__all__ = ["Architecture", "CostOf"]

CostOf = Callable[[Mapping[str, Argument]], Mapping[str, float]]
"""Builds a network with these arguments and says what it costs, by resource."""


class Architecture:
    """The sets of arguments of a space, each with what the network costs that they build.

    An assignment ``(A,)`` has the place of each argument's value. Costs come from building
    each network once; they are kept in a file, so that nobody builds it again. There is no
    additive structure to use, so questions about all of them are answered by looking at all.

    Args:
        space: one with ``arguments``.
        cost_of: called at most once for each set of arguments.
        cache: a file that keeps the costs; networks of other names or versions go by other
            keys.
        key: what the costs depend on beside the arguments: the model, input size, versions.
        original: the arguments that shares of a budget refer to; the first value of each
            where they are not given.

    Raises:
        PlanError: the space has no arguments.
    """

    def __init__(
        self,
        space: SearchSpace,
        cost_of: CostOf,
        *,
        cache: Path | None = None,
        key: str = "",
        original: Mapping[str, Argument] | None = None,
    ) -> None:
        if not space.arguments:
            raise PlanError(
                f"the search space of {space.model or 'this network'} has no arguments to choose"
            )
        self.space = space
        self.names = tuple(space.arguments)
        self.values = tuple(space.arguments.values())
        self.failed: dict[str, str] = {}  # arguments that build nothing, and why
        self._cost_of = cost_of
        self._key = hashlib.sha256(f"{space.model}\n{key}".encode()).hexdigest()[:16]
        self._file = None if cache is None else TableFile(cache)
        self._known: dict[str, dict[str, float] | None] = {}
        for entry in self._file or ():
            if entry.get("key") == self._key:
                self._known[entry["arguments"]] = entry["costs"]
        self._allowed = [self._place(one) for one in space.combinations()]
        first = {name: values[0] for name, values in space.arguments.items()}
        self.original = self._cost({**first, **(original or {})})

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values each argument has."""
        return tuple(map(len, self.values))

    def arguments(self, assignment: IntArray) -> dict[str, Argument]:
        """Return an assignment ``(A,)`` as arguments."""
        places = zip(self.names, self.values, np.asarray(assignment).tolist(), strict=True)
        return {name: values[place] for name, values, place in places}

    def plan(self, assignment: IntArray) -> dict[str, Argument]:
        """Return what an evaluator is given for an assignment ``(A,)``: the arguments."""
        return self.arguments(assignment)

    def assignment(self, arguments: Mapping[str, Argument]) -> IntArray:
        """Return arguments as an assignment ``(A,)``.

        Raises:
            PlanError: they are not in the space.
        """
        for name, values in zip(self.names, self.values, strict=True):
            if name not in arguments or not any(same(arguments[name], one) for one in values):
                raise PlanError(
                    f"the arguments are outside the search space: {name} may be "
                    f"{', '.join(map(repr, values))} (got {arguments.get(name)!r})"
                )
        return np.array(self._place(arguments), dtype=np.int64)

    def costs(self, assignments: IntArray) -> dict[str, FloatArray]:
        """Return what networks cost, by resource: ``(N, A)`` in, ``(N,)`` out.

        Those that cannot be built cost infinitely much.
        """
        rows = np.atleast_2d(assignments)
        found = [self._cost(self.arguments(row), must=False) for row in rows]
        shape = np.asarray(assignments).shape[:-1]
        return {
            name: np.array([one.get(name, np.inf) for one in found]).reshape(shape)
            for name in self.original
        }

    def cost(self, assignment: IntArray) -> dict[str, float]:
        """Return what one network costs, by resource."""
        return {name: float(value) for name, value in self.costs(assignment).items()}

    def allowed(self, assignments: IntArray) -> BoolArray:
        """Return which assignments ``(N, A)`` contain no forbidden combination."""
        rows = np.atleast_2d(assignments)
        allowed = np.array([tuple(row) in set(self._allowed) for row in rows.tolist()])
        return allowed.reshape(np.asarray(assignments).shape[:-1])

    def feasible(self, assignments: IntArray, limits: Mapping[str, float]) -> BoolArray:
        """Return which assignments ``(N, A)`` are allowed and hold all limits."""
        costs = self.costs(assignments)
        held = self.allowed(assignments)
        for name, limit in limits.items():
            held = held & (costs[name] <= limit)
        return held

    def repair(
        self,
        assignment: IntArray,
        limits: Mapping[str, float],
        *,
        weights: Sequence[FloatArray] | None = None,
    ) -> IntArray:
        """Return the nearest set of arguments whose network holds the limits.

        The distance is the price of the changed arguments (1 each, or ``weights[a][k]``), and
        then how far their values are moved along their lists. Networks are built in that
        order until one holds the limits.

        Raises:
            BudgetError: none does; the nearest possible budget.
        """
        asked = np.asarray(assignment, dtype=np.int64)

        def distance(places: tuple[int, ...]) -> tuple[float, int, tuple[int, ...]]:
            changed = [a for a, place in enumerate(places) if place != asked[a]]
            price = [1.0 if weights is None else float(weights[a][places[a]]) for a in changed]
            return sum(price), sum(abs(places[a] - int(asked[a])) for a in changed), places

        for places in sorted(self._allowed, key=distance):
            found = np.array(places, dtype=np.int64)
            if self.feasible(found, limits):
                return found
        raise self._refusal(limits)

    def least(self, resource: str, limits: Mapping[str, float] | None = None) -> float:
        """Return the smallest value of a resource within other limits.

        Raises:
            BudgetError: no network holds the limits.
        """
        others = {name: limit for name, limit in (limits or {}).items() if name != resource}
        rows = np.array(self._allowed, dtype=np.int64)
        held = self.feasible(rows, others)
        if not held.any():
            raise self._refusal(others)
        return float(self.costs(rows[held])[resource].min())

    def every(self) -> IntArray:
        """Return all allowed assignments ``(N, A)``."""
        return np.array(self._allowed, dtype=np.int64)

    def _refusal(self, limits: Mapping[str, float]) -> BudgetError:
        costs = self.costs(self.every())
        excess = np.max([costs[name] / limit for name, limit in limits.items()], axis=0)
        nearest = int(excess.argmin())
        wanted = ", ".join(f"{name} <= {say_amount(name, one)}" for name, one in limits.items())
        shown = ", ".join(f"{name}={say_amount(name, costs[name][nearest])}" for name in limits)
        return BudgetError(
            f"no arguments of the search space hold {wanted}; the nearest possible budget is "
            f"{shown}"
        )

    def _place(self, arguments: Mapping[str, Argument]) -> tuple[int, ...]:
        return tuple(
            next(place for place, value in enumerate(values) if same(value, arguments[name]))
            for name, values in zip(self.names, self.values, strict=True)
        )

    def _cost(self, arguments: Mapping[str, Argument], *, must: bool = True) -> dict[str, float]:
        name = json.dumps(dict(arguments), sort_keys=True)
        if name not in self._known:
            costs: dict[str, float] | None = None
            try:
                costs = {key: float(value) for key, value in self._cost_of(arguments).items()}
            except GhostifyError as error:
                if must:
                    raise
                self.failed[name] = str(error)
            self._known[name] = costs
            if self._file is not None:
                entry: dict[str, Any] = {"key": self._key, "arguments": name, "costs": costs}
                self._file.add(entry)
        return self._known[name] or {}
