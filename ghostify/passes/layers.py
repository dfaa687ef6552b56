"""Layers of a new graph made from slices of a network's convolutions and linear layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ghostify.passes.parts import Affine

__all__ = ["affine_of", "convolution", "grouped", "linear", "map_filters", "scale_outputs"]


def convolution(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, *, groups: int) -> nn.Conv2d:
    """Return a convolution with the settings of ``conv``, other weights, and no gradients."""
    made: nn.Conv2d = nn.utils.skip_init(
        nn.Conv2d,
        weight.shape[1] * groups,
        weight.shape[0],
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=groups,
        bias=bias is not None,
        padding_mode=conv.padding_mode,
        device=weight.device,
        dtype=weight.dtype,
    )
    made.weight = _constant(weight)
    if bias is not None:
        made.bias = _constant(bias)
    return made.eval()


def map_filters(filters: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return the convolution that filters every map on its own, ``(C, 1, d, d)``."""
    made: nn.Conv2d = nn.utils.skip_init(
        nn.Conv2d,
        len(filters),
        len(filters),
        filters.shape[-1],
        padding=filters.shape[-1] // 2,
        groups=len(filters),
        bias=bias is not None,
        device=filters.device,
        dtype=filters.dtype,
    )
    made.weight = _constant(filters)
    if bias is not None:
        made.bias = _constant(bias)
    return made.eval()


def grouped(conv: nn.Conv2d, channels: Tensor) -> tuple[nn.Conv2d, Tensor] | None:
    """Return the part of a grouped convolution that reads these channels, and what it makes.

    None where the channels are not whole groups, one behind the other.
    """
    width, made = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    if len(channels) % width:
        return None
    rows = channels.reshape(-1, width)
    groups = rows[:, 0] // width
    if not torch.equal(rows // width, groups[:, None].expand_as(rows)):
        return None
    outputs = (groups[:, None] * made + torch.arange(made)).flatten()
    weight = conv.weight.detach()[outputs.to(conv.weight.device)]
    columns = (rows % width).repeat_interleave(made, dim=0).to(weight.device)
    weight = weight.gather(1, columns[:, :, None, None].expand_as(weight))
    bias = None if conv.bias is None else conv.bias.detach()[outputs.to(weight.device)]
    return convolution(conv, weight, bias, groups=len(groups)), outputs


def linear(layer: nn.Linear, columns: Tensor) -> nn.Linear:
    """Return a linear layer that reads its inputs in the given order."""
    made: nn.Linear = nn.utils.skip_init(
        nn.Linear,
        len(columns),
        layer.out_features,
        bias=layer.bias is not None,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    made.weight = _constant(layer.weight.detach()[:, columns.to(layer.weight.device)])
    if layer.bias is not None:
        made.bias = _constant(layer.bias.detach())
    return made.eval()


def affine_of(norm: Any, channels: Tensor, dims: int) -> Affine:
    """Return what a batch norm in eval mode does to some of its channels."""
    rows = channels.to(norm.running_mean.device)
    mean, variance = (one.detach()[rows].double() for one in (norm.running_mean, norm.running_var))
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach()[rows].double()
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach()[rows].double()
    dtype = norm.running_mean.dtype
    return Affine(scale.to(dtype), shift.to(dtype), dims)


def scale_outputs(layer: nn.Conv2d | nn.Linear, scale: Tensor, shift: Tensor | None) -> None:
    """Let a layer of the new graph give ``scale * output + shift``."""
    dtype = layer.weight.dtype
    wide = scale.double().flatten()
    sizes = (-1,) + (1,) * (layer.weight.dim() - 1)
    layer.weight = _constant((layer.weight.double() * wide.view(sizes)).to(dtype))
    bias = None if layer.bias is None else layer.bias.double() * wide
    if shift is not None:
        bias = shift.double().flatten() + (0 if bias is None else bias)
    if bias is not None:
        layer.bias = _constant(bias.to(dtype))


def _constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().clone(), requires_grad=False)
