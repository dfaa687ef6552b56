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

__all__ = ["is_norm", "plain_convolution", "record_shapes", "shape", "traced", "unhooked"]

_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


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
