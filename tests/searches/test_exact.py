"""The solver against trying everything, on problems small enough for that."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghostify.errors import BudgetError
from ghostify.searches.exact import (
    best_assignment,
    check_possible,
    least,
    nearest_budget,
    neighbours,
    repair,
)
from ghostify.searches.problem import IntArray, Problem
from ghostify.searches.terms import Pair, Terms
from ghostify.searches.variables import Variable, Wish
from ghostify.spec import GhostSpec

SPECS = (None, *(GhostSpec(ratio) for ratio in range(2, 9)))


def problem_of(
    macs: list[list[int]],
    pairs: list[Pair] | None = None,
    *,
    params: list[list[int]] | None = None,
    forbidden: tuple[tuple[Wish, ...], ...] = (),
    base: int = 1000,
) -> Problem:
    terms = {"macs": Terms(base, tuple(np.array(row, float) for row in macs), tuple(pairs or ()))}
    if params is not None:
        terms["params"] = Terms(base, tuple(np.array(row, float) for row in params))
    return Problem(
        variables=tuple(
            Variable(f"conv{v}", (f"conv{v}",), SPECS[: len(row)]) for v, row in enumerate(macs)
        ),
        original=dict.fromkeys(terms, float(base)),
        terms=terms,
        forbidden=forbidden,
    )


def every(problem: Problem) -> IntArray:
    return np.array(list(itertools.product(*map(range, problem.shape))), dtype=np.int64)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Problem, dict[str, float]]:
    """Up to five variables, some of them in pairs, two resources, and limits in between."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    count = st.integers(-400_000_000, 0)

    def table(size: int) -> list[int]:
        return draw(st.lists(count, min_size=size, max_size=size))

    macs = [table(size) for size in sizes]
    params = [table(size) for size in sizes]
    couples = list(itertools.combinations(range(len(sizes)), 2))
    pairs = [
        Pair(u, v, np.array([table(sizes[v]) for _ in range(sizes[u])], float))
        for u, v in draw(st.lists(st.sampled_from(couples), max_size=3, unique=True))
    ] if couples else []  # fmt: skip
    forbidden = tuple(
        tuple(((v, (draw(st.integers(0, sizes[v] - 1)),)),) for v in {0, len(sizes) - 1})
        for _ in range(draw(st.integers(0, 1)))
    )
    problem = problem_of(macs, pairs, params=params, forbidden=forbidden, base=4_000_000_000)
    costs = problem.costs(every(problem))
    limits = {
        name: float(np.quantile(costs[name], draw(st.floats(0, 1))))
        for name in draw(st.lists(st.sampled_from(("macs", "params")), min_size=1, unique=True))
    }
    return problem, limits


@settings(max_examples=60, deadline=None)
@given(drawn=problems(), seed=st.integers(0, 1000))
def test_the_best_plan_is_that_of_trying_everything(
    drawn: tuple[Problem, dict[str, float]], seed: int
) -> None:
    problem, limits = drawn
    rng = np.random.default_rng(seed)
    scores = [rng.random(size) for size in problem.shape]
    plans = every(problem)
    values = sum(row[plans[:, v]] for v, row in enumerate(scores))
    feasible = problem.feasible(plans, limits)
    if not feasible.any():
        with pytest.raises(BudgetError):
            best_assignment(problem, scores, limits)
        return

    found = best_assignment(problem, scores, limits)

    assert found.value == pytest.approx(values[feasible].min(), abs=2e-6)
    assert problem.feasible(found.assignment, limits)
    assert found.gap <= 1e-6

    ranked = np.sort(values[feasible])[1:4]
    others = neighbours(problem, found.assignment, scores, limits, 3)
    seen = [sum(float(row[k]) for row, k in zip(scores, one, strict=True)) for one in others]
    assert seen == pytest.approx(ranked.tolist(), abs=2e-6)
    assert len({one.tobytes() for one in [*others, found.assignment]}) == len(others) + 1


@settings(max_examples=60, deadline=None)
@given(drawn=problems(), seed=st.integers(0, 1000))
def test_a_repair_changes_as_few_variables_as_any_could(
    drawn: tuple[Problem, dict[str, float]], seed: int
) -> None:
    problem, limits = drawn
    asked = problem.random(1, np.random.default_rng(seed))[0]
    plans = every(problem)
    feasible = problem.feasible(plans, limits)
    if not feasible.any():
        with pytest.raises(BudgetError):
            repair(problem, asked, limits)
        return

    found = repair(problem, asked, limits)

    assert problem.feasible(found, limits)
    assert (found != asked).sum() == (plans[feasible] != asked).sum(1).min()


@settings(max_examples=60, deadline=None)
@given(drawn=problems(), seed=st.integers(0, 1000))
def test_a_weighted_repair_is_as_cheap_as_any_could_be_on_its_grid(
    drawn: tuple[Problem, dict[str, float]], seed: int
) -> None:
    problem, limits = drawn
    rng = np.random.default_rng(seed)
    asked = problem.random(1, rng)[0]
    weights = [rng.random(size) for size in problem.shape]
    plans = every(problem)
    feasible = plans[problem.feasible(plans, limits)]
    if not len(feasible):
        return

    found = repair(problem, asked, limits, weights=weights)

    def price(rows: IntArray) -> IntArray:
        return sum(
            np.where(rows[:, v] != asked[v], row[rows[:, v]], 0.0) for v, row in enumerate(weights)
        )

    prices = price(feasible)
    fewest = (feasible != asked).sum(1) == (feasible != asked).sum(1).min()
    assert problem.feasible(found, limits)
    if len(limits) == 1 and not problem.forbidden:
        steps = len(weights) * prices[fewest].max() / 64
        assert price(found[None])[0] <= prices.min() + steps + 1e-6


@settings(max_examples=40, deadline=None)
@given(drawn=problems())
def test_the_least_and_the_nearest_budget(drawn: tuple[Problem, dict[str, float]]) -> None:
    problem, limits = drawn
    plans = every(problem)
    plans = plans[problem.allowed(plans)]
    if not len(plans):
        return
    costs = problem.costs(plans)
    tight = {name: 0.5 * float(costs[name].min()) for name in limits}

    possible = nearest_budget(problem, tight)

    assert least(problem, "macs") == costs["macs"].min()
    stretch = np.max([costs[name] / limit for name, limit in tight.items()], axis=0).min()
    assert max(possible[name] / tight[name] for name in tight) == pytest.approx(stretch, rel=1e-5)
    assert problem.feasible(plans, possible).any()


def test_a_plan_just_above_the_limit_is_never_accepted() -> None:
    """One multiply-add in 4 billion is far below what a solver's tolerances tell apart."""
    limit = 3_999_999_998.0
    problem = problem_of([[0, -1, -3], [0, -1, -2]], base=4_000_000_000)
    scores = [np.array([0.0, 1.0, 5.0]), np.array([0.0, 1.5, 3.0])]

    found = best_assignment(problem, scores, {"macs": limit})

    assert found.assignment.tolist() == [1, 1]
    assert problem.cost(found.assignment)["macs"] == limit
    assert best_assignment(problem, scores, {"macs": limit - 0.5}).assignment.tolist() == [1, 2]


def test_a_feasible_plan_is_not_repaired() -> None:
    problem = problem_of([[0, -400], [0, -400]])

    assert repair(problem, np.array([1, 0]), {"macs": 600.0}).tolist() == [1, 0]
    assert repair(problem, np.array([0, 0]), {"macs": 1000.0}).tolist() == [0, 0]


def test_a_repair_goes_no_further_than_it_must() -> None:
    problem = problem_of([[0, -100, -200, -400], [0, -10, -20, -30]])

    found = repair(problem, np.array([0, 0]), {"macs": 850.0})

    assert found.tolist() == [2, 0]


def test_prices_decide_which_variable_gives_way() -> None:
    problem = problem_of([[0, -200], [0, -200]])

    found = repair(
        problem,
        np.array([0, 0]),
        {"macs": 800.0},
        weights=[np.array([0.0, 3.0]), np.array([0.0, 1.0])],
    )

    assert found.tolist() == [0, 1]


def test_variables_in_a_ring_are_repaired_too() -> None:
    """Three variables that all cost something together are no tree."""
    table = np.array([[0.0, 0.0], [0.0, -100.0]])
    pairs = [Pair(u, v, table) for u, v in ((0, 1), (0, 2), (1, 2))]
    problem = problem_of([[0, -1]] * 3, pairs)

    found = repair(problem, np.array([0, 1, 0]), {"macs": 900.0})

    assert (found != [0, 1, 0]).sum() == 1
    assert problem.feasible(found, {"macs": 900.0})


def test_choices_that_must_not_meet_do_not() -> None:
    never = (((0, (1,)),), ((1, (1,)), (2, (1,))))  # the first with the second or the third
    problem = problem_of([[0, -300], [0, -200], [0, -200]], forbidden=(never,))
    scores = [np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([0.0, 5.0])]

    found = best_assignment(problem, scores, {"macs": 650.0})

    assert found.assignment.tolist() == [0, 1, 1]
    assert repair(problem, np.array([1, 1, 0]), {"macs": 650.0}).tolist() == [0, 1, 1]


def test_an_impossible_budget_names_the_nearest_possible() -> None:
    problem = problem_of([[0, -300], [0, -100]], params=[[0, -50], [0, -100]])

    with pytest.raises(BudgetError) as error:
        check_possible(problem, {"macs": 500.0, "params": 900.0})

    assert str(error.value) == (
        "no plan of the search space holds macs <= 500, params <= 900; the nearest possible "
        "budget is macs=0.6x (600), params=0.9x (900)"
    )
    check_possible(problem, {"macs": 600.0, "params": 900.0})


def test_the_nearest_possible_budget_can_be_asked_for_as_it_is_printed() -> None:
    problem = problem_of([[0, -333]], base=1001)

    with pytest.raises(BudgetError, match=r"macs=0\.668x"):
        check_possible(problem, {"macs": 500.0})

    check_possible(problem, {"macs": 0.668 * 1001})


def test_an_unknown_resource_and_wrong_scores() -> None:
    problem = problem_of([[0, -300]])

    with pytest.raises(BudgetError, match="did you mean macs"):
        check_possible(problem, {"mac": 500.0})
    with pytest.raises(BudgetError, match="by variable and choice"):
        best_assignment(problem, [np.zeros(3)], {"macs": 700.0})
    with pytest.raises(BudgetError, match="not finite"):
        best_assignment(problem, [np.array([0.0, np.nan])], {"macs": 700.0})


def test_nothing_of_the_solver_reaches_standard_output() -> None:
    code = (
        "import ctypes\n"
        "from ghostify.searches.quiet import quiet_output\n"
        "print('before')\n"
        "with quiet_output():\n"
        "    ctypes.CDLL(None).puts(b'noise')\n"
        "print('after')\n"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert found.stdout == "before\nafter\n"
