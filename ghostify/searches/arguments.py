"""Searching the arguments that build a network: each network is trained from scratch.

There are no fitted weights for another architecture, and scores of untrained networks say little,
so that a short training is the cheapest score there is. A network is judged by its loss on
labelled images that it was not trained on.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.cost.budget import Budget
from ghostify.data.images import open_images
from ghostify.data.preprocess import Preprocess
from ghostify.errors import SearchError
from ghostify.models import zoo
from ghostify.models.zoo import Built
from ghostify.searches.agenda import Start
from ghostify.searches.architecture import Architecture
from ghostify.searches.choices import Argument, SearchSpace, same
from ghostify.searches.climb import Rung
from ghostify.searches.factory import open_architecture
from ghostify.searches.scoring.cache import digest_of_images
from ghostify.searches.scoring.judge import logits
from ghostify.searches.scoring.pictures import Pictures, draw
from ghostify.searches.study.ledger import Ledger
from ghostify.searches.subject import Request
from ghostify.searches.worker import Report, Search
from ghostify.sources import Source, preprocess_for, sized_by
from ghostify.train.loop import train
from ghostify.train.recipe import load_recipe

__all__ = [
    "ArgumentSubject",
    "Trainer",
    "Trial",
    "limits_of",
    "open_arguments",
    "settle_arguments",
]

Step = Callable[[str], None]

_HELD_BACK = 1024  # images to judge by
_CHUNK = 64
_REPORTS = 10  # at how many places of a training it is judged


@dataclass(frozen=True, slots=True)
class Trial:
    """How well a network does that was trained from scratch: its cross-entropy, in nats."""

    loss: float
    top1: float  # percent
    seconds: float = 0.0
    steps: int = 0
    curve: tuple[tuple[int, float, float], ...] = ()  # steps, loss, top-1
    stopped: bool = False

    @property
    def score(self) -> float:
        """The negative loss: higher is better."""
        return -self.loss

    def as_json(self) -> dict[str, Any]:
        """Return plain values; a loss that is not finite is left as None."""
        finite = math.isfinite(self.loss)
        plain = dataclasses.asdict(self) | {"loss": self.loss if finite else None}
        plain["curve"] = [list(point) for point in self.curve]
        objective = "negative cross-entropy"
        return {"score": self.score if finite else None, "objective": objective, **plain}


class Trainer:
    """Trains networks of given arguments from scratch, and judges them.

    Args:
        build: makes a network of arguments, with a seed for its weights.
        pictures: images to judge by, with labels, and a supply to train on.
    """

    def __init__(
        self,
        build: Callable[[Mapping[str, Argument], int], nn.Module],
        pictures: Pictures,
        *,
        device: str = "cpu",
    ) -> None:
        assert pictures.labels is not None, "arguments are judged by labels"
        assert pictures.supply is not None, "networks are trained on images"
        self._build, self._supply, self._device = build, pictures.supply, torch.device(device)
        self._labels = pictures.labels.to(self._device)
        self._batches = pictures.held_back.to(self._device).split(_CHUNK)

    def score(
        self, plan: Mapping[str, Argument], rung: Rung, *, seed: int, report: Report
    ) -> Trial:
        """Train the network of these arguments as the rung says, and judge it on the way.

        Raises:
            TrainingError: the network is no classifier, or its training has diverged.
            RecipeError: no such recipe.
        """
        began = time.monotonic()
        recipe = load_recipe(rung.recipe, steps=rung.steps)
        supply = self._supply
        batch = min(recipe.batch_size, len(supply.images))
        recipe = recipe.changed(batch_size=batch)
        steps = recipe.total_steps(max(1, len(supply.images) // batch))
        places = {max(1, round(steps * part / _REPORTS)) for part in range(1, _REPORTS + 1)}
        curve: list[tuple[int, float, float]] = []

        def watch(step: int, network: nn.Module) -> None:
            if step not in places:
                return
            loss, top1 = self._judge(network)
            curve.append((step, loss, top1))
            if step < steps and report(step, -loss):
                raise _StoppedError

        stopped = False
        try:
            train(
                self._build(plan, seed).to(self._device),
                recipe,
                supply.images,
                supply.preprocess,
                seed=seed,
                device=self._device,
                watch=watch,
            )
        except _StoppedError:
            stopped = True
        step, loss, top1 = curve[-1]
        return Trial(loss, top1, time.monotonic() - began, step, tuple(curve), stopped)

    def _judge(self, network: nn.Module) -> tuple[float, float]:
        said: Tensor = logits(network, self._batches)
        loss = float(functional.cross_entropy(said, self._labels))
        right = (said.argmax(1) == self._labels).double().mean()
        return loss if math.isfinite(loss) else math.inf, 100 * float(right)


@dataclass(frozen=True, slots=True)
class ArgumentSubject:
    """A function that builds networks, the arguments to choose from, and the images."""

    request: Request
    name: str  # of the function, as ``ghostify.train`` takes it
    fixed: Mapping[str, Any]  # arguments that are the same for all
    architecture: Architecture
    pictures: Pictures
    notes: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Return what tells networks and images from others."""
        held = self.pictures.held_back
        name = Path(str(self.request.data)).name
        return {
            "model": self.name,
            "other arguments": json.dumps(dict(sorted(self.fixed.items()))),
            "weights": "trained from scratch",
            "data": f"{name} ({len(held)} held back; {digest_of_images(held)[:8]})",
        }

    def evaluator(self, _cache: Path, *, device: str = "cpu") -> Trainer:
        """Return what trains and judges networks."""
        return Trainer(self._build, self.pictures, device=device)

    def _build(self, arguments: Mapping[str, Argument], seed: int) -> nn.Module:
        return zoo.build(self.name, args={**self.fixed, **arguments}, seed=seed).model


def open_arguments(
    request: Request,
    space: SearchSpace,
    step: Step,
    *,
    architecture: Architecture | None = None,
    on_architecture: Callable[[Architecture], object] | None = None,
) -> ArgumentSubject:
    """Build the network of the original arguments, and read the images.

    Args:
        architecture: of the same space, where there is one already.
        on_architecture: called before the images are read; what it raises ends all.

    Raises:
        SearchError: weights, no images, or images without labels.
        GhostifyError: whatever else does not fit, in one sentence.
    """
    name = request.model
    if not isinstance(name, str):
        raise SearchError("arguments are searched for a network that goes by name; give its name")
    if space.model and space.model != name:
        raise SearchError(f"the search space is for {space.model}, not {name}; give one for {name}")
    if request.weights is not None or request.pretrained:
        raise SearchError(
            "a search of arguments trains each network from scratch; leave weights out"
        )
    if request.data is None:
        raise SearchError(
            "a search of arguments trains networks, which needs labelled images; give --data"
        )
    given = dict(request.model_args)
    fixed = {key: value for key, value in given.items() if key not in space.arguments}
    original = {key: value for key, value in given.items() if key in space.arguments}
    step(f"building {name}")
    first = {key: values[0] for key, values in space.arguments.items()} | original
    built = zoo.build(name, args={**fixed, **first}, seed=request.seed)
    images = open_images(request.data, split=request.split or "train")
    if request.input_size is None:
        built = sized_by(built, images, request.images.get("size"))
    size = _size_of(built, request)
    step("counting what arguments cost")
    made = architecture or open_architecture(
        space, model=name, input_size=size, original=original, fixed=fixed
    )
    if on_architecture is not None:
        on_architecture(made)
    step("reading images")
    preprocess: Preprocess = preprocess_for(Source(built), {"size": size[1:], **request.images})
    held_back = request.held_back or min(_HELD_BACK, max(1, len(images) // 4))
    pictures = draw(
        images, preprocess, calibration=1, held_back=held_back, seed=request.seed,
        workers=request.readers,
    )  # fmt: skip
    if pictures.labels is None:
        raise SearchError(
            "a search of arguments judges networks by labels, which some images lack; give "
            "labelled images by --data"
        )
    return ArgumentSubject(request, name, fixed, made, pictures)


def settle_arguments(
    ledger: Ledger,
    subject: ArgumentSubject,
    budget: Budget,
    rungs: tuple[Rung, ...],
    objectives: Mapping[str, str],
    *,
    sampler: str,
    seed: int,
) -> Search:
    """Settle what all workers go by: the original's arguments, made feasible, come first.

    Raises:
        BudgetError: no arguments hold the budget.
    """
    problem = subject.architecture
    search = Search(
        problem, limits_of(problem, budget), rungs, dict(objectives), sampler=sampler, seed=seed
    )
    notes = ledger.notes()
    if "start" in notes:
        start = tuple(Start(str(one[0]), tuple(one[1])) for one in notes["start"])
    else:
        first = [
            next(place for place, one in enumerate(values) if same(one, wanted))
            if any(same(one, wanted) for one in values) else 0
            for values, wanted in _wanted(subject)
        ]  # fmt: skip
        rows = [search.repaired(first)]
        if sampler == "brute":
            every = problem.every()
            rows += [tuple(row) for row in every[problem.feasible(every, search.limits)].tolist()]
        start = tuple(Start("original", row) for row in dict.fromkeys(rows))
        ledger.note("start", [[one.origin, list(one.assignment)] for one in start])
    if sampler == "brute":
        rungs = (dataclasses.replace(rungs[0], count=min(rungs[0].count, len(start))),)
    return dataclasses.replace(search, start=start, rungs=rungs)


def limits_of(problem: Architecture, budget: Budget) -> dict[str, float]:
    """Return absolute limits, which some arguments hold.

    Raises:
        SearchError: a latency is limited, which is not known here.
        BudgetError: no arguments hold them; the nearest possible budget is told.
    """
    if budget.runtimes:
        raise SearchError("a search of arguments cannot limit latency; limit macs, params or size")
    limits = budget.absolute(problem.original)
    problem.repair(problem.every()[0], limits)
    return limits


def _wanted(subject: ArgumentSubject) -> list[tuple[tuple[Argument, ...], Argument]]:
    given = subject.request.model_args
    problem = subject.architecture
    return [
        (values, given.get(name, values[0]))
        for name, values in zip(problem.names, problem.values, strict=True)
    ]


def _size_of(built: Built, request: Request) -> tuple[int, ...]:
    size = request.input_size or built.input_size
    if size is None or built.kind != "image":
        raise SearchError(
            f"{request.model} does not say how large its images are; give --input-size CxHxW"
        )
    channels = (built.input_size or (3,))[0]
    return tuple(size) if len(size) == 3 else (channels, *size)


class _StoppedError(Exception):
    """A report said that it is enough."""
