"""What is still to be done in a search, and what is best so far: rules over its records."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ghostify.searches.climb import Rung
from ghostify.searches.study.ledger import Ticket
from ghostify.searches.study.record import Record, chains, is_final

__all__ = ["Start", "best_of", "due", "front_of", "is_done", "ranked", "standing_of", "value_of"]

DIRECTIONS = {
    "score": "maximize",
    "top1": "maximize",
    "divergence": "minimize",
    "macs": "minimize",
    "params": "minimize",
    "size": "minimize",
}
"""Of what can be optimised; a latency is minimised too."""


@dataclass(frozen=True, slots=True)
class Start:
    """A plan that is tried before any sampler is asked."""

    origin: str
    assignment: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a search is."""

    planned: int  # tickets of all rungs that are known yet
    final: int
    running: int
    evaluated: int
    known: int  # plans met again, whose score was there
    pruned: int
    failed: int
    retried: int
    repaired: int  # proposals that did not hold the budget, or were known


def due(
    records: Sequence[Record], rungs: Sequence[Rung], start: Sequence[Start], *, ahead: int
) -> list[Ticket]:
    """Return the tickets to queue now.

    The first rung's are queued as workers come to need them, ``ahead`` at a time; the others
    when the rung below is through.
    """
    attempts = chains(records)
    waiting = sum(record.state == "waiting" for record in records)
    first = rungs[0]
    left = [number for number in range(first.count) if f"{first.kind}:{number}" not in attempts]
    if left:
        tickets = []
        for number in left[: max(0, ahead - waiting)]:
            plan = start[number] if number < len(start) else None
            tickets.append(
                Ticket(
                    f"{first.kind}:{number}",
                    first.kind,
                    "" if plan is None else plan.origin,
                    None if plan is None else plan.assignment,
                )
            )
        return tickets
    for lower, upper in pairwise(rungs):
        if not _through(attempts, lower.kind):
            return []
        best = ranked([one for one in records if one.rung == lower.kind])[: upper.count]
        tickets = []
        for record in best:
            assert record.assignment is not None
            name = f"{upper.kind}:{_short(record.assignment)}"
            if name not in attempts:
                tickets.append(
                    Ticket(name, upper.kind, "climb", record.assignment, source=record.number)
                )
        if tickets:
            return tickets
    return []


def is_done(records: Sequence[Record], rungs: Sequence[Rung], start: Sequence[Start]) -> bool:
    """Return whether nothing is left to do, here or elsewhere."""
    attempts = chains(records)
    return all(map(is_final, attempts.values())) and not due(records, rungs, start, ahead=1)


def ranked(records: Sequence[Record], objectives: Mapping[str, str] | None = None) -> list[Record]:
    """Return finished records of one rung, the best first, each plan once.

    By its score; with several objectives, those that no other record beats in all of them come
    first, then those that only these beat, and so on.
    """
    seen: set[tuple[int, ...]] = set()
    found = []
    for record in sorted(records, key=lambda record: (-_score(record), record.number)):
        if record.finished and record.assignment is not None and record.assignment not in seen:
            seen.add(record.assignment)
            found.append(record)
    if objectives is None or len(objectives) < 2:
        return found
    ordered: list[Record] = []
    while found:
        front = front_of(found, objectives)
        ordered += front
        numbers = {record.number for record in front}
        found = [record for record in found if record.number not in numbers]
    return ordered


def best_of(records: Sequence[Record], rungs: Sequence[Rung]) -> Record | None:
    """Return the best record of the highest rung that was reached."""
    for rung in reversed(rungs):
        found = ranked([record for record in records if record.rung == rung.kind])
        if found:
            return found[0]
    return None


def front_of(records: Sequence[Record], objectives: Mapping[str, str]) -> list[Record]:
    """Return the records that no other beats in one objective without losing in another."""
    points = [
        tuple(
            (-1.0 if way == "maximize" else 1.0) * value_of(name, record.costs, record.score)
            for name, way in objectives.items()
        )
        for record in records
    ]
    front = []
    taken: set[tuple[float, ...]] = set()
    for record, point in zip(records, points, strict=True):
        beaten = any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True))
            for other in points
        )
        if not beaten and point not in taken:
            taken.add(point)
            front.append(record)
    return front


def standing_of(records: Sequence[Record], rungs: Sequence[Rung]) -> Standing:
    """Return how far a search is."""
    attempts = chains(records)
    upper = sum(
        max(rung.count, sum(name.startswith(f"{rung.kind}:") for name in attempts))
        for rung in rungs
    )
    return Standing(
        planned=upper,
        final=sum(map(is_final, attempts.values())),
        running=sum(record.state == "running" for record in records),
        evaluated=sum(record.evaluated for record in records),
        known=sum(record.same_as is not None for record in records),
        pruned=sum(record.state == "pruned" for record in records),
        failed=sum(is_final(one) and one[-1].state == "failed" for one in attempts.values()),
        retried=sum(record.retry_of is not None for record in records),
        repaired=sum(bool(record.repaired) for record in records),
    )


def value_of(objective: str, costs: Mapping[str, float], score: Mapping[str, object]) -> float:
    """Return the value of one objective."""
    value = score.get(objective) if objective in ("score", "top1", "divergence") else None
    if objective in costs:
        value = costs[objective]
    return float("nan") if not isinstance(value, int | float) else float(value)


def _score(record: Record) -> float:
    value = record.score.get("score")
    return float(value) if isinstance(value, int | float) else float("-inf")


def _through(attempts: Mapping[str, Sequence[Record]], kind: str) -> bool:
    return all(is_final(one) for name, one in attempts.items() if name.startswith(f"{kind}:"))


def _short(assignment: tuple[int, ...]) -> str:
    return hashlib.sha256(",".join(map(str, assignment)).encode()).hexdigest()[:12]
