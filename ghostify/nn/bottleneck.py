"""GhostNet's building block: two Ghost modules with batch norms of their own, around a shortcut."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ghostify.errors import SpecError
from ghostify.nn.cheap import build_branch, draw_weights
from ghostify.spec import GhostSpec

__all__ = ["GhostBottleneck", "NormedGhost", "SqueezeExcite", "conv_norm"]


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    relu: bool = True,
) -> nn.Sequential:
    """Build a convolution that keeps the size at stride 1, its batch norm, and a ReLU if wanted."""
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=False,
    )
    return _normed(conv, out_channels, relu=relu)


class NormedGhost(nn.Module):
    """The Ghost module of GhostNet: batch norm, and ReLU if wanted, follow each of its parts.

    ``(N, C, H, W)`` in, ``(N, out_channels, H', W')`` out. The cheap branches read the
    intrinsic maps *after* batch norm and ReLU; those of
    :class:`ghostify.nn.ghost.GhostModule`, which stands for one bare convolution, read them
    before. Both have the same m = ceil(n / s), cheap operations and order of maps, by branch.

    Args:
        spec: s, at most ``out_channels``, d and the cheap operation.
        primary_kernel: side of the primary filters.
        relu: whether ReLU follows the batch norms.

    Raises:
        SpecError: more ghosts are asked for than there are maps to make.

    Source: GhostNet, fig. 2b and 3; the authors' network.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        spec: GhostSpec = GhostSpec(),  # noqa: B008  # it is frozen
        primary_kernel: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        if spec.ratio > out_channels:
            raise SpecError(
                f"NormedGhost.spec.ratio (s) must be at most out_channels ({out_channels}) "
                f"(got {spec.ratio}); choose a smaller ratio or a wider network"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.spec = spec
        intrinsic = spec.intrinsic_maps(out_channels)
        self.intrinsic_channels = intrinsic
        self.primary = conv_norm(in_channels, intrinsic, primary_kernel, relu=relu)
        full, rest = divmod(out_channels - intrinsic, intrinsic)
        self._branch_maps = [intrinsic] * full + [rest] * (rest > 0)
        weight = next(self.primary.parameters())
        self.cheap = nn.ModuleList()
        for number, maps in enumerate(self._branch_maps):
            branch = build_branch(
                spec, maps, bias=False, first=number, device=weight.device, dtype=weight.dtype
            )
            draw_weights(branch, spec.cheap)
            self.cheap.append(_normed(branch, maps, relu=relu))

    def forward(self, x: Tensor) -> Tensor:
        intrinsic = self.primary(x)
        maps = [intrinsic]
        for channels, branch in zip(self._branch_maps, self.cheap, strict=True):
            whole = channels == self.intrinsic_channels
            maps.append(branch(intrinsic if whole else intrinsic.narrow(1, 0, channels)))
        return torch.cat(maps, dim=1)


class SqueezeExcite(nn.Module):
    """Scale every map by a gate between 0 and 1 that is computed from the means of all maps.

    ``(N, C, H, W)`` in, the same out. The gate is a hard sigmoid, ``relu6(x + 3) / 6``.

    Args:
        reduced: maps between the two 1x1 convolutions.

    Source: Hu et al. (2018), with the hard sigmoid of MobileNetV3.
    """

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.relu = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        means = self.relu(self.reduce(self.pool(x)))
        return x * self.gate(self.expand(means))  # type: ignore[no-any-return]


class GhostBottleneck(nn.Module):
    """Expand by a Ghost module, narrow by a second one without ReLU, and add the shortcut.

    ``(N, C, H, W)`` in, ``(N, out_channels, ceil(H / stride), ceil(W / stride))`` out. With a
    stride of 2 a depthwise convolution with batch norm stands between the two modules. Where
    the shape changes, the shortcut is a depthwise convolution of the same stride and a 1x1
    convolution, each with batch norm; elsewhere it is the input itself.

    Args:
        expanded: maps between the two modules.
        stride: 1 or 2.
        depthwise_kernel: side of the depthwise filters of the stride and of the shortcut, odd.
        squeezed: maps inside the squeeze-and-excitation before the second module; 0 for none.
        spec: s, d and the cheap operation of both modules.

    Raises:
        SpecError: an impossible stride or kernel, or a ratio that is too large.

    Source: GhostNet, sec. 3.2, fig. 3.
    """

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        *,
        stride: int = 1,
        depthwise_kernel: int = 3,
        squeezed: int = 0,
        spec: GhostSpec = GhostSpec(),  # noqa: B008  # it is frozen
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise SpecError(f"GhostBottleneck.stride must be 1 or 2 (got {stride})")
        if depthwise_kernel < 1 or depthwise_kernel % 2 == 0:
            raise SpecError(
                f"GhostBottleneck.depthwise_kernel must be odd (got {depthwise_kernel})"
            )
        self.stride = stride
        self.ghost1 = NormedGhost(in_channels, expanded, spec=spec)
        self.depthwise: nn.Module = nn.Identity()
        if stride > 1:
            self.depthwise = conv_norm(
                expanded, expanded, depthwise_kernel, stride=stride, groups=expanded, relu=False
            )
        self.se: nn.Module = SqueezeExcite(expanded, squeezed) if squeezed else nn.Identity()
        self.ghost2 = NormedGhost(expanded, out_channels, spec=spec, relu=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            spatial = conv_norm(
                in_channels,
                in_channels,
                depthwise_kernel,
                stride=stride,
                groups=in_channels,
                relu=False,
            )
            pointwise = conv_norm(in_channels, out_channels, 1, relu=False)
            self.shortcut = nn.Sequential(
                OrderedDict([("depthwise", spatial), ("pointwise", pointwise)])
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.ghost2(self.se(self.depthwise(self.ghost1(x))))
        return out + self.shortcut(x)  # type: ignore[no-any-return]


def _normed(layer: nn.Module, channels: int, *, relu: bool) -> nn.Sequential:
    parts: list[tuple[str, nn.Module]] = [("conv", layer), ("norm", nn.BatchNorm2d(channels))]
    if relu:
        parts.append(("relu", nn.ReLU(inplace=True)))
    return nn.Sequential(OrderedDict(parts))
