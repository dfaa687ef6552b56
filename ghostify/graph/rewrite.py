"""Put Ghost modules into a deep copy of a network, where a plan says so."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.cost.budget import Cost
from ghostify.cost.closed_form import LayerCost
from ghostify.errors import PlanError, SpecError
from ghostify.graph.probe import check_model, copy_model
from ghostify.graph.sites import conv_shapes
from ghostify.nn.ghost import HOOKS, GhostModule
from ghostify.plan import Plan
from ghostify.rules import Skipped
from ghostify.spec import ConvSite, GhostSpec, Origin

__all__ = ["Conversion", "Replaced", "rewrite"]

_CONV_ATTRIBUTES = frozenset(vars(nn.Conv2d(1, 1, 1, device="meta")))


@dataclass(frozen=True, slots=True)
class Replaced:
    """A convolution that became a Ghost module."""

    name: str
    ratio: int
    kernel: int


@dataclass(frozen=True, slots=True)
class Conversion:
    """A converted network, and what was done to it.

    What follows ``skipped`` is known only where the conversion was also costed.
    """

    model: nn.Module
    plan: Plan
    replaced: tuple[Replaced, ...]
    skipped: tuple[Skipped, ...] = ()
    seed: int | None = None
    origin: Origin = field(default_factory=lambda: Origin("memory", "unknown"))
    input: tuple[str, ...] = ()  # shapes of the example
    sites: tuple[ConvSite, ...] = ()
    before: Cost | None = None
    after: Cost | None = None
    layers: tuple[LayerCost, ...] = ()  # the replaced ones
    notes: tuple[str, ...] = ()  # how the layers were found, what could not be counted or checked
    original: Mapping[str, Tensor] | None = None  # state of the network before, if it was trained
    images: Mapping[str, Any] | None = None  # how it wants its images, as plain values
    history: tuple[Mapping[str, Any], ...] = ()  # what was done to the weights, in order


def rewrite(
    model: nn.Module, plan: Plan, *, seed: int = 0, skipped: Sequence[Skipped] = ()
) -> Conversion:
    """Replace the planned convolutions in a copy of ``model``, which stays untouched.

    The copy has the model's own class, its state, hooks and mode; everything that the plan
    does not name is bit for bit the same. A convolution that is used in several places is
    replaced once; convolutions that share a weight become Ghost modules that share theirs.
    New weights are drawn for each layer from ``seed`` and the layer's name, so they do not
    depend on what else is converted.

    Raises:
        ModelError: the model cannot be copied.
        PlanError: the plan is for another network.
    """
    check_model(model)
    shapes = conv_shapes(model)
    plan.check(shapes, model=plan.model or type(model).__name__)
    _check_ties(model, plan)
    memo: dict[int, object] = {}
    ghosts: dict[str, tuple[nn.Conv2d, GhostModule]] = {}
    made: dict[int, tuple[nn.Conv2d, GhostModule]] = {}  # by the weight of the convolution
    for name, spec in plan.layers.items():
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)  # conv_shapes lists nothing else
        ghost = _ghost(conv, spec, name, seed)
        twin, first = made.setdefault(id(conv.weight), (conv, ghost))
        if first is not ghost:
            _share_weights(first, ghost, biases=twin.bias is conv.bias)
        memo[id(conv)] = ghost
        ghosts[name] = conv, ghost
    converted = copy_model(model, memo)
    for conv, ghost in ghosts.values():
        _take_over(conv, ghost, memo)
    replaced = tuple(Replaced(name, spec.ratio, spec.kernel) for name, spec in plan.layers.items())
    own_plan = Plan(plan.layers, model=plan.model or type(model).__name__, convs=shapes)
    origin = Origin("memory", f"{type(model).__module__}.{type(model).__qualname__}")
    return Conversion(converted, own_plan, replaced, tuple(skipped), seed=seed, origin=origin)


def _ghost(conv: nn.Conv2d, spec: GhostSpec, name: str, seed: int) -> GhostModule:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator(device=conv.weight.device)
    generator.manual_seed(int.from_bytes(digest[:8], "little"))
    try:
        return GhostModule.from_conv(conv, spec, generator=generator)
    except SpecError as error:
        raise PlanError(f"the plan asks for {spec} at {name}: {error}") from None


def _share_weights(first: GhostModule, second: GhostModule, *, biases: bool) -> None:
    parts = zip((second.primary, *second.cheap), (first.primary, *first.cheap), strict=True)
    for mine, theirs in parts:
        mine.weight = theirs.weight
        if biases:
            mine.bias = theirs.bias


def _take_over(conv: nn.Conv2d, ghost: GhostModule, memo: dict[int, object]) -> None:
    """Give the Ghost module the hooks of the convolution, and what its owner hung on it."""
    for hooks in HOOKS:
        setattr(ghost, hooks, copy.deepcopy(getattr(conv, hooks), memo))
    ghost._is_full_backward_hook = conv._is_full_backward_hook
    if type(conv) is nn.Conv2d:
        for name, value in vars(conv).items():
            if name not in _CONV_ATTRIBUTES and name not in vars(ghost):
                with contextlib.suppress(AttributeError):  # a property of the Ghost module
                    setattr(ghost, name, copy.deepcopy(value, memo))


def _check_ties(model: nn.Module, plan: Plan) -> None:
    """Make sure that convolutions which share a weight also share their settings."""
    seen: dict[int, tuple[str, GhostSpec | None]] = {}
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is None:
            continue
        spec = plan.layers.get(name)
        other, wanted = seen.setdefault(id(weight), (name, spec))
        if wanted != spec:
            raise PlanError(
                f"{other} and {name} share one weight, so the plan must treat them alike "
                f"(it says {wanted or 'keep'} and {spec or 'keep'})"
            )
