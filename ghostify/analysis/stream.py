"""Take the sums of many layers from one stream of images, within a bound of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ghostify.errors import WeightsError
from ghostify.graph.fit import PairSums
from ghostify.graph.nested import nested_errors, surroundings

__all__ = ["LayerSums", "gather"]

_UNIT_BYTES = 1 << 27  # of the sums that are solved at a time; solving takes thrice that


@dataclass(slots=True)
class LayerSums:
    """What is known of one layer: the errors of all pairs, and what the best filters follow from.

    ``mse`` is ``(kernels, n, n)``, ``[k, i, g]`` for map g made from map i, zero for i = g. For
    each side and map g, ``partner`` is the best i, ``cross`` the moments of its patches with g.
    """

    name: str
    depth: int
    maps: int
    kernels: tuple[int, ...]
    share: float  # of the positions that are looked at
    positions: int = 0
    mse: Tensor = field(init=False)
    best: Tensor = field(init=False)
    partner: Tensor = field(init=False)
    gram: Tensor = field(init=False)
    cross: Tensor = field(init=False)
    first: Tensor = field(init=False)  # means of the patches
    mean: Tensor = field(init=False)
    variance: Tensor = field(init=False)

    def _begin(self) -> None:
        """Make room; not before it is needed, since a network has many layers."""
        count, maps, taps = len(self.kernels), self.maps, max(self.kernels) ** 2
        self.mse = torch.zeros(count, maps, maps)
        self.best = torch.full((count, maps), float("inf"), dtype=torch.float64)
        self.partner = torch.full((count, maps), -1, dtype=torch.int64)
        self.gram = torch.zeros(maps, taps, taps, dtype=torch.float64)
        self.cross = torch.zeros(count, maps, taps, dtype=torch.float64)
        self.first = torch.zeros(maps, taps, dtype=torch.float64)
        self.mean = torch.zeros(maps, dtype=torch.float64)
        self.variance = torch.zeros(maps, dtype=torch.float64)

    def units(self) -> list[slice]:
        """Return the blocks of source maps whose sums are held together."""
        taps = max(self.kernels) ** 2
        each = max(1, _UNIT_BYTES // (8 * taps * (self.maps + taps)))
        blocks = -(-self.maps // each)
        each = -(-self.maps // blocks)
        return [slice(at, min(at + each, self.maps)) for at in range(0, self.maps, each)]

    def bytes_of(self, block: slice) -> int:
        """Return what the sums of one block take."""
        taps = max(self.kernels) ** 2
        return 8 * taps * (self.maps + taps) * len(range(self.maps)[block])

    def put(self, block: slice, sums: PairSums) -> None:
        """Solve for all filters of a block of sources, and keep what is best.

        Raises:
            WeightsError: the layer gives values that are not finite.
        """
        if block.start == 0:
            self._begin()
        gram, cross, variance = sums.central()
        if not (cross.isfinite().all() and variance.isfinite().all()):
            raise WeightsError(
                f"{self.name} gives values that are not finite; use sound weights and images"
            )
        errors = nested_errors(sums, self.kernels).mse
        rows = torch.arange(block.start, block.stop)
        own = torch.arange(len(rows))
        errors[:, own, rows] = 0.0
        self.mse[:, block] = errors.to("cpu", torch.float32)
        errors[:, own, rows] = float("inf")
        low, where = (one.cpu() for one in errors.min(1))
        first, mean = (one.cpu() for one in sums.means())
        self.variance, self.mean, self.positions = variance.cpu(), mean, sums.count
        self.gram[block], self.first[block] = gram.cpu(), first
        cross = cross.cpu()
        for row in range(len(self.kernels)):
            better = torch.nonzero(low[row] < self.best[row]).flatten()
            chosen = where[row, better]
            self.best[row, better] = low[row, better]
            self.partner[row, better] = chosen + block.start
            self.cross[row, better] = cross[chosen, :, better]


def gather(
    model: nn.Module,
    layers: Sequence[LayerSums],
    images: Sequence[Tensor],
    *,
    seed: int,
    memory_bytes: int,
    on_layer: Callable[[LayerSums], None],
    on_progress: Callable[[int, int, str], None],
) -> None:
    """Run a network on all images, as often as the memory makes necessary, and solve each layer.

    Args:
        images: batches ``(N, C, H, W)``, gone through once for each pass.
        memory_bytes: of sums that are held at a time, about.
        on_layer: called with each layer as soon as it is complete; it need not be kept.
    """
    plan = _passes(layers, memory_bytes)
    whole = sum(one.bytes_of(block) for part in plan for one, block in part)
    done = 0
    left = {one.name: len(one.units()) for one in layers}
    for number, part in enumerate(plan, 1):
        weight = sum(one.bytes_of(block) for one, block in part)
        what = "looking at the maps" + (f", pass {number} of {len(plan)}" if len(plan) > 1 else "")
        sums = _sums(model, part)
        for at, batch in enumerate(images):
            on_progress(done + weight * at // len(images), whole, what)
            _run(model, part, sums, batch, at, seed)
        for place, (one, block) in enumerate(part):
            on_progress(done + weight, whole, f"solving {one.name}")
            one.put(block, sums[place])
            sums[place] = PairSums(0, 1)
            left[one.name] -= 1
            if not left[one.name]:
                on_layer(one)
        done += weight


_Part = list[tuple[LayerSums, slice]]


def _passes(layers: Sequence[LayerSums], memory_bytes: int) -> list[_Part]:
    """Divide the blocks of all layers, in order, so that each pass stays within the memory."""
    parts: list[_Part] = []
    room = 0
    for one in layers:
        for block in one.units():
            need = one.bytes_of(block)
            if not parts or need > room:
                parts.append([])
                room = memory_bytes
            parts[-1].append((one, block))
            room -= need
    return parts


def _sums(model: nn.Module, part: _Part) -> list[PairSums]:
    weight = next(model.parameters(), torch.empty(0))
    return [
        PairSums(one.maps, max(one.kernels), sources=block.stop - block.start, device=weight.device)
        for one, block in part
    ]


def _run(
    model: nn.Module, part: _Part, sums: list[PairSums], batch: Tensor, number: int, seed: int
) -> None:
    """Run one batch, and take in what the layers give."""
    mine: dict[str, list[int]] = {}
    for place, (one, _) in enumerate(part):
        mine.setdefault(one.name, []).append(place)

    def watch(places: list[int]) -> Callable[..., None]:
        layer = part[places[0]][0]
        calls = iter(range(1 << 30))

        def take(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            output = output if output.dim() == 4 else output[None]
            some = _positions(output, layer, (seed, layer.depth, number, next(calls)))
            for place in places:
                kernel = max(layer.kernels)
                for near, flat in _pieces(output, kernel, some, part[place][1]):
                    sums[place].take(near, flat)

        return take

    handles = [
        model.get_submodule(name).register_forward_hook(watch(places))
        for name, places in mine.items()
    ]
    try:
        with torch.no_grad():
            model(batch.clone())
    finally:
        for handle in handles:
            handle.remove()


def _pieces(
    output: Tensor, kernel: int, positions: Tensor, block: slice
) -> Iterator[tuple[Tensor, Tensor]]:
    return surroundings(output.detach().float(), kernel, positions, sources=block)


def _positions(output: Tensor, layer: LayerSums, key: tuple[int, ...]) -> Tensor:
    """Draw positions of a batch; the same ones whichever block of the layer is looked at."""
    whole = len(output) * output.shape[-2] * output.shape[-1]
    count = min(whole, max(1, round(whole * layer.share)))
    if count == whole:
        return torch.arange(whole, device=output.device)
    drawn = np.random.default_rng(key).choice(whole, count, replace=False, shuffle=False)
    return torch.from_numpy(np.sort(drawn)).to(output.device)
