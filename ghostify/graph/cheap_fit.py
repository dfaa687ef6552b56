"""The filters of each cheap operation that fit best, from second moments: pure algebra."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ghostify.cheap import block_sizes
from ghostify.graph.pairing import Pairing
from ghostify.nn.cheap import fixed_filters

__all__ = ["DAMPING", "best_filters", "ghost_sides", "settle_sides"]

DAMPING = 1e-4
"""Of least squares, as a share of the mean energy of the unknowns."""

_NEVER = 1e30


def best_filters(
    gram: Tensor, cross: Tensor, *, cheap: str, kernel: int, side: int, damping: float = DAMPING
) -> Tensor:
    """Return the filters, ``(m, d * d, k)``, that leave the smallest mean squared error.

    Learned filters are a damped least squares solution. Of fixed ones, that is chosen which
    explains most with the best factor before it.

    Args:
        gram: ``(m, d * d, d * d)``, second moments of the patches of each map.
        cross: ``(m, d * d, k)``, of patches and wanted maps.
        kernel: d.
        side: of the filters, at most d; they stand in the middle of zeros.
    """
    taps = _middle(kernel, side)
    if side < kernel:
        inner = best_filters(
            gram[:, taps][:, :, taps], cross[:, taps],
            cheap=cheap, kernel=side, side=side, damping=damping,
        )  # fmt: skip
        filters = torch.zeros_like(cross)
        filters[:, taps] = inner
        return filters
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    shift = damping * scale + torch.finfo(torch.float64).tiny ** 0.5
    choices = fixed_filters(cheap, kernel)
    if choices is None:
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        solved: Tensor = torch.linalg.solve(gram + shift[..., None, None] * eye, cross)
        return solved
    choices = choices.to(gram)
    best = torch.full_like(cross[:, 0], -1.0)
    filters = torch.zeros_like(cross)
    for one in choices:
        energy = (one @ gram @ one)[:, None]
        gain = torch.einsum("t,itk->ik", one, cross)
        factor = gain / (energy + shift[:, None] * one.square().sum())
        explained = 2 * factor * gain - factor.square() * energy
        better = explained > best
        best = torch.where(better, explained, best)
        filters = torch.where(better[:, None], factor[:, None] * one[:, None], filters)
    return filters


def ghost_sides(kernels: tuple[int, ...], ghosts: int, intrinsic: int) -> tuple[int, ...]:
    """Return the side of each ghost's filter, in the order in which a module makes them."""
    sides: list[int] = []
    while len(sides) < ghosts:
        maps = min(intrinsic, ghosts - len(sides))
        for side, count in zip(kernels, block_sizes(maps, len(kernels)), strict=True):
            sides += [side] * count
    return tuple(sides)


def settle_sides(
    pairing: Pairing, costs: dict[int, npt.NDArray[np.float64]], groups: int = 1
) -> Pairing:
    """Give each pair the filter side of which it makes most, where sides are mixed.

    The intrinsic maps change places, each with its ghosts, by an exact assignment; within
    their group, and so that those with one ghost more than others stay in front.

    Args:
        costs: ``(n, n)`` for each side, as for :func:`ghostify.graph.pairing.choose`.
    """
    from scipy.optimize import linear_sum_assignment

    maps, ghosts = len(pairing.intrinsic), len(pairing.ghosts)
    sides = ghost_sides(tuple(sorted(costs)), ghosts, maps)
    places = np.arange(maps)
    rest = ghosts % maps
    kind = places // (maps // groups) * 2 + (places < rest)
    table = np.where(kind[:, None] == kind[None, :], 0.0, _NEVER)
    for number, ghost in enumerate(pairing.ghosts):
        row = number % maps
        branch = number - row
        for place in range(min(maps, ghosts - branch)):
            table[row, place] += costs[sides[branch + place]][pairing.intrinsic[row], ghost]
    rows, taken = linear_sum_assignment(table)
    held = dict(zip(taken.tolist(), rows.tolist(), strict=True))
    order = [held[place] for place in range(maps)]
    return Pairing(
        tuple(pairing.intrinsic[row] for row in order),
        tuple(
            pairing.ghosts[number - number % maps + order[number % maps]]
            for number in range(ghosts)
        ),
    )


def _middle(kernel: int, side: int) -> Tensor:
    """Return which taps of a d x d filter one of a smaller side has."""
    edge = (kernel - side) // 2
    taps = torch.arange(kernel * kernel).view(kernel, kernel)
    return taps[edge : edge + side, edge : edge + side].flatten()
