"""Ghost modules only where they are faster on a runtime, and never a slower network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ghostify.cost.machine import fingerprint
from ghostify.cost.network_table import NetworkTable, Progress
from ghostify.cost.table import LatencyTable
from ghostify.cost.trials import Trial, try_against
from ghostify.cost.workbench import Bench, Workbench
from ghostify.errors import InputError, PlanError
from ghostify.graph.probe import copy_model
from ghostify.graph.rewrite import rewrite
from ghostify.plan import Plan
from ghostify.runtimes.base import Session, check_inputs
from ghostify.spec import ConvSite, GhostSpec
from ghostify.summary import ONLY_FASTER

__all__ = ["Dropped", "Faster", "FasterOptions", "Trial", "faster_plan"]

_ROUNDS = 25

_Group = tuple[str, ...]
"""Layers that are converted alike: one, or several that share a weight."""


@dataclass(frozen=True, slots=True)
class FasterOptions:
    """On which runtime Ghost modules have to be faster, and by how much.

    Raises:
        InputError: an impossible number.
    """

    runtime: str
    margin: float = 0.02  # share of the time of a layer and its surroundings that is to be saved
    threads: int = 1
    batch: int = 1
    table: Path | None = None  # of latencies; None: the machine's own
    rounds: int = _ROUNDS

    def __post_init__(self) -> None:
        for name in ("threads", "batch", "rounds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is a whole number from 1 on (got {value!r})")
        if not 0 <= self.margin < 1:
            raise InputError(f"a margin is a share from 0 to below 1 (got {self.margin!r})")


@dataclass(frozen=True, slots=True)
class Dropped:
    """A layer that stays dense, and why; times are those of the layer in its surroundings."""

    name: str
    why: str
    dense_ms: float | None = None
    ghost_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Faster:
    """What came out: the plan that is left, what it takes, and what was given up."""

    plan: Plan
    dropped: tuple[Dropped, ...]
    trials: tuple[Trial, ...]  # in order; the last one is of ``plan``, unless that is empty
    options: FasterOptions
    version: str
    foreign: tuple[str, ...]  # machines that the times of layers come from
    notes: tuple[str, ...]

    @property
    def trial(self) -> Trial | None:
        """The measurement of the plan, or None if nothing is left of it."""
        return self.trials[-1] if len(self.plan) else None

    @property
    def what(self) -> str:
        """Say in one sentence what was kept, what it brings, and what was given up."""
        whole, name = len(self.plan) + len(self.dropped), self.options.runtime
        if self.trial is None:
            tried = ""
            if self.trials:
                best = min(self.trials, key=lambda trial: trial.ms / trial.original_ms)
                ratio = best.ms / best.original_ms
                tried = f"; {best.layers} of them took {ratio:.2f}x the original's time"
                tried += f" (± {best.noise:.2f})" if ratio < 1 else ""
            return (
                f"nothing was converted: none of {whole} Ghost modules is surely faster on {name}"
                f"{tried}"
            )
        given = ""
        if self.dropped:
            lost = sum(one.why.startswith("its ghost") for one in self.dropped)
            given = f", gave up {len(self.dropped)} ({lost} that lose by the latency table)"
        return (
            f"kept {len(self.plan)} of {whole} Ghost modules{given}: "
            f"{self.trial.ms:.3g} ms instead of {self.trial.original_ms:.3g} ms on {name}, "
            f"{self.trial.speedup:.2f}x"
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain values: the entry in an artefact's history."""
        last = self.trial
        return {
            "kind": ONLY_FASTER,
            "what": self.what,
            "runtime": self.options.runtime,
            "version": self.version,
            "threads": self.options.threads,
            "batch": self.options.batch,
            "margin": self.options.margin,
            "machine": fingerprint().as_json(),
            "original_ms": last and round(last.original_ms, 4),
            "ms": last and round(last.ms, 4),
            "speedup": round(last.speedup, 4) if last else 1.0,
            "noise": last and round(last.noise, 4),
            "kept": list(self.plan),
            "gave_up": [
                {
                    "name": one.name,
                    "why": one.why,
                    "dense_ms": one.dense_ms and round(one.dense_ms, 4),
                    "ghost_ms": one.ghost_ms and round(one.ghost_ms, 4),
                }
                for one in self.dropped
            ],
            "trials": [
                {
                    "layers": trial.layers,
                    "original_ms": round(trial.original_ms, 4),
                    "ms": round(trial.ms, 4),
                    "noise": round(trial.noise, 4),
                }
                for trial in self.trials
            ],
            "foreign": list(self.foreign),
        }


def faster_plan(
    model: nn.Module,
    plan: Plan,
    sites: Sequence[ConvSite],
    example: Sequence[Tensor],
    options: FasterOptions,
    *,
    bench: Bench | None = None,
    table: LatencyTable | None = None,
    on_progress: Progress | None = None,
) -> Faster:
    """Leave of a plan what makes the network faster on a runtime.

    First each layer's Ghost module is compared with the convolution in its surroundings
    (:class:`ghostify.cost.table.LatencyTable`): it has to save ``margin`` of their time. Then
    the whole network is measured in turns with the original, both after the runtime's own
    passes. The plan as it was asked for is measured too, since Ghost modules side by side can
    hand on their maps unjoined: what loses alone may win in company. It is taken if it is
    clearly the faster one. As long as the network is not faster than the original, beyond the
    noise, the half of its Ghost modules that saves least is given up; in the end all of them.

    Args:
        example: the arguments of one forward pass, with as many images as ``options.batch``.
        on_progress: called with the work done, of how much, and what begins now.

    Raises:
        GhostifyError: the runtime is unknown or missing, or cannot take the network; the table
            is none.
    """
    example = check_inputs(example)
    if plan.prunes:
        raise PlanError(
            f"the plan prunes {next(iter(plan.prunes))}, and what pruning saves is not measured "
            "layer by layer; leave out only_faster, or the pruned layers"
        )
    if any(module.training for module in model.modules()):
        model = copy_model(model, hooks=False).eval()
    bench = bench or Workbench(options.runtime, threads=options.threads, batch=options.batch)
    table = table or LatencyTable.open(options.table)
    tell = on_progress or _ignore
    times = NetworkTable(table, model, example, sites, bench)
    times.ensure({name: [spec] for name, spec in plan.ghosts.items()}, on_progress=on_progress)
    groups = _groups(plan, sites)
    losing = {group for group in groups if not _wins(times, group, plan, options.margin)}
    winning = [group for group in groups if group not in losing]
    winning.sort(key=lambda group: -_gain(times, group, plan))
    left: Sequence[_Group] = ()
    trials: list[Trial] = []
    if len(plan):
        tell(0, 0, "measuring the original")
        original = bench.session(model, example, draft=False)
        try:
            trial = _Measurer(bench, model, example, plan, original, options.rounds, tell)
            left = _backed_off(winning, groups, trial, trials)
        finally:
            original.close()
    kept = {name for group in left for name in group}
    final = Plan(
        {name: spec for name, spec in plan.layers.items() if name in kept},
        model=plan.model,
        convs=plan.convs,
    )
    return Faster(
        plan=final,
        dropped=tuple(
            _dropped(
                times, name, spec, lost=any(name in group for group in losing), options=options
            )
            for name, spec in plan.ghosts.items()
            if name not in kept
        ),
        trials=tuple(trials),
        options=options,
        version=bench.conditions.version,
        foreign=table.foreign,
        notes=times.notes,
    )


def _backed_off(
    winning: Sequence[_Group], groups: Sequence[_Group], measured: _Measurer, trials: list[Trial]
) -> Sequence[_Group]:
    """Give up halves of the Ghost modules, the best come first, until the rest is faster."""
    left = winning
    tries = [some for some in (winning, groups) if some]
    if len(winning) == len(groups):
        tries = [groups]
    while tries:
        made = measured(tries)
        best = _better(made)
        trials += [trial for trial in made if trial is not made[best]] + [made[best]]
        if made[best].faster:
            return tries[best]
        left = left[: len(left) // 2]
        tries = [left] if left else []
    return ()


def _better(made: Sequence[Trial]) -> int:
    """Return which trial to go on with: the second, of all layers, only if clearly faster."""
    if len(made) == 1:
        return 0
    clear = 1 + max(trial.noise for trial in made)
    return int(made[1].speedup > clear * made[0].speedup)


@dataclass(frozen=True, slots=True)
class _Measurer:
    """Measures the network with some of the plan's layers, in turns with the original."""

    bench: Bench
    model: nn.Module
    example: Sequence[Tensor]
    plan: Plan
    original: Session
    rounds: int
    tell: Progress

    def __call__(self, tries: Sequence[Sequence[_Group]]) -> list[Trial]:
        layers = [
            {name: self.plan.layers[name] for group in some for name in group} for some in tries
        ]
        counts = " and ".join(str(len(one)) for one in layers)
        self.tell(0, 0, f"measuring with {counts} Ghost modules")
        sessions: list[Session] = []
        try:
            for one in layers:
                made = rewrite(self.model, Plan(one)).model.eval()
                sessions.append(self.bench.session(made, self.example, draft=False))
            found = try_against(self.original, sessions, rounds=self.rounds)
        finally:
            for session in sessions:
                session.close()
        return [replace(trial, layers=len(one)) for trial, one in zip(found, layers, strict=True)]


def _groups(plan: Plan, sites: Sequence[ConvSite]) -> list[_Group]:
    """Join the layers that share a weight: they are converted alike or not at all."""
    groups: dict[str, list[str]] = {}
    tied = {site.name: site.tied_to or site.name for site in sites}
    for name in plan.layers:
        groups.setdefault(tied.get(name, name), []).append(name)
    return [tuple(names) for names in groups.values()]


def _gain(times: NetworkTable, group: Iterable[str], plan: Plan) -> float:
    gains = [times.gain_ms(name, plan.ghosts[name]) for name in group]
    return sum(-math.inf if gain is None else gain for gain in gains)


def _wins(times: NetworkTable, group: Iterable[str], plan: Plan, margin: float) -> bool:
    """Return whether the Ghost modules of a group save more than the margin."""
    found = [times.time_of(name, plan.ghosts[name]) for name in group]
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        return False
    dense = sum(one.dense_ms for one in known)
    return sum(one.gain_ms for one in known) > margin * dense


def _dropped(
    times: NetworkTable, name: str, spec: GhostSpec, *, lost: bool, options: FasterOptions
) -> Dropped:
    found = times.time_of(name, spec)
    if found is None:
        return Dropped(name, f"could not be timed on {options.runtime}")
    shown = f"({found.dense_ms:.3g} ms dense, {found.ghost_ms:.3g} ms ghosted)"
    why = f"given up so that the network is faster on {options.runtime} {shown}"
    if lost:
        why = f"its ghost is not faster on {options.runtime} {shown}"
    return Dropped(name, why, found.dense_ms, found.ghost_ms)


def _ignore(_done: int, _of: int, _what: str) -> None:
    return None
