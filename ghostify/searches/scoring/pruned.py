"""Which maps pruning removes, and who no longer reads them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ghostify.graph.slices import Kept
from ghostify.spec import PruneSpec

__all__ = ["Readings"]


class Readings:
    """What the layers of a network still read once some of them are pruned.

    Which maps go depends on a layer and its setting alone, so each pair is looked up once.

    Args:
        model: the original; it stays untouched.
        example: ``(N, C, H, W)``.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self._model, self._example = model, example
        self._known: dict[tuple[str, PruneSpec], dict[str, Kept]] = {}
        self._graph: object = None

    def slices(self, prunes: Mapping[str, PruneSpec]) -> dict[str, Kept] | None:
        """Return what every layer keeps, or None where nothing is pruned.

        Raises:
            PlanError: a layer's maps cannot be removed, and why.
            PruneError: the network cannot be followed.
        """
        if not prunes:
            return None
        from ghostify.pruners.groups import Graph, find_groups
        from ghostify.pruners.planned import choose_maps

        if not isinstance(self._graph, Graph):
            self._graph = find_groups(self._model, self._example)
        return choose_maps(self._model, prunes, self._example, graph=self._graph)

    def masks(self, prunes: Mapping[str, PruneSpec]) -> dict[str, Tensor]:
        """Return, for each layer that reads fewer maps, 1 where a map stays and 0 elsewhere.

        Raises:
            PlanError: a layer's maps cannot be removed, and why.
            PruneError: the network cannot be followed.
        """
        masks: dict[str, Tensor] = {}
        for name, spec in prunes.items():
            if (name, spec) not in self._known:
                self._known[name, spec] = self.slices({name: spec}) or {}
            for reader, kept in self._known[name, spec].items():
                if kept.reads is None:
                    continue
                layer = self._model.get_submodule(reader)
                mask = torch.zeros(_width(layer), device=self._example.device)
                mask[list(kept.reads)] = 1
                masks[reader] = mask * masks.get(reader, 1)
        return masks


def _width(layer: nn.Module) -> int:
    """Return how many maps or features a layer reads."""
    width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    assert isinstance(width, int)
    return width
