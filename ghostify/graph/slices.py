"""Fewer maps: cut the layers of a network down to the maps that are kept, by their indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import PlanError
from ghostify.graph.probe import copy_model
from ghostify.nn.cheap import MixedKernels, filters_of
from ghostify.nn.ghost import GhostModule

__all__ = ["Kept", "Slices", "cut", "read_slices", "slices_as_json"]


@dataclass(frozen=True, slots=True)
class Kept:
    """The maps that a layer keeps, ascending; None stands for all of them."""

    out: tuple[int, ...] | None = None  # of those that it gives
    reads: tuple[int, ...] | None = None  # of those that it reads


Slices = Mapping[str, Kept]
"""What is kept of each layer that loses maps, by its name."""


def cut(model: nn.Module, slices: Slices) -> nn.Module:
    """Return a copy of a network without the maps that ``slices`` leaves out.

    The copy has the model's own class, hooks and mode, and the remaining weights. Layers may
    be convolutions without groups, depthwise ones, linear layers, batch norms, PReLU and
    Ghost modules.

    Raises:
        ModelError: the model cannot be copied.
        PlanError: the network has no such layer or not so many maps, or it cannot lose them.
    """
    narrowed = copy_model(model)
    modules = dict(narrowed.named_modules())
    for name, kept in slices.items():
        module = modules.get(name)
        if module is None:
            raise PlanError(f"maps are to be cut from {name!r}, which the network does not have")
        _narrow(module, kept, name)
    return narrowed


def slices_as_json(slices: Slices) -> dict[str, dict[str, str]]:
    """Return plain values; indices are written in ranges, such as ``"0-3,7,9-10"``."""
    return {
        name: {
            side: _ranges(indices)
            for side, indices in (("out", kept.out), ("reads", kept.reads))
            if indices is not None
        }
        for name, kept in slices.items()
    }


def read_slices(value: object) -> dict[str, Kept]:
    """Read what :func:`slices_as_json` gave.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"slices map layers to indices (got {value!r})")
    return {
        str(name): Kept(**{side: _indices(text) for side, text in sides.items()})
        for name, sides in value.items()
    }


def _ranges(indices: Sequence[int]) -> str:
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in parts)


def _indices(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        found += range(int(low), int(high or low) + 1)
    return tuple(found)


def _narrow(module: nn.Module, kept: Kept, name: str) -> None:
    """Cut one layer, in place."""
    layer: Any = module
    given, read = _channels(module)
    for indices, count, what in ((kept.out, given, "gives"), (kept.reads, read, "reads")):
        if indices is None:
            continue
        if list(indices) != sorted(set(indices)) or not indices or indices[-1] >= count:
            raise PlanError(
                f"{name} {what} {count} maps, of which some and at least one must be kept in "
                f"order (got {_ranges(indices)[:60]!r}); the slices are another network's"
            )
    if isinstance(module, GhostModule):
        _narrow_ghost(module, kept, name)
    elif isinstance(module, nn.Conv2d | nn.Linear):
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            if not module.groups == module.in_channels == module.out_channels:
                raise PlanError(f"{name} is a grouped convolution, which cannot lose maps")
            if kept.out is None or kept.reads not in (None, kept.out):
                raise PlanError(f"{name} is depthwise: it keeps the maps of its input")
            _select(module, kept.out, None)
            layer.groups = layer.in_channels = layer.out_channels = len(kept.out)
            return
        _select(module, kept.out, kept.reads)
        sides = ("out_channels", "in_channels")
        if isinstance(module, nn.Linear):
            sides = ("out_features", "in_features")
        for side, indices in zip(sides, (kept.out, kept.reads), strict=True):
            if indices is not None:
                setattr(module, side, len(indices))
    elif kept.out is not None:
        _select(module, kept.out, None)
        for count_name in ("num_features", "num_parameters"):
            if hasattr(module, count_name):
                setattr(module, count_name, len(kept.out))


def _channels(module: nn.Module) -> tuple[int, int]:
    """Return how many maps a layer gives and reads."""
    layer: Any = module
    if isinstance(module, GhostModule | nn.Conv2d):
        return layer.out_channels, layer.in_channels
    if isinstance(module, nn.Linear):
        return layer.out_features, layer.in_features
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return layer.num_features, 0
    if isinstance(module, nn.PReLU):
        return layer.num_parameters, 0
    raise PlanError(f"a {type(module).__name__} cannot lose maps; keep the layer in front of it")


def _select(module: nn.Module, out: Sequence[int] | None, reads: Sequence[int] | None) -> None:
    """Keep some entries of every parameter and buffer that has one for each map."""
    given, _ = _channels(module)
    for held in (module._parameters, module._buffers):
        for name, value in list(held.items()):
            if value is not None and value.dim() and len(value) == given:
                setattr(module, name, _chosen(value, out, reads))


def _chosen(value: Tensor, out: Sequence[int] | None, reads: Sequence[int] | None) -> Tensor:
    fresh = value.detach()
    for axis, indices in enumerate((out, reads)):
        if indices is not None and axis < value.dim():
            fresh = fresh.index_select(axis, torch.tensor(list(indices), device=value.device))
    if fresh.dim() == 4 and not value.is_contiguous():
        fresh = fresh.to(memory_format=torch.channels_last)
    fresh = fresh.clone()
    if isinstance(value, nn.Parameter):
        return nn.Parameter(fresh, requires_grad=value.requires_grad)
    return fresh


def _narrow_ghost(ghost: GhostModule, kept: Kept, name: str) -> None:
    _narrow(ghost.primary, Kept(reads=kept.reads), f"{name}.primary")
    ghost.in_channels = ghost.primary.in_channels
    if kept.out is None:
        return
    order = list(range(ghost.out_channels)) if ghost.order is None else ghost.order.tolist()
    made = sorted(order[position] for position in kept.out)  # as the module makes them
    count = ghost.intrinsic_channels
    intrinsic = [index for index in made if index < count]
    branches = []
    for place, branch in enumerate(ghost.cheap):
        maps = len(filters_of(branch))
        begin = count * (place + 1)
        wanted = [index for index in intrinsic if index < maps]
        if [index - begin for index in made if begin <= index < begin + maps] != wanted:
            raise PlanError(
                f"{name} is a Ghost module: a map can only go together with all its ghosts"
            )
        if wanted:
            _narrow_branch(branch, wanted)
            branches.append(branch)
    _narrow(ghost.primary, Kept(out=tuple(intrinsic)), f"{name}.primary")
    ghost.cheap = nn.ModuleList(branches)
    ghost.out_channels = len(made)
    if ghost.order is not None:
        ranks = {index: rank for rank, index in enumerate(made)}
        fresh = [ranks[order[position]] for position in kept.out]
        ghost.order = None
        if fresh != list(range(len(fresh))):
            ghost.reorder(torch.tensor(fresh))


def _narrow_branch(branch: nn.Module, wanted: Sequence[int]) -> None:
    """Keep some maps of what makes ghosts of an intrinsic map each."""
    part: Any = branch
    if isinstance(branch, MixedKernels):
        begin, blocks = 0, []
        for block in branch.blocks:
            count = len(filters_of(block))
            inside = [index - begin for index in wanted if begin <= index < begin + count]
            begin += count
            if inside:
                _narrow_branch(block, inside)
                blocks.append(block)
        part.blocks = nn.ModuleList(blocks)
    else:
        count = part.in_channels
        for held in (branch._parameters, branch._buffers):
            for name, value in list(held.items()):
                if value is not None and value.dim() and len(value) == count:
                    setattr(branch, name, _chosen(value, wanted, None))
    part.in_channels = len(wanted)
    if isinstance(branch, nn.Conv2d):
        part.out_channels = part.groups = len(wanted)
