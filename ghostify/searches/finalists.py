"""Finalists of a search under a latency budget are measured whole, and must hold it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ghostify.searches.agenda import ranked
from ghostify.searches.clock import Clocks
from ghostify.searches.exact import check_possible
from ghostify.searches.outcome import Outcome
from ghostify.searches.study.ledger import Ledger, Ticket
from ghostify.searches.study.record import Record
from ghostify.searches.worker import Evaluator, Search, Worker

__all__ = ["measure_finalists"]

Step = Callable[[str], None]
Progress = Callable[[int, int, str], None]

_AT_MOST = 6  # in one round
_TIGHTER = 3  # rounds of repairs, where what was predicted was too low


def measure_finalists(
    ledger: Ledger,
    search: Search,
    clocks: Clocks,
    scorer: Evaluator,
    outcome: Callable[[Sequence[Record]], Outcome],
    step: Step,
    on_progress: Progress | None = None,
) -> None:
    """Measure the best plans as whole networks, until the best is known to hold the budget.

    Where all of them miss it, the limits of what is predicted are tightened by as much, and the
    best plans are repaired and scored once more.
    """
    tight = search
    for round_ in range(_TIGHTER + 1):
        now = outcome(ledger.records())
        kind = now.best.rung if now.best is not None else search.rungs[0].kind
        mine = ranked([record for record in now.records if record.rung == kind], now.objectives)
        tried: list[Record] = []
        for record in mine:  # the best first
            if now.holds(record) is None and len(tried) < _AT_MOST:
                step("measuring the finalists")
                _measure(ledger, search, clocks, record, on_progress)
                now = outcome(ledger.records())
                tried.append(record)
            if now.holds(record):
                return
        if round_ == _TIGHTER or not tried:
            return
        tight = _tightened(tight, now, tried)
        for record in tried[:2]:
            assert record.assignment is not None
            assignment = tight.repaired(record.assignment)
            _score_extra(ledger, search, scorer, assignment, kind, record.number)


def _measure(
    ledger: Ledger, search: Search, clocks: Clocks, record: Record, on_progress: Progress | None
) -> None:
    """Measure one plan, and note it down by its digest."""
    assert record.assignment is not None
    plan = search.layers.plan(np.array(record.assignment, dtype=np.int64))
    measured = ledger.notes().get("measured", {})
    measured[plan.digest] = clocks.measure([plan], on_progress)[0]
    ledger.note("measured", measured)


def _tightened(search: Search, now: Outcome, tried: Sequence[Record]) -> Search:
    """Return the search with limits lower by what was measured beyond what was predicted."""
    limits = dict(search.limits)
    for key in limits:
        if key.startswith("latency@"):
            beyond = [
                now.measured[one.number][key] / one.costs[key]
                for one in tried
                if one.number in now.measured
            ]
            limits[key] /= max(1.005, float(np.median(beyond)))
    check_possible(search.layers, limits)
    return dataclasses.replace(search, limits=limits)


def _score_extra(
    ledger: Ledger,
    search: Search,
    scorer: Evaluator,
    assignment: tuple[int, ...],
    kind: str,
    source: int,
) -> None:
    name = f"{kind}:latency-{'.'.join(map(str, assignment))}"
    ledger.queue([Ticket(name, kind, "latency", assignment, source)], seed=search.seed)
    Worker(ledger, search, scorer).step()
