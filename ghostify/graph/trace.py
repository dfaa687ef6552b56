"""Symbolic tracing with the leaf modules that torchvision and timm ask for."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from ghostify.graph.probe import Call
from ghostify.nn.ghost import GhostModule

__all__ = ["CONVOLUTIONS", "BlockTracer", "NetworkTracer", "trace"]

CONVOLUTIONS: tuple[type[nn.Module], ...] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class NetworkTracer(fx.Tracer):
    """A tracer that never looks inside a convolution, whatever its class.

    timm's "notrace" modules and functions and torchvision's operators stay whole too; both
    libraries are consulted only if something has imported them, since a model made of
    their parts cannot exist otherwise.
    """

    def __init__(self) -> None:
        timm_layers = sys.modules.get("timm.layers")
        operators = sys.modules.get("torchvision.ops")
        functions: tuple[Callable[..., Any], ...] = ()
        self._leaves: tuple[type[nn.Module], ...] = CONVOLUTIONS
        if timm_layers is not None:
            functions = tuple(timm_layers.get_notrace_functions())
            self._leaves += tuple(timm_layers.get_notrace_modules())
        modules: Any = (math,) if operators is None else (math, operators)
        super().__init__(
            autowrap_modules=modules,
            autowrap_functions=functions,
            param_shapes_constant=True,
        )

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module becomes one node of the graph."""
        if isinstance(m, self._leaves) or type(m).__module__.startswith("torchvision.ops"):
            return True
        return super().is_leaf_module(m, module_qualified_name)


class BlockTracer(NetworkTracer):
    """A tracer that leaves Ghost modules and batch norms whole, and looks into all else.

    Args:
        norm: which modules are batch norms.
    """

    def __init__(self, norm: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self._norm = norm

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module becomes one node of the graph."""
        if isinstance(m, GhostModule) or self._norm(m):
            return True
        if type(m).__module__ == "torchvision.ops.misc":
            return False
        return super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module, call: Call, *, tracer: fx.Tracer | None = None) -> fx.Graph:
    """Trace a model as it runs in its present mode on these arguments.

    Parameters of ``forward`` that the call leaves out keep their defaults, so that an
    ``if mask is None`` goes the way that it goes in the model.

    Raises:
        Exception: whatever the tracing of a model that cannot be traced runs into.
    """
    if isinstance(model, CONVOLUTIONS):
        raise TypeError("the network is a single convolution")
    return (tracer or NetworkTracer()).trace(model, concrete_args=_left_out(model, call))


def _left_out(model: nn.Module, call: Call) -> dict[str, Any] | None:
    signature = inspect.signature(model.forward)
    given = signature.bind(*call.args, **call.kwargs).arguments
    return {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in given and parameter.default is not inspect.Parameter.empty
    } or None
