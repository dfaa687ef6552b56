"""Open what a training or an evaluation is of: the network, its teacher, the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ghostify import opening
from ghostify.artefact import load_original
from ghostify.data.images import Images, has_split, open_images
from ghostify.data.preprocess import Preprocess, preprocess_of, small_size
from ghostify.errors import InputError, ModelError, TrainingError
from ghostify.files import MANIFEST
from ghostify.graph.probe import copy_model
from ghostify.graph.rewrite import Conversion
from ghostify.manifest import parse_manifest
from ghostify.models import zoo
from ghostify.models.weights import load_weights
from ghostify.models.zoo import Built
from ghostify.spec import Origin

__all__ = [
    "Model",
    "Source",
    "Teacher",
    "held_back_images",
    "open_source",
    "open_teacher",
    "preprocess_for",
    "settled",
    "sized_by",
]

Model = nn.Module | str | Path | Built | Conversion
"""A network, its name, the directory of its artefact, or a conversion."""

Teacher = nn.Module | Built | str | Path | None
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A network to train, and what is needed to save it afterwards."""

    built: Built
    path: Path | None = None  # of the artefact that it comes from
    conversion: Conversion | None = None
    images: Mapping[str, Any] | None = None  # how the artefact says that it wants its images
    history: tuple[Mapping[str, Any], ...] = ()  # what was done to its weights

    @property
    def model(self) -> nn.Module:
        """The network itself."""
        return self.built.model

    @property
    def fitted(self) -> bool:
        """Whether the network was fitted to its original, batch norms included."""
        return any(entry.get("kind") == "fit" for entry in self.history)

    def unlike(self, teacher: Teacher, weights: str | Path | None = None) -> frozenset[str]:
        """Return the layers whose maps a fit has put in another order than the teacher's.

        The original that is kept beside a fitted network has its maps in the same order.
        """
        kept = isinstance(teacher, str) and teacher == "original" and weights is None
        return frozenset(
            name
            for entry in self.history
            if not (kept and entry.get("original_permuted"))
            for name in entry.get("permuted", ())
        )


def open_source(
    model: Model,
    step: Step,
    weights: str | Path | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Source:
    """Build the network, if it is not there yet, and load its weights."""
    if isinstance(model, str | Path):
        step(f"building {model}")
        built = opening.open_model(str(model), args=model_args, pretrained=pretrained, seed=seed)
        source = Source(built)
        manifest = Path(model) / MANIFEST
        if manifest.is_file():
            told = parse_manifest(manifest)
            source = Source(built, Path(model), images=told.images, history=told.history)
    elif isinstance(model, Conversion):
        size = _size_of(model.input) or zoo.input_size_of(model.model)
        built = Built(model.model, model.origin, size)
        source = Source(built, conversion=model, images=model.images, history=model.history)
    elif isinstance(model, Built):
        source = Source(model)
    elif isinstance(model, nn.Module):
        name = f"{type(model).__module__}.{type(model).__qualname__}"
        source = Source(Built(model, Origin("memory", name), zoo.input_size_of(model)))
    else:
        raise ModelError(
            f"a network is an nn.Module, a name or an artefact (got {type(model).__name__})"
        )
    if weights is not None:
        load_weights(source.model, weights, name=str(source.built.origin))
    return source


def _size_of(shapes: tuple[str, ...]) -> tuple[int, ...] | None:
    """Read (C, H, W) from the shape of an example such as ``1x3x32x32``."""
    if len(shapes) != 1 or shapes[0].count("x") != 3:
        return None
    return tuple(int(side) for side in shapes[0].split("x")[1:])


def open_teacher(
    teacher: Teacher,
    weights: str | Path | None,
    source: Source,
    step: Step,
) -> nn.Module | None:
    """Build the network to learn from, if there is one, and load its weights.

    Raises:
        TrainingError: there is no original, or the teacher has no weights.
        GhostifyError: no such network, or weights that do not fit.
    """
    if teacher is None or isinstance(teacher, nn.Module):
        return teacher
    if isinstance(teacher, Built):
        return teacher.model
    step(f"building the teacher ({teacher})")
    if str(teacher) == "original":
        found = _original(source)
    else:
        artefact = (Path(teacher) / MANIFEST).is_file()
        library = not artefact and weights is None
        built = opening.open_model(str(teacher))
        if library and built.origin.source in ("torchvision", "timm"):
            built = opening.open_model(str(teacher), pretrained=True)
        elif library and built.origin.source == "ghostify":
            raise TrainingError(
                f"the teacher {teacher} has no weights, so it knows nothing; give them by "
                "--teacher-weights FILE"
            )
        found = built.model
    if weights is not None:
        load_weights(found, weights, name=f"the teacher {teacher}")
    return found


def _original(source: Source) -> nn.Module:
    """Build what a network was converted from, with the weights it had."""
    if source.path is not None:
        return load_original(source.path)
    conversion = source.conversion
    if conversion is None or conversion.original is None:
        raise TrainingError(
            f"there is no original of {source.built.origin} to learn from; name the teacher by "
            "--teacher NAME --teacher-weights FILE, or train by labels alone with --no-teacher"
        )
    model = zoo.rebuild(conversion.origin).model
    model.load_state_dict(dict(conversion.original))
    return model


def held_back_images(test: str | Path | Images | None, data: str | Path | Images) -> Images | None:
    """Open the images to measure accuracy on: those given, or the data set's own test part."""
    if isinstance(test, Images):
        return test
    if test is not None:
        return open_images(test, split="test")
    if isinstance(data, Images) or not has_split(data, "test"):
        return None
    return open_images(data, split="test")


def settled(source: Source, images: Images, overrides: Mapping[str, Any] | None) -> Source:
    """Return the source with its input size as :func:`sized_by` finds it.

    What an artefact or the caller says of the images comes first.
    """
    size = {**(source.images or {}), **(overrides or {})}.get("size")
    return dataclasses.replace(source, built=sized_by(source.built, images, size))


def sized_by(built: Built, images: Images, size: tuple[int, ...] | None = None) -> Built:
    """Settle an input size that was only assumed by the images that there are.

    Small images of one size (64 at most) are taken as they are, where the network runs with them.

    Args:
        size: (H, W) that the caller asks for.
    """
    if not built.assumed or built.input_size is None:
        return built
    wanted = size or small_size(images)
    if wanted is None:
        return built
    found = (built.input_size[0], *wanted[-2:])
    if size is None and not _runs(built.model, found):
        return built
    shape = "x".join(map(str, found))
    note = "" if size else f"input {shape}, as the images are; --input-size or --crop changes it"
    return dataclasses.replace(built, input_size=found, assumed=False, note=note)


def _runs(model: nn.Module, size: tuple[int, ...]) -> bool:
    trial = copy_model(model, hooks=False).eval()
    try:
        with torch.no_grad():
            trial(torch.zeros(1, *size, device=next(trial.parameters()).device))
    except Exception:  # whatever a forward that wants other sizes raises
        return False
    return True


def preprocess_for(source: Source, overrides: Mapping[str, Any] | None) -> Preprocess:
    """Return how the network wants its images: its artefact's word, or its own configuration."""
    built = source.built
    saved = {} if source.images is None else dataclasses.asdict(Preprocess.from_json(source.images))
    settings = {**saved, **(overrides or {})}
    size = built.input_size or settings.get("size")
    if size is None:
        raise InputError(
            f"the size of the images for {built.origin.name} is unknown; give --crop HxW"
        )
    return preprocess_of(built.model, built.origin, tuple(size), **settings)
