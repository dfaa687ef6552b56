"""The graph of a network in eval mode, with the shape of every value in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ghostify.graph.probe import Call
from ghostify.graph.segments import is_batch_norm
from ghostify.graph.trace import BlockTracer, trace
from ghostify.nn.ghost import HOOKS

__all__ = [
    "is_norm",
    "plain_convolution",
    "record_shapes",
    "shape",
    "split_norms",
    "traced",
    "unhooked",
]

_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


_WITH_ACTIVATION = frozenset({"BatchNormAct2d", "SyncBatchNormAct", "FrozenBatchNormAct2d"})
"""timm's batch norms that end in a dropout and an activation."""


def split_norms(model: nn.Module) -> nn.Module:
    """Take timm's batch norms apart, in place: into torch's own, the dropout and the activation.

    What anything hangs on, or what is no module of timm, stays as it is.
    """
    made: dict[int, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and _ends_in_activation(child):
                parent._modules[name] = made.setdefault(id(child), _apart(child))
    return model


def _ends_in_activation(module: nn.Module) -> bool:
    kind = type(module)
    known = kind.__name__ in _WITH_ACTIVATION and kind.__module__.startswith("timm.")
    return known and getattr(module, "running_mean", None) is not None and unhooked(module)


def _apart(module: Any) -> nn.Module:
    norm = nn.BatchNorm2d(len(module.running_mean), eps=module.eps, affine=False)
    norm.running_mean, norm.running_var = module.running_mean, module.running_var
    for name in ("weight", "bias"):  # buffers where the norm is frozen
        value = getattr(module, name)
        frozen = value is not None and not isinstance(value, nn.Parameter)
        setattr(norm, name, nn.Parameter(value, requires_grad=False) if frozen else value)
    norm.affine = norm.weight is not None
    return nn.Sequential(norm, module.drop, module.act).train(module.training)


class _Recorder(fx.Interpreter):
    """Runs a graph and writes the shape of each tensor to its node."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        n.meta["ghostify_shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value


def traced(model: nn.Module, example: Sequence[Tensor]) -> fx.Graph:
    """Trace a network that is in eval mode and note all shapes.

    Raises:
        Exception: whatever a model that cannot be traced runs into.
    """
    graph = trace(model, Call(tuple(example), {}), tracer=BlockTracer(is_norm))
    record_shapes(model, graph, example)
    return graph


def record_shapes(model: nn.Module, graph: fx.Graph, example: Sequence[Tensor]) -> None:
    """Run a graph once and note the shape of each value."""
    with torch.no_grad():
        inputs = [tensor.clone() for tensor in example]
        _Recorder(model, graph=graph).run(*inputs)


def shape(node: fx.Node) -> tuple[int, ...] | None:
    """Return the shape of a node's value, if that is a tensor."""
    found: tuple[int, ...] | None = node.meta.get("ghostify_shape")
    return found


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a batch norm with kept statistics and nothing else in it."""
    known = type(module) in _NORMS or type(module).__name__ == "FrozenBatchNorm2d"
    return known and is_batch_norm(module) and unhooked(module)


def plain_convolution(module: nn.Module) -> bool:
    """Return whether a module is exactly torch's convolution, with nothing hung on it."""
    return type(module) is nn.Conv2d and unhooked(module)


def unhooked(module: nn.Module) -> bool:
    """Return whether nothing runs before or behind a module."""
    return not any(getattr(module, hooks) for hooks in HOOKS)
