"""Fit a whole converted network, train it for a while, and judge it on the way."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ghostify.data.base import NO_LABEL
from ghostify.errors import TrainingError
from ghostify.graph.calibrate import calibrate
from ghostify.graph.fold import move_maps
from ghostify.graph.probe import copy_model
from ghostify.graph.rewrite import Conversion, rewrite
from ghostify.plan import Plan
from ghostify.searches.scoring.cache import Cache, Kept
from ghostify.searches.scoring.judge import Judge
from ghostify.searches.scoring.pictures import Supply
from ghostify.searches.scoring.pruned import Readings
from ghostify.searches.scoring.score import Options, Point, Score
from ghostify.train.loop import train
from ghostify.train.recipe import Recipe, distillation, load_recipe

__all__ = ["Apprentice", "Report"]

Report = Callable[[int, float], bool]
"""Called with a step and the score there (higher is better); True ends the training."""


@dataclass(frozen=True, slots=True)
class Start:
    """A converted network before training, and the original with its maps in the same places."""

    model: nn.Module
    teacher: nn.Module


class Apprentice:
    """Trains converted networks to say what the original says.

    Args:
        original: in eval mode, on the device where all is done.
        calibration: ``(N, C, H, W)``, for the fit of whole networks.
        supply: images to train on; labels may be missing.
        cache: keeps fitted networks, so that a later rung begins where an earlier one did.
    """

    def __init__(
        self,
        original: nn.Module,
        calibration: Tensor,
        judge: Judge,
        readings: Readings,
        supply: Supply | None,
        cache: Cache,
        options: Options,
    ) -> None:
        self._original, self._calibration, self._judge = original, calibration, judge
        self._readings, self._supply = readings, supply
        self._cache, self._options = cache, options

    def start(self, plan: Plan, *, seed: int, fitted: bool = True) -> Start:
        """Return the network that training begins from: fitted as ``Options.fit`` says, or new.

        Raises:
            PlanError: the plan is for another network.
            WeightsError: weights or activations that are not finite.
        """
        slices = self._readings.slices(plan.prunes)

        def convert() -> Conversion:
            return rewrite(self._original, plan, seed=seed, slices=slices)

        if not fitted or not plan.layers:
            return Start(convert().model.eval().requires_grad_(True), self._original)
        work = dataclasses.replace(self._options.fit, seed=seed)
        model, teacher = convert().model, copy_model(self._original, hooks=False)

        def make() -> Kept:
            fresh, shown = convert(), copy_model(self._original, hooks=False).eval()
            batches = self._calibration.split(self._options.chunk)
            report = calibrate(
                shown,
                fresh.model,
                list(fresh.changed),
                batches,
                options=work,
                slices=fresh.slices,
            )
            move_maps(shown, report.moves, slices=fresh.slices)
            states = (("model", fresh.model), ("teacher", shown))
            return Kept(
                {
                    f"{whose}:{name}": value
                    for whose, network in states
                    for name, value in network.state_dict().items()
                },
                {"images": report.images},
            )

        key = {"plan": plan.digest, "fit": dataclasses.asdict(work)}
        kept = self._cache.kept(make, "network", **key)
        for whose, network in (("model", model), ("teacher", teacher)):
            mine = f"{whose}:"
            found = {name.removeprefix(mine): value for name, value in kept.tensors.items()
                     if name.startswith(mine)}  # fmt: skip
            network.load_state_dict(found)
        return Start(model.eval().requires_grad_(True), teacher.eval().requires_grad_(False))

    def distilled(
        self,
        plan: Plan,
        *,
        steps: int | None,
        seed: int,
        report: Report | None,
        fitted: bool = True,
    ) -> Score:
        """Judge a plan after so many steps, or one epoch, of distillation from the original.

        Raises:
            TrainingError: there are no images to train on, or the training has diverged.
        """
        if steps is None:
            images = len(self._images().images)
            steps = max(1, images // min(images, load_recipe("distil").batch_size))
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise TrainingError(f"a distillation takes a whole number of steps (got {steps!r})")
        began = time.monotonic()
        start = self.start(plan, seed=seed, fitted=fitted)
        if not steps:
            return dataclasses.replace(
                self._judge.score(start.model), seconds=time.monotonic() - began
            )
        recipe = load_recipe(distillation(fitted=fitted, steps=steps), steps=steps)
        supply = self._images()
        if (supply.images.labels == NO_LABEL).any():
            recipe = recipe.changed(alpha=1.0)
        few = min(recipe.batch_size, len(supply.images))
        return self._learnt(start, recipe.changed(batch_size=few), seed, report, began)

    def trained(
        self,
        plan: Plan,
        *,
        recipe: Recipe | str | Path,
        seed: int,
        report: Report | None,
        fitted: bool = True,
    ) -> Score:
        """Judge a plan after a whole recipe, with the original as the teacher.

        Raises:
            TrainingError: there are no images to train on, or the training has diverged.
            RecipeError: no such recipe.
        """
        began = time.monotonic()
        chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        start = self.start(plan, seed=seed, fitted=fitted)
        return self._learnt(start, chosen, seed, report, began)

    def _images(self) -> Supply:
        if self._supply is None:
            raise TrainingError(
                "there are no images to train on; give a data set, or stay with the score that "
                "takes no training"
            )
        return self._supply

    def _learnt(
        self, start: Start, recipe: Recipe, seed: int, report: Report | None, began: float
    ) -> Score:
        supply = self._images()
        steps = recipe.total_steps(max(1, len(supply.images) // recipe.batch_size))
        places = {max(1, round(steps * k / self._options.reports))
                  for k in range(1, self._options.reports + 1)}  # fmt: skip
        curve: list[Point] = []

        def watch(step: int, network: nn.Module) -> None:
            if step and step not in places:
                return
            found = self._judge.score(network)
            curve.append((step, found.divergence, found.top1))
            if report is not None and step < steps and report(step, found.score):
                raise _StoppedError

        stopped = False
        try:
            watch(0, start.model)
            train(
                start.model,
                recipe,
                supply.images,
                supply.preprocess,
                teacher=start.teacher,
                seed=seed,
                device=next(self._original.parameters()).device,
                watch=watch,
            )
        except _StoppedError:
            stopped = True
        step, divergence, top1 = curve[-1]
        return Score(
            divergence=divergence if math.isfinite(divergence) else math.inf,
            top1=top1,
            seconds=time.monotonic() - began,
            steps=step,
            curve=tuple(curve),
            stopped=stopped,
        )


class _StoppedError(Exception):
    """A report said that it is enough."""
