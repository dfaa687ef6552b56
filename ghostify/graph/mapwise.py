"""What operations do to the channels of feature maps, and whose weights may be permuted."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import fx, nn
from torch.nn import functional

__all__ = [
    "COMBINING",
    "FLATTENING",
    "FUNCTIONS",
    "MEANS",
    "METHODS",
    "MODULES",
    "NAMES",
    "SIZES",
    "is_plain_norm",
    "permutable",
    "shares",
    "uses_of",
]

_KNOWN = frozenset({"torch", "torchvision", "timm"})  # whose batch norms treat each map alike

MODULES: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Identity, nn.Dropout,
    nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
    nn.Upsample, nn.ZeroPad2d,
)  # fmt: skip
NAMES = frozenset({"StochasticDepth", "DropPath"})
FUNCTIONS: frozenset[Callable[..., Any]] = frozenset({
    functional.relu, functional.relu_, functional.relu6, functional.leaky_relu, functional.elu,
    functional.silu,
    functional.gelu, functional.mish, functional.hardswish, functional.hardsigmoid,
    functional.sigmoid, functional.tanh, functional.dropout, functional.max_pool2d,
    functional.avg_pool2d, functional.adaptive_avg_pool2d, functional.interpolate,
    torch.relu, torch.sigmoid, torch.tanh,
})  # fmt: skip
METHODS = frozenset({"relu", "relu_", "sigmoid", "tanh", "contiguous", "clone"})
MEANS: frozenset[Any] = frozenset({torch.mean, "mean"})
COMBINING: frozenset[Any] = frozenset({
    operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul,
    torch.add, torch.sub, torch.mul, "add", "add_", "sub", "sub_", "mul", "mul_",
})  # fmt: skip
FLATTENING: frozenset[Any] = frozenset({
    torch.flatten, torch.reshape, "flatten", "reshape", "view",
})  # fmt: skip
SIZES: frozenset[Any] = frozenset({"size", "dim", getattr})


def is_plain_norm(module: nn.Module, channels: int) -> bool:
    """Return whether a module is a batch norm that treats each of so many maps alike."""
    known = type(module).__module__.split(".")[0] in _KNOWN
    inner = any(True for part in module.children() for _ in part.parameters())
    return known and not inner and len(module.running_mean) == channels  # type: ignore[arg-type]


def permutable(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether a module is torch's own convolution, its weight not computed from others."""
    return type(module) is nn.Conv2d and "weight" in module._parameters


def uses_of(graph: fx.Graph, model: nn.Module) -> dict[int, int]:
    """Return at how many nodes each module runs, or its weights are read."""
    uses: dict[int, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            for module in model.get_submodule(str(node.target)).modules():
                uses[id(module)] = uses.get(id(module), 0) + 1
        elif node.op == "get_attr":  # a function reads a layer's weight
            owner = _owner(model, str(node.target))
            uses[id(owner)] = uses.get(id(owner), 0) + 1
    return uses


def _owner(model: nn.Module, target: str) -> nn.Module | None:
    try:
        return model.get_submodule(target.rpartition(".")[0])
    except AttributeError:  # a constant that tracing made
        return None


def shares(model: nn.Module, module: nn.Module) -> bool:
    """Return whether any parameter of a module belongs to another module too."""
    mine = {id(parameter) for parameter in module.parameters()}
    inside = {id(part) for part in module.modules()}
    return any(
        id(parameter) in mine
        for part in model.modules()
        if id(part) not in inside
        for parameter in part._parameters.values()
        if parameter is not None
    )
