"""Plans that a search begins with: the exact optimum of what adds up, its neighbours, others."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ghostify.errors import GhostifyError, PlanError, SearchError
from ghostify.plan import Plan
from ghostify.plan_file import load_plan
from ghostify.searches.agenda import Start
from ghostify.searches.exact import best_assignment, neighbours
from ghostify.searches.problem import FloatArray, Problem
from ghostify.searches.run import RUN_FILE
from ghostify.searches.worker import Search
from ghostify.spec import GhostSpec

__all__ = ["all_plans", "exact_start", "uniform_start", "warm_start"]

_MOST = 200_000  # plans that are gone through one by one
_WARM = 10  # of a finished search


def exact_start(
    problem: Problem, losses: Sequence[FloatArray], limits: Mapping[str, float], count: int
) -> list[Start]:
    """Return the plan of the smallest sum of losses, and ``count`` that come next.

    Raises:
        BudgetError: no plan holds the limits.
    """
    best = best_assignment(problem, losses, limits)
    others = neighbours(problem, best.assignment, losses, limits, count)
    starts = [Start("exact", _plain(best.assignment))]
    return starts + [Start("neighbour", _plain(one)) for one in others]


def uniform_start(
    problem: Problem, losses: Sequence[FloatArray] | None, limits: Mapping[str, float]
) -> list[Start]:
    """Return the best plan that gives every layer the same setting, if one is feasible."""
    settings = dict.fromkeys(
        choice
        for variable in problem.variables
        for choice in variable.choices
        if isinstance(choice, GhostSpec)
    )
    found: list[tuple[float, tuple[int, ...]]] = []
    for setting in settings:
        row = problem.nothing()
        for place, variable in enumerate(problem.variables):
            if setting in variable.choices:
                row[place] = variable.choices.index(setting)
        if not bool(problem.feasible(row[None, :], limits)[0]):
            continue
        if losses is None:
            price = -problem.cost(row)["macs"]
        else:
            price = sum(float(one[k]) for one, k in zip(losses, row, strict=True))
        found.append((price, _plain(row)))
    return [Start("uniform", min(found)[1])] if found else []


def warm_start(search: Search, sources: Iterable[str | Path]) -> list[Start]:
    """Return plans of files, artefacts and finished searches, each made feasible.

    Raises:
        PlanError: a file is no plan, or names what is outside the search space.
        SearchError: a search has found nothing yet, or nothing inside this space.
    """
    found: dict[tuple[int, ...], Start] = {}
    for source in map(Path, sources):
        if (source / RUN_FILE).is_file():
            rows = _from_run(source, search.layers)
        else:
            rows = [_plain(search.layers.assignment(load_plan(source)))]
        for row in rows:
            assignment = search.repaired(row)
            found.setdefault(assignment, Start("warm", assignment))
    return list(found.values())


def all_plans(
    problem: Problem, losses: Sequence[FloatArray] | None, limits: Mapping[str, float]
) -> list[Start]:
    """Return every feasible plan, the most promising first.

    Raises:
        SearchError: there are too many.
    """
    count = math.prod(problem.shape)
    if count > _MOST:
        raise SearchError(
            f"brute force would go through {count:.3g} plans, the most is {_MOST:,}; take another "
            "--sampler or a smaller --space"
        )
    rows = np.array(list(itertools.product(*map(range, problem.shape))), dtype=np.int64)
    rows = rows[problem.feasible(rows, limits)]
    if losses is None:
        price = -problem.costs(rows)["macs"]
    else:
        price = np.sum([one[rows[:, place]] for place, one in enumerate(losses)], axis=0)
    return [Start("brute", _plain(row)) for row in rows[np.argsort(price, kind="stable")]]


def _from_run(folder: Path, problem: Problem) -> list[tuple[int, ...]]:
    file = folder / "outcome.json"
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        plans = [value["best"], *value["pareto"]]
    except (OSError, ValueError, KeyError):
        raise SearchError(
            f"{folder} has no results yet to start from; let it run, or give a plan file"
        ) from None
    rows, why = [], ""
    for one in [plan for plan in plans if plan][:_WARM]:
        try:
            plan = Plan.from_json({"layers": one["plan"]}, where=str(file))
            rows.append(_plain(problem.assignment(plan)))
        except PlanError as error:
            why = str(error)
        except GhostifyError as error:
            raise SearchError(f"{file} is damaged: {error}") from None
    if not rows:
        raise SearchError(
            f"no plan of {folder} lies in this search space ({why or 'it found none'}); start "
            "from another search, or a plan file"
        )
    return rows


def _plain(row: Iterable[int]) -> tuple[int, ...]:
    return tuple(int(one) for one in row)
