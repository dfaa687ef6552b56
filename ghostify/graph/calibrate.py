"""Fit the Ghost modules of a converted network to the original, on images without labels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ghostify.errors import InputError, ModelError, SpecError, WeightsError
from ghostify.graph.fit import (
    PairSums,
    Stream,
    fit_branches,
    inherit,
    misses,
    set_filters,
)
from ghostify.graph.fold import fold_orders
from ghostify.graph.normal import fit_primary, input_gram, is_linear_in_its_weight
from ghostify.graph.pairing import Pairing, choose
from ghostify.graph.refine import Refined, refine
from ghostify.graph.segments import Segment, Segments
from ghostify.graph.store import Store
from ghostify.graph.streams import Calls, Streams, normalisation_behind, rechunked
from ghostify.nn.ghost import GhostModule

__all__ = ["FitOptions", "FitReport", "LayerFit", "calibrate"]

Progress = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and what begins now."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How much work goes into a fit."""

    rounds: int = 1  # alternations of primary filters and branches, per layer
    iterations: int = 6  # of conjugate gradients in each
    block_steps: int = 60  # of gradient descent for each block, behind its last layer
    joint_steps: int = 200  # of gradient descent on all blocks together, at the end
    rate: float = 2e-3  # of the block steps; the joint ones take half of it
    positions: int = 1 << 17  # of a layer's output that its algebra looks at
    memory_bytes: int = 2 << 30  # of activations; what is beyond goes to a temporary file
    seed: int = 0  # of the order of the images in the steps

    def __post_init__(self) -> None:
        least = {
            "rounds": 0, "iterations": 0, "block_steps": 0, "joint_steps": 0, "positions": 1,
            "memory_bytes": 0, "seed": 0,
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise SpecError(f"FitOptions.{name} is a whole number >= {low} (got {value!r})")
        if not isinstance(self.rate, float | int) or not 0 < self.rate < math.inf:
            raise SpecError(f"FitOptions.rate must be above 0 (got {self.rate!r})")


@dataclass(frozen=True, slots=True)
class LayerFit:
    """How well a Ghost module reproduces its convolution on the images, before the steps.

    Errors are shares of the output's variance, each map weighted by the batch norm behind.
    """

    name: str
    start_error: float  # with the original's filters, and ghosts in closed form
    error: float
    seconds: float


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit did; ``blocks`` and ``joint`` are the losses of the gradient steps."""

    layers: tuple[LayerFit, ...]
    blocks: tuple[Refined, ...]
    joint: Refined | None
    images: int = 0
    seconds: float = 0.0
    copies: tuple[str, ...] = ()  # layers whose maps are put in order by an indexed copy
    permuted: tuple[str, ...] = ()  # modules whose maps stand in another order than before
    notes: tuple[str, ...] = ()


def calibrate(
    original: nn.Module,
    converted: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Tensor],
    *,
    options: FitOptions | None = None,
    on_progress: Progress | None = None,
) -> FitReport:
    """Fit a converted network, in place, so that it does what the original did.

    Layer by layer in execution order: the input is that of the converted network as far as
    it is fitted, the target what the convolution gives in the original network. Which output
    maps are computed and which are ghosts of which is chosen by the closed-form cost of every
    pair; branches and primary filters are then solved for in turn, and the offset goes into
    the batch norm behind. Each block is refined by gradient against the original's block, and
    at the end all blocks together. Batch norms keep their variances. No labels are used, and
    activations of one point of the network are held at a time.

    To be called once for each conversion: afterwards the maps inside blocks may stand in another
    order than the original's.

    Args:
        original: stays untouched (it is put into eval mode for the time).
        converted: the same network with Ghost modules, or with fewer maps inside its blocks.
        layers: what to fit; those that are no Ghost modules only say where blocks begin.
        batches: images ``(N, C, H, W)``, normalised as the network wants them.

    Raises:
        InputError: no images, or images that the network does not take.
        WeightsError: weights or activations that are not finite.
    """
    options = options or FitOptions()
    tell = on_progress or _ignore
    began = time.monotonic()
    images = _checked(original, list(rechunked(batches)))
    modes = [(module, module.training) for one in (original, converted) for module in one.modules()]
    asked = [(one, one.requires_grad) for net in (original, converted) for one in net.parameters()]
    try:
        original.eval()
        converted.eval()
        for parameter, _ in asked:
            parameter.requires_grad_(False)
        try:
            report = _calibrate(original, converted, layers, images, options, tell)
        finally:
            for parameter, wanted in asked:
                parameter.requires_grad_(wanted)
    finally:
        for module, training in modes:
            module.training = training
    return replace(report, images=sum(map(len, images)), seconds=time.monotonic() - began)


def _ignore(_done: int, _of: int, _what: str) -> None:
    return None


def _checked(original: nn.Module, images: list[Tensor]) -> list[Tensor]:
    if not images:
        raise InputError("there are no calibration images; give some")
    kinds = {one.dtype for one in original.parameters() if one.is_floating_point()}
    if kinds - {torch.float32, torch.float64}:
        wrong = min(str(kind) for kind in kinds - {torch.float32, torch.float64})
        raise ModelError(f"a fit needs weights in float32 (got {wrong}); call .float() first")
    for name, value in original.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise WeightsError(f"{name} holds values that are not finite; use sound weights")
    like = next(iter(original.parameters()), images[0])
    return [chunk.to(like.device, like.dtype) for chunk in images]


def _calibrate(
    original: nn.Module,
    converted: nn.Module,
    layers: Sequence[str],
    images: list[Tensor],
    options: FitOptions,
    tell: Progress,
) -> FitReport:
    example = images[0][:2]
    try:
        with torch.no_grad():
            original(example.clone())
    except Exception as error:
        shape = "x".join(map(str, example.shape[1:]))
        raise InputError(
            f"the network does not take calibration images of {shape} "
            f"({type(error).__name__}); choose their size and channels to fit it"
        ) from error
    segments = Segments(original, layers, example)
    norms = normalisation_behind(original, example, layers)
    streams = Streams(segments, original, converted, images, Store(options.memory_bytes))
    generator = torch.Generator().manual_seed(options.seed)
    fits: list[LayerFit] = []
    blocks: list[Refined] = []
    todo = len(layers) + (len(layers) if options.joint_steps else 0)
    orders = _Twins()
    seen: set[str] = set()
    for segment in segments.row:
        for name in segment.layers:
            ghost = converted.get_submodule(name)
            if not isinstance(ghost, GhostModule) or name in seen:
                continue
            tell(len(seen), todo, name)
            first = orders.first(ghost)
            if first is not ghost:
                _follow(streams, segment, name, norms.get(name), options, first)
                continue
            fits.append(_fit_layer(streams, segment, name, norms.get(name), options))
        seen.update(segment.layers)
        if segment.last and not options.block_steps:
            break
        behind = streams.behind(segment)
        if options.block_steps:
            blocks.append(
                refine(
                    segments, [segment], converted, streams.ours, [behind],
                    steps=options.block_steps, rate=options.rate, generator=generator,
                )
            )  # fmt: skip
        if not segment.last:
            streams.pass_on(segment, theirs=behind)
    joint = None
    if options.joint_steps and len(segments.row) > 1:
        tell(len(layers), todo, "all blocks together")
        joint = refine(
            segments, segments.row, converted, [segments.start(chunk) for chunk in images], None,
            teacher=original, steps=options.joint_steps, rate=options.rate / 2,
            generator=generator,
            on_step=lambda step: tell(
                len(layers) + step * len(layers) // options.joint_steps, todo, "all blocks together"
            ),
        )  # fmt: skip
    folded = fold_orders(segments, converted, layers)
    notes = (segments.note,) if segments.note else ()
    return FitReport(
        layers=tuple(fits),
        blocks=tuple(blocks),
        joint=joint,
        copies=folded.copies,
        permuted=folded.permuted,
        notes=notes,
    )


class _Twins:
    """Ghost modules that share their weights also share their order."""

    def __init__(self) -> None:
        self._orders: dict[int, GhostModule] = {}

    def first(self, ghost: GhostModule) -> GhostModule:
        """Return the module for which these weights are fitted, which may be another."""
        return self._orders.setdefault(id(ghost.primary.weight), ghost)


def importance(norm: nn.Module | None, maps: int, like: Tensor) -> Tensor:
    """Return gamma^2 / (sigma^2 + eps) of the batch norm behind a layer, or ones, ``(n,)``."""
    if norm is None:
        return torch.ones(maps, dtype=torch.float64, device=like.device)
    variance: Tensor = norm.running_var  # type: ignore[assignment]
    weight = getattr(norm, "weight", None)
    scale = torch.ones_like(variance) if weight is None else weight.detach()
    eps = float(norm.eps)  # type: ignore[arg-type]
    return (scale.double().square() / (variance.double() + eps)).to(like.device)


def _fit_layer(
    streams: Streams, segment: Segment, name: str, norm: str | None, options: FitOptions
) -> LayerFit:
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
    pairing, filters = choose_ghosts(ghost, (aim for _, aim in stream()), weights, offset=offset)
    if not filters.isfinite().all():
        raise WeightsError(f"{name} gives values that are not finite; use sound weights and images")
    inherit(ghost, conv, pairing)
    set_filters(ghost, filters)
    start, error, mean = solve(ghost, pairing, stream, weights, options, offset=offset)
    _correct_means(
        ghost, streams.converted.get_submodule(norm) if norm else None, mean, stream, pairing
    )
    ghost.reorder(torch.tensor(pairing.order))
    for kept in (inputs, targets):
        streams.store.release(kept)
    return LayerFit(name, start, error, time.monotonic() - began)


def _follow(
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
    sums = PairSums(ghost.out_channels, ghost.kernel, device=ghost.weight.device)
    for batch in maps:
        sums.add(batch)
    filters, errors = sums.solve(offset=offset)
    costs = (errors * weights).nan_to_num(0.0).cpu().numpy()
    pairing = choose(costs, ratio=ghost.ratio, groups=ghost.groups)
    count = len(pairing.intrinsic)
    owners = [pairing.intrinsic[k % count] for k in range(len(pairing.ghosts))]
    return pairing, filters[owners, :, list(pairing.ghosts)].to(ghost.weight.dtype)


def solve(
    ghost: GhostModule,
    pairing: Pairing,
    stream: Stream,
    weights: Tensor,
    options: FitOptions,
    *,
    offset: bool = True,
) -> tuple[float, float, Tensor]:
    """Solve for branches and primary filters in turn.

    Returns:
        The relative error before and after, and the mean of the miss per map as it is made.
    """
    made = torch.tensor(pairing.made, device=weights.device)

    def relative() -> tuple[float, Tensor]:
        mean, miss, energy = misses(ghost, pairing, stream)
        if not offset:
            miss = miss + mean.square()
        whole = float((energy * weights[made]).sum())
        return (float((miss * weights[made]).sum()) / whole if whole > 0 else 0.0), mean

    fit_branches(ghost, pairing, stream, offset=offset)
    start, mean = relative()
    if not options.rounds or not is_linear_in_its_weight(ghost.primary):
        return start, start, mean
    before = {name: value.clone() for name, value in ghost.state_dict().items()}
    gram = input_gram(ghost, (source for source, _ in stream()))
    for _ in range(options.rounds):
        fit_primary(
            ghost,
            pairing,
            stream,
            weights,
            gram=gram,
            iterations=options.iterations,
            offset=offset,
        )
        fit_branches(ghost, pairing, stream, offset=offset)
    error, after = relative()
    if not error <= start:  # not a number included
        ghost.load_state_dict(before)
        return start, start, mean
    return start, error, after


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
        elif ghost.primary.bias is not None:
            count = ghost.intrinsic_channels
            ghost.primary.bias -= mean[:count].to(ghost.primary.bias.dtype)
            mean = misses(ghost, pairing, stream)[0][count:]  # the ghosts have moved with it
            for branch in ghost.cheap:
                bias: Tensor = branch.bias  # type: ignore[assignment]
                bias -= mean[: len(bias)].to(bias.dtype)
                mean = mean[len(bias) :]
