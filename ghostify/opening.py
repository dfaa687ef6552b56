"""Networks that work begins with: by name, from an artefact, or as they are given."""

from __future__ import annotations

import dataclasses
import functools
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from ghostify.artefact import load
from ghostify.errors import ModelError
from ghostify.files import MANIFEST
from ghostify.graph.probe import Call, as_call, check_model
from ghostify.graph.rewrite import Stage
from ghostify.manifest import parse_manifest
from ghostify.models import zoo
from ghostify.models.zoo import Built
from ghostify.plan import Plan
from ghostify.spec import Origin

__all__ = [
    "Step",
    "built_of",
    "call_of",
    "ignore",
    "label_of",
    "open_model",
    "stages_before",
    "undisturbed",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")

Step = Callable[[str], None]
"""Called with what begins now, for progress displays."""


def open_model(
    name: str,
    *,
    args: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    seed: int = 0,
) -> Built:
    """Build a network by name, or load it from the directory of an artefact.

    Raises:
        GhostifyError: no such model or artefact, or arguments that do not suit it.
    """
    path = Path(name)
    if not (path / MANIFEST).is_file():
        return zoo.build(name, args=args, pretrained=pretrained, seed=seed)
    if args or pretrained:
        raise ModelError(f"{path} is an artefact, which has its model arguments and weights")
    manifest = parse_manifest(path / MANIFEST)
    model = load(path)
    base = zoo.rebuild(manifest.origin)
    size = base.input_size
    if len(manifest.input) == 1 and manifest.input[0].count("x") == 3:
        size = tuple(int(side) for side in manifest.input[0].split("x")[1:])
    as_built = size == base.input_size
    return dataclasses.replace(
        base,
        model=model,
        input_size=size,
        note=base.note if as_built else "",
        assumed=base.assumed and as_built,
        ghosted=manifest.plan if manifest.plan or manifest.stages else None,
        stages=manifest.stages,
    )


def built_of(model: nn.Module | str | Built, seed: int, step: Step) -> Built:
    """Build a network if it goes by name; make sure that it is one."""
    if isinstance(model, Built):
        check_model(model.model)
        return model
    if not isinstance(model, str):
        checked = check_model(model)
        name = f"{type(checked).__module__}.{type(checked).__qualname__}"
        return Built(checked, Origin("memory", name), zoo.input_size_of(checked))
    step(f"building {model}")
    built = open_model(model, seed=seed)
    check_model(built.model)
    return built


def call_of(built: Built, example: Any, input_size: tuple[int, ...] | None) -> Call:
    """Return the arguments that a network is run with, on its device and in its precision."""
    weight = next(
        (weight for weight in built.model.parameters() if weight.is_floating_point()), None
    )
    device = None if weight is None else weight.device
    if example is not None:
        return as_call(example, device=device)
    call = as_call(zoo.example_input(built, input_size), device=device)
    return call if weight is None else call.map(lambda tensor: tensor.to(weight.dtype))


def label_of(origin: Origin) -> str:
    """Return the name that people know a network by."""
    return origin.name.rpartition(".")[2] if origin.source == "memory" else origin.name


def stages_before(built: Built) -> tuple[Stage, ...]:
    """Return the stages by which a network was made of its base before."""
    return built.stages or ((Plan(built.ghosted.ghosts),) if built.ghosted else ())


def undisturbed(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Leave torch's generator as the caller had it, and let the garbage collector wait.

    A network may draw numbers while it runs. Copies of it are objects by the ten thousand,
    none of them garbage, and each few hundred would set the collector off through everything
    that torch has loaded.
    """

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        collecting = gc.isenabled()
        gc.disable()
        try:
            with torch.random.fork_rng(devices=[]):
                return function(*args, **kwargs)
        finally:
            if collecting:
                gc.enable()

    return wrapped


def ignore(_step: str) -> None:
    """Take a step for granted."""
