"""A score for every family of maps, by a method's criterion."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ghostify.errors import PruneError
from ghostify.pruners.groups import Graph, Group
from ghostify.pruners.learning import Images, curvature, effects, learn_sparsity
from ghostify.pruners.methods import Method, is_batch_norm

__all__ = ["Scores", "score_groups"]

Scores = Mapping[str, NDArray[np.float64]]
"""One number for each family of each group, by the group's layer; the least go first."""


def score_groups(
    graph: Graph,
    name: str,
    method: Method,
    *,
    images: Images | None = None,
    steps: int | None = None,
    seed: int = 0,
    ghosted: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score the maps of every group.

    Sparse training changes the weights of ``graph.model``.

    Args:
        images: batches of images and labels, for methods that need them.
        ghosted: whether the network has Ghost modules, for which one convolution stands.

    Raises:
        PruneError: there are no images, or the method cannot tell the maps apart.
    """
    import torch_pruning

    importance = method.score(torch_pruning)
    model = graph.model
    if method.needs:
        if images is None:
            raise PruneError(
                f"{name} ranks maps by labelled images; give some (--data), or choose a method "
                "that goes by weights, such as l1"
            )
        if ghosted:
            raise PruneError(
                f"{name} needs gradients of filters, which a Ghost module makes of others; "
                "choose a method that goes by weights, such as l1 or group-norm"
            )
    if name == "bn-scale":
        _check_batch_norms(graph)
    if method.needs == "effect":
        effects(model, images, importance, on_step=on_step)
    elif method.needs == "curvature":
        curvature(model, images, importance, on_step=on_step)
    elif method.needs:
        learn_sparsity(graph, images, kind=method.needs, steps=steps, seed=seed, on_step=on_step)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        return {group.layer: _score(importance, group, name) for group in graph.groups}


def _score(importance: Any, group: Group, name: str) -> NDArray[np.float64]:
    value = importance(group.handle)
    if value is None:
        raise PruneError(
            f"{name} cannot rank the maps of {group.layer}: nothing in front of their readers has "
            "what it looks at; keep the layer or choose another method"
        )
    scores = torch.as_tensor(value).detach().double().cpu().numpy()
    if not np.isfinite(scores).all():
        raise PruneError(
            f"{name} gives scores that are not finite for {group.layer}; check the weights"
        )
    return np.array([scores[list(family)].mean() for family in group.families])


def _check_batch_norms(graph: Graph) -> None:
    """Make sure that batch norms are there to rank by, and differ."""
    values: list[Tensor] = []
    for group in graph.groups:
        norms = [graph.model.get_submodule(part.name) for part in group.parts]
        mine: Sequence[nn.Module] = [one for one in norms if is_batch_norm(one)]
        if not mine:
            raise PruneError(
                f"bn-scale ranks maps by the batch norm behind a layer, and {group.layer} has "
                "none; keep the layer or choose another method, such as l1"
            )
        values += [one.weight.detach().abs().flatten() for one in mine]  # type: ignore[operator]
    flat = torch.cat(values) if values else torch.zeros(0)
    if flat.numel() and float(flat.max() - flat.min()) <= 1e-6 * float(flat.abs().max()):
        raise PruneError(
            f"bn-scale cannot rank the maps: all factors of the batch norms are {float(flat[0]):g} "
            "(a network that is not trained); load trained weights or choose another method"
        )
