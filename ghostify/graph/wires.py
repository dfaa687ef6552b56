"""Which channels of a network's values must keep step when maps change places.

Every channel of every feature map lies on a *wire*: a sum ties the channels of its operands,
a batch norm or a pooling hands them on, a concatenation puts wires side by side. Maps may change
places among wires if every layer that writes, reads or scales them can be permuted accordingly.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn
from torch.nn import functional

from ghostify.graph import mapwise
from ghostify.graph.segments import Segments, is_batch_norm
from ghostify.nn.ghost import GhostModule

__all__ = ["Indices", "Side", "Touch", "Wires", "find_wires", "places"]

Indices = npt.NDArray[np.int64]
Side = Literal["in", "out", "both"]


@dataclass(frozen=True, slots=True, eq=False)
class Touch:
    """One side of a layer whose weights go along when the maps on these wires change places."""

    module: str
    side: Side
    wires: Indices  # one for each channel of that side


@dataclass(frozen=True, slots=True, eq=False)
class Wires:
    """The wires of a network.

    ``values`` are those of the nodes' values, along dimension 1; where a value repeats each
    channel, as flattened maps do, so it repeats the wire. ``axes`` are all different ones: maps
    can change places only within each of them. ``writers`` are those of the Ghost modules that
    could hand on their maps in any order. Maps on a wire in ``pinned`` must stay.
    """

    values: Mapping[fx.Node, Indices]
    touches: tuple[Touch, ...]
    writers: Mapping[str, Indices]
    pinned: frozenset[int]
    axes: tuple[Indices, ...]

    def streams(self) -> list[tuple[str, ...]]:
        """Return the writers in sets, each of those that share wires with one another."""
        found: list[tuple[set[int], list[str]]] = []
        for name, wires in self.writers.items():
            mine, names = set(wires.tolist()), [name]
            apart = []
            for others, theirs in found:
                if mine & others:
                    mine, names = mine | others, theirs + names
                else:
                    apart.append((others, theirs))
            found = [*apart, (mine, names)]
        order = list(self.writers)
        return [tuple(sorted(names, key=order.index)) for _, names in found]

    def atoms(self, names: Sequence[str]) -> tuple[Indices, ...]:
        """Return the wires of these writers, in sets within which maps can change places."""
        mine = sorted({int(one) for name in names for one in self.writers[name]})
        signatures: dict[int, list[tuple[int, int]]] = {wire: [] for wire in mine}
        for number, axis in enumerate(self.axes):
            seen, counts = np.unique(axis, return_counts=True)
            for wire, count in zip(seen.tolist(), counts.tolist(), strict=True):
                if wire in signatures:
                    signatures[wire].append((number, count))
        atoms: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for wire in mine:
            atoms.setdefault(tuple(signatures[wire]), []).append(wire)
        return tuple(np.array(atom, dtype=np.int64) for atom in atoms.values())


def places(wires: Indices, content: Mapping[int, int]) -> list[int] | None:
    """Return of which channel of an axis each channel holds the maps afterwards.

    Args:
        content: for each wire the wire whose maps it then carries; others keep their own.

    Returns:
        None where the axis would carry maps from elsewhere.
    """
    count: dict[int, int] = {}
    keys: list[tuple[int, int]] = []
    for wire in wires.tolist():
        keys.append((wire, count.get(wire, 0)))
        count[wire] = count.get(wire, 0) + 1
    found = {key: place for place, key in enumerate(keys)}
    moved = [found.get((content.get(wire, wire), turn)) for wire, turn in keys]
    return None if None in moved or len(set(moved)) < len(moved) else moved  # type: ignore[return-value]


def find_wires(segments: Segments, model: nn.Module) -> Wires:
    """Follow the channels through a traced network.

    Args:
        model: the converted network; its Ghost modules are the writers.
    """
    return _Follower(segments, model).follow()


class _Follower:
    """Walks through the graph and ties wires."""

    def __init__(self, segments: Segments, model: nn.Module) -> None:
        self.graph, self.shapes, self.homes = segments.graph, segments.shapes, segments.homes
        self.model = model
        self.uses = {} if self.graph is None else mapwise.uses_of(self.graph, model)
        self.above: list[int] = []
        self.values: dict[fx.Node, Indices] = {}
        self.touches: list[Touch] = []
        self.writers: dict[str, Indices] = {}
        self.fixed: set[int] = set()
        self.extra: list[Indices] = []

    def follow(self) -> Wires:
        for node in () if self.graph is None else self.graph.nodes:
            found = self._value(node)
            if found is None:
                found = self._unknown(node)
            if found is not None and len(found):
                self.values[node] = found
        root = {wire: self._root(wire) for wire in range(len(self.above))}

        def rooted(wires: Indices) -> Indices:
            return np.array([root[one] for one in wires.tolist()], dtype=np.int64)

        values = {node: rooted(wires) for node, wires in self.values.items()}
        touches = tuple(Touch(one.module, one.side, rooted(one.wires)) for one in self.touches)
        every = [*values.values(), *(one.wires for one in touches), *map(rooted, self.extra)]
        return Wires(
            values=values,
            touches=touches,
            writers={name: rooted(wires) for name, wires in self.writers.items()},
            pinned=frozenset(root[one] for one in self.fixed),
            axes=tuple({axis.tobytes(): axis for axis in every}.values()),
        )

    # Wires.

    def _fresh(self, count: int) -> Indices:
        first = len(self.above)
        self.above += range(first, first + count)
        return np.arange(first, first + count)

    def _root(self, wire: int) -> int:
        while self.above[wire] != wire:
            self.above[wire] = self.above[self.above[wire]]
            wire = self.above[wire]
        return wire

    def _pin(self, wires: Indices) -> Indices:
        self.fixed.update(wires.tolist())
        return wires

    def _tie(self, one: Indices, two: Indices) -> None:
        for first, second in zip(one.tolist(), two.tolist(), strict=True):
            self.above[self._root(first)] = self._root(second)

    # Nodes.

    def _unknown(self, node: fx.Node) -> Indices | None:
        """Let the maps that a node reads stay where they are, and those that it gives."""
        for source in node.all_input_nodes:
            if source in self.values:
                self._pin(self.values[source])
        shape = self.shapes.get(node.name, ()) if node.op != "output" else ()
        return self._pin(self._fresh(shape[1])) if len(shape) in (2, 4) else None

    def _value(self, node: fx.Node) -> Indices | None:
        """Return the wires of a node's value, or None where nothing is known of it."""
        sources = node.all_input_nodes
        source = self.values.get(sources[0]) if sources else None
        named = [one for one in node.kwargs.values() if isinstance(one, fx.Node)]
        if source is None or not node.args or any(one in self.values for one in named):
            return None
        alone = node.args[0] is sources[0]
        if node.op == "call_module":
            module = self.model.get_submodule(str(node.target))
            return self._module(node, module, source) if alone and len(sources) == 1 else None
        if node.op not in ("call_function", "call_method"):
            return None
        target = node.target
        if target in mapwise.SIZES and node.name not in self.shapes:
            return np.empty(0, dtype=np.int64)
        if target in mapwise.COMBINING:
            return self._combined(node)
        if target is torch.cat or target is torch.concat:
            return self._joined(node)
        if not alone:
            return None
        if any(one in self.values for one in sources[1:]):
            return None
        if target in (mapwise.METHODS if node.op == "call_method" else mapwise.FUNCTIONS):
            return source
        if target in mapwise.MEANS:
            return source if self._within_maps(node) else None
        if target in mapwise.FLATTENING:
            return self._flat(node, source)
        if target is functional.pad:
            return self._padded(node, source)
        if target is operator.getitem:
            return self._part(node, source)
        return None

    def _module(self, node: fx.Node, module: nn.Module, source: Indices) -> Indices | None:
        name, count = str(node.target), len(source)
        if isinstance(module, nn.Flatten):
            return self._flat(node, source)
        if isinstance(module, mapwise.MODULES) or type(module).__name__ in mapwise.NAMES:
            return source
        if self.uses.get(id(module), 0) != 1 or mapwise.shares(self.model, module):
            return None
        if is_batch_norm(module):
            if not mapwise.is_plain_norm(module, count):
                return None
            self.touches.append(Touch(name, "both", source))
            return source
        if isinstance(module, nn.PReLU):
            if module.weight.numel() not in (1, count):
                return None
            if module.weight.numel() > 1:
                self.touches.append(Touch(name, "both", source))
            return source
        if type(module) is nn.Linear:
            if module.in_features != count or "weight" not in module._parameters:
                return None
            self.touches.append(Touch(name, "in", source))
            return self._pin(self._fresh(module.out_features))
        if isinstance(module, GhostModule):
            return self._ghost(node, module, source)
        if not mapwise.permutable(module) or module.in_channels != count:
            return None
        if module.groups == module.in_channels == module.out_channels > 1:
            self.touches.append(Touch(name, "both", source))
            return source
        if module.groups > 1:
            return None
        self.touches.append(Touch(name, "in", source))
        made = self._fresh(module.out_channels)
        self.touches.append(Touch(name, "out", made))
        return made

    def _ghost(self, node: fx.Node, module: GhostModule, source: Indices) -> Indices:
        if module.groups == 1 and mapwise.permutable(module.primary):
            self.touches.append(Touch(str(node.target), "in", source))
        else:
            self._pin(source)
        made = self._fresh(module.out_channels)
        names = self.homes.get(node, ())
        name = names[0] if len(names) == 1 else str(node.target)
        self.touches.append(Touch(str(node.target), "out", made))
        self.writers[name] = made
        return made

    def _combined(self, node: fx.Node) -> Indices | None:
        """Tie the operands of a sum or product; what has one channel only goes with any."""
        ranks = {len(self.shapes.get(one.name, ())) for one in node.all_input_nodes}
        operands = [self.values.get(one) for one in node.all_input_nodes]
        known = [one for one in operands if one is not None]
        if len(known) < len(operands) or len(ranks) != 1:
            return None
        widest = max(known, key=len)
        others = [one for one in known if len(one) > 1]
        if any(len(one) != len(widest) for one in others):
            return None
        for one in others:
            self._tie(one, widest)
        return widest

    def _joined(self, node: fx.Node) -> Indices | None:
        listed: Any = node.args[0]
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if not isinstance(listed, list | tuple) or len(self.shapes.get(node.name, ())) != 4:
            return None
        known = [self.values.get(one) for one in listed if isinstance(one, fx.Node)]
        if dim not in (1, -3) or len(known) != len(listed):
            return None
        parts = [one for one in known if one is not None]
        return np.concatenate(parts) if len(parts) == len(listed) else None

    def _within_maps(self, node: fx.Node) -> bool:
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        listed = dims if isinstance(dims, list | tuple) else [dims]
        before = self.shapes.get(node.all_input_nodes[0].name, ())
        return len(before) == 4 and all(one in (2, 3, -1, -2) for one in listed)

    def _flat(self, node: fx.Node, source: Indices) -> Indices | None:
        """Rows ``(N, C * H * W)`` of maps ``(N, C, H, W)``; rows stay rows."""
        before = self.shapes.get(node.all_input_nodes[0].name, ())
        after = self.shapes.get(node.name, ())
        if len(after) != 2 or len(before) not in (2, 4) or before[0] != after[0]:
            return None
        return np.repeat(source, int(np.prod(before[2:], dtype=np.int64)))

    def _padded(self, node: fx.Node, source: Indices) -> Indices | None:
        """Maps of a constant before and behind, which can change places with one another."""
        sides = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
        mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
        before = self.shapes.get(node.all_input_nodes[0].name, ())
        if not isinstance(sides, list | tuple) or len(before) != 4 or len(sides) > 6:
            return None
        if len(sides) <= 4:
            return source
        first, last = sides[4], sides[5]
        if mode != "constant" or not isinstance(first, int) or not isinstance(last, int):
            return None
        if min(first, last) < 0:
            return None
        made = self._fresh(first + last)
        self.extra.append(made)
        return np.concatenate([made[:first], source, made[first:]])

    def _part(self, node: fx.Node, source: Indices) -> Indices | None:
        """Some rows and columns of all maps, or some maps."""
        taken: Any = node.args[1]
        if not isinstance(taken, tuple) or not all(isinstance(one, slice) for one in taken):
            return None
        before = self.shapes.get(node.all_input_nodes[0].name, ())
        channels = taken[1] if len(taken) > 1 else slice(None)
        ends = (channels.start, channels.stop, channels.step)
        if len(before) != 4 or any(isinstance(one, fx.Node) for one in ends):
            return None
        return source[channels]
