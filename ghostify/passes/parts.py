"""Feature maps in parts, and the graph that is built of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

__all__ = ["Affine", "Builder", "Layout", "Parts", "natural", "same_layout"]

Layout = tuple[Tensor, ...]
"""For each part the indices of its channels in the network's own order."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A tensor whose channels (dimension 1) are spread over several nodes of the new graph."""

    nodes: tuple[fx.Node, ...]
    layout: Layout

    @classmethod
    def whole(cls, node: fx.Node, channels: int) -> Parts:
        """Return the value that one node holds, in the network's order."""
        return cls((node,), (torch.arange(channels),))

    @property
    def channels(self) -> int:
        """How many channels there are in all."""
        return sum(len(part) for part in self.layout)

    @property
    def plain(self) -> bool:
        """Whether one node holds all channels in the network's order."""
        return len(self.nodes) == 1 and natural(self.layout)


def natural(layout: Layout) -> bool:
    """Return whether the parts, one behind the other, are in the network's order."""
    order = torch.cat(layout)
    return torch.equal(order, torch.arange(len(order)))


def same_layout(one: Layout, two: Layout) -> bool:
    """Return whether two values are in the same parts."""
    return len(one) == len(two) and all(map(torch.equal, one, two))


class Affine(nn.Module):
    """Scale and shift each channel: a batch norm in eval mode. ``(N, C, ...)`` in and out."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor, dims: int = 4) -> None:
        super().__init__()
        sizes = (1, -1) + (1,) * (dims - 2)
        self.register_buffer("scale", scale.detach().reshape(sizes))
        self.register_buffer("shift", shift.detach().reshape(sizes))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.addcmul(self.shift, maps, self.scale)


class Builder:
    """The new graph while it is being built, with the modules and tensors that it names."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.held: dict[str, Any] = {}
        self._joined: dict[tuple[fx.Node, ...], fx.Node] = {}

    def hold(self, name: str, value: nn.Module | Tensor) -> str:
        """Keep a module or tensor under a free name that begins with ``name``."""
        free, count = name, 1
        while self._taken(free):
            count += 1
            free = f"{name}_{count}"
        self.held[free] = value
        return free

    def _taken(self, name: str) -> bool:
        return any(
            one == name or one.startswith(f"{name}.") or name.startswith(f"{one}.")
            for one in self.held
        )

    def module(self, name: str, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        """Add a layer to the graph."""
        return self.graph.call_module(self.hold(name, module), inputs)

    def constant(self, name: str, value: Tensor) -> fx.Node:
        """Add a tensor to the graph."""
        return self.graph.get_attr(self.hold(name, value))

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Add a function call to the graph."""
        return self.graph.call_function(function, args, kwargs)

    def cat(self, nodes: Sequence[fx.Node]) -> fx.Node:
        """Join tensors along the channels, once."""
        key = tuple(nodes)
        if len(key) == 1:
            return key[0]
        if key not in self._joined:
            self._joined[key] = self.call(torch.cat, list(key), dim=1)
        return self._joined[key]

    def packed(self, value: Parts) -> Parts:
        """Return the value in one node, whose channels may be in another order."""
        if len(value.nodes) == 1:
            return value
        return Parts((self.cat(value.nodes),), (torch.cat(value.layout),))

    def join(self, value: Parts) -> fx.Node:
        """Return one node with all channels in the network's order."""
        packed = self.packed(value)
        if packed.plain:
            return packed.nodes[0]
        key = (*value.nodes, packed.nodes[0])
        if key not in self._joined:
            self._joined[key] = self.select(packed.nodes[0], torch.argsort(packed.layout[0]))
        return self._joined[key]

    def spread(self, value: Parts, layout: Layout) -> Parts:
        """Return the same value in other parts."""
        if same_layout(value.layout, layout):
            return value
        if len(layout) == 1 and natural(layout):
            return Parts((self.join(value),), layout)
        packed = self.packed(value)
        places = torch.argsort(packed.layout[0])
        nodes = tuple(self.select(packed.nodes[0], places[part]) for part in layout)
        return Parts(nodes, layout)

    def select(self, node: fx.Node, places: Tensor) -> fx.Node:
        """Return the channels at these places."""
        first, count = int(places[0]), len(places)
        if torch.equal(places, torch.arange(first, first + count)):
            return self.call(torch.narrow, node, 1, first, count)
        return self.call(torch.index_select, node, 1, self.constant("places.order", places))
