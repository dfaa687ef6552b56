"""Add the layers of a network to the new graph, for inputs in parts."""

from __future__ import annotations

import operator
from typing import cast

import torch
from torch import fx, nn

from ghostify.nn.cheap import ChannelScale, filters_of, offsets_of
from ghostify.nn.ghost import GhostModule
from ghostify.passes.layers import affine_of, convolution, grouped, map_filters
from ghostify.passes.layout import expands, ghost_layout
from ghostify.passes.parts import Affine, Builder, Layout, Parts
from ghostify.passes.settings import Passes
from ghostify.passes.trace import plain_convolution

__all__ = ["SUM", "add_convolution", "add_ghost", "add_norm"]

SUM = "ghostify_sum"
"""Marks the additions that join what convolutions have read from the parts."""


def add_convolution(
    builder: Builder,
    passes: Passes,
    conv: nn.Conv2d,
    name: str,
    value: Parts,
    layout: Layout | None,
) -> Parts:
    """Add a convolution that reads a value in parts and gives one in the parts of ``layout``."""
    if conv.groups > 1:
        return _add_grouped(builder, passes, conv, name, value)
    if not _reads_apart(passes, conv, value):
        value = builder.packed(value)
    rows = layout or (torch.arange(conv.out_channels),)
    weight = conv.weight.detach()
    made = []
    for place, outputs in enumerate(rows):
        total: fx.Node | None = None
        for number, (part, inputs) in enumerate(zip(value.nodes, value.layout, strict=True)):
            piece = weight[outputs.to(weight.device)][:, inputs.to(weight.device)]
            bias = conv.bias if number == 0 else None
            if bias is not None:
                bias = bias.detach()[outputs.to(weight.device)]
            suffix = f"_{place}" * (len(rows) > 1) + f"_from_{number}" * (len(value.nodes) > 1)
            layer = convolution(conv, piece, bias, groups=1)
            found = builder.module(name + suffix, layer, part)
            if total is not None:
                found = builder.call(operator.add, found, total)
                found.meta[SUM] = True
            total = found
        assert total is not None
        made.append(total)
    return Parts(tuple(made), rows)


def _reads_apart(passes: Passes, conv: nn.Conv2d, value: Parts) -> bool:
    """Return whether a convolution reads the parts of its input one by one."""
    if len(value.nodes) == 1:
        return True
    near = passes.readers and max(conv.kernel_size) <= passes.reach
    return near and min(map(len, value.layout)) >= passes.slim


def _add_grouped(
    builder: Builder, passes: Passes, conv: nn.Conv2d, name: str, value: Parts
) -> Parts:
    pieces = [grouped(conv, part) for part in value.layout] if passes.maps else [None]
    if not all(pieces):
        value = Parts.whole(builder.join(value), conv.in_channels)
        pieces = [grouped(conv, value.layout[0])]
    made = []
    for number, (part, piece) in enumerate(zip(value.nodes, pieces, strict=True)):
        assert piece is not None
        suffix = f"_{number}" * (len(pieces) > 1)
        made.append(builder.module(name + suffix, piece[0], part))
    return Parts(tuple(made), tuple(piece[1] for piece in pieces if piece is not None))


def add_ghost(
    builder: Builder,
    passes: Passes,
    ghost: GhostModule,
    name: str,
    value: Parts,
    layout: Layout | None,
) -> Parts | fx.Node:
    """Add a Ghost module, whose maps stay apart if there is a ``layout`` for them."""
    primary = ghost.primary
    if plain_convolution(primary):
        intrinsic = add_convolution(builder, passes, primary, f"{name}.primary", value, None)
        source = builder.join(intrinsic)
    else:
        whole = builder.join(value)
        source = builder.module(f"{name}.primary", primary, whole)
    if layout is None and expands(ghost, passes):
        return _add_expanded(builder, ghost, name, source)
    made = [source]
    for number, branch in enumerate(ghost.cheap):
        given = source
        if cast(nn.Conv2d, branch).in_channels < ghost.intrinsic_channels:
            given = builder.call(torch.narrow, source, 1, 0, branch.in_channels)
        made.append(_add_branch(builder, branch, f"{name}.cheap_{number}", given))
    parts = Parts(tuple(made), ghost_layout(ghost))
    return parts if layout is not None else builder.join(parts)


def _add_branch(builder: Builder, branch: nn.Module, name: str, given: fx.Node) -> fx.Node:
    if isinstance(branch, ChannelScale):
        scale = branch.weight.detach().flatten()
        shift = torch.zeros_like(scale) if branch.bias is None else branch.bias.detach()
        return builder.module(name, Affine(scale, shift), given)
    layer = map_filters(filters_of(branch).detach(), offsets_of(branch))
    return builder.module(name, layer, given)


def _add_expanded(builder: Builder, ghost: GhostModule, name: str, source: fx.Node) -> fx.Node:
    """Make all maps by one depthwise convolution over copies of the intrinsic ones."""
    weight = ghost.primary.weight.detach()
    side = ghost.kernel
    identity = weight.new_zeros(ghost.intrinsic_channels, 1, side, side)
    identity[:, :, side // 2, side // 2] = 1
    cheap = [filters_of(branch, side).detach() for branch in ghost.cheap]
    filters = torch.cat([identity, *cheap])
    bias = None
    offsets = [one for one in map(offsets_of, ghost.cheap) if one is not None]
    if offsets:
        bias = torch.cat([weight.new_zeros(ghost.intrinsic_channels), *offsets])
    rest = ghost.out_channels % ghost.intrinsic_channels
    copies = [source] * (ghost.out_channels // ghost.intrinsic_channels)
    if ghost.order is not None:
        order = ghost.order.cpu()
        copied = builder.select(source, order % ghost.intrinsic_channels)
        filters = filters[ghost.order]
        bias = None if bias is None else bias[ghost.order]
    else:
        if rest:
            copies.append(builder.call(torch.narrow, source, 1, 0, rest))
        copied = builder.call(torch.cat, copies, dim=1)
    layer = map_filters(filters, bias)
    return builder.module(f"{name}.cheap", layer, copied)


def add_norm(builder: Builder, norm: nn.Module, name: str, value: Parts, dims: int) -> Parts:
    """Add a batch norm as scales and shifts of the parts."""
    made = []
    for number, (part, channels) in enumerate(zip(value.nodes, value.layout, strict=True)):
        suffix = f"_{number}" * (len(value.nodes) > 1)
        layer = affine_of(norm, channels, dims)
        made.append(builder.module(name + suffix, layer, part))
    return Parts(tuple(made), value.layout)
