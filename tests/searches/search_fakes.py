"""A search without a network: sites made up, scores by a formula, workers that can be killed."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ghostify.cost.budget import Budget, Cost
from ghostify.plan import Plan
from ghostify.searches.agenda import Start
from ghostify.searches.choices import Choices, SearchSpace
from ghostify.searches.climb import Rung
from ghostify.searches.problem import Problem, make_problem
from ghostify.searches.study.ledger import Ledger, Pace
from ghostify.searches.study.storage import Patience, open_storage
from ghostify.searches.worker import Report, Search
from ghostify.spec import ConvSite, GhostSpec

PACE = Pace(beat_s=0.5, grace_s=4.0)
OBJECTIVES = {"score": "maximize"}
SETTINGS = tuple(GhostSpec.parse(text) for text in ("s2,d3", "s3,d3", "s4,d3"))


def site(name: str, channels: int, side: int) -> ConvSite:
    return ConvSite(
        name, "Conv2d", channels, channels, (3, 3), (1, 1), (1, 1), 1, False,
        (side, side), (side, side), 1, side * side, True,
    )  # fmt: skip


def problem(layers: int = 6) -> Problem:
    """Layers that cost alike, of which later ones have more parameters."""
    halvings = [one // 2 for one in range(layers)]
    sites = [site(f"conv{one}", 16 << by, 32 >> by) for one, by in enumerate(halvings)]
    macs, params = sum(one.macs for one in sites), sum(one.params for one in sites)
    space = SearchSpace("fake", (Choices("conv*", (None, *SETTINGS)),))
    return make_problem(sites, space, total=Cost(params, macs), model="fake")


def search(
    budget: str = "macs=0.5x",
    *,
    layers: int = 6,
    trials: int = 20,
    rungs: tuple[Rung, ...] | None = None,
    start: tuple[Start, ...] = (),
    **settings: Any,
) -> Search:
    made = problem(layers)
    return Search(
        made,
        Budget.parse(budget).absolute(made.original),
        rungs or (Rung("free", trials),),
        settings.pop("objectives", OBJECTIVES),
        start=start,
        **settings,
    )


def divergence(plan: Plan) -> float:
    """What plans lose: each layer its own amount, and more where neighbours lose too."""
    ratios = {name: spec.ratio for name, spec in plan.layers.items()}
    loss = 0.0
    for name, ratio in ratios.items():
        number = int(name.removeprefix("conv"))
        loss += (1 + number % 3) * (ratio - 1) ** 1.5
        loss += 0.5 * (ratio - 1) * (ratios.get(f"conv{number + 1}", 1) - 1)
    return loss / 10


@dataclass(frozen=True)
class FakeScore:
    divergence: float
    steps: int = 0
    top1: float | None = None
    curve: tuple[Any, ...] = ()
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float:
        return -self.divergence

    def as_json(self) -> dict[str, Any]:
        return {
            "score": self.score,
            "divergence": self.divergence,
            "top1": self.top1,
            "steps": self.steps,
            **self.extra,
        }


class FakeEvaluator:
    """Scores by :func:`divergence`; training divides it, and shows the way there.

    Each evaluation appends a line to ``log``, so that none can go unnoticed.
    """

    def __init__(self, log: Path | None = None, *, seconds: float = 0.0) -> None:
        self.log, self.seconds = log, seconds
        self.plans: list[tuple[str, Plan]] = []

    def score(self, plan: Plan, rung: Rung, *, seed: int, report: Report) -> FakeScore:
        self.plans.append((rung.kind, plan))
        if self.log is not None:
            line = json.dumps({"pid": os.getpid(), "rung": rung.kind, "plan": plan.digest})
            with self.log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        time.sleep(self.seconds)
        loss = divergence(plan)
        if rung.kind == "free":
            return FakeScore(loss, top1=100 - loss)
        steps = rung.steps or 1000
        for part in range(1, 5):
            time.sleep(self.seconds)
            if report(steps * part // 4, -loss / (1 + part)):
                return FakeScore(loss / (1 + part), steps * part // 4)
        return FakeScore(loss / (10 if rung.kind == "train" else 5), steps)


def prepare(
    _member: Any, url: str, name: str, made: Search, log: str, seconds: float
) -> tuple[Ledger, Search, FakeEvaluator]:
    """Make a worker's process ready, for :class:`ghostify.searches.team.Crew`."""
    storage = open_storage(url, patience=Patience(first_s=60))
    ledger = Ledger(storage, name, made.objectives, pace=PACE)
    return ledger, made, FakeEvaluator(Path(log), seconds=seconds)


def array(assignment: tuple[int, ...]) -> Any:
    return np.array(assignment, dtype=np.int64)
