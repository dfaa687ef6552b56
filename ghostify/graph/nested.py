"""How well each map follows from each other by one linear filter, for several filters at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ghostify.graph.fit import PairSums

__all__ = ["NestedErrors", "nested_errors", "nested_taps", "pair_filter", "surroundings"]

_RIDGE = 1e-7
"""Added to the moments of the patches, as a share of their mean: the rounding of the sums.

It only makes the filters of maps unique that are all but linearly dependent with themselves
shifted. The penalised error, which is what is reported, is above the true one by less than this
share times the filter's energy.
"""

_ELEMENTS = 1 << 24  # of the surroundings that are held at a time


@dataclass(frozen=True, slots=True)
class NestedErrors:
    """Mean squared errors ``(kernels, sources, n)`` of making map g from map i, offset free.

    ``[k, i, g]`` is for a filter of side ``kernels[k]``. ``variance``, ``(n,)``, is what a filter
    of zeros would miss.
    """

    kernels: tuple[int, ...]
    mse: Tensor
    variance: Tensor


def nested_errors(sums: PairSums, kernels: Sequence[int]) -> NestedErrors:
    """Solve for the filters of several sides from the sums for the largest of them.

    The taps are put in order of their distance from the centre, so those of each smaller filter
    come first. In that order one Cholesky factor L of the patches' moments serves all sides:
    with ``z = L^-1 c``, a filter of k taps explains ``z_1^2 + ... + z_k^2`` of the variance. So an
    error cannot grow with the side, with the ridge too, which is the same for all of them.

    Args:
        sums: for filters of the largest side.
        kernels: sides, odd, ascending.
    """
    gram, cross, variance = sums.central()
    order = nested_taps(sums.kernel).to(gram.device)
    gram, cross = gram[:, order][:, :, order], cross[:, order]
    solved = torch.linalg.solve_triangular(_factor(gram), cross, upper=False)
    explained = solved.square_().cumsum_(1)
    ends = [side * side - 1 for side in kernels]
    mse = (variance - explained[:, ends]).clamp_min_(0).transpose(0, 1).contiguous()
    return NestedErrors(tuple(kernels), mse, variance)


def pair_filter(gram: Tensor, cross: Tensor, kernel: int) -> Tensor:
    """Return the filter ``(kernel, kernel)`` that makes one map from another.

    Args:
        gram: ``(d * d, d * d)``, central moments of the source's patches, d not below ``kernel``.
        cross: ``(d * d,)``, those with the target.
    """
    side = round(len(gram) ** 0.5)
    scale = gram.diagonal().clamp_min(0).mean()
    inner = nested_taps(side)[: kernel * kernel].sort().values.to(gram.device)  # in rows again
    block = gram[inner][:, inner]
    eye = torch.eye(len(inner), dtype=gram.dtype, device=gram.device)
    solved: Tensor = torch.linalg.solve(block + (_RIDGE * scale + _TINY) * eye, cross[inner])
    return solved.view(kernel, kernel)


def nested_taps(kernel: int) -> Tensor:
    """Return the taps of a d x d filter (in rows), those of each smaller one before the others."""
    reach = torch.arange(kernel) - kernel // 2
    ring = torch.maximum(reach.abs()[:, None], reach.abs()[None, :]).flatten()
    return torch.argsort(ring, stable=True)


def surroundings(
    maps: Tensor, kernel: int, positions: Tensor, *, sources: slice = slice(None)
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give the zero-padded d x d neighbourhoods of some positions, a piece at a time.

    Args:
        maps: ``(N, n, H, W)``.
        positions: numbers below ``N * H * W``, of the positions of all images in a row.
        sources: the maps whose surroundings are given.

    Returns:
        Pairs of ``(sources, d * d, P)`` and of all maps at these positions, ``(n, P)``.
    """
    channels, height, width = maps.shape[1:]
    pad = kernel // 2
    flat = maps.transpose(0, 1).reshape(channels, -1)
    padded = functional.pad(maps[:, sources], (pad, pad, pad, pad)).transpose(0, 1)
    padded = padded.reshape(padded.shape[0], -1)
    high, wide = height + 2 * pad, width + 2 * pad
    reach = torch.arange(kernel, device=maps.device)
    taps = (reach[:, None] * wide + reach[None, :]).flatten()
    each = max(1, _ELEMENTS // max(1, len(padded) * kernel * kernel))
    for some in positions.split(each):
        image, place = some // (height * width), some % (height * width)
        corner = image * high * wide + place // width * wide + place % width
        index = (taps[:, None] + corner[None, :]).flatten()
        near = padded.index_select(1, index).view(len(padded), kernel * kernel, len(some))
        yield near, flat.index_select(1, some)


_TINY = torch.finfo(torch.float64).tiny ** 0.5


def _factor(gram: Tensor) -> Tensor:
    """Return the Cholesky factors of moments, with a ridge that rounding makes necessary."""
    scale = gram.diagonal(dim1=1, dim2=2).clamp_min(0).mean(1)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    ridge = torch.full_like(scale, _RIDGE)
    for _ in range(8):
        shift = ridge * scale + _TINY
        found: tuple[Tensor, Tensor] = torch.linalg.cholesky_ex(gram + shift[:, None, None] * eye)
        factor, failed = found
        if not failed.any():
            return factor
        ridge = torch.where(failed > 0, ridge * 10, ridge)
    last: Tensor = torch.linalg.cholesky(gram + scale[:, None, None] * eye + _TINY * eye)
    return last
