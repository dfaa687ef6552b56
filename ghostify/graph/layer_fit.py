"""Fit one Ghost module to its convolution, on what both networks make of the images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ghostify.errors import WeightsError
from ghostify.graph.cheap_fit import DAMPING, ghost_sides, settle_sides
from ghostify.graph.fit import (
    PairSums,
    Stream,
    fit_branches,
    inherit,
    misses,
)
from ghostify.graph.fit_options import FitOptions
from ghostify.graph.normal import fit_primary, input_gram, is_linear_in_its_weight
from ghostify.graph.pairing import Costs, Pairing, choose
from ghostify.graph.scarce import DAMPINGS, is_scarce, parted
from ghostify.graph.segments import Segment
from ghostify.graph.streams import Calls, Streams
from ghostify.nn.cheap import add_offsets
from ghostify.nn.ghost import GhostModule

__all__ = [
    "LayerFit",
    "choose_ghosts",
    "fit_layer",
    "follow",
    "importance",
    "pair_costs",
    "solve",
]


@dataclass(frozen=True, slots=True)
class LayerFit:
    """How well a Ghost module reproduces its convolution on the images, before the steps.

    Errors are shares of the output's variance, each map weighted by the batch norm behind.
    """

    name: str
    start_error: float  # with the original's filters, and ghosts in closed form
    error: float
    seconds: float


def fit_layer(
    streams: Streams,
    segment: Segment,
    name: str,
    norm: str | None,
    options: FitOptions,
    *,
    pairing: Pairing | None = None,
    reads: Sequence[int] | None = None,
) -> LayerFit:
    """Fit one Ghost module, in place, and the batch norm behind it.

    Args:
        norm: name of the batch norm that reads this layer's output, if one does.
        pairing: what is computed and what is a ghost of which, if that is chosen already.
        reads: the maps that its input still has, if it has lost some.

    Raises:
        WeightsError: the layer gives values that are not finite.
    """
    began = time.monotonic()
    conv = streams.original.get_submodule(name)
    ghost = streams.converted.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(ghost, GhostModule)
    targets = streams.targets(segment, name, options.positions)
    inputs = streams.inputs(segment, name, len(targets))
    stream = _stream(inputs, targets, conv)
    weights = importance(
        streams.original.get_submodule(norm) if norm else None, conv.out_channels, conv.weight
    )
    offset = norm is not None or conv.bias is not None
    if pairing is None:
        maps = (aim for _, aim in stream())
        pairing, filters = choose_ghosts(ghost, maps, weights, offset=offset)
        if not filters.isfinite().all():
            raise WeightsError(
                f"{name} gives values that are not finite; use sound weights and images"
            )
    inherit(ghost, conv, pairing, reads)
    start, error, mean = solve(ghost, pairing, stream, weights, options, offset=offset)
    _correct_means(
        ghost, streams.converted.get_submodule(norm) if norm else None, mean, stream, pairing
    )
    ghost.reorder(torch.tensor(pairing.order))
    for kept in (inputs, targets):
        streams.store.release(kept)
    return LayerFit(name, start, error, time.monotonic() - began)


def follow(
    streams: Streams,
    segment: Segment,
    name: str,
    norm: str | None,
    options: FitOptions,
    first: GhostModule,
) -> None:
    """Let a module whose weights belong to another, fitted one have its order, and own offsets."""
    conv = streams.original.get_submodule(name)
    ghost = streams.converted.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(ghost, GhostModule)
    assert first.order is not None
    made = torch.argsort(first.order).tolist()
    pairing = Pairing(
        tuple(made[: ghost.intrinsic_channels]), tuple(made[ghost.intrinsic_channels :])
    )
    targets = streams.targets(segment, name, options.positions)
    inputs = streams.inputs(segment, name, len(targets))
    stream = _stream(inputs, targets, conv)
    shared = ghost.primary.bias is first.primary.bias
    if not shared and conv.bias is not None and ghost.primary.bias is not None:
        with torch.no_grad():
            ghost.primary.bias.copy_(conv.bias[list(pairing.intrinsic)])
    if norm is not None or not shared:
        mean = misses(ghost, pairing, stream)[0]
        behind = streams.converted.get_submodule(norm) if norm else None
        _correct_means(ghost, behind, mean, stream, pairing)
    ghost.reorder(first.order)
    for kept in (inputs, targets):
        streams.store.release(kept)


def _stream(inputs: Calls, targets: Calls, conv: nn.Conv2d) -> Stream:
    """Return the calls of a layer in both networks, or noise where there are none to compare.

    A network that goes by values may never come to a layer on these images, or take another
    way once it is converted.
    """
    pairs = [
        (source, aim)
        for sources, aims in zip(inputs, targets, strict=True)
        if len(sources) == len(aims)
        for source, aim in zip(sources, aims, strict=True)
        if len(source) == len(aim) and len(aim)
    ]
    if not pairs:
        generator = torch.Generator().manual_seed(0)
        sides = [2 * (k - 1) * d + 15 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
        noise = torch.randn(16, conv.in_channels, *sides, generator=generator).to(conv.weight)
        with torch.no_grad():
            pairs = [(noise, conv(noise))]
    return lambda: iter(pairs)


def choose_ghosts(
    ghost: GhostModule, maps: Iterable[Tensor], weights: Tensor, *, offset: bool = True
) -> tuple[Pairing, Tensor]:
    """Choose intrinsic maps and ghosts from the original's output; return the filters too."""
    solved = _solved_pairs(ghost, maps, weights, offset=offset)
    costs = {side: cost for side, (cost, _) in solved.items()}
    mean: Costs = np.mean(list(costs.values()), axis=0)
    pairing = choose(mean, ratio=ghost.ratio, groups=ghost.groups, round_to=ghost.round_to)
    if len(costs) > 1:
        pairing = settle_sides(pairing, costs, ghost.groups)
    count = len(pairing.intrinsic)
    sides = ghost_sides(ghost.spec.kernels, len(pairing.ghosts), count)
    filters = [
        solved[side][1][pairing.intrinsic[k % count], :, wanted]
        for k, (side, wanted) in enumerate(zip(sides, pairing.ghosts, strict=True))
    ]
    return pairing, torch.stack(filters).to(ghost.weight.dtype)


def pair_costs(
    ghost: GhostModule, maps: Iterable[Tensor], weights: Tensor, *, offset: bool = True
) -> tuple[Costs, Tensor]:
    """Return the cost of each pair of output maps ``(n, n)``, and the filters ``(n, d * d, n)``.

    Entry ``[i, g]`` of the costs is the weighted error of map g made from map i, by the best
    filter that the cheap operation has; where kernels are mixed, the mean over their sides (and
    the filters of the largest).
    """
    solved = _solved_pairs(ghost, maps, weights, offset=offset)
    mean: Costs = np.mean([cost for cost, _ in solved.values()], axis=0)
    return mean, solved[ghost.kernel][1]


def _solved_pairs(
    ghost: GhostModule, maps: Iterable[Tensor], weights: Tensor, *, offset: bool
) -> dict[int, tuple[Costs, Tensor]]:
    """Return costs and filters of all pairs for each side of the module's filters."""
    sums = PairSums(ghost.out_channels, ghost.kernel, device=ghost.weight.device)
    for batch in maps:
        sums.add(batch)
    found = {}
    for side in ghost.spec.kernels:
        filters, errors = sums.solve(offset=offset, cheap=ghost.cheap_operation, side=side)
        found[side] = (errors * weights).nan_to_num(0.0).cpu().numpy(), filters
    return found


def solve(
    ghost: GhostModule,
    pairing: Pairing,
    stream: Stream,
    weights: Tensor,
    options: FitOptions,
    *,
    offset: bool = True,
    gram: Tensor | None = None,
) -> tuple[float, float, Tensor]:
    """Solve for branches and primary filters in turn.

    Where there are few images for so many weights, a part of them is held back to judge by, and
    the filters move no further than helps there.

    Args:
        gram: second moments of what the layer reads (:func:`ghostify.graph.normal.input_gram`),
            if they are known.

    Returns:
        The relative error before and after, and the mean of the miss per map as it is made.
    """
    made = torch.tensor(pairing.made, device=weights.device)

    def improve(some: Stream, damping: float, iterations: int) -> None:
        for _ in range(options.rounds):
            fit_primary(
                ghost,
                pairing,
                some,
                weights,
                gram=gram,
                iterations=iterations,
                offset=offset,
                damping=damping,
            )
            fit_branches(ghost, pairing, some, offset=offset)

    def relative(some: Stream) -> tuple[float, Tensor]:
        mean, miss, energy = misses(ghost, pairing, some)
        if not offset:
            miss = miss + mean.square()
        whole = float((energy * weights[made]).sum())
        return (float((miss * weights[made]).sum()) / whole if whole > 0 else 0.0), mean

    fit_branches(ghost, pairing, stream, offset=offset)
    start, mean = relative(stream)
    if not options.rounds or not is_linear_in_its_weight(ghost.primary):
        return start, start, mean
    before = {name: value.clone() for name, value in ghost.state_dict().items()}
    if gram is None:
        gram = input_gram(ghost, (source for source, _ in stream()))
    if is_scarce(stream, ghost.primary.weight[0].numel()):
        fewer = math.ceil(options.iterations / 2)  # the ridges are several, and most of them strong
        _improve_with_care(
            ghost,
            stream,
            lambda some, damping: improve(some, damping, fewer),
            lambda some: relative(some)[0],
        )
    else:
        improve(stream, DAMPING, options.iterations)
    error, after = relative(stream)
    if not error <= start:  # not a number included
        ghost.load_state_dict(before)
        return start, start, mean
    return start, error, after


def _improve_with_care(
    ghost: GhostModule,
    stream: Stream,
    improve: Callable[[Stream, float], None],
    judge: Callable[[Stream], float],
) -> None:
    """Fit to most images, by the ridge that comes closest on the others, or not at all.

    The others are the same at each layer and never fitted to. What they make of the layers before
    is then what unseen images make of them.
    """
    used, held_back = parted(stream)
    before = best = {name: value.clone() for name, value in ghost.state_dict().items()}
    if not any(True for _ in used()) or not any(True for _ in held_back()):
        return
    least = judge(held_back)
    for damping in DAMPINGS:
        improve(used, damping)
        error = judge(held_back)
        if not error < least:  # not a number included
            break
        least, best = error, {name: value.clone() for name, value in ghost.state_dict().items()}
        ghost.load_state_dict(before)
    ghost.load_state_dict(best)


def _correct_means(
    ghost: GhostModule,
    norm: nn.Module | None,
    mean: Tensor,
    stream: Stream,
    pairing: Pairing,
) -> None:
    """Take away the mean of the miss: in the batch norm behind, else in the biases."""
    with torch.no_grad():
        if norm is not None:
            order = torch.tensor(pairing.order, device=mean.device)
            running: Tensor = norm.running_mean  # type: ignore[assignment]
            running += mean[order].to(running.dtype)
        elif ghost.primary.bias is not None or ghost.spec.own_offsets:
            count = ghost.intrinsic_channels
            if ghost.primary.bias is not None:
                ghost.primary.bias -= mean[:count].to(ghost.primary.bias.dtype)
            mean = misses(ghost, pairing, stream)[0][count:]  # the ghosts have moved with it
            for branch in ghost.cheap:
                made: int = branch.in_channels  # type: ignore[assignment]
                add_offsets(branch, -mean[:made])
                mean = mean[made:]


def importance(norm: nn.Module | None, maps: int, like: Tensor) -> Tensor:
    """Return gamma^2 / (sigma^2 + eps) of the batch norm behind a layer, or ones, ``(n,)``."""
    if norm is None:
        return torch.ones(maps, dtype=torch.float64, device=like.device)
    variance: Tensor = norm.running_var  # type: ignore[assignment]
    weight = getattr(norm, "weight", None)
    scale = torch.ones_like(variance) if weight is None else weight.detach()
    eps = float(norm.eps)  # type: ignore[arg-type]
    return (scale.double().square() / (variance.double() + eps)).to(like.device)
