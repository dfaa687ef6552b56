"""The exactly best plan under a budget when losses add up, and the nearest plan that holds it.

With a loss for each choice of each layer that simply add up, the best plan under limits is a
multiple-choice knapsack. It is solved to optimality by HiGHS, the MILP solver in scipy.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from ghostify.cost.budget import say_amount
from ghostify.errors import BudgetError, nearest
from ghostify.searches.knapsack import Knapsack
from ghostify.searches.nearest import nearest_plan
from ghostify.searches.problem import FloatArray, IntArray, Problem

__all__ = [
    "Exact",
    "best_assignment",
    "check_possible",
    "least",
    "nearest_budget",
    "neighbours",
    "repair",
]

_REPAIR_S = 2.0  # for the solver to better a repair that is not proven to be the nearest


@dataclass(frozen=True, slots=True, eq=False)
class Exact:
    """An optimal assignment ``(V,)``, its sum of losses, and what the solver vouches for."""

    assignment: IntArray
    value: float
    gap: float  # to the optimum, as a share of the value; 0 is proven optimal
    seconds: float


def best_assignment(
    problem: Problem,
    scores: Sequence[FloatArray],
    limits: Mapping[str, float],
    *,
    banned: Sequence[IntArray] = (),
    seconds: float | None = None,
) -> Exact:
    """Return the plan with the smallest sum of losses that holds all limits.

    Args:
        scores: loss of each choice, ``(K_v,)`` for each variable; smaller is better
            (:meth:`Problem.losses` makes them from losses by layer).
        limits: absolute limits by resource (:meth:`Budget.absolute`).
        banned: assignments that do not count.
        seconds: after which the best plan so far is returned, with its gap.

    Raises:
        BudgetError: no plan holds the limits; which would be possible.
    """
    _check_scores(problem, scores)
    began = time.perf_counter()
    knapsack = _knapsack(problem, limits)
    found = knapsack.solve(knapsack.spread(scores), banned=banned, seconds=seconds)
    if found is None:
        _refuse(problem, limits, left=bool(banned) or seconds is not None)
    value = sum(float(row[k]) for row, k in zip(scores, found.assignment, strict=True))
    return Exact(found.assignment, value, found.gap, time.perf_counter() - began)


def neighbours(
    problem: Problem,
    assignment: IntArray,
    scores: Sequence[FloatArray],
    limits: Mapping[str, float],
    count: int,
) -> list[IntArray]:
    """Return the next best feasible plans after ``assignment``, best first.

    Fewer than ``count`` if the budget leaves no more.
    """
    _check_scores(problem, scores)
    knapsack = _knapsack(problem, limits)
    objective = knapsack.spread(scores)
    banned = [np.asarray(assignment, dtype=np.int64)]
    while len(banned) <= count:
        found = knapsack.solve(objective, banned=banned)
        if found is None:
            break
        banned.append(found.assignment)
    return banned[1:]


def repair(
    problem: Problem,
    assignment: IntArray,
    limits: Mapping[str, float],
    *,
    weights: Sequence[FloatArray] | None = None,
) -> IntArray:
    """Return the nearest feasible plan; a feasible one comes back as it is.

    The distance is the number of changed variables, and it is the smallest (with several
    limits: wherever that is found within two seconds). Then each of these changes as little as
    the others let it, in the cost that is limited first.

    Args:
        weights: price of changing a variable to each choice, ``(K_v,)`` each, not negative;
            then the distance is the sum over the changed variables, each rounded up to a 64th
            of that of the plan with the fewest changes. With several limits the plan found
            need not be the very nearest.

    Raises:
        BudgetError: no plan holds the limits; which would be possible.
    """
    asked = np.array(assignment, dtype=np.int64)
    if bool(problem.feasible(asked, limits)):
        return asked
    _check_resources(problem, limits)
    if weights is not None:
        _check_scores(problem, weights)
    known = nearest_plan(problem, asked, limits, weights)
    found = known.assignment
    if found is None or (weights is None and not known.proven):
        prices = [np.ones(size) for size in problem.shape] if weights is None else weights
        seconds = None if found is None else _REPAIR_S
        solved = _solve_repair(problem, asked, limits, prices, seconds=seconds)
        found = solved if found is None else _nearer(asked, found, solved)
        if found is None:
            _refuse(problem, limits)
    return _soften(problem, asked, found, limits) if weights is None else found


def least(problem: Problem, resource: str, limits: Mapping[str, float] | None = None) -> float:
    """Return the smallest value of a resource that a plan reaches within other limits.

    Raises:
        BudgetError: the resource is not known, or no plan holds the limits.
    """
    _check_resources(problem, (resource,))
    others = {name: limit for name, limit in (limits or {}).items() if name != resource}
    knapsack = Knapsack(problem, others, objective=resource)
    found = knapsack.solve(knapsack.coefficients(resource))
    if found is None:
        _refuse(problem, others)
    return problem.cost(found.assignment)[resource]


def nearest_budget(problem: Problem, limits: Mapping[str, float]) -> dict[str, float]:
    """Return the nearest limits that some plan holds: all are raised by the same share.

    Limits that can be held are returned as they are; of the others, what the plan takes.

    Raises:
        BudgetError: forbidden combinations leave no plan at all.
    """
    _check_resources(problem, limits)
    if len(limits) == 1:
        name, limit = next(iter(limits.items()))
        return {name: max(limit, least(problem, name))}
    found = Knapsack(problem, limits, elastic=True).least_stretch()
    if found is None:
        raise BudgetError(
            "the forbidden combinations of the search space leave no plan at all; take one out"
        )
    costs = problem.cost(found.assignment)
    return {name: max(limit, costs[name]) for name, limit in limits.items()}


def check_possible(problem: Problem, limits: Mapping[str, float]) -> None:
    """Make sure that some plan holds the limits.

    Raises:
        BudgetError: none does; the message names the nearest limits that one holds.
    """
    knapsack = _knapsack(problem, limits)
    if knapsack.solve(knapsack.spread([np.zeros(size) for size in problem.shape])) is None:
        _refuse(problem, limits)


@functools.lru_cache(maxsize=8)
def _made(problem: Problem, limits: tuple[tuple[str, float], ...]) -> Knapsack:
    return Knapsack(problem, dict(limits))


def _knapsack(problem: Problem, limits: Mapping[str, float]) -> Knapsack:
    _check_resources(problem, limits)
    return _made(problem, tuple(limits.items()))


def _solve_repair(
    problem: Problem,
    asked: IntArray,
    limits: Mapping[str, float],
    prices: Sequence[FloatArray],
    *,
    seconds: float | None,
) -> IntArray | None:
    """Let the solver find the nearest plan; None if there is none, or none in that time."""
    free = [
        np.where(np.arange(len(row)) == k, 0.0, row) for row, k in zip(prices, asked, strict=True)
    ]
    knapsack = _knapsack(problem, limits)
    solved = knapsack.solve(knapsack.spread(free), seconds=seconds)
    return None if solved is None else solved.assignment


def _nearer(asked: IntArray, one: IntArray, other: IntArray | None) -> IntArray:
    """Return the one of two plans that changes fewer variables."""
    if other is None or (one != asked).sum() <= (other != asked).sum():
        return one
    return other


def _soften(
    problem: Problem, asked: IntArray, repaired: IntArray, limits: Mapping[str, float]
) -> IntArray:
    """Let every changed variable go back as far towards what was asked as the limits allow."""
    tables = problem.terms[next(iter(limits), "macs")].tables
    found = repaired.copy()
    changed = np.flatnonzero(asked != repaired)
    by_size = sorted(changed, key=lambda v: -abs(tables[v][repaired[v]] - tables[v][asked[v]]))
    for v in by_size:
        far = np.abs(tables[v] - tables[v][asked[v]])
        others = [k for k in np.argsort(far, kind="stable") if k != asked[v]]
        tries = np.repeat(found[None], len(others), 0)
        tries[:, v] = others
        found = tries[int(problem.feasible(tries, limits).argmax())]
    return found


def _check_resources(problem: Problem, names: Sequence[str] | Mapping[str, float]) -> None:
    for name in names:
        if name not in problem.terms:
            raise BudgetError(
                f"the cost {name!r} is not known here, known are {', '.join(problem.terms)}"
                + nearest(name, problem.terms)
            )


def _check_scores(problem: Problem, scores: Sequence[FloatArray]) -> None:
    shapes = tuple(len(row) for row in scores)
    if shapes != problem.shape:
        raise BudgetError(
            f"losses are given by variable and choice, {problem.shape} of them (got {shapes})"
        )
    if not all(np.isfinite(row).all() for row in scores):
        raise BudgetError("a loss is not finite; leave such a choice out of the search space")


def _refuse(problem: Problem, limits: Mapping[str, float], *, left: bool = False) -> NoReturn:
    """Say that no plan holds the limits, and which limits one would hold."""
    possible = nearest_budget(problem, limits)
    beyond = {name: value for name, value in possible.items() if value > limits[name]}
    if not beyond and left:
        raise BudgetError("no further plan holds the budget within the time; raise a limit")
    wanted = ", ".join(f"{name} <= {say_amount(name, limits[name])}" for name in limits)
    shown = ", ".join(
        f"{_as_share(name, value / problem.original[name])} ({say_amount(name, value)})"
        for name, value in possible.items()
    )
    raise BudgetError(
        f"no plan of the search space holds {wanted}; the nearest possible budget is {shown}"
    )


def _as_share(name: str, share: float) -> str:
    resource, at, runtime = name.partition("@")
    return f"{resource}={math.ceil(share * 1000 - 1e-9) / 1000:g}x{at}{runtime}"
