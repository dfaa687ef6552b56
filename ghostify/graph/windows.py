"""Small pieces of a network around one convolution, to be timed on their own."""

from __future__ import annotations

import copy
import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ghostify.graph.probe import Call, copy_model, sentence
from ghostify.graph.segments import is_batch_norm
from ghostify.graph.trace import CONVOLUTIONS, BlockTracer, trace
from ghostify.nn.ghost import GhostModule
from ghostify.spec import ConvSite, GhostSpec

__all__ = ["Window", "Windows", "cut_windows"]

_LONGEST = 60  # nodes, beyond which a window ends wherever it is

_POOL = "_ghostify_pool"
_VALUE, _SHAPE = "ghostify_value", "ghostify_tensor_shape"


@dataclass(frozen=True, slots=True)
class Window:
    """One convolution with all that runtimes fuse with it, up to the next one that reads it.

    ``module`` takes the feature maps that come in and returns those that leave, each averaged
    over its pixels: a reader that costs next to nothing and does not ask for joined maps.
    ``key`` is the same for windows that compute the same with other weights.
    """

    key: str
    what: str  # for people: the convolution in one line
    module: fx.GraphModule
    layer: str  # name of the convolution in ``module``
    shapes: tuple[tuple[int, ...], ...]  # of the inputs

    def build(self, spec: GhostSpec | None) -> nn.Module:
        """Return the piece with its convolution as it is, or as a Ghost module."""
        made = copy.deepcopy(self.module).eval()
        if spec is not None:
            conv = made.get_submodule(self.layer)
            assert isinstance(conv, nn.Conv2d)
            generator = torch.Generator(device=conv.weight.device).manual_seed(0)
            ghost = GhostModule.from_conv(conv, spec, generator=generator)
            made.set_submodule(self.layer, ghost.eval())
        return made

    def example(self) -> tuple[Tensor, ...]:
        """Return an input, as maps are behind a ReLU."""
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(shape, generator=generator).relu() for shape in self.shapes)


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of a network by the names of their convolutions."""

    network: str  # the same for networks that compute the same with other weights
    by_layer: Mapping[str, Window]
    note: str = ""  # which layers could not be seen in their surroundings


def cut_windows(model: nn.Module, example: Sequence[Tensor], sites: Sequence[ConvSite]) -> Windows:
    """Cut out the surroundings of each eligible convolution.

    A window runs from the convolution through batch norm, activation, sums, poolings,
    depthwise convolutions and squeeze-and-excitation to the first dense convolution or linear
    layer that reads the result, this one included. Other maps that these need come in from
    outside. A network that cannot be traced gets windows of the convolution, a batch norm
    and a ReLU, and ``note`` says so.
    """
    wanted = {site.name: site for site in sites if site.eligible and site.calls}
    found: dict[str, Window] = {}
    note, network = "", _digest([repr(site) for site in sites])
    try:
        own = copy_model(model, hooks=False).eval().cpu()
        graph = trace(own, Call(tuple(example), {}), tracer=BlockTracer(is_batch_norm))
        with torch.no_grad():
            _Recorder(own, graph=graph).run(*(tensor.detach().clone().cpu() for tensor in example))
        nodes = list(graph.nodes)
        network = _digest(_described(own, nodes, {}))
        for node in nodes:
            name = str(node.target)
            if node.op == "call_module" and name in wanted and name not in found:
                found[name] = _window(own, nodes, node, wanted[name])
    except Exception as error:
        note = f"layers are timed out of context, since tracing failed ({sentence(error)})"
    batch = example[0].shape[0] if len(example) and example[0].dim() else 1
    missing = [name for name in wanted if name not in found]
    if missing and not note:
        note = f"{len(missing)} layers are timed out of context, such as {missing[0]}"
    for name in missing:
        found[name] = _alone(model, wanted[name], batch)
    return Windows(network, {name: found[name] for name in wanted}, note)


class _Recorder(fx.Interpreter):
    """Runs a graph and notes the shape of each tensor, and every value that is none."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta[_SHAPE] = tuple(value.shape)
        else:
            n.meta[_VALUE] = value
        return value


def _window(model: nn.Module, nodes: Sequence[fx.Node], start: fx.Node, site: ConvSite) -> Window:
    """Collect the nodes that depend on ``start``, up to the first reader, and build a module."""
    inside = _inside(model, nodes, start)
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    shapes: list[tuple[int, ...]] = []

    def bring(source: fx.Node) -> Any:
        if source in made:
            return made[source]
        if source.op == "get_attr":
            made[source] = graph.get_attr(str(source.target))
        elif _SHAPE in source.meta:
            shapes.append(source.meta[_SHAPE])
            made[source] = graph.placeholder(f"maps_{len(shapes)}")
        else:
            return source.meta[_VALUE]
        return made[source]

    outside: dict[fx.Node, None] = {}
    for node in inside:
        for source in node.all_input_nodes:
            if source not in inside:
                outside[source] = None
    for source in outside:  # placeholders come first in a graph
        if source.op != "get_attr":
            bring(source)
    for node in inside:
        args, kwargs = _mapped((node.args, node.kwargs), bring)
        made[node] = graph.create_node(node.op, node.target, args, kwargs)
    outputs = [
        made[node]
        for node in inside
        if _SHAPE in node.meta and not all(user in inside for user in node.users)
    ]
    leaving = []
    for original, node in [(one, made[one]) for one in inside if made[one] in outputs]:
        four = len(original.meta[_SHAPE]) == 4
        leaving.append(graph.call_module(_POOL, (node,)) if four else node)
    graph.output(leaving[0] if len(leaving) == 1 else tuple(leaving))
    parts: dict[str, Any] = {
        str(node.target): operator.attrgetter(str(node.target))(model)
        for node in graph.nodes
        if node.op in ("call_module", "get_attr") and node.target != _POOL
    }
    module = fx.GraphModule(parts | {_POOL: nn.AdaptiveAvgPool2d(1)}, graph, class_name="Window")
    key = _digest([*_described(model, list(inside), {start: "here"}), shapes])
    return Window(key, _line(site), module, str(start.target), tuple(shapes))


def _inside(model: nn.Module, nodes: Sequence[fx.Node], start: fx.Node) -> dict[fx.Node, None]:
    inside: dict[fx.Node, None] = {start: None}
    for node in nodes[nodes.index(start) + 1 :]:
        if node.op == "output" or len(inside) >= _LONGEST:
            break
        if any(source in inside for source in node.all_input_nodes):
            inside[node] = None
            if _reads(model, node):
                break
    return inside


def _reads(model: nn.Module, node: fx.Node) -> bool:
    """Return whether a node mixes the channels of feature maps that have more than one pixel."""
    if node.op != "call_module":
        return False
    module = model.get_submodule(str(node.target))
    if isinstance(module, nn.Linear):
        return True
    if not isinstance(module, (*CONVOLUTIONS, GhostModule)):
        return False
    groups, channels = int(module.groups), int(module.in_channels)  # type: ignore[arg-type]
    if 1 < groups == channels:
        return False
    source = node.all_input_nodes[0].meta.get(_SHAPE, ())
    return any(side > 1 for side in source[2:])


def _alone(model: nn.Module, site: ConvSite, batch: int) -> Window:
    """Return a window for a convolution of which only its sizes are known."""
    conv = copy.deepcopy(model.get_submodule(site.name)).eval().cpu()
    layers = nn.Sequential(
        conv, nn.BatchNorm2d(site.out_channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
    module = fx.GraphModule(
        layers.eval(), BlockTracer(is_batch_norm).trace(layers), class_name="Window"
    )
    shape = (batch, site.in_channels, *site.in_size[-2:])
    key = _digest(["alone", repr(conv), list(shape)])
    return Window(key, _line(site), module, "0", (shape,))


def _described(
    model: nn.Module, nodes: Sequence[fx.Node], marks: Mapping[fx.Node, str]
) -> list[Any]:
    """Describe what nodes compute, without the names of layers and the weights."""
    numbers = {node: number for number, node in enumerate(nodes)}
    found: list[Any] = []
    for node in nodes:
        target = str(getattr(node.target, "__name__", node.target))
        if node.op == "call_module":
            target = repr(model.get_submodule(str(node.target)))
        elif node.op in ("get_attr", "placeholder", "output"):
            target = ""
        arguments = _mapped(
            (node.args, node.kwargs),
            lambda one: (
                f"%{numbers[one]}"
                if one in numbers
                else f"in {one.meta.get(_SHAPE, one.meta.get(_VALUE))}"
            ),
        )
        shape = node.meta.get(_SHAPE)
        found.append([node.op, target, repr(arguments), repr(shape), marks.get(node, "")])
    return found


def _mapped(value: Any, change: Any) -> Any:
    """Apply ``change`` to every node among arguments, whatever it returns."""
    if isinstance(value, fx.Node):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_mapped(one, change) for one in value)
    if isinstance(value, list):
        return [_mapped(one, change) for one in value]
    if isinstance(value, dict):
        return {key: _mapped(one, change) for key, one in value.items()}
    if isinstance(value, slice):
        return slice(*(_mapped(one, change) for one in (value.start, value.stop, value.step)))
    return value


def _digest(values: Sequence[Any]) -> str:
    text = json.dumps(values, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _line(site: ConvSite) -> str:
    kernel = "x".join(map(str, site.kernel))
    stride = "" if set(site.stride) == {1} else f"/{site.stride[0]}"
    groups = "" if site.groups == 1 else f" g{site.groups}"
    size = "x".join(map(str, site.in_size[-2:]))
    return f"{site.in_channels}-{site.out_channels} {kernel}{stride}{groups} on {size}"
