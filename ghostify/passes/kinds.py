"""What kind of operation a node of a traced network is, as far as its channels are concerned."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.nn import functional

from ghostify.nn.ghost import GhostModule
from ghostify.passes.trace import is_norm, plain_convolution, shape, unhooked

__all__ = ["OUT_OF_PLACE", "Kind", "in_place", "kind_of"]

Kind = Literal[
    "conv", "ghost", "norm", "map", "prelu", "nothing", "stream", "cat", "linear", "flatten",
    "size", "other",
]  # fmt: skip

_MAP_MODULES: frozenset[type[nn.Module]] = frozenset({
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.SiLU, nn.GELU, nn.Mish,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Hardshrink, nn.Sigmoid, nn.Tanh, nn.Softplus,
    nn.Softsign, nn.LogSigmoid, nn.Threshold, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.UpsamplingNearest2d,
    nn.UpsamplingBilinear2d, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d,
    nn.CircularPad2d, nn.ConstantPad2d,
})  # fmt: skip
_NOTHING: frozenset[type[nn.Module]] = frozenset({
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout,
})  # fmt: skip
_MAP_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset({
    functional.relu, functional.relu_, functional.relu6, functional.leaky_relu, functional.elu,
    functional.selu, functional.celu, functional.silu, functional.gelu, functional.mish,
    functional.hardswish, functional.hardsigmoid, functional.hardtanh, functional.sigmoid,
    functional.tanh, functional.softplus, functional.max_pool2d, functional.avg_pool2d,
    functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d, functional.interpolate,
    torch.relu, torch.relu_, torch.sigmoid, torch.tanh, torch.clamp, torch.abs, torch.square,
    torch.sqrt, torch.exp, torch.max_pool2d, torch.adaptive_avg_pool1d, operator.neg,
})  # fmt: skip
_MAP_METHODS = frozenset({
    "relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_", "clamp", "clamp_", "contiguous",
    "clone", "detach", "square", "abs",
})  # fmt: skip
_POOL_FUNCTIONS = frozenset({torch.mean, torch.sum, torch.amax})
_POOL_METHODS = frozenset({"mean", "sum", "amax"})
_STREAM_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset({
    operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul,
    operator.truediv, operator.itruediv, torch.add, torch.sub, torch.mul, torch.div,
    torch.maximum, torch.minimum,
})  # fmt: skip
_STREAM_METHODS = frozenset({"add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_"})

OUT_OF_PLACE: Mapping[Callable[..., Any], Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    functional.relu_: functional.relu,
    torch.relu_: torch.relu,
}
"""Functions that write into their argument, and the same ones that do not."""


def kind_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> Kind:
    """Return what a node does to the channels of its input."""
    if node.op == "call_module":
        return _kind_of_module(node, modules[str(node.target)])
    if node.op not in ("call_function", "call_method"):
        return "other"
    target = node.target
    method = node.op == "call_method"
    if target in (_MAP_METHODS if method else _MAP_FUNCTIONS):
        return "map" if shape(node) is not None else "other"
    if target in (_POOL_METHODS if method else _POOL_FUNCTIONS):
        return "map" if _within_maps(node) else "other"
    if target in (_STREAM_METHODS if method else _STREAM_FUNCTIONS):
        return "stream" if len(node.args) == 2 else "other"
    if target in ("size", "dim") if method else target is getattr:
        return "size" if shape(node) is None else "other"
    if target is torch.cat or target is torch.concat:
        return "cat" if _along_channels(node) else "other"
    if target is functional.dropout or target is functional.dropout2d:
        return "other" if _argument(node, 2, "training", True) is True else "nothing"
    if target is operator.getitem:
        return "nothing" if _takes_all(node) else "other"
    if target is functional.pad:
        return "map" if _pads_maps(node) else "other"
    if _flattens(node):
        return "flatten"
    return "other"


def _kind_of_module(node: fx.Node, module: nn.Module) -> Kind:
    if shape(node) is None or not unhooked(module) or len(node.args) != 1 or node.kwargs:
        return "other"
    if isinstance(module, GhostModule):
        return "ghost" if len(shape(node) or ()) == 4 else "other"
    if is_norm(module):
        return "norm"
    if plain_convolution(module):
        return "conv" if len(shape(node) or ()) == 4 else "other"
    simple: dict[type[nn.Module], Kind] = {nn.PReLU: "prelu", nn.Linear: "linear"}
    if type(module) in simple:
        return simple[type(module)]
    if type(module) is nn.Flatten:
        return "flatten" if _flattens(node) else "other"
    if type(module) in _NOTHING or type(module).__name__ in ("StochasticDepth", "DropPath"):
        return "nothing"
    return "map" if type(module) in _MAP_MODULES else "other"


def in_place(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Return whether a node of a known kind writes its result into its first argument."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    return node.target in OUT_OF_PLACE or node.kwargs.get("inplace") is True


def _argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _source(node: fx.Node) -> tuple[int, ...]:
    first = node.args[0] if node.args else None
    return (shape(first) or ()) if isinstance(first, fx.Node) else ()


def _within_maps(node: fx.Node) -> bool:
    """Return whether a reduction leaves batch and channels alone."""
    dims = _argument(node, 1, "dim", None)
    listed = [dims] if isinstance(dims, int) else dims
    if len(_source(node)) != 4 or not isinstance(listed, list | tuple) or not listed:
        return False
    return shape(node) is not None and all(one in (2, 3, -1, -2) for one in listed)


def _along_channels(node: fx.Node) -> bool:
    listed = _argument(node, 0, "tensors", ())
    if not isinstance(listed, list | tuple) or not all(isinstance(one, fx.Node) for one in listed):
        return False
    dims = {len(shape(one) or ()) for one in listed}
    return dims == {4} and _argument(node, 1, "dim", 0) in (1, -3)


def _takes_all(node: fx.Node) -> bool:
    """Return whether a slice leaves nothing out, as where a block makes just what it needs."""
    index = node.args[1]
    slices = index if isinstance(index, tuple) else (index,)
    plain = all(
        isinstance(one, slice) and one.start in (None, 0) and one.step in (None, 1)
        for one in slices
    )
    return plain and bool(_source(node)) and shape(node) == _source(node)


def _pads_maps(node: fx.Node) -> bool:
    sides = _argument(node, 1, "pad", ())
    return len(_source(node)) == 4 and isinstance(sides, list | tuple) and len(sides) in (2, 4)


def _flattens(node: fx.Node) -> bool:
    """Return whether a node turns maps ``(N, C, H, W)`` into rows ``(N, C * H * W)``."""
    flat = node.op == "call_module" or node.target in (
        torch.flatten, torch.reshape, "flatten", "reshape", "view",
    )  # fmt: skip
    before, after = _source(node), shape(node)
    if not flat or after is None or len(before) != 4 or len(after) != 2:
        return False
    return before[0] == after[0]
