"""The criteria by which maps are ranked, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ghostify.errors import PruneError, nearest

__all__ = ["METHODS", "GateEffect", "Method", "is_batch_norm", "method_of"]


@dataclass(frozen=True, slots=True)
class Method:
    """How maps are ranked.

    ``score`` makes torch-pruning's importance. With ``everywhere`` all maps of the network are
    ranked together; else each layer loses the same share of its own. ``needs`` tells what
    labelled images are for: nothing, ``"effect"`` (of each map on the loss), ``"curvature"``
    (squared gradients of single images), or the sparse training by which layers are prepared.
    """

    what: str
    source: str
    score: Callable[[Any], Any]
    everywhere: bool
    needs: str = ""  # "", "effect", "curvature", "group-sparse", "growing-reg"

    @property
    def trains(self) -> bool:
        """Whether ranking the maps trains the network."""
        return self.needs in ("group-sparse", "growing-reg")


class GateEffect:
    """What removing a map does to the loss, by first order: ``(g dL/dg + b dL/db)^2``.

    Of the batch norm behind the layer; of the filter itself where there is none. torch-pruning
    has no such score: its sum over a filter is zero by scale invariance in front of a batch norm.
    """

    def __init__(self) -> None:
        self.effects: dict[nn.Module, Tensor] = {}

    def __call__(self, handle: Any) -> Tensor | None:
        """Return the effect of every map of one of torch-pruning's groups."""
        layers = [item.dep.target.module for item in handle]
        norms = [one for one in layers if isinstance(one, nn.Module) and is_batch_norm(one)]
        for one in (*norms, layers[0]):
            found = self.effects.get(one)
            if found is not None and len(found) == len(handle[0].root_idxs):
                return found
        return None


def _magnitude(p: int, reduction: str, normalizer: str | None) -> Callable[[Any], Any]:
    return lambda tp: tp.importance.GroupMagnitudeImportance(
        p=p, group_reduction=reduction, normalizer=normalizer
    )


METHODS: dict[str, Method] = {
    "l1": Method(
        "sum of a filter's absolute weights, the same share of every layer",
        "Li et al., 2017",
        _magnitude(1, "first", None),
        everywhere=False,
    ),
    "l1-global": Method(
        "the same over its layer's mean, ranked over all layers",
        "Li et al., 2017",
        _magnitude(1, "first", "mean"),
        everywhere=True,
    ),
    "l2": Method(
        "sum of a filter's squared weights, the same share of every layer",
        "He et al., 2018",
        _magnitude(2, "first", None),
        everywhere=False,
    ),
    "random": Method(
        "by chance, the same share of every layer",
        "Mittal et al., 2018",
        lambda tp: tp.importance.RandomImportance(),
        everywhere=False,
    ),
    "fpgm": Method(
        "distance to the other filters of the layer, the same share of every layer",
        "He et al., 2019",
        lambda tp: tp.importance.FPGMImportance(group_reduction="first", normalizer=None),
        everywhere=False,
    ),
    "lamp": Method(
        "squared weights over those of all larger maps, ranked over all layers",
        "Lee et al., 2021",
        lambda tp: tp.importance.LAMPImportance(),
        everywhere=True,
    ),
    "bn-scale": Method(
        "the batch norm's factor, ranked over all layers",
        "Liu et al., 2017; Huang and Wang, 2018",
        lambda tp: tp.importance.BNScaleImportance(group_reduction="mean", normalizer=None),
        everywhere=True,
    ),
    "taylor": Method(
        "first-order effect on the loss at the batch norm, ranked over all layers",
        "Molchanov et al., 2019 (Taylor-FO-BN)",
        lambda tp: GateEffect(),
        everywhere=True,
        needs="effect",
    ),
    "hessian": Method(
        "optimal brain damage with squared gradients for the curvature, ranked over all layers",
        "LeCun et al., 1989",
        lambda tp: tp.importance.GroupHessianImportance(),
        everywhere=True,
        needs="curvature",
    ),
    "group-norm": Method(
        "L2 norm of all that goes with a map, ranked over all layers",
        "Fang et al., 2023 (DepGraph)",
        _magnitude(2, "mean", "mean"),
        everywhere=True,
    ),
    "group-sparse": Method(
        "the same after training with a penalty on these norms",
        "Fang et al., 2023 (DepGraph)",
        _magnitude(2, "mean", "mean"),
        everywhere=True,
        needs="group-sparse",
    ),
    "growing-reg": Method(
        "L2 norm after training with a penalty that grows for the least maps",
        "Wang et al., 2021",
        _magnitude(2, "mean", "mean"),
        everywhere=True,
        needs="growing-reg",
    ),
}
"""Pruning methods by name."""

_ALIASES = {"obd": "hessian", "network-slimming": "bn-scale", "depgraph": "group-norm"}


def method_of(name: str) -> tuple[str, Method]:
    """Return a method with the name that it goes by here.

    Raises:
        PruneError: no method has this name.
    """
    own = _ALIASES.get(name, name)
    if own not in METHODS:
        raise PruneError(
            f"no pruning method is called {name!r}"
            + (nearest(name, [*METHODS, *_ALIASES]) or f"; there are {', '.join(METHODS)}")
        )
    return own, METHODS[own]


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module has the factors that network slimming ranks by."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
