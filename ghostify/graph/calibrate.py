"""Fit the Ghost modules of a converted network to the original, on images without labels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ghostify.errors import InputError, ModelError, WeightsError
from ghostify.graph.fit_options import FitOptions
from ghostify.graph.fold import Move, fold_orders, move_maps
from ghostify.graph.layer_fit import LayerFit, fit_layer, follow
from ghostify.graph.layout import laid_out
from ghostify.graph.pairing import Pairing
from ghostify.graph.probe import copy_model
from ghostify.graph.reader_fit import fit_reader
from ghostify.graph.refine import Refined, refine
from ghostify.graph.segments import Segments
from ghostify.graph.slices import Slices
from ghostify.graph.store import Store
from ghostify.graph.stream_orders import common_pairings
from ghostify.graph.streams import Streams, normalisation_behind, rechunked
from ghostify.nn.ghost import GhostModule

__all__ = ["FitOptions", "FitReport", "LayerFit", "calibrate"]

_STEP_PIXELS, _STEP_IMAGES = 1 << 14, 8  # of one gradient step; the least, where a chunk has them
_JOINT_MACS = 650e9  # of the original's forward passes in the joint steps: a minute on two cores
_JOINT_STEPS = 50, 1000

Progress = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and what begins now."""


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
    moves: tuple[Move, ...] = ()  # how they changed places (:func:`ghostify.graph.fold.move_maps`)
    notes: tuple[str, ...] = ()


def calibrate(
    original: nn.Module,
    converted: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Tensor],
    *,
    options: FitOptions | None = None,
    slices: Slices | None = None,
    on_progress: Progress | None = None,
) -> FitReport:
    """Fit a converted network, in place, so that it does what the original did.

    Layer by layer in execution order: the input is that of the converted network as far as
    it is fitted, the target what the convolution gives in the original network. Which output
    maps are computed and which are ghosts of which is chosen by the closed-form cost of every
    pair, together for layers that write to one residual stream; branches and primary filters
    are then solved for in turn, and the offset goes into the batch norm behind. Each block is
    refined by gradient against the original's block, and at the end all blocks together. Batch
    norms keep their variances. No labels are used, and activations of one point of the network
    are held at a time.

    To be called once for each conversion: afterwards the maps may stand in another order than
    the original's.

    Args:
        original: stays untouched (it is put into eval mode for the time).
        converted: the same network with Ghost modules, or with fewer maps inside its blocks.
        layers: what to fit; those that are no Ghost modules only say where blocks begin.
        batches: images ``(N, C, H, W)``, normalised as the network wants them.
        slices: what layers keep that have lost maps.

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
            report = _calibrate(original, converted, layers, images, options, slices or {}, tell)
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
    slices: Slices,
    tell: Progress,
) -> FitReport:
    example = images[0][:2]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            original(example.clone())
    except Exception as error:
        shape = "x".join(map(str, example.shape[1:]))
        raise InputError(
            f"the network does not take calibration images of {shape} "
            f"({type(error).__name__}); choose their size and channels to fit it"
        ) from error
    images = laid_out(images, original, trained=converted)
    example = images[0][:2]
    size = min(len(images[0]), max(_STEP_IMAGES, _STEP_PIXELS // math.prod(example.shape[2:])))
    macs = counter.get_total_flops() / 2 / len(example) * size
    steps = _affordable(macs) if options.joint_steps is None else options.joint_steps
    segments = Segments(original, layers, example, converted=converted if slices else None)
    norms = normalisation_behind(original, example, layers)
    todo = len(layers) + (len(layers) if steps else 0)
    pairings: dict[str, Pairing] = {}
    if options.stream_order == "common":
        ahead = Streams(segments, original, converted, images, Store(options.memory_bytes))
        pairings = common_pairings(
            ahead, norms, options, on_layer=lambda name: tell(0, todo, f"maps of {name}")
        )
        del ahead
    streams = Streams(segments, original, converted, images, Store(options.memory_bytes))
    generator = torch.Generator().manual_seed(options.seed)
    fits: list[LayerFit] = []
    blocks: list[Refined] = []
    orders = _Twins()
    seen: set[str] = set()
    for segment in segments.row:
        for name in segment.layers:
            ghost = converted.get_submodule(name)
            if name in seen:
                continue
            if not isinstance(ghost, GhostModule):
                if name in slices and slices[name].reads is not None:
                    tell(len(seen), todo, name)
                    fit = fit_reader(streams, segment, name, norms.get(name), options, slices[name])
                    fits += [fit] if fit is not None else []
                continue
            tell(len(seen), todo, name)
            first = orders.first(ghost)
            if first is not ghost:
                follow(streams, segment, name, norms.get(name), options, first)
                continue
            pairing = pairings.get(name)
            reads = slices[name].reads if name in slices else None
            fits.append(
                fit_layer(
                    streams, segment, name, norms.get(name), options, pairing=pairing, reads=reads
                )
            )
        seen.update(segment.layers)
        refines = bool(options.block_steps and segment.layers)
        if segment.last and not refines:
            break
        behind = streams.behind(segment)
        if refines:
            blocks.append(
                refine(
                    segments, [segment], converted, streams.ours, [behind],
                    steps=options.block_steps, rate=options.rate, size=size, generator=generator,
                )
            )  # fmt: skip
        if not segment.last:
            streams.pass_on(segment, theirs=behind)
    folded = fold_orders(segments, converted, layers)
    joint = None
    if steps and sum(bool(one.layers) for one in segments.row) > 1:
        tell(len(layers), todo, "all blocks together")
        beside = copy_model(original)
        move_maps(beside, folded.moves, slices=slices)
        joint = refine(
            segments, segments.row, converted, [segments.start(chunk) for chunk in images], None,
            teacher=beside, steps=steps, rate=options.rate / 2, size=size,
            generator=generator,
            on_step=lambda step: tell(
                len(layers) + step * len(layers) // steps, todo, "all blocks together"
            ),
        )  # fmt: skip
    notes = (segments.note,) if segments.note else ()
    return FitReport(
        layers=tuple(fits),
        blocks=tuple(blocks),
        joint=joint,
        copies=folded.copies,
        permuted=folded.permuted,
        moves=folded.moves,
        notes=notes,
    )


def _affordable(macs: float) -> int:
    """Return how many joint steps there are where one has so many multiply-adds."""
    least, most = _JOINT_STEPS
    return int(min(max(_JOINT_MACS / max(macs, 1), least), most))


class _Twins:
    """Ghost modules that share their weights also share their order."""

    def __init__(self) -> None:
        self._orders: dict[int, GhostModule] = {}

    def first(self, ghost: GhostModule) -> GhostModule:
        """Return the module for which these weights are fitted, which may be another."""
        return self._orders.setdefault(id(ghost.primary.weight), ghost)
