"""What one worker does: take a trial, settle its plan, score it, write the result down."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ghostify.errors import GhostifyError, SearchError
from ghostify.searches.agenda import Start, value_of
from ghostify.searches.architecture import Architecture
from ghostify.searches.climb import Rung
from ghostify.searches.exact import repair
from ghostify.searches.guide import Guide
from ghostify.searches.layout import Layout
from ghostify.searches.problem import FloatArray, Problem
from ghostify.searches.study.ledger import Claim, Ledger
from ghostify.searches.study.record import Record
from ghostify.searches.study.samplers import Parameters, Propose, make_sampler, seed_of

__all__ = ["Evaluator", "Judged", "Report", "Search", "Worker"]

_log = logging.getLogger(__name__)

Report = Callable[[int, float], bool]
"""Takes steps and score so far; tells whether the training should end."""

_AFTER = {"free": 0, "distil": 0, "train": 1_000_000}
"""Added to the steps of a rung, so that trainings of one kind are compared with their like."""


class Judged(Protocol):
    """A score, as :class:`ghostify.searches.scoring.Score` is one."""

    @property
    def score(self) -> float:
        """Higher is better."""

    def as_json(self) -> dict[str, Any]:
        """Return ``score``, ``divergence``, ``top1`` ... as plain values."""


class Evaluator(Protocol):
    """Scores plans of one network, or networks of one function."""

    def score(self, plan: Any, rung: Rung, *, seed: int, report: Report) -> Judged:
        """Return how good a plan is, or the network of arguments; always the same score."""


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What a search is about: all that decides what its workers do."""

    problem: Problem | Architecture
    limits: Mapping[str, float]
    rungs: tuple[Rung, ...]
    objectives: Mapping[str, str]  # direction by name
    sampler: str = "tpe"
    seed: int = 0
    start: tuple[Start, ...] = ()
    weights: Sequence[FloatArray] | None = None  # what each choice loses, (K_v,), for repairs

    @property
    def layers(self) -> Problem:
        """The problem, where it is layers that choices are made for."""
        assert isinstance(self.problem, Problem), "this search is of arguments"
        return self.problem

    def parameters(self) -> Parameters:
        """Return how assignments are written in the study."""
        return Parameters(Layout.of(self.problem), ordered=Parameters.are_ordered(self.sampler))

    def feasible(self, assignment: Sequence[int]) -> bool:
        """Return whether a plan holds the budget and contains nothing forbidden."""
        rows = np.array([assignment], dtype=np.int64)
        return bool(self.problem.feasible(rows, self.limits)[0])

    def repaired(self, assignment: Sequence[int]) -> tuple[int, ...]:
        """Return the nearest feasible plan."""
        if self.feasible(assignment):
            return _plain(assignment)
        wanted = np.array(assignment, dtype=np.int64)
        if isinstance(self.problem, Architecture):
            return _plain(self.problem.repair(wanted, self.limits))
        prices = None
        if self.weights is not None:  # the loss that a change adds, and a little for each change
            prices = [
                self._least_price + np.maximum(0.0, row - row[place])
                for row, place in zip(self.weights, assignment, strict=True)
            ]
        return _plain(repair(self.problem, wanted, self.limits, weights=prices))

    @property
    def _least_price(self) -> float:
        rows = self.weights or ()
        return 0.1 * float(np.mean([np.ptp(row) for row in rows])) + 1e-12

    def rung(self, kind: str) -> Rung:
        """Return a rung by its kind.

        Raises:
            SearchError: this search has no such rung.
        """
        for rung in self.rungs:
            if rung.kind == kind:
                return rung
        raise SearchError(f"this search has no rung {kind}; run it with the --climb it began with")


class Worker:
    """Takes part in a search.

    Args:
        should_stop: asked often; a training that is under way then ends and is queued again.
    """

    def __init__(
        self,
        ledger: Ledger,
        search: Search,
        evaluator: Evaluator,
        *,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ledger, self._search, self._evaluator = ledger, search, evaluator
        self._should_stop = should_stop
        ledger.use(search.parameters())

    def step(self) -> bool:
        """Do one trial, if one waits; return whether there was one."""
        claim = self._ledger.claim()
        if claim is None:
            return False
        with self._ledger.beating(claim):
            try:
                self._do(claim)
            except KeyboardInterrupt:
                self._ledger.give_back(claim)
                raise
            except Exception as error:
                told = str(error) if isinstance(error, GhostifyError) else repr(error)
                _log.warning("trial %d: %s", claim.record.number, told, exc_info=error)
                self._ledger.give_back(claim, error=told)
        return True

    def _do(self, claim: Claim) -> None:
        search, ledger = self._search, self._ledger
        records = ledger.records()
        assignment = self._settle(claim, records)
        if not search.feasible(assignment):
            raise SearchError("the plan does not hold the budget, so it is not evaluated")
        rung = search.rung(claim.record.rung)
        costs = search.problem.cost(np.array(assignment, dtype=np.int64))
        excess = {key: costs[key] - limit for key, limit in search.limits.items()}
        same = _same(records, claim.record, assignment)
        if same is not None:
            ledger.finish(
                claim,
                same.values,
                costs=costs,
                excess=excess,
                score=same.score,
                same_as=same.number if same.same_as is None else same.same_as,
            )
            return
        pruned = stopped = False

        def report(step: int, score: float) -> bool:
            nonlocal pruned, stopped
            stopped = stopped or self._should_stop()
            if not stopped and math.isfinite(score):
                pruned = ledger.report(claim, step + _AFTER[rung.kind], score)
            return pruned or stopped

        plan = search.problem.plan(np.array(assignment, dtype=np.int64))
        judged = self._evaluator.score(plan, rung, seed=search.seed, report=report)
        if stopped:
            ledger.give_back(claim)
            return
        score = judged.as_json()
        values: list[float] | None = None
        if not pruned:
            values = [value_of(name, costs, score) for name in search.objectives]
            if any(map(math.isnan, values)):
                raise SearchError("the score of this plan is no number; its weights may have grown")
        ledger.finish(claim, values, costs=costs, excess=excess, score=score)

    def _settle(self, claim: Claim, records: Sequence[Record]) -> tuple[int, ...]:
        """Return what a trial evaluates: what was queued for it, or what a sampler proposes."""
        search = self._search
        seen = {
            record.assignment
            for record in records
            if record.rung == claim.record.rung and record.number != claim.record.number
            if record.state in ("complete", "running")
        }
        seed = seed_of(search.seed, claim.record.ticket.partition("~")[0])
        sampler = make_sampler(
            search.sampler,
            search.parameters(),
            search.repaired,
            seed=seed,
            known=lambda assignment: assignment in seen,
            objectives=len(search.objectives),
            propose=self._guide(seed) if search.sampler == "guided" else None,
        )
        return self._ledger.ask(claim, sampler)

    def _guide(self, seed: int) -> Propose:
        """Return what the sampler ``guided`` asks."""
        search = self._search
        guide = Guide(search.layers, search.limits, search.weights)
        rng = np.random.default_rng(seed)
        return lambda plans, losses, pending: guide.propose(plans, losses, pending=pending, rng=rng)


def _plain(assignment: Iterable[int]) -> tuple[int, ...]:
    return tuple(int(one) for one in assignment)


def _same(records: Sequence[Record], mine: Record, assignment: tuple[int, ...]) -> Record | None:
    """Return an earlier trial of the same plan on the same rung that has a score."""
    for record in records:
        if record.finished and record.rung == mine.rung and record.assignment == assignment:
            return record
    return None
