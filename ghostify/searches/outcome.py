"""What comes out of a search: the best plan, the Pareto front, and a table of all trials."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ghostify.errors import OutputError
from ghostify.files import explain
from ghostify.plan import Plan
from ghostify.searches.agenda import front_of, ranked, standing_of
from ghostify.searches.climb import Rung
from ghostify.searches.layout import Layout
from ghostify.searches.run import put
from ghostify.searches.study.record import Record

__all__ = ["Outcome", "best_so_far", "measured_of", "plan_text", "write_outcome"]

_STARTS = ("exact", "uniform")


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A search as it stands: all that its pictures, tables and files are made of.

    Args:
        measured: milliseconds of whole networks, by trial and ``"latency@RUNTIME"``.
        foretold: the sum of losses that the exact start minimises, by assignment's trial.
    """

    model: str
    budget: str
    limits: Mapping[str, float]
    original: Mapping[str, float]
    objectives: Mapping[str, str]
    rungs: tuple[Rung, ...]
    layout: Layout
    records: tuple[Record, ...]
    measured: Mapping[int, Mapping[str, float]]
    finished: bool = False
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Record | None:
        """The best trial of the highest rung, among those that hold the budget as measured."""
        for rung in reversed(self.rungs):
            found = ranked([one for one in self.records if one.rung == rung.kind], self.objectives)
            held = [record for record in found if self.holds(record) is not False]
            sure = [record for record in held if self.holds(record)]
            if sure or held:
                return (sure or held)[0]
        return None

    def holds(self, record: Record) -> bool | None:
        """Return whether a plan holds the budget; None if its latency was not measured."""
        if not record.feasible:
            return False
        timed = [key for key in self.limits if key.startswith("latency@")]
        found = self.measured.get(record.number, {})
        if any(key in found and found[key] > self.limits[key] for key in timed):
            return False
        return True if all(key in found for key in timed) else None

    def start(self, origin: str) -> Record | None:
        """Return the trial of the first rung that a start of this origin made."""
        kind = self.rungs[0].kind
        for record in self.records:
            if record.origin == origin and record.rung == kind and record.finished:
                return record
        return None

    @property
    def front(self) -> list[Record]:
        """The Pareto front of the highest rung; by score and limits with one objective."""
        objectives = dict(self.objectives)
        if len(objectives) < 2:
            objectives |= dict.fromkeys(self.limits or {"macs": 0.0}, "minimize")
        for rung in reversed(self.rungs):
            found = ranked([one for one in self.records if one.rung == rung.kind])
            if found:
                return front_of(found, objectives)
        return []

    def describe(self, record: Record) -> dict[str, Any]:
        """Return one trial's plan and figures as plain values."""
        assert record.assignment is not None
        score = dict(record.score)
        found = {
            "trial": record.number,
            "rung": record.rung,
            "origin": record.origin,
            "score": score.get("score"),
            "objective": score.get("objective", "negative divergence"),
            record.measure: score.get(record.measure),
            "top1": score.get("top1"),
            **_figures(record.costs),
            "plan": self.layout.plan(record.assignment),
        }
        if self.layout.values:
            found["arguments"] = self.layout.arguments(record.assignment)
        if record.number in self.measured:
            found["measured"] = dict(self.measured[record.number])
        return found

    def as_json(self) -> dict[str, Any]:
        """Return what ``search show --json`` prints."""
        standing = standing_of(self.records, self.rungs)
        tried = [one for one in self.records if one.state in ("complete", "pruned")]
        best = self.best
        value: dict[str, Any] = {
            "model": self.model,
            "trials": len(tried),
            "feasible": sum(one.feasible for one in tried),
            "infeasible": sum(not one.feasible for one in tried),
            "budget": self.budget,
            "limits": dict(self.limits),
            "original": dict(self.original),
            "objectives": dict(self.objectives),
            "best": None if best is None else self.describe(best),
            "finished": self.finished,
            "planned": standing.planned,
            "repaired": standing.repaired,
            "evaluated": standing.evaluated,
            "met_again": standing.known,
            "pruned": standing.pruned,
            "failed": standing.failed,
            "retried": standing.retried,
            "seconds": round(sum(one.seconds or 0.0 for one in tried), 3),
        }
        for origin in _STARTS:
            found = self.start(origin)
            value[origin] = None if found is None else self.describe(found)
        value["pareto"] = [self.describe(record) for record in self.front]
        value["notes"] = list(self.notes)
        return value

    @property
    def sentence(self) -> str:
        """Say how far the search's best is from the plan that the exact solver began with."""
        first = self.rungs[0].kind
        exact = self.start("exact")
        found = ranked([record for record in self.records if record.rung == first])
        if exact is None or not found:
            return ""
        mine, theirs = found[0].score["divergence"], exact.score["divergence"]
        told = f"the additive optimum has divergence {theirs:.4f}, the search's best {mine:.4f}"
        if found[0].assignment == exact.assignment:
            return f"{told}: the same plan"
        share = 100 * (1 - mine / theirs) if theirs else 0.0
        return f"{told} ({share:.1f} % less)"


def plan_text(outcome: Outcome, record: Record) -> str:
    """Return a plan file for ``ghostify convert --plan``, with its figures in comments.

    Where arguments were searched, it says which build the network.
    """
    assert record.assignment is not None
    score = record.score
    figures = [f"{record.measure} {score.get(record.measure)!r}"]
    if score.get("top1") is not None:
        figures.append(f"top-1 {score['top1']:.2f} %")
    figures += [f"{key} {_number(value)}" for key, value in record.costs.items()]
    figures += [
        f"{key} {value:.3f} ms as measured"
        for key, value in outcome.measured.get(record.number, {}).items()
    ]
    lines = [
        f"# Trial {record.number} of a search, rung {record.rung}; budget {outcome.budget}.",
        f"# {', '.join(figures)}.",
    ]
    value: dict[str, Any] = {"model": outcome.model}
    if outcome.layout.values:
        value["arguments"] = outcome.layout.arguments(record.assignment)
    else:
        lines.append("# Layers that are not named stay as they are.")
        value["layers"] = outcome.layout.plan(record.assignment)
    return "\n".join(lines) + "\n" + yaml.safe_dump(value, sort_keys=False)


def write_outcome(outcome: Outcome, folder: Path) -> None:
    """Write ``best.yaml``, ``pareto.yaml`` and ``trials.parquet``, each whole or not at all.

    Raises:
        OutputError: the directory cannot be written.
    """
    best = outcome.best
    if best is not None:
        put(folder / "best.yaml", plan_text(outcome, best).encode())
    put(folder / "pareto.yaml", _pareto_text(outcome).encode())
    put(folder / "trials.parquet", _table(outcome))
    put(folder / "outcome.json", (json.dumps(outcome.as_json(), indent=1) + "\n").encode())
    _write_front(outcome, folder / "pareto")


def _write_front(outcome: Outcome, folder: Path) -> None:
    """Write a plan file for each point of the Pareto front."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    except OSError as error:
        raise explain(folder, error) from None
    for record in outcome.front:
        put(folder / f"trial-{record.number}.yaml", plan_text(outcome, record).encode())


def _pareto_text(outcome: Outcome) -> str:
    value = {
        "model": outcome.model,
        "objectives": dict(outcome.objectives),
        "plans": [outcome.describe(record) for record in outcome.front],
    }
    return yaml.safe_dump(value, sort_keys=False)


def _table(outcome: Outcome) -> bytes:
    """Return all trials as parquet: one row each, with the setting of each variable."""
    import pyarrow
    from pyarrow import parquet

    rows = [_row(outcome, record) for record in outcome.records]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = pyarrow.table({key: [row.get(key) for row in rows] for key in columns})
    buffer = io.BytesIO()
    try:
        parquet.write_table(table, buffer)
    except pyarrow.ArrowException as error:
        raise OutputError(f"the table of trials cannot be written ({error})") from error
    return buffer.getvalue()


def _row(outcome: Outcome, record: Record) -> dict[str, Any]:
    score = record.score
    row: dict[str, Any] = {
        "trial": record.number,
        "state": record.state,
        "rung": record.rung,
        "origin": record.origin,
        "ticket": record.ticket,
        "attempt": record.attempt,
        "retry_of": record.retry_of,
        "same_as": record.same_as,
        "source": record.source,
        "feasible": record.feasible if record.costs else None,
        "repaired": json.dumps(dict(record.repaired)) if record.repaired else None,
        "score": score.get("score"),
        record.measure: score.get(record.measure),
        "top1": score.get("top1"),
        "steps": score.get("steps"),
        **{key: float(value) for key, value in record.costs.items()},
        "seed": record.seed,
        "worker": json.dumps(dict(record.worker)) if record.worker else None,
        "error": record.error or None,
        "started": record.started,
        "ended": record.ended,
    }
    if record.number in outcome.measured:
        row |= {f"measured {key}": ms for key, ms in outcome.measured[record.number].items()}
    if record.assignment is not None:
        for name, choices, place in zip(
            outcome.layout.names, outcome.layout.choices, record.assignment, strict=True
        ):
            row[f"{'argument' if outcome.layout.values else 'layer'} {name}"] = choices[place]
    return row


def _figures(costs: Mapping[str, float]) -> dict[str, float]:
    return {key: _number(value) for key, value in costs.items()}


def _number(value: float) -> float:
    """Return whole numbers as such."""
    return int(value) if float(value).is_integer() else float(value)


def best_so_far(records: Sequence[Record]) -> list[tuple[int, float]]:
    """Return the best score so far against the number of trials."""
    best = float("-inf")
    found = []
    done = [record for record in records if record.finished]
    for count, record in enumerate(sorted(done, key=lambda one: one.number), 1):
        best = max(best, float(record.score["score"]))
        found.append((count, best))
    return found


def measured_of(
    notes: Mapping[str, Any], records: Sequence[Record], layout: Layout
) -> dict[int, dict[str, float]]:
    """Return what whole networks take, by trial; the study keeps it by the plan's digest."""
    by_plan = notes.get("measured", {})
    if not by_plan:
        return {}
    found = {}
    for record in records:
        if record.assignment is not None:
            plan = Plan.from_json({"layers": layout.plan(record.assignment)})
            if plan.digest in by_plan:
                found[record.number] = by_plan[plan.digest]
    return found
