"""Rank maps by how well their readers can do without them, on images without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ghostify.graph.fit import DAMPING
from ghostify.graph.reader_fit import is_plain, patches_of
from ghostify.nn.ghost import GhostModule
from ghostify.pruners.groups import Graph, Group, Part
from ghostify.pruners.scores import Scores

__all__ = ["reconstruction_scores"]

_LARGEST = 2304  # inputs of one reader, beyond which maps are ranked one by one
_IMAGES = 256


def reconstruction_scores(
    model: nn.Module,
    graph: Graph,
    layers: Iterable[str],
    batches: Iterable[Tensor],
    *,
    on_layer: Callable[[str], None] | None = None,
) -> Scores:
    """Return when the maps of each layer would go if they went one by one, the cheapest first.

    The cost of a map is what its readers' output then misses, in squares, if the weights for
    the maps that are left are solved for anew: optimal brain surgeon for whole maps (Hassibi and
    Stork, 1993). Readers with more than 2304 inputs are not solved for anew. Layers of which a
    reader is neither a plain convolution nor linear are missing from the result.

    Args:
        model: the network that ``graph`` is of, in eval mode.
        batches: images ``(N, C, H, W)``; up to 256 of them are used.
    """
    wanted = set(layers)
    groups = {group.layer: group for group in graph.groups if group.layer in wanted}
    readers: dict[str, list[tuple[Part, Any]]] = {}
    for name, group in groups.items():
        parts = [part for part in group.parts if part.side == "reads"]
        found = [(part, _reader(model.get_submodule(part.name))) for part in parts]
        if found and all(one is not None for _, one in found):
            readers[name] = found
    sums = {
        (name, part.name): _Moments(part, module)
        for name, found in readers.items()
        for part, module in found
    }
    _watch(model, sums, batches)
    scores: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
    for name, found in readers.items():
        if on_layer is not None:
            on_layer(name)
        problems = [
            one.problem(groups[name]) for part, _ in found if (one := sums[name, part.name]).count
        ]
        if problems:
            scores[name] = _turns(problems, groups[name].maps)
    return scores


def _reader(module: nn.Module) -> nn.Conv2d | nn.Linear | None:
    if isinstance(module, GhostModule):
        module = module.primary
    if isinstance(module, nn.Linear) or is_plain(module):
        return module  # type: ignore[return-value]
    return None


class _Moments:
    """Central second moments of what a reader reads of one layer's maps."""

    def __init__(self, part: Part, module: nn.Conv2d | nn.Linear) -> None:
        self.module, self.count = module, 0
        taps = module.weight[0, 0].numel()
        each = torch.tensor(part.indices)[:, None] * taps + torch.arange(taps)
        self.columns = each.flatten().to(module.weight.device)
        self.roots = torch.tensor(part.roots).repeat_interleave(taps)
        size = len(self.columns)
        self._first = torch.zeros(size, dtype=torch.float64, device=module.weight.device)
        self._gram = torch.zeros(size, size, dtype=torch.float64, device=module.weight.device)
        self._enough = 16 * size + 4096

    def add(self, maps: Tensor) -> None:
        """Add what the reader reads in one call."""
        if isinstance(self.module, nn.Conv2d):
            read = patches_of(self.module, maps)
        else:
            read = maps.flatten(0, -2).double()
        step = max(1, len(read) // self._enough)
        read = read[::step, self.columns]
        self.count += len(read)
        self._first += read.sum(0)
        self._gram += read.T @ read

    def problem(self, group: Group) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the moments, the weights ``(n, K)`` and the columns of every map."""
        first = self._first / self.count
        gram = self._gram / self.count - torch.outer(first, first)
        weight = self.module.weight.detach().double().flatten(1)[:, self.columns]
        places = [torch.nonzero(self.roots == root).flatten() for root in range(group.maps)]
        return gram, weight, [one.to(weight.device) for one in places]


def _watch(
    model: nn.Module, sums: dict[tuple[str, str], _Moments], batches: Iterable[Tensor]
) -> None:
    handles = [
        one.module.register_forward_pre_hook(lambda _m, inputs, one=one: one.add(inputs[0]))
        for one in sums.values()
    ]
    like = next(model.parameters())
    seen = 0
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            for batch in batches:
                images = batch[: _IMAGES - seen]
                seen += len(images)
                model(images.to(like))
                if seen >= _IMAGES:
                    break
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training


def _turns(
    problems: Sequence[tuple[Tensor, Tensor, list[Tensor]]], maps: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return in which turn each map goes."""
    states = [_State(*problem) for problem in problems]
    left = set(range(maps))
    turns = np.zeros(maps)
    for turn in range(maps):
        costs = sum(state.costs() for state in states)
        assert isinstance(costs, Tensor)
        cheapest = min(left, key=lambda number: float(costs[number]))
        turns[cheapest] = turn
        left.discard(cheapest)
        for state in states:
            state.remove(cheapest)
    return turns


class _State:
    """A reader's weights and the inverse of its moments, with ever fewer maps."""

    def __init__(self, gram: Tensor, weight: Tensor, places: list[Tensor]) -> None:
        size = len(gram)
        damped = gram + DAMPING * (gram.diagonal().mean() + 1e-12) * torch.eye(size).to(gram)
        self._weight, self._places = weight.clone(), places
        self._solved = size <= _LARGEST
        if self._solved:
            self._inverse = torch.linalg.inv(damped)
            self._known: Tensor | None = None
        else:
            self._known = torch.stack(
                [((weight[:, at] @ damped[at][:, at]) * weight[:, at]).sum() for at in places]
            )

    def costs(self) -> Tensor:
        """Return what the reader misses without each map."""
        if self._known is not None:
            return self._known
        at = torch.stack(self._places)  # (maps, taps)
        blocks = self._inverse[at[:, :, None], at[:, None, :]]
        weights = self._weight[:, at].permute(1, 2, 0)  # (maps, taps, n)
        solved: Tensor = torch.linalg.solve(blocks, weights)
        return (weights * solved).sum((1, 2))

    def remove(self, number: int) -> None:
        """Take one map away, and let the weights of the others make up for it."""
        if not self._solved:
            return
        at = self._places[number]
        rows = self._inverse[at]
        gain = torch.linalg.solve(rows[:, at], rows)  # (taps, K)
        self._weight -= self._weight[:, at] @ gain
        self._inverse -= rows.T @ gain
        self._inverse[at, at] += 1.0  # so that its block, now zero, can still be solved
