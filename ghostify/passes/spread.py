"""Rewrite a traced network so that its feature maps travel in parts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from ghostify.nn.ghost import GhostModule
from ghostify.passes.emit import add_convolution, add_ghost, add_norm
from ghostify.passes.kinds import OUT_OF_PLACE, Kind, in_place, kind_of
from ghostify.passes.layers import linear
from ghostify.passes.layout import plan_layouts
from ghostify.passes.parts import Builder, Layout, Parts, natural, same_layout
from ghostify.passes.settings import Passes
from ghostify.passes.trace import shape

__all__ = ["spread"]

_ADDITIONS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")


def spread(model: nn.Module, graph: fx.Graph, passes: Passes) -> Builder:
    """Return a new graph that computes what ``graph`` does, with its maps in parts.

    ``graph`` is one of :func:`ghostify.passes.trace.traced`; the layers that can change are
    new, the others are those of ``model``.
    """
    return _Spreader(model, graph, passes).build()


class _Spreader:
    """Walks through the old graph and knows for each of its nodes the new value."""

    def __init__(self, model: nn.Module, graph: fx.Graph, passes: Passes) -> None:
        self.modules = dict(model.named_modules())
        self.model, self.passes = model, passes
        self.nodes = list(graph.nodes)
        self.kinds: dict[fx.Node, Kind] = {node: kind_of(node, self.modules) for node in self.nodes}
        self.overwriting = {
            node
            for node in self.nodes
            if self.kinds[node] != "other" and in_place(node, self.modules)
        }
        self.layouts = plan_layouts(self.nodes, self.kinds, self.modules, passes)
        self.builder = Builder()
        self.values: dict[fx.Node, Parts | fx.Node] = {}
        self.same: dict[fx.Node, fx.Node] = {}  # tensors that lie in the memory of another

    def build(self) -> Builder:
        for node in self.nodes:
            value = self._value(node)
            found = shape(node)
            if isinstance(value, fx.Node) and found is not None and len(found) in (2, 4):
                value = Parts.whole(value, found[1])
            self.values[node] = value
            if node in self.overwriting:
                self._overwrite(node)
        return self.builder

    def _value(self, node: fx.Node) -> Parts | fx.Node:
        handlers: dict[Kind, Callable[[fx.Node, Parts], Parts | fx.Node]] = {
            "conv": self._conv,
            "ghost": self._ghost,
            "norm": self._norm,
            "map": self._map,
            "prelu": self._prelu,
            "nothing": self._nothing,
            "stream": self._stream,
            "linear": self._linear,
            "flatten": self._flatten,
            "size": self._size,
        }
        kind = self.kinds[node]
        if kind == "cat":
            return self._cat(node)
        first = self._known(node, 0)
        if kind == "stream" and not isinstance(first, Parts):
            first = self._known(node, 1)
        if kind in handlers and isinstance(first, Parts):
            return handlers[kind](node, first)
        return self._copy(node)

    def _known(self, node: fx.Node, place: int) -> Parts | fx.Node | None:
        """Return the new value of one of a node's arguments."""
        given = node.args[place] if len(node.args) > place else None
        return self.values[given] if isinstance(given, fx.Node) else None

    def _overwrite(self, node: fx.Node) -> None:
        """Let everything that shares the memory of a node's first argument have its value."""
        source = cast(fx.Node, node.args[0])
        root = self.same.get(source, source)
        self.same[node] = root
        for one in self.values:
            if one is root or self.same.get(one) is root:
                self.values[one] = self.values[node]

    # Operations that are taken over as they are.

    def _copy(self, node: fx.Node) -> fx.Node:
        """Take over a node that reads whole values."""
        if node.op == "call_module":
            self._keep(str(node.target), self.modules[str(node.target)])
        elif node.op == "get_attr":
            self._keep(str(node.target), operator.attrgetter(str(node.target))(self.model))
        made = self.builder.graph.node_copy(node, self._whole)
        made.meta = {}
        return made

    def _keep(self, name: str, value: Any) -> None:
        self.builder.held.setdefault(name, value)

    def _whole(self, node: fx.Node) -> fx.Node:
        value = self.values[node]
        return self.builder.join(value) if isinstance(value, Parts) else value

    def _each(self, node: fx.Node, value: Parts, source: fx.Node) -> Parts:
        """Repeat a node for each part of one of its arguments."""
        made = []
        for part in value.nodes:
            copied = self._repeated(node, {source: part})
            made.append(copied)
        return Parts(tuple(made), value.layout)

    def _repeated(self, node: fx.Node, given: Mapping[fx.Node, fx.Node]) -> fx.Node:
        if node.op == "call_module":
            self._keep(str(node.target), self.modules[str(node.target)])
        made = self.builder.graph.node_copy(
            node, lambda one: given[one] if one in given else self._whole(one)
        )
        made.meta = {}
        if node.op == "call_function":
            made.target = OUT_OF_PLACE.get(cast(Any, node.target), node.target)
            if "inplace" in made.kwargs:
                made.kwargs = {**made.kwargs, "inplace": False}
        elif node.op == "call_method":
            made.target = str(node.target).rstrip("_")
        elif node in self.overwriting:
            self.builder.held[str(node.target)].inplace = False
        return made

    # Layers with weights.

    def _conv(self, node: fx.Node, value: Parts) -> Parts | fx.Node:
        conv = cast(nn.Conv2d, self.modules[str(node.target)])
        layout = self.layouts.get(node)
        return add_convolution(self.builder, self.passes, conv, str(node.target), value, layout)

    def _ghost(self, node: fx.Node, value: Parts) -> Parts | fx.Node:
        ghost = cast(GhostModule, self.modules[str(node.target)])
        layout = self.layouts.get(node)
        return add_ghost(self.builder, self.passes, ghost, str(node.target), value, layout)

    def _norm(self, node: fx.Node, value: Parts) -> Parts | fx.Node:
        if not self.passes.fold:
            return self._copy(node)
        if not self.passes.norms:
            value = Parts.whole(self.builder.join(value), value.channels)
        name, dims = str(node.target), len(shape(node) or ())
        return add_norm(self.builder, self.modules[name], name, value, dims)

    def _prelu(self, node: fx.Node, value: Parts) -> Parts | fx.Node:
        module = cast(nn.PReLU, self.modules[str(node.target)])
        if value.plain or not self.passes.maps:
            return self._copy(node)
        if module.num_parameters == 1:
            return self._each(node, value, cast(fx.Node, node.args[0]))
        made = []
        for number, (part, channels) in enumerate(zip(value.nodes, value.layout, strict=True)):
            weight = module.weight.detach()[channels.to(module.weight.device)].clone()
            layer = nn.PReLU(len(channels), device=weight.device, dtype=weight.dtype)
            layer.weight = nn.Parameter(weight, requires_grad=False)
            made.append(self.builder.module(f"{node.target}_{number}", layer, part))
        return Parts(tuple(made), value.layout)

    def _linear(self, node: fx.Node, value: Parts) -> Parts | fx.Node:
        if len(shape(cast(fx.Node, node.args[0])) or ()) != 2 or value.plain:
            return self._copy(node)
        packed = self.builder.packed(value)
        if packed.plain:
            return self.builder.graph.call_module(self._kept(node), (packed.nodes[0],))
        layer = linear(cast(nn.Linear, self.modules[str(node.target)]), packed.layout[0])
        return self.builder.module(str(node.target), layer, packed.nodes[0])

    def _kept(self, node: fx.Node) -> str:
        self._keep(str(node.target), self.modules[str(node.target)])
        return str(node.target)

    # Operations without weights.

    def _map(self, node: fx.Node, value: Parts) -> Parts | fx.Node:
        if not self.passes.maps and len(value.nodes) > 1:
            value = Parts.whole(self.builder.join(value), value.channels)
        return self._each(node, value, cast(fx.Node, node.args[0]))

    def _nothing(self, node: fx.Node, value: Parts) -> Parts:
        source = cast(fx.Node, node.args[0])
        self.same[node] = self.same.get(source, source)
        return value

    def _flatten(self, node: fx.Node, value: Parts) -> Parts | fx.Node:
        if value.plain:
            return self._copy(node)
        before = shape(cast(fx.Node, node.args[0])) or ()
        area = before[2] * before[3]
        if len(value.nodes) > 1 and area > 1:
            value = self.builder.packed(value)
        nodes = tuple(self.builder.call(torch.flatten, part, 1) for part in value.nodes)
        layout = tuple(
            (part[:, None] * area + torch.arange(area)).flatten() for part in value.layout
        )
        return Parts(nodes, layout)

    def _size(self, node: fx.Node, value: Parts) -> fx.Node:
        """Ask one part for the sizes that all of them have."""
        if len(value.nodes) == 1 or not _leaves_channels(node):
            if len(value.nodes) == 1:
                return self._repeated(node, {cast(fx.Node, node.args[0]): value.nodes[0]})
            return self._copy(node)
        return self._repeated(node, {cast(fx.Node, node.args[0]): value.nodes[0]})

    def _cat(self, node: fx.Node) -> Parts | fx.Node:
        listed = node.args[0] if node.args else node.kwargs["tensors"]
        values = [self.values[cast(fx.Node, one)] for one in cast(list[Any], listed)]
        nodes: list[fx.Node] = []
        layout: list[Tensor] = []
        start = 0
        for value in values:
            assert isinstance(value, Parts)
            nodes += value.nodes
            layout += [part + start for part in value.layout]
            start += value.channels
        return Parts((self.builder.call(torch.cat, nodes, dim=1),), (torch.cat(layout),))

    def _stream(self, node: fx.Node, value: Parts) -> Parts | fx.Node:
        """Combine two streams, or one with a constant."""
        operands = [one for one in node.args if isinstance(one, fx.Node)]
        found = [self.values[one] for one in operands]
        streams = [one for one in found if isinstance(one, Parts)]
        wanted = shape(node) or ()
        if all(one.plain for one in streams):
            return self._repeated(node, {})
        dims = {len(shape(one) or ()) for one in operands}
        channels = {one.channels for one in streams}
        fits = dims == {len(wanted)} and channels == set(wanted[1:2])
        if not self.passes.streams or not fits or len(streams) != len(operands):
            return self._repeated(node, {})
        layout = self._meeting(node, streams)
        placed = [self.builder.spread(one, layout) for one in streams]
        made = []
        for number in range(len(layout)):
            given = {
                operand: one.nodes[number] for operand, one in zip(operands, placed, strict=True)
            }
            made.append(self._ordered(self._repeated(node, given)))
        return Parts(tuple(made), layout)

    def _meeting(self, node: fx.Node, streams: list[Parts]) -> Layout:
        """Return the parts in which streams are to meet."""
        if len(streams) == 1 or same_layout(streams[0].layout, streams[1].layout):
            return streams[0].layout
        operands = [one for one in node.args if isinstance(one, fx.Node)]
        large = [
            one
            for one, operand in zip(streams, operands, strict=True)
            if (shape(operand) or ())[2:] == (shape(node) or ())[2:]
        ]
        if len(large) == 1:
            return large[0].layout
        if len(streams[0].nodes) == len(streams[1].nodes) == 1:
            return next(one.layout for one in streams if not natural(one.layout))
        return (torch.arange(streams[0].channels),)

    def _ordered(self, node: fx.Node) -> fx.Node:
        """Let a convolution be the first operand of a sum: runtimes fuse that one."""
        if node.target in _ADDITIONS and len(node.args) == 2 and not node.kwargs:
            one, two = node.args
            calls = [isinstance(side, fx.Node) and side.op == "call_module" for side in (one, two)]
            if calls == [False, True]:
                node.args = (two, one)
        return node


def _leaves_channels(node: fx.Node) -> bool:
    """Return whether a question for sizes is not about the channels."""
    if node.op == "call_method":
        if node.target == "dim":
            return True
        if len(node.args) > 1:
            return node.args[1] not in (1, -3)
    elif node.args[1] != "shape":
        return node.args[1] in ("ndim", "dtype", "device")
    return all(
        user.target is operator.getitem
        and (
            user.args[1] in (0, 2, 3, -1, -2, -4)
            or user.args[1] == slice(-2, None, None)
            or user.args[1] == slice(2, None, None)
        )
        for user in node.users
    )
