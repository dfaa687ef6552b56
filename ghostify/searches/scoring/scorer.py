"""Scores of plans, from those that take no training to a whole recipe."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ghostify.errors import InputError, SearchError, WeightsError, nearest
from ghostify.graph.probe import copy_model, sentence
from ghostify.plan import Plan
from ghostify.searches.scoring.alone import Alone, Piece
from ghostify.searches.scoring.assembly import Assembly
from ghostify.searches.scoring.cache import Cache, Kept, digest_of_images, digest_of_network
from ghostify.searches.scoring.judge import Judge, logits
from ghostify.searches.scoring.learning import Apprentice, Report
from ghostify.searches.scoring.pictures import Supply
from ghostify.searches.scoring.pruned import Readings
from ghostify.searches.scoring.score import Options, Score
from ghostify.spec import GhostSpec, LayerSpec
from ghostify.train.recipe import Recipe

__all__ = ["ADDITIVE", "Scorer", "Single"]

Progress = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and what begins now."""

_CHUNK_PIXELS = 1 << 20  # of the images that go through together, at most
_CORRECTING_PIXELS = 1 << 20  # of the images that correct a network, at most


@dataclasses.dataclass(frozen=True, slots=True)
class Single:
    """What one layer does alone, in the network that is otherwise the original."""

    error: float  # share of the layer's variance that is missed
    divergence: float  # of the network's output


ADDITIVE: dict[str, Callable[[Single], float]] = {
    "error": lambda one: one.error,
    "error squared": lambda one: one.error**2,
    "divergence": lambda one: one.divergence,
    "root of divergence": lambda one: one.divergence**0.5,
}
"""What can be summed over layers to foretell a plan, by name; lower is better."""

BEST_ADDITIVE = "divergence"


class Scorer:
    """Scores plans for one network; to be made once in each process.

    The same plan and seed give the same score on one machine and device, bit for bit, however
    many processes share the cache.

    Args:
        original: the trained network; it stays untouched.
        example: ``(N, C, H, W)``, to follow the network with.
        calibration: images ``(N, C, H, W)``, normalised, that layers are fitted to.
        held_back: others, to judge by.
        labels: ``(N,)`` of the latter, for top-1; no score depends on them.
        cache: directory of fitted layers, shared by all processes; made where there is none.
        seed: of new weights, of the fit's steps, and of a training where none is given.
        supply: images to train on, for :meth:`distilled` and :meth:`trained`.

    Raises:
        InputError: images that the network does not take, or none.
        WeightsError: weights that are not finite.
        OutputError: the cache cannot be written.
        TrainingError: the network is no classifier.
    """

    def __init__(
        self,
        original: nn.Module,
        example: Tensor,
        calibration: Tensor,
        held_back: Tensor,
        labels: Tensor | None = None,
        *,
        cache: Path,
        seed: int = 0,
        device: str | torch.device = "cpu",
        options: Options | None = None,
        supply: Supply | None = None,
    ) -> None:
        self.options = options or Options()
        self.seed = seed
        for images, what in ((calibration, "calibration"), (held_back, "held-back")):
            if images.dim() != 4 or not len(images):
                raise InputError(f"{what} images are (N, C, H, W), one at least")
            if not images.isfinite().all():
                raise InputError(f"{what} images hold values that are not finite; mend them")
        for name, value in original.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise WeightsError(f"{name} holds values that are not finite; use sound weights")
        model = copy_model(original, hooks=False).eval().requires_grad_(False).to(device)
        calibration, held_back = calibration.to(device), held_back.to(device)
        try:
            with torch.no_grad():
                model(calibration[:2])
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            shape = "x".join(map(str, calibration.shape[1:]))
            raise InputError(
                f"the network does not take images of {shape} ({sentence(error)}); choose their "
                "size and channels to fit it"
            ) from error
        pixels = calibration[0, 0].numel()
        chunk = max(1, min(self.options.chunk, _CHUNK_PIXELS // pixels))
        self.options = dataclasses.replace(self.options, chunk=chunk)
        self._original = model
        about = {
            "network": digest_of_network(model),
            "calibration": digest_of_images(calibration),
            "device": str(torch.device(device)),
        }
        self._cache = Cache(cache, about)
        self._held_digest = digest_of_images(held_back)
        layers = [name for name, one in model.named_modules() if isinstance(one, nn.Conv2d)]
        self._alone = Alone(model, calibration, layers, self._cache, self.options)
        self._readings = Readings(model, example[:1].to(device))
        few = max(8, min(self.options.correcting, _CORRECTING_PIXELS // pixels))
        self._assembly = Assembly(model, calibration[:few], self._alone, self._readings)
        images = self._assembly.laid_out(held_back)
        told = logits(self._assembly.model, images.split(chunk))
        self._judge = Judge(
            told,
            images,
            labels,
            chunk=chunk,
            temperature=self.options.temperature,
        )
        self._apprentice = Apprentice(
            model, calibration, self._judge, self._readings, supply, self._cache, self.options
        )

    def fit(self, layer: str, spec: GhostSpec) -> Piece:
        """Return the Ghost module of one layer, fitted in the original network.

        Raises:
            PlanError: the layer is no convolution, or cannot become such a module.
            WeightsError: weights or activations that are not finite.
        """
        return self._alone.fit(layer, spec)

    def single(self, layer: str, spec: LayerSpec) -> Single:
        """Return what one layer does alone; kept in the cache, for all processes.

        Raises:
            PlanError: the layer cannot become that.
        """
        count = min(self.options.single, len(self._judge.images))

        def make() -> Kept:
            plan = Plan({layer: spec})
            few = self._judge.images[:count].split(self.options.chunk)
            ghost = isinstance(spec, GhostSpec)
            said = self._assembly.run(plan, few, corrected=not ghost)
            error = (
                self._alone.fit(layer, spec).error
                if isinstance(spec, GhostSpec)
                else self._assembly.miss
            )
            return Kept({}, {"error": error, "divergence": self._judge.divergence(said)})

        key = {
            **self._alone.key(layer, spec),
            "images": self._held_digest,
            "count": count,
            "temperature": self.options.temperature,
            "correcting": self._assembly.images,
        }
        facts = self._cache.kept(make, f"{layer}-alone", **key).facts
        return Single(float(facts["error"]), float(facts["divergence"]))

    def sensitivities(
        self,
        choices: Mapping[str, Sequence[LayerSpec]],
        *,
        kind: str = BEST_ADDITIVE,
        on_progress: Progress | None = None,
    ) -> dict[str, dict[LayerSpec, float]]:
        """Return what to sum over the layers of a plan to foretell its divergence.

        No label has a part in it. What a layer that is kept does is 0.

        Args:
            kind: of score, by its name in :data:`ADDITIVE`.

        Raises:
            SearchError: no such kind.
        """
        if kind not in ADDITIVE:
            raise SearchError(f"no additive score is called {kind!r}" + nearest(kind, ADDITIVE))
        todo = sum(map(len, choices.values()))
        done = 0
        found: dict[str, dict[LayerSpec, float]] = {}
        for layer, specs in choices.items():
            found[layer] = {}
            for spec in specs:
                if on_progress is not None:
                    on_progress(done, todo, f"{layer} {spec}")
                found[layer][spec] = ADDITIVE[kind](self.single(layer, spec))
                done += 1
        if on_progress is not None:
            on_progress(done, todo, "")
        return found

    def free(self, plan: Plan) -> Score:
        """Score a plan without training: fitted layers are put together, and run once.

        Each layer is corrected on its way through a batch of calibration images for what the
        layers before it have changed.

        Raises:
            PlanError: the plan is for another network.
        """
        began = time.monotonic()
        said = self._assembly.run(plan, self._judge.batches)
        return dataclasses.replace(self._judge.compare(said), seconds=time.monotonic() - began)

    def judged(self, network: nn.Module) -> Score:
        """Score a network of the caller's as it is."""
        began = time.monotonic()
        return dataclasses.replace(self._judge.score(network), seconds=time.monotonic() - began)

    def fitted(self, plan: Plan, *, seed: int | None = None) -> nn.Module:
        """Return the converted network, fitted as a whole; kept in the cache."""
        return self._apprentice.start(plan, seed=self._seed(seed)).model

    def distilled(
        self,
        plan: Plan,
        *,
        steps: int | None,
        seed: int | None = None,
        report: Report | None = None,
        fitted: bool = True,
    ) -> Score:
        """Score a plan after a fit of the whole network and a short distillation.

        Args:
            steps: of distillation; 0 for the fit alone, None for one pass over the images.
            report: called a few times with step and score; True ends the training there.
            fitted: else training begins from new Ghost modules.

        Raises:
            TrainingError: there are no images to train on, or the training has diverged.
        """
        return self._apprentice.distilled(
            plan, steps=steps, seed=self._seed(seed), report=report, fitted=fitted
        )

    def trained(
        self,
        plan: Plan,
        *,
        recipe: Recipe | str | Path,
        seed: int | None = None,
        report: Report | None = None,
        fitted: bool = True,
    ) -> Score:
        """Score a plan after a whole recipe, with the original as the teacher.

        Raises:
            TrainingError: there are no images to train on, or the training has diverged.
            RecipeError: no such recipe.
        """
        return self._apprentice.trained(
            plan, recipe=recipe, seed=self._seed(seed), report=report, fitted=fitted
        )

    def _seed(self, seed: int | None) -> int:
        return self.seed if seed is None else seed
