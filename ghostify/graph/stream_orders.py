"""One order of maps for all layers that write to one residual stream, from the original's maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set

from torch import nn

from ghostify.errors import WeightsError
from ghostify.graph.fit_options import FitOptions
from ghostify.graph.layer_fit import importance, pair_costs
from ghostify.graph.pairing import Costs, Pairing
from ghostify.graph.stream_pairing import Writer, choose_together
from ghostify.graph.streams import Calls, Streams
from ghostify.graph.wires import Wires, find_wires
from ghostify.nn.ghost import GhostModule

__all__ = ["common_pairings", "shared_streams"]


def shared_streams(wires: Wires, converted: nn.Module) -> list[tuple[str, ...]]:
    """Return the Ghost modules that can have one order, by the maps that they write to.

    Left out are those that can have any order without a copy, since nothing else writes to
    their maps, and those whose maps cannot change places: what reads them mixes maps or is
    unknown, they leave the network, two maps of one layer are tied to each other, or a module in
    the set runs twice, shares its weights or works in groups.
    """
    found = []
    for names in wires.streams():
        ghosts = [converted.get_submodule(name) for name in names]
        if any(not isinstance(ghost, GhostModule) or ghost.groups > 1 for ghost in ghosts):
            continue
        if any(
            len(set(axis)) < len(axis) for axis in (wires.writers[name].tolist() for name in names)
        ):
            continue
        atoms = wires.atoms(names)
        movable = not any(wires.pinned & set(atom.tolist()) for atom in atoms)
        if movable and (len(names) > 1 or len(atoms) > 1):
            found.append(names)
    return found


def common_pairings(
    streams: Streams,
    norms: Mapping[str, str],
    options: FitOptions,
    *,
    on_layer: Callable[[str], None] | None = None,
) -> dict[str, Pairing]:
    """Choose the pairings of Ghost modules that write to one stream together.

    The original is run once, and the maps of one layer are looked at at a time; the costs are
    those of each layer by itself, weighted by the batch norm behind, and added up. Where streams
    of several widths are tied, by shortcuts that pad maps of zeros, each counts as a share of
    what pairs drawn at random would cost it.

    Returns:
        Pairings by name; what is left out is to be chosen layer by layer.

    Raises:
        WeightsError: a layer gives values that are not finite.
    """
    wires = find_wires(streams.segments, streams.converted)
    shared = shared_streams(wires, streams.converted)
    wanted = {name for names in shared for name in names}
    streams.limit(_chunks(streams, wanted, options.positions))
    costs: dict[str, Costs] = {}
    for segment in streams.segments.row:
        for name in segment.layers:
            if name in wanted and name not in costs:
                if on_layer is not None:
                    on_layer(name)
                targets = streams.targets(segment, name, options.positions)
                costs[name] = _costs(streams, name, norms.get(name), targets)
                streams.store.release(targets)
        if segment.last or wanted <= set(costs):
            break
        streams.pass_by(segment)
    pairings: dict[str, Pairing] = {}
    for names in shared:
        pairings |= _together(wires, streams.converted, names, costs)
    return pairings


def _chunks(streams: Streams, names: Set[str], positions: int) -> int:
    """Return how many chunks of images have that many positions at each of these layers."""
    segments = streams.segments
    shapes = [
        segments.shapes[node.name]
        for node, layers in segments.homes.items()
        if node.name in segments.shapes and names & set(layers)
    ]
    pixels = min((math.prod(shape[2:]) for shape in shapes), default=1)
    return math.ceil(positions / (streams.images_of_chunk * pixels))


def _costs(streams: Streams, name: str, norm: str | None, targets: Calls) -> Costs:
    conv = streams.original.get_submodule(name)
    ghost = streams.converted.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(ghost, GhostModule)
    behind = streams.original.get_submodule(norm) if norm else None
    weights = importance(behind, conv.out_channels, conv.weight)
    maps = (aim for aims in targets for aim in aims)
    offset = norm is not None or conv.bias is not None
    found, filters = pair_costs(ghost, maps, weights, offset=offset)
    if not filters.isfinite().all():
        raise WeightsError(f"{name} gives values that are not finite; use sound weights and images")
    return found


def _together(
    wires: Wires, converted: nn.Module, names: Sequence[str], costs: Mapping[str, Costs]
) -> dict[str, Pairing]:
    scales: dict[bytes, float] = {}  # of all that is written to the same wires
    for name in names:
        where = wires.writers[name].tobytes()
        scales[where] = scales.get(where, 0.0) + _mean_cost(costs[name])
    writers = []
    for name in names:
        ghost, axis = converted.get_submodule(name), wires.writers[name]
        assert isinstance(ghost, GhostModule)
        relative = costs[name] / (scales[axis.tobytes()] or 1.0)
        writers.append(Writer(axis, relative, ghost.ratio, ghost.round_to))
    chosen = choose_together(writers, wires.atoms(names))
    return dict(zip(names, chosen, strict=True))


def _mean_cost(costs: Costs) -> float:
    """Return the mean cost of a pair of two maps."""
    maps = len(costs)
    return float(costs.sum() - costs.trace()) / (maps * (maps - 1))
