"""The weights of a Ghost module that come closest to a trained convolution: pure algebra.

All sums are over the positions of a stream of batches, taken in float64 from batch to batch,
so nothing depends on how the stream is cut. Where the batch norm behind, or a bias, takes up an
``offset`` per output map, a fit leaves it free, and all second moments are central.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.graph.cheap_fit import DAMPING, best_filters, ghost_sides
from ghostify.graph.pairing import Pairing
from ghostify.nn import cheap as operations
from ghostify.nn.ghost import GhostModule

__all__ = [
    "DAMPING",
    "PairSums",
    "Stream",
    "fit_branches",
    "inherit",
    "misses",
    "patches",
    "pieces",
    "set_filters",
    "zeros",
]

Stream = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Gives (input, target) of a layer, anew at each call: ``(N, C, H, W)`` and ``(N, n, H', W')``."""

_LIGHT = 1e-7  # where the sums are in float64 throughout: a true ghost is found to 1e-6

_ELEMENTS = 1 << 25  # of one unfolded piece of a batch


def patches(maps: Tensor, kernel: int) -> Tensor:
    """Return zero-padded d x d neighbourhoods: ``(N, C, H, W)`` to ``(C, d * d, N * H * W)``."""
    batch, channels = maps.shape[:2]
    unfolded = functional.unfold(maps, kernel, padding=kernel // 2)
    shaped = unfolded.view(batch, channels, kernel * kernel, -1)
    return shaped.permute(1, 2, 0, 3).reshape(channels, kernel * kernel, -1)


class PairSums:
    """What it takes to know how well each map follows from each other by one d x d filter.

    All sums are taken about the means of the first piece, which changes no central moment but
    keeps the products' rounding small where means are large beside the spread.

    Memory: ``n * d * d * n`` numbers, or less where only ``sources`` of the maps are to be read
    at a time. Source: the redundancy analysis of GhostNet, sec. 4.1.1, with the filter solved for
    in closed form.
    """

    def __init__(
        self,
        maps: int,
        kernel: int,
        *,
        sources: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.kernel = kernel
        taps = kernel * kernel
        read = maps if sources is None else sources
        self.count = 0
        self._origin: tuple[Tensor, Tensor] | None = None
        self.gram = zeros(read, taps, taps, device=device)
        self.cross = zeros(read, taps, maps, device=device)
        self.first = zeros(read, taps, device=device)
        self.mean = zeros(maps, device=device)
        self.energy = zeros(maps, device=device)

    def add(self, maps: Tensor) -> None:
        """Take in a batch ``(N, n, H, W)`` of the original convolution's output."""
        channels = maps.shape[1]
        for part in pieces(maps, self.kernel**2):
            near = patches(part, self.kernel)
            self.take(near, part.transpose(0, 1).reshape(channels, -1))

    def take(self, near: Tensor, flat: Tensor) -> None:
        """Take in the surroundings of P places ``(sources, d * d, P)``, and the maps ``(n, P)``."""
        if self._origin is None:
            self._origin = near.mean(2, keepdim=True), flat.mean(1, keepdim=True)
        near, flat = near - self._origin[0], flat - self._origin[1]
        self.count += flat.shape[1]
        self.gram += torch.bmm(near, near.transpose(1, 2)).double()
        rows = near.reshape(-1, near.shape[2])
        self.cross += (rows @ flat.T).double().view_as(self.cross)
        self.first += near.sum(2, dtype=torch.float64)
        self.mean += flat.sum(1, dtype=torch.float64)
        self.energy += flat.square().sum(1, dtype=torch.float64)

    def central(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the second moments about the means.

        Those of the patches ``(sources, d * d, d * d)``, of patches and maps
        ``(sources, d * d, n)``, and the variances of the maps ``(n,)``.
        """
        count = max(self.count, 1)
        first, mean = self.first / count, self.mean / count
        gram = self.gram / count - first[:, :, None] * first[:, None, :]
        cross = self.cross / count - first[:, :, None] * mean
        return gram, cross, (self.energy / count - mean.square()).clamp_min(0)

    def means(self) -> tuple[Tensor, Tensor]:
        """Return the means of the patches ``(sources, d * d)`` and of the maps ``(n,)``."""
        count = max(self.count, 1)
        first, mean = self.first / count, self.mean / count
        if self._origin is not None:
            first = first + self._origin[0].squeeze(2).double()
            mean = mean + self._origin[1].squeeze(1).double()
        return first, mean

    def solve(
        self, *, offset: bool = True, cheap: str = "depthwise", side: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return all filters ``(n, d * d, n)`` and their mean squared errors ``(n, n)``.

        Entry ``[i, ..., g]`` makes map g from map i, by the best filter that the cheap operation
        has (of a smaller ``side`` than d, if that is given). Filters are damped by 1e-4 of the
        mean energy, so that a dead map gives zeros and no failure.
        """
        gram, cross, variance = self.central()
        if not offset:  # moments about zero
            first, mean = self.means()
            gram = gram + first[:, :, None] * first[:, None, :]
            cross = cross + first[:, :, None] * mean
            variance = variance + mean.square()
        filters = best_filters(
            gram, cross, cheap=cheap, kernel=self.kernel, side=side or self.kernel
        )
        explained = 2 * (filters * cross).sum(1) - (filters * (gram @ filters)).sum(1)
        return filters, (variance - explained).clamp_min(0)


def inherit(
    ghost: GhostModule, conv: nn.Conv2d, pairing: Pairing, reads: Sequence[int] | None = None
) -> None:
    """Give the primary convolution the filters of the chosen maps, for the maps it reads."""
    kept = torch.tensor(pairing.intrinsic, device=conv.weight.device)
    theirs = dict(conv.named_parameters()) | dict(conv.named_buffers())
    with torch.no_grad():
        for name, mine in (*ghost.primary.named_parameters(), *ghost.primary.named_buffers()):
            other = theirs[name]
            if reads is not None and other.dim() == 4:
                other = other[:, torch.tensor(list(reads), device=other.device)]
            same = other.shape == mine.shape
            mine.copy_(other if same else other[kept])


def set_filters(ghost: GhostModule, filters: Tensor) -> None:
    """Put the filters ``(n - m, d * d)`` of all ghosts into the branches."""
    start = 0
    with torch.no_grad():
        for branch in ghost.cheap:
            count: int = branch.in_channels  # type: ignore[assignment]
            operations.set_filters(branch, ghost.cheap_operation, filters[start : start + count])
            start += count


def fit_branches(
    ghost: GhostModule, pairing: Pairing, stream: Stream, *, offset: bool = True
) -> None:
    """Fit every ghost's filter to what the primary convolution now makes (least squares)."""
    taps, maps = ghost.kernel**2, ghost.intrinsic_channels
    ghosts = torch.tensor(pairing.ghosts, device=ghost.weight.device)
    branches = math.ceil(len(ghosts) / maps)
    gram = zeros(maps, taps, taps, device=ghost.weight.device)
    first = zeros(maps, taps, device=ghost.weight.device)
    cross = zeros(maps, taps, branches, device=ghost.weight.device)
    mean = zeros(maps, branches, device=ghost.weight.device)
    origin: tuple[Tensor, Tensor] | None = None  # as in PairSums
    count = 0
    missing = branches * maps - len(ghosts)
    with torch.no_grad():
        for source, target in stream():
            made = ghost.primary(source)
            wanted = target[:, ghosts]
            if missing:
                wanted = functional.pad(wanted, (0, 0, 0, 0, 0, missing))
            for some, aims in zip(pieces(made, taps), wanted.split(_each(made, taps)), strict=True):
                near = patches(some, ghost.kernel).double()
                flat = aims.transpose(0, 1).reshape(branches, maps, -1).transpose(0, 1).double()
                if origin is None:
                    origin = near.mean(2, keepdim=True), flat.mean(2, keepdim=True)
                near, flat = near - origin[0], flat - origin[1]
                count += flat.shape[2]
                gram += torch.bmm(near, near.transpose(1, 2))
                cross += torch.bmm(near, flat.transpose(1, 2))
                first += near.sum(2)
                mean += flat.sum(2)
    first, mean = first / count, mean / count
    gram = gram / count - first[:, :, None] * first[:, None, :]
    cross = cross / count - first[:, :, None] * mean[:, None, :]
    if not offset and origin is not None:  # moments about zero
        first, mean = first + origin[0].squeeze(2), mean + origin[1].squeeze(2)
        gram = gram + first[:, :, None] * first[:, None, :]
        cross = cross + first[:, :, None] * mean[:, None, :]
    sides = torch.tensor(ghost_sides(ghost.spec.kernels, len(ghosts), maps), device=ghosts.device)
    flat_filters = torch.zeros(len(ghosts), taps, dtype=torch.float64, device=ghosts.device)
    for side in ghost.spec.kernels:
        filters = best_filters(
            gram, cross, cheap=ghost.cheap_operation, kernel=ghost.kernel, side=side,
            damping=_LIGHT,
        )  # fmt: skip
        all_of_them = filters.permute(2, 0, 1).reshape(branches * maps, taps)[: len(ghosts)]
        flat_filters = torch.where((sides == side)[:, None], all_of_them, flat_filters)
    set_filters(ghost, flat_filters.to(ghost.weight.dtype))


def misses(ghost: GhostModule, pairing: Pairing, stream: Stream) -> tuple[Tensor, Tensor, Tensor]:
    """Return per map, as it is made: mean and variance of the miss, variance of the target."""
    made = torch.tensor(pairing.made, device=ghost.weight.device)
    sums = [torch.zeros(len(made), dtype=torch.float64, device=made.device) for _ in range(4)]
    count = 0
    with torch.no_grad():
        for source, target in stream():
            aim = target[:, made]
            miss = ghost(source) - aim
            count += len(miss) * miss.shape[-2] * miss.shape[-1]
            for total, value in zip(sums, (miss, miss.square(), aim, aim.square()), strict=True):
                total += value.sum((0, 2, 3), dtype=torch.float64)
    mean, square, theirs, energy = (total / count for total in sums)
    return mean, (square - mean.square()).clamp_min(0), (energy - theirs.square()).clamp_min(0)


def zeros(*shape: int, device: torch.device | None) -> Tensor:
    """Return an empty sum, in float64."""
    return torch.zeros(shape, dtype=torch.float64, device=device)


def pieces(maps: Tensor, factor: int) -> tuple[Tensor, ...]:
    """Cut a batch so that its unfolded form, ``factor`` times as large, stays small."""
    return torch.split(maps, _each(maps, factor))


def _each(maps: Tensor, factor: int) -> int:
    return max(1, _ELEMENTS // max(1, maps[0].numel() * factor))
