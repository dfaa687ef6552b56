"""Put Ghost modules into a deep copy of a network, and cut maps away, where a plan says so."""

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
from ghostify.graph.slices import Slices, cut, read_slices, slices_as_json
from ghostify.nn.ghost import HOOKS, GhostModule
from ghostify.plan import Plan
from ghostify.rules import Skipped
from ghostify.spec import ConvSite, GhostSpec, LayerSpec, Origin

__all__ = [
    "Conversion",
    "Replaced",
    "Stage",
    "read_stages",
    "rebuilt",
    "rewrite",
    "stages_as_json",
]

Stage = Plan | Slices
"""One step from the base network: Ghost modules by a plan, or maps that are cut away."""

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
    slices: Slices = field(default_factory=dict)  # what layers keep that have lost maps
    stages: tuple[Stage, ...] = ()  # how to come from the base to the model, where maps were cut

    @property
    def changed(self) -> tuple[str, ...]:
        """The convolutions that became Ghost modules, lost maps, or read fewer of them."""
        ghosts = {one.name for one in self.replaced}
        pruned = set(self.slices)
        known = [site.name for site in self.sites]
        found = ghosts | (pruned & (set(known) | set(self.plan.layers)))
        return tuple(sorted(found, key=lambda name: known.index(name) if name in known else -1))


def rewrite(
    model: nn.Module,
    plan: Plan,
    *,
    seed: int = 0,
    skipped: Sequence[Skipped] = (),
    slices: Slices | None = None,
) -> Conversion:
    """Replace the planned convolutions in a copy of ``model``, which stays untouched.

    The copy has the model's own class, its state, hooks and mode; everything that the plan
    does not name is bit for bit the same. A convolution that is used in several places is
    replaced once; convolutions that share a weight become Ghost modules that share theirs.
    New weights are drawn for each layer from ``seed`` and the layer's name, so they do not
    depend on what else is converted.

    Args:
        slices: what each layer keeps, for a plan that prunes
            (:func:`ghostify.pruners.planned.choose_maps`); the maps go first.

    Raises:
        ModelError: the model cannot be copied.
        PlanError: the plan is for another network, or prunes and ``slices`` are missing.
    """
    check_model(model)
    shapes = conv_shapes(model)
    kind = type(model)
    plan.check(shapes, model=plan.model or kind.__name__)
    _check_ties(model, plan)
    if plan.prunes and slices is None:
        raise PlanError(
            "the plan prunes layers, and which maps go is not said; convert with "
            "ghostify.convert, which chooses them"
        )
    if slices:
        model = cut(model, slices)
    memo: dict[int, object] = {}
    ghosts: dict[str, tuple[nn.Conv2d, GhostModule]] = {}
    made: dict[int, tuple[nn.Conv2d, GhostModule]] = {}  # by the weight of the convolution
    for name, spec in plan.ghosts.items():
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
    replaced = tuple(Replaced(name, spec.ratio, spec.kernel) for name, spec in plan.ghosts.items())
    own_plan = Plan(plan.layers, model=plan.model or kind.__name__, convs=shapes)
    return Conversion(
        converted,
        own_plan,
        replaced,
        tuple(skipped),
        seed=seed,
        origin=Origin("memory", f"{kind.__module__}.{kind.__qualname__}"),
        slices=slices or {},
        stages=(dict(slices), Plan(dict(plan.ghosts))) if slices else (),
    )


def rebuilt(model: nn.Module, stages: Sequence[Stage]) -> nn.Module:
    """Bring a base network into the form that it had after these stages; weights are new.

    Raises:
        PlanError: a stage is for another network.
    """
    for stage in stages:
        model = rewrite(model, stage).model if isinstance(stage, Plan) else cut(model, stage)
    return model


def stages_as_json(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Return stages as plain values."""
    return [
        {"ghosts": stage.as_json()["layers"]}
        if isinstance(stage, Plan)
        else {"slices": slices_as_json(stage)}
        for stage in stages
    ]


def read_stages(value: Sequence[Mapping[str, Any]], *, where: str) -> tuple[Stage, ...]:
    """Read what :func:`stages_as_json` gave.

    Raises:
        PlanError: settings that cannot be.
        ValueError: it is something else.
    """
    return tuple(
        Plan.from_json({"layers": stage["ghosts"]}, where=where)
        if "ghosts" in stage
        else read_slices(stage["slices"])
        for stage in value
    )


def _ghost(conv: nn.Conv2d, spec: GhostSpec, name: str, seed: int) -> GhostModule:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator(device=conv.weight.device)
    generator.manual_seed(int.from_bytes(digest[:8], "little"))
    try:
        return GhostModule.from_conv(conv, spec, generator=generator)
    except SpecError as error:
        raise PlanError(f"the plan asks for {spec} at {name}: {error}") from None


def _share_weights(first: GhostModule, second: GhostModule, *, biases: bool) -> None:
    """Let two modules have the same filters, fixed ones included; offsets only if asked to."""
    theirs = (first.primary, *first.cheap.modules())
    for mine, other in zip((second.primary, *second.cheap.modules()), theirs, strict=True):
        for name in ("weight", "filters", *(["bias"] if biases else [])):
            if hasattr(mine, name):
                setattr(mine, name, getattr(other, name))


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
    seen: dict[int, tuple[str, LayerSpec | None]] = {}
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
