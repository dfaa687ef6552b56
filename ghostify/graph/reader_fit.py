"""Refit a convolution that reads fewer maps than before, by least squares."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.graph.cheap_fit import DAMPING
from ghostify.graph.fit import Stream
from ghostify.graph.fit_options import FitOptions
from ghostify.graph.layer_fit import LayerFit
from ghostify.graph.scarce import DAMPINGS, is_scarce, parted
from ghostify.graph.segments import Segment
from ghostify.graph.slices import Kept
from ghostify.graph.streams import Streams

__all__ = ["fit_reader", "is_plain", "patches_of"]

_LARGEST = 4608  # weights of one filter, beyond which the normal equations are left alone


def is_plain(conv: nn.Module) -> bool:
    """Return whether a layer's output is its weight times patches of its input."""
    return (
        type(conv) is nn.Conv2d
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


def patches_of(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """Return what each output pixel reads, ``(P, c * k * k)`` in float64."""
    assert not isinstance(conv.padding, str)
    columns = functional.unfold(
        maps, conv.kernel_size, dilation=conv.dilation, padding=conv.padding, stride=conv.stride
    )
    return columns.transpose(1, 2).flatten(0, 1).double()


def fit_reader(
    streams: Streams,
    segment: Segment,
    name: str,
    norm: str | None,
    options: FitOptions,
    kept: Kept,
) -> LayerFit | None:
    """Fit the weights of a layer, in place, so that it gives what it gave with all its maps.

    The offset goes into the batch norm behind, else into the bias. None where the layer is no
    plain convolution, too large, or not run. Channel pruning by reconstruction (He et al., 2017).

    Args:
        norm: name of the batch norm that reads this layer's output, if one does.
        kept: the maps that it reads, and gives.
    """
    began = time.monotonic()
    conv = streams.converted.get_submodule(name)
    original = streams.original.get_submodule(name)
    if not is_plain(conv) or not isinstance(original, nn.Conv2d):
        return None
    assert isinstance(conv, nn.Conv2d)
    size = conv.weight[0].numel()
    if size > _LARGEST:
        return None
    targets = streams.targets(segment, name, options.positions)
    inputs = streams.inputs(segment, name, len(targets))
    rows = list(kept.out) if kept.out is not None else list(range(original.out_channels))
    calls = [
        (source, aim)
        for sources, aims in zip(inputs, targets, strict=True)
        if len(sources) == len(aims)
        for source, aim in zip(sources, aims, strict=True)
        if len(source) == len(aim)
    ]
    before = conv.weight.detach().double().flatten(1)
    weight, sums = _solved(conv, lambda: ((source, aim[:, rows]) for source, aim in calls), before)
    for held in (inputs, targets):
        streams.store.release(held)
    if not sums.count:
        return None
    start, error = sums.error(before), sums.error(weight)
    if not error < start:  # not a number included
        weight, error = before, start
    with torch.no_grad():
        conv.weight.copy_(weight.view_as(conv.weight))
        _correct_means(streams, conv, norm, sums.miss(weight))
    return LayerFit(name, start, error, time.monotonic() - began)


def _solved(conv: nn.Conv2d, stream: Stream, before: Tensor) -> tuple[Tensor, _Sums]:
    """Return the weights that fit best, and the sums that they are from.

    Where there are few images, a part of them judges by which ridge, or whether the weights stay.
    """
    if not is_scarce(stream, before.shape[1]):
        sums = _summed(conv, stream)
        return sums.solve(before, DAMPING), sums
    used, held_back = parted(stream)
    sums, judge = _summed(conv, used), _summed(conv, held_back)
    if not sums.count or not judge.count:
        return before, _summed(conv, stream)
    tried = [before, *(sums.solve(before, damping) for damping in DAMPINGS)]
    return min(tried, key=judge.error), sums


def _summed(conv: nn.Conv2d, stream: Stream) -> _Sums:
    """Return the moments of what a layer reads and is to give, of so many places as it takes."""
    size = conv.weight[0].numel()
    enough = 16 * size + 4096
    sums = _Sums(size, len(conv.weight), conv.weight)
    count = sum(1 for _ in stream())
    for source, aim in stream():
        read = patches_of(conv, source)
        step = max(1, count * len(read) // enough)
        sums.add(read[::step], aim.permute(0, 2, 3, 1).flatten(0, 2).double()[::step])
    return sums


def _correct_means(streams: Streams, conv: nn.Conv2d, norm: str | None, miss: Tensor) -> None:
    """Take away the mean of what the convolution, without its bias, gives too much."""
    if conv.bias is not None and norm is None:
        conv.bias.copy_(-miss.to(conv.bias.dtype))
    elif norm is not None:
        running: Tensor = streams.converted.get_submodule(norm).running_mean  # type: ignore[assignment]
        bias = 0.0 if conv.bias is None else conv.bias.double()
        running += (miss + bias).to(running.dtype)


class _Sums:
    """First and second moments of patches and of what is wanted of them, in float64."""

    def __init__(self, size: int, maps: int, like: Tensor) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=like.device)

        self.count = 0
        self._read, self._wanted = zeros(size), zeros(maps)
        self._gram, self._cross, self._energy = zeros(size, size), zeros(maps, size), zeros(maps)

    def add(self, read: Tensor, wanted: Tensor) -> None:
        """Add patches ``(P, K)`` and the values wanted there ``(P, n)``."""
        self.count += len(read)
        self._read += read.sum(0)
        self._wanted += wanted.sum(0)
        self._gram += read.T @ read
        self._cross += wanted.T @ read
        self._energy += wanted.square().sum(0)

    def solve(self, start: Tensor, damping: float) -> Tensor:
        """Return the weights ``(n, K)`` with the least squared miss, near ``start``."""
        gram, cross, _ = self._central()
        damped = gram + damping * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
        change: Tensor = torch.linalg.solve(damped, (cross - start @ gram).T)
        return start + change.T

    def error(self, weight: Tensor) -> float:
        """Return the squared miss as a share of the variance, means apart."""
        gram, cross, variance = self._central()
        misses = variance - 2 * (weight * cross).sum(1) + (weight * (weight @ gram)).sum(1)
        whole = float(variance.sum())
        return float(misses.sum()) / whole if whole > 0 else 0.0

    def miss(self, weight: Tensor) -> Tensor:
        """Return the mean of what the weights give less what is wanted, ``(n,)``."""
        return (weight @ self._read - self._wanted) / self.count

    def _central(self) -> tuple[Tensor, Tensor, Tensor]:
        read, wanted = self._read / self.count, self._wanted / self.count
        gram = self._gram / self.count - torch.outer(read, read)
        cross = self._cross / self.count - torch.outer(wanted, read)
        return gram, cross, (self._energy / self.count - wanted.square()).clamp_min(0)
