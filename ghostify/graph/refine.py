"""Refine pieces of a fitted network by gradient, against what the original gives there."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map

from ghostify.graph.segments import Segment, Segments, State

__all__ = ["Refined", "refine"]

_BETAS = (0.9, 0.99)
_ATTEMPTS = (1.0, 0.25, 0.0625)  # of the rate
_LOOK = 4  # of a longer row: a rate that is too high shows after one in so many of the steps
_FEW = 4  # inputs, up to twice as many of which all are trained on


@dataclass(frozen=True, slots=True)
class Refined:
    """The relative loss before and after the steps, on inputs held back from them.

    ``kept`` is False where the loss had not fallen, and the weights were put back.
    """

    layers: tuple[str, ...]
    first_loss: float
    last_loss: float
    steps: int
    kept: bool = True


def refine(
    segments: Segments,
    row: Sequence[Segment],
    model: nn.Module,
    inputs: Sequence[State],
    targets: Sequence[Sequence[State]] | None,
    *,
    steps: int,
    rate: float,
    generator: torch.Generator,
    size: int | None = None,
    teacher: nn.Module | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Refined:
    """Train the layers of consecutive segments to give the original's values behind each.

    The loss is the sum over the segments of the squared miss, as a share of the target's
    variance. Adam, cosine schedule; batch norms are run in eval mode and keep their
    statistics. One step takes one of ``inputs``, or ``size`` of its images where they can be told
    apart; every tenth such piece is held back to judge by. Steps
    that do not help there are taken back and tried again at a quarter of the rate, twice at
    most; where several segments are trained, that is seen after a quarter of the steps.
    Segments without layers of interest are left as they are. Block reconstruction in the
    manner of BRECQ (Li et al., 2021), for structure in place of rounding.

    Args:
        targets: for each segment, the original's states behind it, or None to run
            ``teacher`` beside; then the images are mirrored at random.
    """
    if size is not None:
        inputs, targets = _in_pieces(inputs, targets, size)
    parameters = list(_parameters(row, model))
    names = tuple(name for one in row for name in one.layers)

    def loss_of(state: State, chosen: int) -> Tensor | None:
        if targets is not None:
            aims = [states[chosen] for states in targets]
        else:
            assert teacher is not None
            aims = _run_beside(segments, row, teacher, state)
        with warnings.catch_warnings():
            # a network that goes by values may look at them
            warnings.filterwarnings("ignore", "Converting a tensor with requires_grad")
            return _loss(segments, row, model, state, aims)

    def judged() -> float:
        with torch.no_grad():
            losses = [loss_of(inputs[number], number) for number in back]
        return statistics.fmean([float(one) for one in losses if one is not None] or [0.0])

    back, used = _held_back(len(inputs))
    before = [parameter.detach().clone() for parameter in parameters]
    first = judged()
    look = steps // _LOOK if len(row) > 1 else 0
    furthest = 0
    for factor in _ATTEMPTS:
        optimiser = torch.optim.Adam(parameters, lr=rate * factor, betas=_BETAS, fused=True)
        order: list[int] = []
        for parameter in parameters:
            parameter.requires_grad_(True)
        try:
            for step in range(steps):
                if not order:
                    drawn = torch.randperm(len(used), generator=generator).tolist()
                    order = [used[number] for number in drawn]
                chosen = order.pop()
                fall = (1 + math.cos(math.pi * step / steps)) / 2
                optimiser.param_groups[0]["lr"] = rate * factor * fall
                state = inputs[chosen]
                if targets is None and float(torch.rand((), generator=generator)) < 0.5:
                    state = {key: value.flip(3) for key, value in state.items()}
                with torch.enable_grad():
                    loss = loss_of(state, chosen)
                if loss is None or not loss.requires_grad:  # nothing here to bring closer
                    return Refined(names, 0.0, 0.0, step, kept=False)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                if on_step is not None and step >= furthest:
                    furthest = step + 1
                    on_step(furthest)
                if step + 1 == look and factor != _ATTEMPTS[-1] and not judged() <= first:
                    break
        finally:
            for parameter in parameters:
                parameter.requires_grad_(False)
                parameter.grad = None
        last = judged()
        if math.isfinite(last) and last <= first:
            return Refined(names, first, last, steps)
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)
    return Refined(names, first, last, steps, kept=False)


def _in_pieces(
    inputs: Sequence[State], targets: Sequence[Sequence[State]] | None, size: int
) -> tuple[list[State], list[list[State]] | None]:
    """Cut states, and the targets that go with them, into views of so many images at most."""
    cut_inputs: list[State] = []
    cut_targets: list[list[State]] = [[] for _ in targets or ()]
    for number, state in enumerate(inputs):
        beside = [states[number] for states in targets or ()]
        parts = _cut([state, *beside], size)
        cut_inputs += parts[0]
        for states, part in zip(cut_targets, parts[1:], strict=True):
            states += part
    return cut_inputs, None if targets is None else cut_targets


def _cut(states: Sequence[State], size: int) -> list[list[State]]:
    """Cut states of the same images alike, if all that they hold has one entry for each image."""
    leaves = tree_leaves(list(states))
    counts = {len(leaf) if isinstance(leaf, Tensor) and leaf.dim() else 0 for leaf in leaves}
    count = max(counts, default=0)
    if counts != {count} or count <= size:
        return [[state] for state in states]
    return [
        [tree_map(lambda leaf, at=at: leaf[at : at + size], state) for at in range(0, count, size)]
        for state in states
    ]


def _held_back(count: int) -> tuple[list[int], list[int]]:
    """Return which inputs judge and which are trained on: the same ones where there are few."""
    everything = list(range(count))
    if count < 2 * _FEW:
        return everything[:_FEW], everything
    return everything[::10], [number for number in everything if number % 10]


def _run_beside(
    segments: Segments, row: Sequence[Segment], teacher: nn.Module, state: State
) -> list[State]:
    aims = []
    with torch.no_grad():
        for segment in row:
            state = segments.run(teacher, segment, state)
            aims.append(state)
    return aims


def _loss(
    segments: Segments,
    row: Sequence[Segment],
    model: nn.Module,
    state: State,
    aims: Sequence[State],
) -> Tensor | None:
    terms = []
    for segment, aim in zip(row, aims, strict=True):
        before, state = state, segments.run(model, segment, state)
        aim = {key: value for key, value in aim.items() if key not in before}
        terms += [
            functional.mse_loss(value, wanted) / (wanted.var(correction=0) + 1e-12)
            for value, wanted in _tensors(state, aim)
        ]
    return torch.stack(terms).sum() if terms else None


def _tensors(state: State, aim: State) -> Iterator[tuple[Tensor, Tensor]]:
    for key, wanted in aim.items():
        pairs = [(state[key], wanted)]
        while pairs:
            ours, theirs = pairs.pop()
            if isinstance(theirs, Tensor):
                same = isinstance(ours, Tensor) and ours.shape == theirs.shape
                if same and theirs.is_floating_point() and theirs.numel():
                    yield ours, theirs
            elif isinstance(theirs, dict):
                pairs += [(ours[name], theirs[name]) for name in theirs if name in ours]
            elif isinstance(theirs, list | tuple):
                pairs += list(zip(ours, theirs, strict=False))  # detectors find what they find


def _parameters(row: Sequence[Segment], model: nn.Module) -> Iterator[nn.Parameter]:
    seen: set[int] = set()
    for name in (name for segment in row if segment.layers for name in segment.modules):
        for parameter in model.get_submodule(name).parameters():
            if id(parameter) not in seen and parameter.is_floating_point():
                seen.add(id(parameter))
                yield parameter
