"""Put scales and shifts into the convolutions before them; give the rest a fast form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, fx, nn

from ghostify.passes.emit import SUM
from ghostify.passes.layers import scale_outputs
from ghostify.passes.parts import Affine, Builder

__all__ = ["fold_affines", "lower_affines", "tidy"]


def tidy(builder: Builder) -> None:
    """Drop what nothing reads, and the layers that are then not called."""
    builder.graph.eliminate_dead_code(_acts)
    called = {str(node.target) for node in builder.graph.nodes if node.op != "placeholder"}
    for name in [name for name in builder.held if name not in called]:
        del builder.held[name]


def _acts(node: fx.Node) -> bool:
    """Return whether a node does something beside giving its value."""
    if node.op in ("placeholder", "output"):
        return True
    written = node.op == "call_method" and str(node.target).endswith("_")
    return written or (node.op == "call_function" and node.is_impure())


def fold_affines(builder: Builder) -> None:
    """Fold each scale and shift into what makes its input, where nothing else reads that."""
    for node in list(builder.graph.nodes):
        layer = _held(builder, node)
        if not isinstance(layer, Affine):
            continue
        source = node.args[0]
        if len(source.users) == 1 and _foldable(builder.held, source):
            _fold(builder.held, source, layer.scale.flatten(), layer.shift.flatten())
            node.replace_all_uses_with(source)
            builder.graph.erase_node(node)
    tidy(builder)


def _foldable(held: Mapping[str, Any], node: fx.Node) -> bool:
    """Return whether a node's output can be scaled through its weights."""
    if node.meta.get(SUM):
        return all(
            isinstance(one, fx.Node) and len(one.users) == 1 and _foldable(held, one)
            for one in node.args
        )
    if node.op != "call_module":
        return False
    layer = held[str(node.target)]
    return _own(node) and (isinstance(layer, Affine) or type(layer) is nn.Conv2d)


def _own(node: fx.Node) -> bool:
    """Return whether a layer is called at this node only, and is not the caller's."""
    return not any(one is not node and one.target == node.target for one in node.graph.nodes)


def _fold(held: Mapping[str, Any], node: fx.Node, scale: Tensor, shift: Tensor | None) -> None:
    if node.meta.get(SUM):
        first, second = node.args
        assert isinstance(first, fx.Node)
        assert isinstance(second, fx.Node)
        _fold(held, first, scale, shift)
        _fold(held, second, scale, None)
        return
    layer = held[str(node.target)]
    if isinstance(layer, Affine):
        scale, dtype = scale.double(), layer.scale.dtype
        moved = layer.shift.double().flatten() * scale
        if shift is not None:
            moved = moved + shift.double()
        sizes = layer.scale.shape
        layer.scale = (layer.scale.double().flatten() * scale).to(dtype).view(sizes)
        layer.shift = moved.to(dtype).view(sizes)
        return
    scale_outputs(layer, scale, shift)


def lower_affines(builder: Builder, form: Literal["conv", "addcmul"]) -> None:
    """Turn scales and shifts of maps into 1x1 depthwise convolutions, if that is the form."""
    for node in builder.graph.nodes:
        layer = _held(builder, node)
        if isinstance(layer, Affine) and form == "conv" and layer.scale.dim() == 4:
            builder.held[str(node.target)] = _depthwise(layer)


def _depthwise(layer: Affine) -> nn.Conv2d:
    channels = layer.scale.shape[1]
    made: nn.Conv2d = nn.utils.skip_init(
        nn.Conv2d,
        channels,
        channels,
        1,
        groups=channels,
        device=layer.scale.device,
        dtype=layer.scale.dtype,
    )
    made.weight = nn.Parameter(layer.scale.view(-1, 1, 1, 1).clone(), requires_grad=False)
    made.bias = nn.Parameter(layer.shift.flatten().clone(), requires_grad=False)
    return made.eval()


def _held(builder: Builder, node: fx.Node) -> Any:
    return builder.held[str(node.target)] if node.op == "call_module" else None
