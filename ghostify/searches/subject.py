"""What a search is of: a network with its weights, the images, and what can be chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ghostify import looking
from ghostify.cost.mixed import Prunable
from ghostify.data.images import open_images
from ghostify.data.preprocess import Preprocess
from ghostify.errors import GhostifyError, InputError, SearchError
from ghostify.graph.probe import copy_model
from ghostify.models.zoo import Built
from ghostify.pruners.groups import prunable
from ghostify.searches.choices import SearchSpace
from ghostify.searches.climb import Rung
from ghostify.searches.derive import derive_space
from ghostify.searches.scoring.cache import digest_of_images, digest_of_network
from ghostify.searches.scoring.pictures import Pictures, draw, invent
from ghostify.searches.scoring.score import Score
from ghostify.searches.scoring.scorer import Scorer
from ghostify.searches.space import load_space
from ghostify.searches.team import Member
from ghostify.searches.worker import Report
from ghostify.sources import open_source, preprocess_for, settled
from ghostify.threads import cores
from ghostify.train.device import choose_device
from ghostify.train.recipe import load_recipe

__all__ = ["Request", "ScorerOf", "Subject", "members_of", "open_subject"]

Step = Callable[[str], None]
Progress = Callable[[int, int, str], None]

_LARGE = 64  # pixels a side, beyond which fewer images do
_MANY, _FEW = 512, 256


@dataclass(frozen=True, slots=True)
class Request:
    """Which network and which images; workers open them again by the same values."""

    model: str | nn.Module | Built
    weights: Path | None = None
    pretrained: bool = False
    model_args: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None
    split: str | None = None
    images: Mapping[str, Any] = field(default_factory=dict)  # in place of the network's own
    input_size: tuple[int, ...] | None = None
    calibration: int | None = None  # how many images
    held_back: int | None = None
    seed: int = 0
    readers: int = 0  # processes that decode images

    def as_json(self) -> dict[str, Any]:
        """Return plain values; a network in memory has none."""
        return {
            "model": self.model if isinstance(self.model, str) else None,
            "weights": None if self.weights is None else str(self.weights.resolve()),
            "pretrained": self.pretrained,
            "model_args": dict(self.model_args),
            "data": None if self.data is None else str(self.data.resolve()),
            "split": self.split,
            "images": {key: _plain(value) for key, value in self.images.items()},
            "input_size": None if self.input_size is None else list(self.input_size),
            "calibration": self.calibration,
            "held_back": self.held_back,
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Request:
        """Read what :meth:`as_json` wrote.

        Raises:
            SearchError: the network was given in memory.
        """
        if value.get("model") is None:
            raise SearchError(
                "this search was of a network in memory, which cannot be opened again; only "
                "networks that go by name can"
            )
        paths = {key: value[key] and Path(value[key]) for key in ("weights", "data")}
        size = value["input_size"] and tuple(value["input_size"])
        images = {
            key: tuple(one) if isinstance(one, list) else one
            for key, one in value["images"].items()
        }
        return cls(**{**value, **paths, "input_size": size, "images": images})


@dataclass(frozen=True, slots=True)
class Network:
    """A network that was opened: all that its plans and their costs depend on."""

    look: looking.Look
    prunable: Mapping[str, Prunable]

    def space(self, wanted: str | Path | None) -> SearchSpace:
        """Return the search space of this name or file, or one derived from the network.

        Raises:
            DataFileError: there is none, or it says something wrong.
        """
        if wanted is not None:
            return load_space(wanted)
        return derive_space(
            self.look.sites, prunable=self.prunable, model=str(self.look.built.origin)
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """A network, and the images to score it by."""

    request: Request
    network: Network
    pictures: Pictures
    notes: tuple[str, ...]

    @property
    def look(self) -> looking.Look:
        """What there is in the network."""
        return self.network.look

    @property
    def model(self) -> nn.Module:
        """The original."""
        return self.look.built.model

    def identity(self) -> dict[str, Any]:
        """Return what tells network and images from others."""
        pictures = self.pictures
        seen = f"{len(pictures.calibration)} to fit, {len(pictures.held_back)} held back"
        digests = (digest_of_images(pictures.calibration), digest_of_images(pictures.held_back))
        name = "synthetic" if pictures.supply is None else Path(str(self.request.data)).name
        return {
            "model": str(self.look.built.origin),
            "weights": digest_of_network(self.model)[:16],
            "data": f"{name} ({seen}; {digests[0][:8]}, {digests[1][:8]})",
        }

    def scorer(self, cache: Path, *, device: str = "cpu") -> Scorer:
        """Return what scores plans for this network."""
        pictures = self.pictures
        return Scorer(
            self.model,
            pictures.calibration[:2],
            pictures.calibration,
            pictures.held_back,
            pictures.labels,
            cache=cache,
            seed=self.request.seed,
            device=device,
            supply=pictures.supply,
        )

    def evaluator(self, cache: Path, *, device: str = "cpu") -> ScorerOf:
        """Return what scores plans by the rungs of a search."""
        return ScorerOf(self.scorer(cache, device=device))


class ScorerOf:
    """A :class:`Scorer` that scores by the rungs of a search."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def score(self, plan: Any, rung: Rung, *, seed: int, report: Report) -> Score:
        """Score a plan as its rung says."""
        if rung.kind == "distil" or (rung.kind == "train" and not rung.recipe):
            return self.scorer.distilled(plan, steps=rung.steps, seed=seed, report=report)
        if rung.kind == "train":
            recipe = load_recipe(rung.recipe, steps=rung.steps)
            return self.scorer.trained(plan, recipe=recipe, seed=seed, report=report)
        return self.scorer.free(plan)


def open_subject(
    request: Request,
    step: Step,
    *,
    on_network: Callable[[Network], None] | None = None,
    on_progress: Progress | None = None,
) -> Subject:
    """Build the network, load its weights, and read the images.

    Args:
        on_network: called before the images, which may take long; what it raises ends all.
        on_progress: called while images are made: steps done, of how many, and what they are.

    Raises:
        GhostifyError: whatever does not fit, in one sentence.
    """
    source = open_source(
        request.model,
        step,
        request.weights,
        request.pretrained,
        dict(request.model_args),
        request.seed,
    )
    built = source.built
    if request.data is not None and request.input_size is None and built.assumed:
        given = open_images(request.data, split=request.split or "train")
        built = settled(source, given, request.images).built
    look = looking.look(built, input_size=request.input_size, seed=request.seed, on_step=step)
    model = look.built.model
    example = torch.zeros(1, *_size(look, request))
    notes = [*look.notes]
    step("finding what can be pruned")
    try:
        shrinkable = prunable(copy_model(model, hooks=False).eval(), example)
    except GhostifyError as error:
        shrinkable = {}
        notes.append(f"no layer is offered for pruning: {error}")
    network = Network(look, shrinkable)
    if on_network is not None:
        on_network(network)
    step("reading images" if request.data is not None else "making images")
    pictures = _pictures(request, look, source, notes, on_progress)
    untrained = request.weights is None and not request.pretrained and source.path is None
    if untrained and isinstance(request.model, str):
        notes.append(
            "the network has random weights, so scores mean little; --weights or --pretrained "
            "give it others"
        )
    return Subject(request, network, pictures, tuple(notes))


def members_of(workers: int, device: str) -> tuple[Member, ...]:
    """Return the workers of one command, each with its share of the threads or GPUs.

    Raises:
        SearchError: no worker at all.
        TrainingError: no such device.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise SearchError(f"--workers is a whole number from 1 on (got {workers!r})")
    chosen = choose_device(device)
    threads = torch.get_num_threads() if workers == 1 else max(1, cores() // workers)
    cards = torch.cuda.device_count() if str(chosen) == "cuda" else 0
    return tuple(
        Member(number, workers, threads, f"cuda:{number % cards}" if cards else str(chosen))
        for number in range(workers)
    )


def _pictures(
    request: Request,
    look: looking.Look,
    source: Any,
    notes: list[str],
    on_progress: Progress | None,
) -> Pictures:
    size = _size(look, request)
    few = _FEW if max(size[1:]) > _LARGE else _MANY
    counts = {
        "calibration": request.calibration or few,
        "held_back": request.held_back or few,
    }
    if request.data is None:
        notes.append(
            "plans are scored on synthetic images, made from the network's batch norms; --data "
            "gives it real ones"
        )
        model = copy_model(look.built.model, hooks=False).eval()
        asked = {
            "calibration": request.calibration,
            "held_back": request.held_back,
        }
        return invent(model, size, seed=request.seed, on_progress=on_progress, **asked)
    images = open_images(request.data, split=request.split or "train")
    preprocess: Preprocess = preprocess_for(source, {"size": size[1:], **request.images})
    return draw(images, preprocess, seed=request.seed, workers=request.readers, **counts)


def _size(look: looking.Look, request: Request) -> tuple[int, ...]:
    size = request.input_size or look.built.input_size
    channels = (look.built.input_size or (3,))[0]
    if size is None or look.built.kind != "image":
        raise InputError(
            f"{look.built.origin.name} does not say how large its images are; give "
            "--input-size CxHxW"
        )
    return tuple(size) if len(size) == 3 else (channels, *size)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
