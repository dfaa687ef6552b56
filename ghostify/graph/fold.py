"""Let the order of a Ghost module's maps be taken up by the layers around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ghostify.graph.segments import Segments
from ghostify.graph.slices import Kept, Slices
from ghostify.graph.wires import Indices, Side, Wires, find_wires, places
from ghostify.nn.ghost import GhostModule

__all__ = ["Folded", "Move", "fold_orders", "move_maps"]


@dataclass(frozen=True, slots=True)
class Move:
    """Map k on one side of a layer is now what was map ``places[k]``."""

    module: str
    side: Side
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """The layers that keep their indexed copy, and the modules whose maps changed places.

    ``moves`` are the changes to the layers' weights.
    """

    copies: tuple[str, ...]
    permuted: tuple[str, ...]
    moves: tuple[Move, ...] = ()


def fold_orders(segments: Segments, model: nn.Module, layers: Sequence[str]) -> Folded:
    """Take away the indexed copy behind each Ghost module whose readers can be permuted instead.

    The readers may be batch norms and what treats each map alike, up to dense convolutions,
    Ghost modules or linear layers, which get the permutation into their input weights. Where
    several layers write to the same maps (a residual stream), dense writers are permuted too,
    and all Ghost modules must have one order. A module that runs twice or shares weights
    cannot take it.
    """
    ghosts = {name: model.get_submodule(name) for name in layers}
    for ghost in ghosts.values():
        if isinstance(ghost, GhostModule) and ghost.order is not None:
            natural = torch.arange(ghost.out_channels)
            ghost.reorder(None if torch.equal(ghost.order.cpu(), natural) else ghost.order)
    wires = find_wires(segments, model)
    content: dict[int, int] = {}
    for names in wires.streams():
        found = _content(wires, model, names)
        if found is None:
            continue
        content |= found
        for name in names:
            ghost = model.get_submodule(name)
            assert isinstance(ghost, GhostModule)
            ghost.reorder(None)
    moves = tuple(_moves(wires, content))
    move_maps(model, moves)
    kept = tuple(
        name
        for name, ghost in ghosts.items()
        if isinstance(ghost, GhostModule) and ghost.order is not None
    )
    permuted = {node for node, axis in wires.values.items() if _moves_on(axis, content)}
    return Folded(kept, _names_of(segments.graph, permuted, model), moves)


def move_maps(model: nn.Module, moves: Sequence[Move], *, slices: Slices | None = None) -> None:
    """Permute the weights of a network, which then computes the same with maps in other places.

    The network may be the converted one or its original; for the original of one that has lost
    maps, ``slices`` says which it kept: these change places, the others stay.
    """
    for move in moves:
        module = model.get_submodule(move.module)
        positions = _spread(move, (slices or {}).get(move.module), module)
        if isinstance(module, GhostModule):
            if move.side == "out":
                continue  # it makes its maps in this order
            module = module.primary
        values = [*module.named_parameters(), *module.named_buffers()]
        if move.side == "in":
            _index([value for name, value in values if name == "weight"], 1, positions)
        else:
            mine = [value for _, value in values if value.dim() and len(value) == len(positions)]
            _index(mine, 0, positions)


def _spread(move: Move, kept: Kept | None, module: nn.Module) -> Tensor:
    """Return the places among all maps that a layer had before it lost some."""
    positions = torch.tensor(move.places)
    indices = None if kept is None else kept.reads if move.side == "in" else kept.out
    if indices is None:
        return positions
    values = [value for value in (*module.parameters(), *module.buffers()) if value.dim()]
    before = torch.arange(values[0].shape[1 if move.side == "in" else 0])
    some = torch.tensor(indices)
    before[some] = some[positions]
    return before


def _content(wires: Wires, model: nn.Module, names: Sequence[str]) -> dict[int, int] | None:
    """Return which wire's maps each wire is to carry for these writers to go without copies."""
    content: dict[int, int] = {}
    orders: dict[str, list[int]] = {}
    for name in names:
        ghost = model.get_submodule(name)
        assert isinstance(ghost, GhostModule)
        axis = wires.writers[name].tolist()
        natural = torch.arange(len(axis))
        orders[name] = (natural if ghost.order is None else torch.argsort(ghost.order)).tolist()
        for place, original in enumerate(orders[name]):
            if content.setdefault(axis[place], axis[original]) != axis[original]:
                return None
    if any(places(wires.writers[name], content) != made for name, made in orders.items()):
        return None  # two maps of one wire have changed places
    moved = {wire for wire, other in content.items() if wire != other}
    if not moved or moved & wires.pinned:
        return None
    concerned = [axis for axis in wires.axes if moved & set(axis.tolist())]
    if any(places(axis, content) is None for axis in concerned):
        return None
    return content


def _moves(wires: Wires, content: Mapping[int, int]) -> list[Move]:
    moves = []
    for touch in wires.touches:
        if _moves_on(touch.wires, content):
            found = places(touch.wires, content)
            assert found is not None  # _content has tried every axis
            moves.append(Move(touch.module, touch.side, tuple(found)))
    return moves


def _moves_on(axis: Indices, content: Mapping[int, int]) -> bool:
    return any(content.get(wire, wire) != wire for wire in axis.tolist())


def _names_of(graph: fx.Graph | None, nodes: Set[fx.Node], model: nn.Module) -> tuple[str, ...]:
    """Return the modules whose output one of the nodes is, with what they hold and are held by."""
    last: dict[str, fx.Node] = {}
    for node in graph.nodes if nodes and graph is not None else ():
        for name, _ in node.meta.get("nn_module_stack", {}).values():
            last[name] = node
    found = [name for name, node in last.items() if name and node in nodes]
    leaves = [str(node.target) for node in nodes if node.op == "call_module"]
    inside = [
        f"{leaf}.{name}"
        for leaf in leaves
        if not isinstance(model.get_submodule(leaf), GhostModule)
        for name, _ in model.get_submodule(leaf).named_modules()
        if name
    ]
    return (*found, *sorted(set(inside) - set(found)))


def _index(values: Sequence[Tensor], axis: int, positions: Tensor) -> None:
    with torch.no_grad():
        for value in values:
            value.copy_(value.index_select(axis, positions.to(value.device)))
