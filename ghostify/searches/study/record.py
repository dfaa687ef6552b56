"""What the study holds of one trial, as a value."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

__all__ = ["ATTEMPTS", "Record", "base_of", "chains", "given_up", "is_final", "record_of"]

ATTEMPTS = 10
"""Workers that may be lost over one plan, after which it is given up."""

_ERRORS = 2
"""Failures of a plan by an error of its own, after which it is given up."""

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One trial: the plan that it evaluated, what that costs, and how well it did.

    ``state`` is "complete", "pruned", "failed", "running", "waiting" or "void": a trial that
    was queued twice, and not evaluated.
    """

    number: int
    state: str
    ticket: str
    rung: str
    origin: str  # who proposed it: "exact", "neighbour", "uniform", "warm", "climb" or a sampler
    attempt: int = 0
    assignment: tuple[int, ...] | None = None
    repaired: Mapping[str, Sequence[str]] = field(default_factory=dict)  # asked for, evaluated
    costs: Mapping[str, float] = field(default_factory=dict)
    excess: Mapping[str, float] = field(default_factory=dict)  # over the budget; <= 0 is feasible
    score: Mapping[str, Any] = field(default_factory=dict)
    values: tuple[float, ...] | None = None  # of the study's objectives
    steps: Mapping[int, float] = field(default_factory=dict)  # scores on the way
    same_as: int | None = None  # an earlier trial of the same plan, whose score this is
    retry_of: int | None = None
    source: int | None = None  # the trial of the rung below
    seed: int | None = None
    worker: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    started: datetime.datetime | None = None
    ended: datetime.datetime | None = None

    @property
    def finished(self) -> bool:
        """Whether the trial has a score."""
        return self.state == "complete"

    @property
    def evaluated(self) -> bool:
        """Whether work was paid for: a plan known already costs none."""
        return self.state in ("complete", "pruned") and self.same_as is None

    @property
    def feasible(self) -> bool:
        """Whether it holds every limit."""
        return all(value <= 0 for value in self.excess.values())

    @property
    def measure(self) -> str:
        """What its score is the negative of: "divergence" from an original, or "loss"."""
        return "loss" if "loss" in self.score else "divergence"

    @property
    def loss(self) -> float:
        """The score's negative: lower is better.

        Raises:
            KeyError: it has no score.
        """
        return float(self.score[self.measure])

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        if self.started is None or self.ended is None:
            return None
        return (self.ended - self.started).total_seconds()


def record_of(trial: FrozenTrial, assignment: tuple[int, ...] | None) -> Record:
    """Return what a stored trial says."""
    attributes = trial.user_attrs
    state = "void" if attributes.get("void") else _STATES[trial.state]
    return Record(
        number=trial.number,
        state=state,
        ticket=str(attributes.get("ticket", "")),
        rung=str(attributes.get("rung", "")),
        origin=str(attributes.get("origin", "")),
        attempt=int(attributes.get("attempt", 0)),
        assignment=assignment,
        repaired=attributes.get("repaired", {}),
        costs=attributes.get("costs", {}),
        excess=dict(trial.constraints),
        score=attributes.get("score", {}),
        values=None if trial.values is None else tuple(trial.values),
        steps=dict(trial.intermediate_values),
        same_as=attributes.get("same_as"),
        retry_of=attributes.get("retry_of"),
        source=attributes.get("source"),
        seed=attributes.get("seed"),
        worker=attributes.get("worker", {}),
        error=str(attributes.get("error", "")),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )


def base_of(ticket: str) -> str:
    """Return the ticket that a retry is for: ``free:3~2`` is for ``free:3``."""
    return ticket.partition("~")[0]


def chains(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the attempts at each ticket, in order; void trials are left out."""
    found: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.ticket and record.state != "void":
            attempts = found.setdefault(base_of(record.ticket), {})
            attempts.setdefault(record.ticket, record)  # the first of the same ticket counts
    return {
        ticket: sorted(attempts.values(), key=lambda record: record.attempt)
        for ticket, attempts in found.items()
    }


def is_final(attempts: Sequence[Record]) -> bool:
    """Return whether nothing more will be done for a ticket."""
    last = attempts[-1]
    if last.state in ("complete", "pruned"):
        return True
    return last.state == "failed" and given_up(attempts)


def given_up(attempts: Sequence[Record]) -> bool:
    """Return whether a ticket has failed too often."""
    errors = sum(bool(record.error) for record in attempts)
    return errors >= _ERRORS or attempts[-1].attempt + 1 >= ATTEMPTS
