"""Intrinsic maps and their ghosts in one tensor, with less kept for the backward pass.

As plain operations, the intrinsic maps are kept twice in training: by themselves, for the
gradients of the cheap filters, and joined to their ghosts, by the batch norm behind. Here the
backward pass reads them from the joined maps, which are there anyway.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from ghostify.nn.cheap import ChannelScale, FixedFilters, filters_of
from ghostify.nn.order import in_order

__all__ = ["HOOKS", "join_lean", "joins_lean"]

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
"""Where a module keeps its hooks."""

_BRANCHES = (nn.Conv2d, ChannelScale, FixedFilters)


def joins_lean(primary: nn.Module, branches: Iterable[nn.Module], intrinsic: Tensor) -> bool:
    """Return whether :func:`join_lean` does what the plain operations would, and saves memory.

    Not so where nothing is kept for the intrinsic maps, where something hangs on one of the
    parts, and wherever torch traces, transforms or keeps tensors in a way of its own.
    """
    if torch.compiler.is_compiling() or torch._C._is_tracing() or not torch.is_grad_enabled():
        return False
    if type(intrinsic) is not Tensor or not intrinsic.requires_grad or intrinsic.dim() != 4:
        return False
    branches = tuple(branches)
    plain = type(primary) is nn.Conv2d and primary.weight.requires_grad
    if not plain or not all(type(branch) in _BRANCHES for branch in branches):
        return False
    if not any(cast(Tensor, branch.weight).requires_grad for branch in branches):
        return False
    for part in (primary, *branches):
        held = part.__dict__
        if any(map(held.__getitem__, HOOKS)):
            return False
    return not (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._autograd._top_saved_tensors_default_hooks(False)
    )


def join_lean(
    owner: Any,
    source: Tensor,
    primary: nn.Conv2d,
    branches: Iterable[nn.Module],
    intrinsic: Tensor,
    order: Tensor | None,
) -> Tensor:
    """Return the intrinsic maps and their ghosts, ``(N, n, H, W)``, in the order wanted.

    Args:
        owner: its ``lean`` is set to False in the backward pass if something has changed the
            joined maps in place. The intrinsic maps are computed again then, as they are for
            gradients of gradients.
        source: the input of the primary convolution.
    """
    dtype = intrinsic.dtype  # autocast's, which the filters of a product do not have
    branches = tuple(branches)
    filters = [filters_of(branch).to(dtype) for branch in branches]
    offsets = [cast(Tensor | None, branch.bias) for branch in branches]
    offsets = [None if one is None else one.to(dtype) for one in offsets]
    joined: Tensor = _Join.apply(  # type: ignore[no-untyped-call]  # torch's own
        owner, primary, order, intrinsic, source, primary.weight, primary.bias, *filters, *offsets
    )
    return joined


class _Join(torch.autograd.Function):
    """Cheap branches and concatenation; keeps the result, not what it was made from."""

    @staticmethod
    def forward(
        ctx: Any,
        owner: Any,
        primary: nn.Conv2d,
        order: Tensor | None,
        intrinsic: Tensor,
        source: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *values: Tensor | None,
    ) -> Tensor:
        filters, offsets = values[: len(values) // 2], values[len(values) // 2 :]
        maps = [intrinsic]
        for kernel, offset in zip(filters, offsets, strict=True):
            maps.append(_ghosts(intrinsic, cast(Tensor, kernel), offset))
        joined = torch.cat(maps, dim=1)
        if order is not None:
            joined = in_order(joined, order)
        ctx.owner, ctx.primary = owner, primary
        ctx.maps, ctx.dtype = intrinsic.shape[1], intrinsic.dtype
        ctx.joined = joined.detach()  # with the same version: changes in place can be seen
        ctx.version = ctx.joined._version
        ctx.biased = [offset is not None for offset in offsets]
        ctx.save_for_backward(order, source, weight, bias, *filters)
        return joined

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        order, source, weight, bias, *filters = ctx.saved_tensors
        places = None if order is None else torch.argsort(order)
        if places is not None:
            grad = in_order(grad, places)
        intrinsic = _intrinsic(ctx, places, source, weight, bias)
        total = grad.narrow(1, 0, ctx.maps)
        needs = ctx.needs_input_grad[7:]
        start = grad.shape[1]
        of_filters: list[Tensor | None] = []
        of_offsets: list[Tensor | None] = []
        for number, kernel in reversed(list(enumerate(filters))):  # as torch would add them up
            count = len(kernel)
            start -= count
            mask = [ctx.needs_input_grad[3], needs[number], needs[len(filters) + number]]
            of_maps, of_filter, of_offset = _pulled(
                grad.narrow(1, start, count), intrinsic.narrow(1, 0, count), kernel, mask
            )
            if of_maps is not None and count < ctx.maps:
                rest = total.narrow(1, count, ctx.maps - count)
                total = torch.cat([total.narrow(1, 0, count) + of_maps, rest], dim=1)
            elif of_maps is not None:
                again = torch.is_grad_enabled()  # gradients of gradients want what was there
                total = of_maps + total if again else of_maps.add_(total)
            of_filters.insert(0, of_filter)
            of_offsets.insert(0, of_offset)
        return (None, None, None, total, None, None, None, *of_filters, *of_offsets)


def _ghosts(maps: Tensor, kernel: Tensor, offset: Tensor | None) -> Tensor:
    count, side = len(kernel), kernel.shape[-1]
    used = maps.narrow(1, 0, count) if count < maps.shape[1] else maps
    if side > 1:
        return functional.conv2d(used, kernel, offset, padding=side // 2, groups=count)
    scaled = used * kernel.view(-1, 1, 1)
    return scaled if offset is None else scaled + offset.view(-1, 1, 1)


def _pulled(
    grad: Tensor, maps: Tensor, kernel: Tensor, mask: list[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of the maps, the filters and the offsets, those that are wanted."""
    count, side = len(kernel), kernel.shape[-1]
    if side > 1:
        pad = [side // 2, side // 2]
        found: tuple[Tensor | None, Tensor | None, Tensor | None]
        found = torch.ops.aten.convolution_backward(
            grad, maps, kernel, [count], [1, 1], pad, [1, 1], False, [0, 0], count, mask
        )
        return found
    return (
        grad * kernel.view(-1, 1, 1) if mask[0] else None,
        (grad * maps).sum((0, 2, 3)).view_as(kernel) if mask[1] else None,
        grad.sum((0, 2, 3)) if mask[2] else None,
    )


def _intrinsic(
    ctx: Any, places: Tensor | None, source: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Return the intrinsic maps: out of the joined ones, or computed once more."""
    overwritten = ctx.joined._version != ctx.version
    if overwritten:
        ctx.owner.lean = False
    if overwritten or torch.is_grad_enabled():
        bias = None if bias is None else bias.to(ctx.dtype)
        again: Tensor = ctx.primary._conv_forward(source.to(ctx.dtype), weight.to(ctx.dtype), bias)
        return again
    if places is not None:
        return in_order(ctx.joined, places[: ctx.maps])
    return cast(Tensor, ctx.joined.narrow(1, 0, ctx.maps))
