"""Build a network from what a user types: a name, ``timm:NAME`` or ``package.module:factory``."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import InputError, ModelError, ModelNotFoundError, nearest
from ghostify.models import ghostnet, resnet, vgg
from ghostify.models.torchvision_import import import_beside_torchvision, require
from ghostify.plan import Plan
from ghostify.spec import Origin

__all__ = ["OWN", "Built", "build", "example_input", "input_size_of", "rebuild"]

OWN: dict[str, Callable[..., nn.Module]] = {
    "resnet20_cifar": resnet.resnet20_cifar,
    "resnet32_cifar": resnet.resnet32_cifar,
    "resnet44_cifar": resnet.resnet44_cifar,
    "resnet56_cifar": resnet.resnet56_cifar,
    "resnet110_cifar": resnet.resnet110_cifar,
    "vgg16_cifar": vgg.vgg16_cifar,
    "ghostnet": ghostnet.ghostnet,
}
"""The paper's networks that no library has, or that it has at a few widths only."""

_TOLD = {"ghostnet": "ghostnet is ghostify's own (timm's go by timm:ghostnet_100 and the like)"}
"""What is said of a bare name that another library's names resemble."""

_DETECTOR_SIDE = 320
_VIDEO_FRAMES = 16


@dataclass(frozen=True, slots=True)
class Built:
    """A network, how it was made, and an input that suits it."""

    model: nn.Module
    origin: Origin
    input_size: tuple[int, ...] | None  # (C, H, W) of its own configuration
    kind: str = "image"  # "image", "detection", "video" or "flow": what forward takes
    note: str = ""  # which library a bare name was taken from, what was assumed
    ghosted: Plan | None = None  # of a network that is converted already
    stages: tuple[Any, ...] = ()  # of one that has lost maps, as of a conversion
    assumed: bool = False  # whether ``input_size`` is a guess

    def notes(self, *, sized: bool = False) -> tuple[str, ...]:
        """Return what is to be told of it; ``sized`` where the caller gives the input's size."""
        return () if not self.note or (sized and self.assumed) else (self.note,)


def build(
    name: str,
    *,
    args: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    seed: int | None = None,
) -> Built:
    """Build a network by name.

    Bare names are looked up among ghostify's own, then torchvision's, then timm's.

    Args:
        args: arguments for the library's function or the factory.
        pretrained: take the library's own trained weights (which it may download).
        seed: where random initial weights come from; None leaves torch's generator alone.

    Raises:
        ModelNotFoundError: with the nearest names.
        ModelError: the name stands for no ``nn.Module``, or the arguments do not suit.
    """
    source, bare, note = _locate(name)
    origin = Origin(source, bare, dict(args or {}))
    devices: list[int] = []
    with torch.random.fork_rng(devices=devices, enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        built = _BUILDERS[source](origin, pretrained)
    return replace(built, note=note or built.note)


def rebuild(origin: Origin) -> Built:
    """Build the network of an artefact again, with no trained weights.

    Raises:
        ModelError: the network was given in memory, so nobody knows how it is made.
    """
    if origin.source not in _BUILDERS:
        raise ModelError(
            f"the network was given in memory ({origin.name}); pass it as base=..., built anew"
        )
    return _BUILDERS[origin.source](origin, False)


def example_input(built: Built, size: tuple[int, ...] | None = None) -> tuple[Any, ...]:
    """Return the arguments of a forward pass: one random image (or clip, or pair of images).

    Args:
        size: ``(H, W)`` or ``(C, H, W)`` in place of the network's own.

    Raises:
        InputError: neither the network nor the caller says a size.
    """
    own = built.input_size
    if size is None:
        size = own
    elif len(size) == 2:
        size = ((own or (3,))[0], *size)
    if size is None:
        raise InputError(
            f"the input of {built.origin.name} is unknown; give an example input or its size CxHxW"
        )
    try:
        return _example(built.kind, size)
    except (RuntimeError, TypeError, OverflowError):
        shape = "x".join(map(str, size))
        raise InputError(
            f"an input of {shape} does not fit into memory; give a smaller one"
        ) from None


def _example(kind: str, size: tuple[int, ...]) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(0)

    def image(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if kind == "detection":
        return ([torch.rand(*size, generator=generator)],)
    if kind == "video":
        return (image(1, size[0], _VIDEO_FRAMES, *size[1:]),)
    if kind == "flow":
        return (image(1, *size), image(1, *size))
    return (image(1, *size),)


def input_size_of(model: nn.Module) -> tuple[int, ...] | None:
    """Return (C, H, W) where the model's own configuration says it (timm's, or ``input_size``)."""
    for name in ("pretrained_cfg", "default_cfg"):
        configuration = getattr(model, name, None)
        if isinstance(configuration, Mapping) and configuration.get("input_size"):
            return _size(configuration["input_size"])
    return _size(getattr(model, "input_size", None))


def _size(value: object) -> tuple[int, ...] | None:
    if (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(side, int) and side > 0 for side in value)
    ):
        return tuple(value)
    return None


def _assumed_size(model: nn.Module) -> tuple[int, ...] | None:
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return None if first is None else (first.in_channels, 224, 224)


def _locate(name: str) -> tuple[str, str, str]:
    """Return the source, the name there, and a note on what was chosen."""
    source, colon, rest = name.partition(":")
    if colon and source in _BUILDERS and source != "factory":
        if not rest:
            raise ModelNotFoundError(f"{name!r} names no model; write {source}:NAME")
        return source, rest, ""
    if colon:
        return "factory", name, ""
    if name in OWN:
        return "ghostify", name, _TOLD.get(name, "")
    vision = import_if_there("torchvision.models")
    if vision is not None and name in vision.list_models():
        return (
            "torchvision",
            name,
            f"{name} is taken from torchvision (timm's networks go by timm:NAME)",
        )
    timm = import_if_there("timm")
    if timm is not None and timm.is_model(name):
        return "timm", name, f"{name} is taken from timm"
    known = set(OWN)
    known |= set(vision.list_models()) if vision is not None else set()
    known |= set(timm.list_models()) if timm is not None else set()
    hint = nearest(name, known) or "; give a name of torchvision or timm, or package.module:factory"
    raise ModelNotFoundError(f"no model is called {name!r}" + hint)


def import_if_there(name: str) -> Any:
    """Import a library, or return None if it is not installed."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        return None
    return import_beside_torchvision(name)


def _own(origin: Origin, pretrained: bool) -> Built:
    if origin.name not in OWN:
        raise ModelNotFoundError(
            f"ghostify has no model {origin.name!r}" + nearest(origin.name, OWN)
        )
    if pretrained:
        raise ModelError(f"{origin.name} comes without trained weights; pass them by --weights")
    model = _call(OWN[origin.name], origin)
    return Built(model, origin, input_size_of(model))


def _torchvision(origin: Origin, pretrained: bool) -> Built:
    models = require("torchvision.models", wanted=str(origin))
    if origin.name not in models.list_models():
        hint = nearest(origin.name, models.list_models())
        raise ModelNotFoundError(f"torchvision has no model {origin.name!r}" + hint)
    builder = models.get_model_builder(origin.name)
    parameters = inspect.signature(builder).parameters
    fixed: dict[str, Any] = {"weights": "DEFAULT" if pretrained else None}
    if "weights_backbone" in parameters and "weights_backbone" not in origin.args:
        fixed["weights_backbone"] = None
    if origin.name in ("googlenet", "inception_v3") and not pretrained:
        fixed["init_weights"] = True
    weights = models.get_model_weights(origin.name)
    preset = getattr(getattr(weights, "DEFAULT", None), "transforms", None)
    settings = getattr(preset, "keywords", {})
    kind = _KINDS.get(getattr(getattr(preset, "func", preset), "__name__", ""), "image")
    side = settings.get("crop_size") or settings.get("resize_size") or _DETECTOR_SIDE
    sides = (side, side) if isinstance(side, int) else (tuple(side) * 2)[:2]
    if kind == "flow":
        sides = (128, 128)
    model = _call(builder, origin, **fixed)
    own = getattr(model, "image_size", None)  # a transformer's, whatever its weights were for
    if isinstance(own, int):
        sides = (own, own)
    return Built(model, origin, (3, *sides), kind)


_KINDS = {
    "ObjectDetection": "detection",
    "OpticalFlow": "flow",
    "VideoClassification": "video",
}


def _timm(origin: Origin, pretrained: bool) -> Built:
    timm = require("timm", wanted=str(origin))
    if not timm.is_model(origin.name) and ":" not in origin.name:
        raise ModelNotFoundError(
            f"timm has no model {origin.name!r}" + nearest(origin.name, timm.list_models())
        )
    model = _call(timm.create_model, origin, origin.name, pretrained=pretrained)
    return Built(model, origin, input_size_of(model))


def _factory(origin: Origin, pretrained: bool) -> Built:
    if pretrained:
        raise ModelError(f"{origin.name} is a factory: give it --model-arg or use --weights")
    path, _, attribute = origin.name.partition(":")
    if path.partition(".")[0] in sys.stdlib_module_names or not attribute:
        raise ModelNotFoundError(f"{origin.name!r} names no factory; write package.module:function")
    try:
        module = import_beside_torchvision(path)
    except ModuleNotFoundError as error:
        raise ModelNotFoundError(
            f"{origin.name}: no module {error.name!r} is installed or in this directory"
        ) from None
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"importing {path} fails ({_say(error)}); make the module importable"
        ) from error
    factory: Any = module
    for part in attribute.split("."):
        if not hasattr(factory, part):
            raise ModelNotFoundError(
                f"{path} has no {part!r}"
                + (nearest(part, dir(factory)) or "; write package.module:function")
            )
        factory = getattr(factory, part)
    model = factory if isinstance(factory, nn.Module) else None
    if model is None:
        if not callable(factory):
            kind = type(factory).__name__
            raise ModelError(f"{origin.name} is a {kind}, not a function that builds a model")
        model = _call(factory, origin)
    size = input_size_of(model)
    if size is not None:
        return Built(model, origin, size)
    size = _assumed_size(model)
    shape = "x".join(map(str, size or ()))
    note = f"input {shape} assumed; --input-size or --crop says otherwise" if size else ""
    return Built(model, origin, size, note=note, assumed=size is not None)


def _call(function: Callable[..., Any], origin: Origin, *args: Any, **fixed: Any) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = function(*args, **fixed, **dict(origin.args))
    except (Exception, SystemExit) as error:
        hint = "check --model-arg" if origin.args else "--model-arg KEY=VALUE passes arguments"
        if fixed.get("pretrained") or fixed.get("weights"):
            hint = "without a network connection give the weights by --weights FILE"
        raise ModelError(f"building {origin} fails ({_say(error)}); {hint}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{origin} gives a {type(model).__name__}, not a torch.nn.Module; "
            "let the factory return the network itself"
        )
    return model


def _say(error: BaseException) -> str:
    try:
        line = (str(error).strip().splitlines() or [""])[0]
    except Exception:  # a foreign exception may not even be able to describe itself
        line = ""
    return f"{type(error).__name__}: {line}"[:200].rstrip(".: ")


_BUILDERS: dict[str, Callable[[Origin, bool], Built]] = {
    "ghostify": _own,
    "torchvision": _torchvision,
    "timm": _timm,
    "factory": _factory,
}
