"""What makes a frozen graph faster in torch itself: oneDNN's fused convolutions, fewer copies."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from ghostify.passes.parts import Affine
from ghostify.passes.settings import Passes
from ghostify.passes.trace import record_shapes, shape

__all__ = ["PackedConv", "settle"]

_Activation = tuple[str, tuple[float, ...], str]
"""oneDNN's name of an activation, its numbers, and which algorithm."""

_RELU: tuple[Any, ...] = (functional.relu, torch.relu, "relu")
_ADD: tuple[Any, ...] = (operator.add, torch.add, "add")


class _Shared:
    """A weight in oneDNN's own order, which torch cannot copy and nothing changes."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


class PackedConv(nn.Module):
    """A convolution by oneDNN, with what follows it, on weights in oneDNN's own order.

    ``activation`` is torch's name of a fused activation and its numbers, ``"none"`` for none. With
    a second input the sum of it and the convolution is what goes through the activation.
    """

    def __init__(self, conv: nn.Conv2d, sizes: Sequence[int], activation: _Activation) -> None:
        super().__init__()
        padding = conv.padding
        assert not isinstance(padding, str)
        self.settings = (list(padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.activation = activation
        self.bias = conv.bias
        self.packed = _Shared(
            torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]  # stub is old
                conv.weight.detach().to_mkldnn(), *self.settings, list(sizes)
            )
        )

    def forward(self, maps: Tensor, other: Tensor | None = None) -> Tensor:
        name, numbers, algorithm = self.activation
        if other is None:
            made: Tensor = torch.ops.mkldnn._convolution_pointwise(
                maps, self.packed.weight, self.bias, *self.settings, name, list(numbers), algorithm
            )
            return made
        unary = None if name == "none" else name
        both: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            maps, other, self.packed.weight, self.bias, *self.settings, "add", 1.0, unary,
            list(numbers), algorithm or None,
        )  # fmt: skip
        return both


class _AffineInPlace(Affine):
    """An affine map that overwrites what it reads, unless a gradient asks for it."""

    def __init__(self, affine: Affine) -> None:
        super().__init__(affine.scale, affine.shift, affine.scale.dim())

    def forward(self, maps: Tensor) -> Tensor:
        if torch.is_grad_enabled() and maps.requires_grad:
            return super().forward(maps)
        return torch.addcmul(self.shift, maps, self.scale, out=maps)


def settle(model: fx.GraphModule, example: Sequence[Tensor], passes: Passes) -> nn.Module:
    """Give weights their memory format, fuse what oneDNN can fuse, and write in place."""
    if not passes.eager:
        return model
    record_shapes(model, model.graph, example)
    if _packable(model, example):
        _channels_last_inputs(model.graph)
        _pack(model)
    elif passes.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _convolve_first(model)
    _write_in_place(model)
    model.graph.lint()
    model.recompile()
    return model


def _packable(model: nn.Module, example: Sequence[Tensor]) -> bool:
    tensors = [*model.parameters(), *model.buffers(), *example]
    return torch.backends.mkldnn.is_available() and all(
        one.device.type == "cpu" and one.dtype in (torch.float32, torch.int64) for one in tensors
    )


def _channels_last_inputs(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.op == "placeholder" and len(shape(node) or ()) == 4:
            with graph.inserting_after(node):
                made = graph.call_method("contiguous", (node,))
            node.replace_all_uses_with(made)
            made.args, made.kwargs = (node,), {"memory_format": torch.channels_last}
            made.meta = dict(node.meta)


def _pack(model: fx.GraphModule) -> None:
    """Replace convolutions by oneDNN's, each with the sum and the activation behind it."""
    graph, modules = model.graph, dict(model.named_modules())
    for node in list(graph.nodes):
        conv = modules.get(str(node.target)) if node.op == "call_module" else None
        if type(conv) is not nn.Conv2d or isinstance(conv.padding, str):
            continue
        if conv.padding_mode != "zeros" or len(shape(node) or ()) != 4:
            continue
        last, other = node, None
        after = _only_reader(node)
        if after is not None and _adds(after):
            first, second = after.args
            addend = cast(fx.Node, second if first is node else first)
            if addend is not node and shape(addend) == shape(node) and _holds_maps(addend):
                last, other = after, addend
        activation: _Activation = ("none", (), "")
        after = _only_reader(last)
        found = None if after is None else _activation(after, modules)
        if after is not None and found is not None:
            last, activation = after, found
        name = f"{node.target}"
        source = cast(fx.Node, node.args[0])
        packed = PackedConv(conv, shape(source) or (), activation)
        _replace(model, name, packed)
        with graph.inserting_before(last):
            inputs = (source,) if other is None else (source, other)
            made = graph.call_module(name, inputs)
        made.meta = dict(last.meta)
        last.replace_all_uses_with(made)
        graph.eliminate_dead_code()


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module)


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _adds(node: fx.Node) -> bool:
    two = len(node.args) == 2 and all(isinstance(one, fx.Node) for one in node.args)
    return two and node.target in _ADD and not node.kwargs


def _holds_maps(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op != "get_attr"


def _activation(node: fx.Node, modules: dict[str, nn.Module]) -> _Activation | None:
    """Return oneDNN's name of an activation, if it has one."""
    if node.target in _RELU:
        return "relu", (), ""
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    if node.target is functional.relu6:
        return "hardtanh", (0.0, 6.0), ""
    if node.target is functional.hardswish:
        return "hardswish", (), ""
    if node.target is functional.silu:
        return "swish", (), ""
    simple: dict[type[nn.Module], str] = {
        nn.ReLU: "relu", nn.SiLU: "swish", nn.Hardswish: "hardswish", nn.Sigmoid: "sigmoid",
        nn.Tanh: "tanh",
    }  # fmt: skip
    if module is not None and type(module) in simple:
        return simple[type(module)], (), ""
    if isinstance(module, nn.Hardtanh):
        return "hardtanh", (float(module.min_val), float(module.max_val)), ""
    if type(module) is nn.LeakyReLU:
        return "leaky_relu", (float(module.negative_slope),), ""
    if type(module) is nn.GELU:
        return "gelu", (), module.approximate
    return None


def _convolve_first(model: fx.GraphModule) -> None:
    """Let convolutions read maps before an affine map of these does, which may then overwrite them.

    So the intrinsic maps of a Ghost module, which its cheap operation and the batch norm behind
    both read, are in memory once.
    """
    modules = dict(model.named_modules())
    places = {node: place for place, node in enumerate(model.graph.nodes)}
    for node in list(model.graph.nodes):
        if node.op != "call_module" or type(modules[str(node.target)]) is not Affine:
            continue
        source = cast(fx.Node, node.args[0])
        late = [one for one in source.users if places[one] > places[node]]
        ready = all(places[given] < places[node] for one in late for given in one.all_input_nodes)
        if ready and all(_convolves(one, modules) for one in late):
            for one in late:
                node.prepend(one)
            places = {one: place for place, one in enumerate(model.graph.nodes)}


def _convolves(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(
        modules[str(node.target)], PackedConv | nn.Conv2d
    )


def _write_in_place(model: fx.GraphModule) -> None:
    """Let affine maps, activations and sums overwrite a fresh tensor that nothing reads later."""
    modules = dict(model.named_modules())
    done = set[fx.Node]()
    for node in model.graph.nodes:
        done.add(node)
        if node.op != "call_function" and node.op != "call_module":
            continue
        if not node.args or not isinstance(node.args[0], fx.Node):
            continue
        source = node.args[0]
        others = [one for one in source.users if one is not node]
        if not _fresh(source, modules) or not all(
            one in done and _convolves(one, modules) for one in others
        ):
            continue
        if node.op == "call_module" and type(modules[str(node.target)]) is Affine:
            affine = cast(Affine, modules[str(node.target)])  # each node has one of its own
            _replace(model, str(node.target), _AffineInPlace(affine))
        elif node.op == "call_module" and type(modules[str(node.target)]) in (nn.ReLU, nn.ReLU6):
            node.op, node.target = (
                "call_function",
                _IN_PLACE_MODULES[type(modules[str(node.target)])],
            )
        elif _adds(node) and shape(node) == shape(source) and node.args[0] is not node.args[1]:
            node.op, node.target = "call_method", "add_"
        elif node.target in (functional.relu, torch.relu):
            node.target, node.kwargs = torch.relu_, {}


def _relu6(maps: Tensor) -> Tensor:
    return functional.hardtanh(maps, 0.0, 6.0, inplace=True)


_IN_PLACE_MODULES: dict[type[nn.Module], Callable[..., Any]] = {
    nn.ReLU: torch.relu_,
    nn.ReLU6: _relu6,
}


def _fresh(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node gives a tensor with memory of its own."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], Affine | PackedConv | nn.Conv2d)
    return _adds(node) or (node.op == "call_method" and node.target == "add_")
