"""Settle what all workers of a search go by, once for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ghostify.cost.budget import Budget
from ghostify.errors import GhostifyError
from ghostify.plan import Plan
from ghostify.searches.agenda import Start
from ghostify.searches.choices import SearchSpace
from ghostify.searches.climb import Rung
from ghostify.searches.clock import Clocks, latencies_as_json, latencies_from_json
from ghostify.searches.exact import check_possible
from ghostify.searches.latency import LatencyModel
from ghostify.searches.opening import all_plans, exact_start, uniform_start, warm_start
from ghostify.searches.problem import FloatArray, Problem, make_problem
from ghostify.searches.study.ledger import Ledger
from ghostify.searches.subject import Network, ScorerOf, Subject
from ghostify.searches.worker import Search

__all__ = ["Settled", "Wish", "problem_of", "settle"]

Step = Callable[[str], None]
Progress = Callable[[int, int, str], None]

_NEIGHBOURS = 8


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants of a search, beside network, images and space."""

    budget: Budget
    rungs: tuple[Rung, ...]
    objectives: Mapping[str, str]
    sampler: str = "tpe"
    seed: int = 0
    warm: tuple[str | Path, ...] = ()
    exact: bool = True
    table: Path | None = None  # of latencies


@dataclass(frozen=True, slots=True)
class Settled:
    """What workers go by, and what was made on the way there."""

    search: Search
    clocks: Clocks | None = None  # where a latency is limited
    scorer: ScorerOf | None = None
    notes: tuple[str, ...] = ()


def settle(
    ledger: Ledger,
    subject: Subject,
    plain: Problem,
    space: SearchSpace,
    wish: Wish,
    *,
    cache: Path,
    device: str,
    step: Step,
    on_progress: Progress | None = None,
) -> Settled:
    """Settle what all workers go by; what another command has settled already is taken over.

    Args:
        plain: the problem without latencies.

    Raises:
        GhostifyError: no plan holds the budget, or what is asked for does not fit.
    """
    budget, objectives = wish.budget, wish.objectives
    notes = ledger.notes()
    problem, clocks = plain, None
    if budget.runtimes:
        clocks = Clocks(
            subject.look,
            subject.pictures.calibration,
            budget.runtimes,
            table=wish.table,
        )
        if "latencies" not in notes:
            step("timing layers")
            clocks.time_layers(plain, on_progress)
            notes["latencies"] = latencies_as_json(clocks.models(plain))
        problem = problem_of(subject.network, space, latencies_from_json(notes["latencies"]))
    limits = budget.absolute(problem.original)
    check_possible(problem, limits)
    search = Search(
        problem, limits, wish.rungs, dict(objectives), sampler=wish.sampler, seed=wish.seed
    )
    scorer: ScorerOf | None = None
    losses: list[FloatArray] | None = None
    if "losses" in notes:
        losses = None if notes["losses"] is None else [np.array(row) for row in notes["losses"]]
    elif wish.exact:
        step("fitting layers one by one")
        scorer = ScorerOf(subject.scorer(cache, device=device))
        found = scorer.scorer.sensitivities(problem.layer_choices(), on_progress=on_progress)
        losses = problem.losses(found)
    search = dataclasses.replace(search, weights=losses)
    if clocks is not None and "corrected" not in notes:
        step("measuring whole networks")
        probes = _probes(search)
        clocks.measure(probes, on_progress)
        clocks.learn(probes)
        notes["latencies"] = latencies_as_json(clocks.models(plain))
        problem = problem_of(subject.network, space, latencies_from_json(notes["latencies"]))
        limits = budget.absolute(problem.original)
        check_possible(problem, limits)
        search = dataclasses.replace(search, problem=problem, limits=limits)
        ledger.note("latencies", notes["latencies"])
        ledger.note("corrected", True)
    remarks: tuple[str, ...] = ()
    if "start" in notes:
        start = tuple(Start(str(one[0]), tuple(one[1])) for one in notes["start"])
        remarks = _too_late(search, start, wish.warm)
    else:
        step("solving for the exact start")
        start = _starts(search, losses, wish.warm)
        ledger.note("losses", None if losses is None else [row.tolist() for row in losses])
        ledger.note("start", [[one.origin, list(one.assignment)] for one in start])
    if wish.sampler == "brute":
        first = dataclasses.replace(wish.rungs[0], count=min(wish.rungs[0].count, len(start)))
        search = dataclasses.replace(search, rungs=(first, *wish.rungs[1:]))
    return Settled(dataclasses.replace(search, start=start), clocks, scorer, remarks)


def _too_late(
    search: Search, start: tuple[Start, ...], warm: Iterable[str | Path]
) -> tuple[str, ...]:
    """Return a remark on plans that a search which has begun already does not know."""
    known = {one.assignment for one in start}
    try:
        late = sum(one.assignment not in known for one in warm_start(search, warm))
    except GhostifyError:  # gone by now, and no longer needed
        late = 0
    if not late:
        return ()
    return (
        f"--warm-start: {late} plan(s) came after the search had begun and were not tried; begin "
        "another search with them and, to keep what this one found, with its directory",
    )


def _starts(
    search: Search, losses: list[FloatArray] | None, warm: Iterable[str | Path]
) -> tuple[Start, ...]:
    problem, limits = search.layers, search.limits
    found = warm_start(search, warm)
    if search.sampler == "brute":
        found += all_plans(problem, losses, limits)
    elif losses is not None:
        count = min(_NEIGHBOURS, max(0, search.rungs[0].count // 5))
        first = exact_start(problem, losses, limits, count)
        found = [first[0], *uniform_start(problem, losses, limits), *found, *first[1:]]
    unique = {one.assignment: one for one in reversed(found)}
    return tuple(one for one in found if unique[one.assignment] is one)


def _probes(search: Search) -> list[Plan]:
    """Return a few feasible plans that a correction of latencies is learnt from."""
    rng = np.random.default_rng(search.seed)
    rows = [search.repaired(row.tolist()) for row in search.layers.random(3, rng)]
    if search.weights is not None:
        first = exact_start(search.layers, search.weights, search.limits, 0)
        rows.insert(0, first[0].assignment)
    return [search.layers.plan(np.array(row, dtype=np.int64)) for row in dict.fromkeys(rows)]


def problem_of(
    network: Network, space: SearchSpace, latencies: Mapping[str, LatencyModel] | None = None
) -> Problem:
    """Return what there is to choose in a network, and what it costs."""
    return make_problem(
        network.look.sites,
        space,
        total=network.look.cost,
        prunable=network.prunable,
        latencies=latencies,
        model=network.look.built.origin.name,
    )
