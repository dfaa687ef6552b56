"""The cheap operations: linear filters, learned or fixed, that turn intrinsic maps into ghosts.

Every operation filters each map on its own, so each has a d x d filter for each map that says
what it does: :func:`filters_of` gives it and :func:`set_filters` comes as near to a wanted one
as the operation can.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.cheap import CHEAP_COSTS, block_sizes
from ghostify.spec import GhostSpec

__all__ = [
    "CHEAP_OPERATIONS",
    "ChannelScale",
    "CheapOperation",
    "FixedFilters",
    "MixedKernels",
    "add_offsets",
    "affine",
    "build_branch",
    "depthwise",
    "draw_weights",
    "filters_of",
    "fixed_filters",
    "offsets_of",
    "set_filters",
]


class CheapOperation(Protocol):
    """Builds what turns ``channels`` intrinsic maps into as many ghosts.

    ``first`` is where among the operation's fixed filters the first map begins, if it has some.
    """

    def __call__(
        self, channels: int, kernel: int, *, bias: bool, first: int, device: Any, dtype: Any
    ) -> nn.Module: ...


class ChannelScale(nn.Module):
    """Multiply every map by a number of its own: the 1x1 depthwise convolution, without one.

    Runtimes have slow paths for 1x1 depthwise convolutions; a multiplication has none.
    ``(N, C, H, W)`` or ``(C, H, W)`` in, the same out. The weight keeps the shape
    ``(C, 1, 1, 1)`` of the convolution that it stands for.
    """

    def __init__(
        self, channels: int, *, bias: bool = False, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.in_channels = channels
        self.weight = nn.Parameter(torch.ones(channels, 1, 1, 1, device=device, dtype=dtype))
        shape = torch.zeros(channels, device=device, dtype=dtype)
        self.bias = nn.Parameter(shape) if bias else None

    def forward(self, maps: Tensor) -> Tensor:
        # The casts keep the maps' precision under autocast, which leaves products alone.
        scaled = maps * self.weight.view(-1, 1, 1).to(maps.dtype)
        if self.bias is None:
            return scaled
        return scaled + self.bias.view(-1, 1, 1).to(maps.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, bias={self.bias is not None}"


class FixedFilters(nn.Module):
    """Filter every map by one of a few fixed d x d filters, times a number that is learned.

    ``(N, C, H, W)`` or ``(C, H, W)`` in, the same out. The numbers are ``weight``,
    ``(C, 1, 1, 1)``; which filter a map has is part of the state (``filters``,
    ``(C, 1, d, d)``), for a fit chooses it. One depthwise convolution, even for a shift: slices
    of a padded copy, joined again, are slower more often than not.
    """

    filters: Tensor

    def __init__(
        self,
        channels: int,
        choices: Tensor,
        *,
        bias: bool = False,
        first: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_channels = channels
        self.kernel = math.isqrt(choices.shape[1])
        chosen = choices[torch.arange(first, first + channels) % len(choices)]
        self.weight = nn.Parameter(torch.ones(channels, 1, 1, 1, device=device, dtype=dtype))
        shaped = chosen.view(channels, 1, self.kernel, self.kernel).to(self.weight.detach())
        self.register_buffer("filters", shaped)
        shape = torch.zeros(channels, device=device, dtype=dtype)
        self.bias = nn.Parameter(shape) if bias else None

    def forward(self, maps: Tensor) -> Tensor:
        scaled = self.weight * self.filters
        return functional.conv2d(
            maps, scaled, self.bias, padding=self.kernel // 2, groups=self.in_channels
        )

    def extra_repr(self) -> str:
        return f"{self.in_channels}, kernel={self.kernel}, bias={self.bias is not None}"


class MixedKernels(nn.Module):
    """Branches for consecutive blocks of the maps, each with a kernel side of its own."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.in_channels = sum(map(_channels, blocks))

    def forward(self, maps: Tensor) -> Tensor:
        sizes = [_channels(block) for block in self.blocks]
        parts = maps.split(sizes, dim=-3)
        made = [block(part) for block, part in zip(self.blocks, parts, strict=True)]
        return torch.cat(made, dim=-3)


def depthwise(
    channels: int,
    kernel: int,
    *,
    bias: bool = False,
    first: int = 0,
    device: Any = None,
    dtype: Any = None,
) -> nn.Module:
    """Build one d x d linear filter per map (GhostNet, sec. 3.1); d = 1 is a multiplication.

    The weights hold nothing yet: :func:`draw_weights` draws them.
    """
    if kernel == 1:
        return ChannelScale(channels, bias=bias, device=device, dtype=dtype)
    return nn.utils.skip_init(  # type: ignore[no-any-return]
        nn.Conv2d,
        channels,
        channels,
        kernel,
        padding=kernel // 2,
        groups=channels,
        bias=bias,
        device=device,
        dtype=dtype,
    )


def affine(
    channels: int,
    kernel: int = 1,
    *,
    bias: bool = True,
    first: int = 0,
    device: Any = None,
    dtype: Any = None,
) -> nn.Module:
    """Build a scale and an offset per map; the offset is there whatever ``bias`` says."""
    return ChannelScale(channels, bias=True, device=device, dtype=dtype)


def fixed_filters(cheap: str, kernel: int) -> Tensor | None:
    """Return the filters among which an operation has to choose, ``(K, d * d)`` in float64.

    None where the filters are learned.
    """
    return _FILTERS[cheap](kernel) if cheap in _FILTERS else None


def build_branch(
    spec: GhostSpec, maps: int, *, bias: bool, first: int, device: Any, dtype: Any
) -> nn.Module:
    """Build the branch that makes ``maps`` ghosts by the operation of a setting."""
    build = CHEAP_OPERATIONS[spec.cheap]
    blocks: list[nn.Module] = []
    for side, size in zip(spec.kernels, block_sizes(maps, len(spec.kernels)), strict=True):
        if size:
            blocks.append(build(size, side, bias=bias, first=first, device=device, dtype=dtype))
    return blocks[0] if not spec.mixed else MixedKernels(blocks)


def draw_weights(branch: nn.Module, cheap: str, generator: torch.Generator | None = None) -> None:
    """Draw new weights: Kaiming normal for filters, one or minus one for scales, no offsets."""
    for block in _blocks(branch):
        weight = cast(Tensor, block.weight)
        if CHEAP_COSTS[cheap].learned is None:
            nn.init.kaiming_normal_(
                weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        else:
            with torch.no_grad():
                weight.uniform_(-1, 1, generator=generator)
                weight.copy_(torch.where(weight < 0, -1.0, 1.0))
        if block.bias is not None:
            nn.init.zeros_(cast(Tensor, block.bias))


def filters_of(branch: nn.Module, kernel: int = 1) -> Tensor:
    """Return the filters by which a branch makes its ghosts, ``(C, 1, d, d)``.

    d is the largest side in the branch, or ``kernel`` if that is larger; smaller filters stand
    in the middle of zeros.
    """
    if isinstance(branch, MixedKernels):
        side = max(kernel, *(filters_of(block).shape[-1] for block in branch.blocks))
        return torch.cat([filters_of(block, side) for block in branch.blocks])
    weight = cast(Tensor, branch.weight)
    filters = weight * branch.filters if isinstance(branch, FixedFilters) else weight
    edge = max(0, (kernel - filters.shape[-1]) // 2)
    return functional.pad(filters, [edge] * 4) if edge else filters


def set_filters(branch: nn.Module, cheap: str, filters: Tensor) -> None:
    """Let a branch make its ghosts by ``filters``, ``(C, d * d)``, or by the nearest it can.

    Of a larger filter than a mixed kernel's, its middle is taken.
    """
    side = math.isqrt(filters.shape[1])
    windows = filters.detach().view(-1, 1, side, side)
    start = 0
    with torch.no_grad():
        for block in _blocks(branch):
            weight, count = cast(Tensor, block.weight), _channels(block)
            own = block.kernel if isinstance(block, FixedFilters) else weight.shape[-1]
            edge = (side - own) // 2
            rows = windows[start : start + count, :, edge : edge + own, edge : edge + own]
            start += count
            if isinstance(block, FixedFilters):
                choices = fixed_filters(cheap, own)
                assert choices is not None
                choices = choices.to(rows.device)
                energies = choices.square().sum(1)
                scales = rows.flatten(1).double() @ choices.T / energies
                chosen = (scales.square() * energies).argmax(1)
                block.filters.copy_(choices[chosen].view_as(block.filters))
                weight.copy_(scales.gather(1, chosen[:, None]).view_as(weight))
            else:
                weight.copy_(rows)


def offsets_of(branch: nn.Module) -> Tensor | None:
    """Return a copy of the biases of a branch, ``(C,)``, or None if it has none."""
    offsets = [cast(Tensor | None, block.bias) for block in _blocks(branch)]
    held = [one.detach() for one in offsets if one is not None]
    return torch.cat(held) if held else None


def add_offsets(branch: nn.Module, values: Tensor) -> None:
    """Add numbers, ``(C,)``, to the biases of a branch."""
    with torch.no_grad():
        for block in _blocks(branch):
            count = _channels(block)
            cast(Tensor, block.bias).add_(values[:count].to(cast(Tensor, block.bias).dtype))
            values = values[count:]


def _blocks(branch: nn.Module) -> list[nn.Module]:
    return list(branch.blocks) if isinstance(branch, MixedKernels) else [branch]


def _channels(block: nn.Module) -> int:
    return cast(nn.Conv2d, block).in_channels


def _haar(kernel: int) -> Tensor:
    """The four bands of a 2 x 2 window, details first, in the lower right of a 3 x 3 one."""
    low, high = torch.tensor([0.5, 0.5]), torch.tensor([0.5, -0.5])
    bands = torch.zeros(4, 3, 3, dtype=torch.float64)
    for place, (rows, columns) in enumerate(((low, high), (high, low), (high, high), (low, low))):
        bands[place, 1:, 1:] = 2 * torch.outer(rows, columns)
    return bands.flatten(1)


def _displacements(kernel: int) -> Tensor:
    """All displacements within d x d, as filters; none at all comes last. Zeros come in."""
    taps = kernel * kernel
    middle = taps // 2
    order = [*range(middle), *range(middle + 1, taps), middle]
    return torch.eye(taps, dtype=torch.float64)[order]


def _gaussian(kernel: int) -> Tensor:
    """One filter of unit sum; sigma grows with d as in OpenCV's getGaussianKernel."""
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    places = torch.arange(kernel, dtype=torch.float64) - kernel // 2
    weights = torch.exp(-places.square() / (2 * sigma**2))
    weights = weights / weights.sum()
    return torch.outer(weights, weights).view(1, -1)


def _fixed(filters: Callable[[int], Tensor]) -> CheapOperation:
    """Return what builds a branch of the filters that ``filters`` gives for a side."""

    def build(
        channels: int,
        kernel: int,
        *,
        bias: bool = False,
        first: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> nn.Module:
        choices = filters(kernel)
        return FixedFilters(channels, choices, bias=bias, first=first, device=device, dtype=dtype)

    return build


_FILTERS: dict[str, Callable[[int], Tensor]] = {
    "wavelet": _haar,
    "shift": _displacements,
    "blur": _gaussian,
}

CHEAP_OPERATIONS: dict[str, CheapOperation] = {
    "depthwise": depthwise,
    "affine": affine,
    **{name: _fixed(filters) for name, filters in _FILTERS.items()},
}
"""Cheap operations by name; what they cost is in :data:`ghostify.cheap.CHEAP_COSTS`."""
