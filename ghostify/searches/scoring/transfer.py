"""Carry a layer that was fitted alone over to inputs that other converted layers have changed.

A layer that was fitted in the original network reads something else once layers before it are
converted or pruned too. It is corrected on its way through a batch of calibration images: its
filters become those that make of what there is now what the filters made of the original's maps
(least squares over positions), and every output map gets the scale and the offset that bring it
closest to the original's. Both are linear and go into the filters and the batch norm behind, so
the layer costs what it did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Spots", "Wanted", "affine", "carried", "patches_at"]

_RIDGE = 1e-2
"""Of the filters, as a share of the mean energy of a weight; it pulls towards no change."""

_BLOCK = 576
"""Weights of a filter that are solved for together, such as 64 maps of 3 x 3."""

_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Spots:
    """Positions in a batch of maps: image, row and column, each ``(P,)``."""

    images: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def draw(cls, maps: Tensor, count: int) -> Spots:
        """Draw at most ``count`` positions of maps ``(N, C, H, W)``, the same for each shape."""
        batch, _, height, width = maps.shape
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randperm(batch * height * width, generator=generator)[:count].sort()[0]
        drawn = drawn.to(maps.device)
        within = drawn % (height * width)
        return cls(drawn // (height * width), within // width, within % width)

    def of(self, maps: Tensor) -> Tensor:
        """Return the maps there, ``(n, P)``."""
        return maps.detach()[self.images, :, self.rows, self.columns].T.contiguous()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a convolution read and gave in the original network, at some output positions.

    Args:
        shape: of the output, ``(N, n, H, W)``.
        read: patches of the input ``(K, P)``, or None for a layer whose filters stay.
        given: the output there, ``(n, P)``.
    """

    shape: tuple[int, ...]
    spots: Spots
    read: Tensor | None
    given: Tensor


def patches_at(maps: Tensor, conv: nn.Conv2d, spots: Spots) -> Tensor:
    """Return what the filters of a convolution see at output positions, ``(K, P)``.

    K runs over input maps (of all groups), rows and columns of the kernel.
    """
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = functional.pad(maps.detach(), conv._reversed_padding_repeated_twice, mode=mode)
    rows, columns = spots.rows * conv.stride[0], spots.columns * conv.stride[1]
    taps = [
        padded[spots.images, :, rows + y * conv.dilation[0], columns + x * conv.dilation[1]]
        for y in range(conv.kernel_size[0])
        for x in range(conv.kernel_size[1])
    ]
    return torch.stack(taps, dim=2).flatten(1).T.contiguous()


def carried(weight: Tensor, now: Tensor, then: Tensor, *, groups: int = 1) -> Tensor:
    """Return the filters that make of ``now`` what ``weight`` makes of ``then``, or nearly so.

    Patches are taken about their means, so an offset stays free. Long filters are solved for in
    blocks of neighbouring input maps, each of which makes up for its own part.

    Args:
        weight: ``(m, C / groups, h, w)``.
        now: patches ``(K, P)``, as :func:`patches_at` gives them.
        then: the same of the original network.
    """
    changed = weight.detach().flatten(1).clone()
    maps = weight.shape[0] // groups
    length = changed.shape[1]
    now = now - now.mean(1, keepdim=True)
    miss = then - then.mean(1, keepdim=True) - now
    taps = weight[0, 0].numel()
    for group in range(groups):
        mine = slice(group * maps, (group + 1) * maps)
        for part in _blocks(length, taps):
            inside = slice(group * length + part.start, group * length + part.stop)
            seen = now[inside]
            count = seen.shape[1]
            gram = (seen @ seen.T).double() / count
            wanted = changed[mine, part] @ miss[inside]
            cross = (wanted @ seen.T).double() / count
            gram.diagonal().add_(_RIDGE * gram.diagonal().mean() + _TINY)
            changed[mine, part] += torch.linalg.solve(gram, cross.T).T.to(changed.dtype)
    return changed.view(weight.shape)


def _blocks(length: int, taps: int) -> Iterator[slice]:
    size = max(1, _BLOCK // taps) * taps
    for first in range(0, length, size):
        yield slice(first, min(first + size, length))


def affine(now: Tensor, then: Tensor, *, offset: bool = True) -> tuple[Tensor, Tensor]:
    """Return scale and offset ``(n,)`` by which each map of ``now`` comes closest to ``then``.

    Both are ``(n, P)``. Without an ``offset`` it is zero, and the scale makes up for it.
    """
    now, then = now.double(), then.double()
    mean, aim = now.mean(1), then.mean(1)
    if not offset:
        mean, aim = torch.zeros_like(mean), torch.zeros_like(aim)
    centred = now - mean[:, None]
    spread = centred.square().mean(1)
    together = (centred * (then - aim[:, None])).mean(1)
    scale = torch.where(spread > _TINY, together / spread.clamp_min(_TINY), 1.0)
    return scale, aim - scale * mean
