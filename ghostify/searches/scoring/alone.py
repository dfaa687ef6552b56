"""Fit one layer of the original network alone, and keep what comes out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ghostify.errors import PlanError, SpecError, WeightsError
from ghostify.graph.fit import Stream, inherit
from ghostify.graph.layer_fit import importance, pair_costs, solve
from ghostify.graph.normal import input_gram
from ghostify.graph.pairing import Costs, choose
from ghostify.graph.streams import normalisation_behind
from ghostify.nn.ghost import GhostModule
from ghostify.searches.scoring.cache import Cache, Kept
from ghostify.searches.scoring.score import Options
from ghostify.spec import GhostSpec, LayerSpec

__all__ = ["Alone", "Piece", "watched"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """A Ghost module that was fitted in the network that is otherwise the original.

    Args:
        state: of the module, order of the maps included.
        offset: the mean of the miss ``(n,)``, to be taken from the output, where the batch norm
            behind or a bias takes it up.
        error: the share of the output's variance that is missed.
    """

    state: Mapping[str, Tensor]
    offset: Tensor | None
    error: float

    def build(self, conv: nn.Conv2d, spec: GhostSpec) -> GhostModule:
        """Return the module in the place of ``conv``."""
        ghost = GhostModule.from_conv(conv, spec, generator=_generator(conv))
        ghost.load_state_dict(dict(self.state))
        return ghost.requires_grad_(False).eval()


class Alone:
    """Fits layers of a network one by one; their inputs and outputs are the original's.

    What a layer reads and gives, its second moments and the costs of its pairs are held for the
    latest layer only, so that to ask for all settings of one layer after another is quick.

    Args:
        model: the original, in eval mode; it stays untouched.
        images: ``(N, C, H, W)``, normalised.
        layers: names of the convolutions.
        cache: where results stay; its key must tell networks and images apart.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        layers: Sequence[str],
        cache: Cache,
        options: Options,
    ) -> None:
        self._model, self._images, self._cache, self._options = model, images, cache, options
        self.norms = normalisation_behind(model, images[:2], layers)
        self._held: tuple[str, list[tuple[Tensor, Tensor]]] = "", []
        self._grams: tuple[str, Tensor | None] = "", None
        self._costed: tuple[tuple[str, GhostSpec], Costs] = ("", GhostSpec()), np.zeros((0, 0))

    def fit(self, layer: str, spec: GhostSpec) -> Piece:
        """Return the fitted module of one layer, from the disk if it is there.

        Raises:
            PlanError: the layer is no convolution, or cannot become such a module.
            WeightsError: weights or activations that are not finite.
            OutputError: the result cannot be kept.
        """
        conv = self._conv(layer)
        key = self.key(layer, spec)
        kept = self._cache.kept(lambda: self._fitted(layer, conv, spec), layer, **key)
        state = dict(kept.tensors)
        offset = state.pop("offset", None)
        place = conv.weight.device
        moved = {name: value.to(place) for name, value in state.items()}
        return Piece(
            moved, None if offset is None else offset.to(conv.weight), float(kept.facts["error"])
        )

    def key(self, layer: str, spec: LayerSpec) -> dict[str, Any]:
        """Return what the fit of one layer depends on, beside network and images."""
        work = self._options.fit
        return {
            "kind": type(spec).__name__,
            "setting": dataclasses.asdict(spec),
            "work": [work.rounds, work.iterations, self._options.positions],
            "norm": self.norms.get(layer, ""),
        }

    def takes_offset(self, layer: str) -> bool:
        """Return whether a batch norm behind the layer, or its bias, takes up a mean."""
        return layer in self.norms or self._conv(layer).bias is not None

    def _conv(self, layer: str) -> nn.Conv2d:
        try:
            conv = self._model.get_submodule(layer)
        except AttributeError:
            conv = None
        if not isinstance(conv, nn.Conv2d):
            raise PlanError(f"{layer} is no convolution of this network; plan one that is")
        return conv

    def _fitted(self, layer: str, conv: nn.Conv2d, spec: GhostSpec) -> Kept:
        pairs = self._pairs(layer, conv)
        try:
            ghost = GhostModule.from_conv(conv, spec, generator=_generator(conv))
        except SpecError as why:
            raise PlanError(f"the plan asks for {spec} at {layer}: {why}") from None
        ghost.requires_grad_(False)
        stream: Stream = lambda: iter(pairs)  # noqa: E731
        name = self.norms.get(layer)
        norm = self._model.get_submodule(name) if name else None
        weights = importance(norm, conv.out_channels, conv.weight)
        offset = self.takes_offset(layer)
        costs = self._costs(layer, spec, ghost, pairs, weights, offset=offset)
        pairing = choose(costs, ratio=ghost.ratio, groups=ghost.groups, round_to=ghost.round_to)
        inherit(ghost, conv, pairing)
        if self._grams[0] != layer:
            plain = type(conv) is nn.Conv2d and self._options.fit.rounds > 0
            gram = input_gram(ghost, (source for source, _ in pairs)) if plain else None
            self._grams = layer, gram
        _, error, mean = solve(
            ghost,
            pairing,
            stream,
            weights,
            self._options.fit,
            offset=offset,
            gram=self._grams[1],
        )
        order = torch.tensor(pairing.order, device=mean.device)
        ghost.reorder(order)
        tensors = dict(ghost.state_dict())
        if offset:
            tensors["offset"] = mean[order].float()
        return Kept(tensors, {"layer": layer, "setting": str(spec), "error": error})

    def _costs(
        self,
        layer: str,
        spec: GhostSpec,
        ghost: GhostModule,
        pairs: Sequence[tuple[Tensor, Tensor]],
        weights: Tensor,
        *,
        offset: bool,
    ) -> Costs:
        """Return the costs of all pairs of maps, which do not depend on the ratio."""
        key = layer, dataclasses.replace(spec, ratio=2, round_to=1)
        if self._costed[0] != key:
            costs, filters = pair_costs(ghost, (aim for _, aim in pairs), weights, offset=offset)
            if not filters.isfinite().all():
                raise WeightsError(
                    f"{layer} gives values that are not finite; use sound weights and images"
                )
            self._costed = key, costs
        return self._costed[1]

    def _pairs(self, layer: str, conv: nn.Conv2d) -> list[tuple[Tensor, Tensor]]:
        if self._held[0] != layer:
            found = list(
                watched(
                    self._model,
                    conv,
                    self._images.split(self._options.chunk),
                    self._options.positions,
                )
            )
            if not found:
                _log.info("%s does not run on these images; it is fitted on noise", layer)
                found = [_noise(conv)]
            self._held = layer, found
        return self._held[1]


class _EnoughError(Exception):
    """All calls of the watched layer have been seen."""


def watched(
    model: nn.Module, layer: nn.Module, batches: Sequence[Tensor], positions: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what a layer reads and gives, call by call, until so many positions are seen.

    The first batch goes through the whole network, which tells how often the layer runs; the
    others only as far as its last call.
    """
    calls = 0
    for batch in batches:
        if positions <= 0:
            return
        seen: list[tuple[Tensor, Tensor]] = []
        handle = layer.register_forward_hook(_listener(seen, calls))
        try:
            with torch.no_grad():
                model(batch)
        except _EnoughError:
            pass
        finally:
            handle.remove()
        calls = len(seen)
        for source, aim in seen:
            each = max(1, aim[0, 0].numel())
            enough = max(1, -(-positions // each))
            positions -= min(len(aim), enough) * each
            yield source[:enough], aim[:enough]
            if positions <= 0:
                return


def _listener(seen: list[tuple[Tensor, Tensor]], calls: int) -> Callable[..., None]:
    def listen(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0].clone(), output.clone()))
        if len(seen) == calls:
            raise _EnoughError

    return listen


def _noise(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    sides = [2 * (k - 1) * d + 15 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(16, conv.in_channels, *sides, generator=generator).to(conv.weight)
    with torch.no_grad():
        return noise, conv(noise)


def _generator(conv: nn.Conv2d) -> torch.Generator:
    return torch.Generator(device=conv.weight.device).manual_seed(0)
