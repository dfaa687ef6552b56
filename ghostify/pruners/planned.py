"""The maps that go where a plan says how many."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from ghostify.errors import PlanError, nearest
from ghostify.graph.slices import Kept
from ghostify.pruners.groups import Graph, find_groups, slices_of
from ghostify.pruners.methods import METHODS
from ghostify.pruners.scores import Scores, score_groups
from ghostify.spec import PruneSpec

__all__ = ["check_prunes", "choose_maps"]


def choose_maps(
    model: nn.Module,
    prunes: Mapping[str, PruneSpec],
    example: object,
    *,
    graph: Graph | None = None,
    scores: Scores | None = None,
) -> dict[str, Kept]:
    """Return what every layer keeps if these layers lose so many of their maps.

    Args:
        graph: of the model, if it is known.
        scores: of the maps of layers, of which the least go; where a layer has none, the L1
            norms of its filters stand in.

    Raises:
        PlanError: a layer's maps cannot be removed, and why.
        PruneError: torch-pruning cannot follow the network.
    """
    graph = graph or find_groups(model, example)
    check_prunes(graph, prunes)
    groups = [group for group in graph.groups if group.layer in prunes]
    rest = tuple(group for group in groups if group.layer not in (scores or {}))
    named = Graph(rest, {}, graph.model, graph.handle)
    scores = {**(scores or {}), **score_groups(named, "l1", METHODS["l1"])}
    removed = {
        group.layer: {
            int(number)
            for number in np.argsort(scores[group.layer], kind="stable")[
                : group.maps - prunes[group.layer].kept_maps(group.maps)
            ]
        }
        for group in groups
    }
    return slices_of(groups, removed)


def check_prunes(graph: Graph, prunes: Mapping[str, PruneSpec]) -> None:
    """Make sure that a plan prunes only what can be pruned on its own.

    Raises:
        PlanError: naming the layer, and why not.
    """
    groups = {group.layer: group for group in graph.groups}
    for name, spec in prunes.items():
        group = groups.get(name)
        if group is not None and len(group.writers) == 1:
            if type(graph.model.get_submodule(name)) is nn.Conv2d:
                continue
            reason = f"it is a {type(graph.model.get_submodule(name)).__name__}"
        elif group is not None:
            reason = f"its maps go together with those of {group.writers[1]}"
        else:
            together = [one.layer for one in graph.groups if name in one.writers]
            reason = graph.reasons.get(name, "its maps cannot be followed")
            if together:
                reason = f"its maps go together with those of {together[0]}"
        hint = "" if name in graph.reasons else nearest(name, groups)
        raise PlanError(
            f"the plan asks for {spec} at {name}, which cannot be: {reason}; "
            f"take the layer out of the plan{hint}"
        )
