"""Which run comes next: learning rates are tuned first, then the table is filled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from recovery.study import FITTED, RATES, Run

_FIRST = (2e-3, 4e-3)  # where the search of the grid begins
_FIRST_HELD = (1e-3, 2e-3)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How learning rates are found: at how many steps, and with which seed."""

    steps: int = 98
    seed: int = 0
    borrow: str | None = None  # network whose rates are taken, in place of tuning


def best_of(records: Iterable[dict[str, Any]], run: Run) -> dict[str, Any] | None:
    """Return the tuning record with the best validation accuracy for a run's method."""
    tuned = _tuned(records, run)
    return max(tuned, key=lambda record: record["val_top1"], default=None)


def needed(goal: Run, records: list[dict[str, Any]], tuning: Tuning) -> list[Run]:
    """Return what may be run now for a goal; nothing when it is reached.

    The grid is searched from two neighbours outwards, as long as the better end leads on:
    validation accuracy has one peak over the learning rate.
    """
    if goal.lr is not None:  # it says itself at what rate
        return [] if any(Run.of(record) == goal for record in records) else [goal]
    if any(_same_goal(record, goal) for record in records):
        return []
    if goal.steps == 0:
        return [goal]
    trial = replace(
        goal, kind="tune", model=tuning.borrow or goal.model, steps=tuning.steps, seed=tuning.seed
    )
    tuned = _tuned(records, trial)
    open_trials = _trials(trial, tuned, held=False)
    if goal.method in FITTED:
        open_trials += _trials(trial, tuned, held=True)
    if open_trials:
        return open_trials
    best = best_of(records, trial)
    assert best is not None
    return [replace(goal, lr=best["lr"], held=best["held"])]


def _trials(trial: Run, tuned: list[dict[str, Any]], *, held: bool) -> list[Run]:
    known = {record["lr"]: record["val_top1"] for record in tuned if record["held"] == held}
    wanted = [lr for lr in (_FIRST_HELD if held else _FIRST) if lr not in known]
    if not wanted:
        best = RATES.index(max(known, key=lambda lr: known[lr]))
        around = RATES[max(0, best - 1) : best + 2]
        wanted = [lr for lr in around if lr not in known]
    return [replace(trial, lr=lr, held=held) for lr in wanted]


def _tuned(records: Iterable[dict[str, Any]], run: Run) -> list[dict[str, Any]]:
    return [
        record
        for record in records
        if record["kind"] == "tune"
        and (record["model"], record["method"], record["recipe"])
        == (run.model, run.method, run.recipe)
    ]


def _same_goal(record: dict[str, Any], goal: Run) -> bool:
    return all(
        record[name] == getattr(goal, name)
        for name in ("kind", "model", "method", "steps", "seed", "recipe")
    )
