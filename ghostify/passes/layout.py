"""Which parts each stream of feature maps should travel in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import fx, nn

from ghostify.nn.ghost import GhostModule
from ghostify.passes.kinds import Kind
from ghostify.passes.parts import Layout, same_layout
from ghostify.passes.settings import Passes
from ghostify.passes.trace import shape

__all__ = ["expands", "ghost_layout", "plan_layouts"]


def ghost_layout(ghost: GhostModule) -> Layout:
    """Return the channels of a Ghost module's primary convolution and of each of its branches."""
    made = torch.arange(ghost.out_channels)
    if ghost.order is not None:
        made = torch.argsort(ghost.order.cpu())
    return tuple(made.split(ghost.intrinsic_channels))


def expands(ghost: GhostModule, passes: Passes) -> bool:
    """Return whether a Ghost module is to become one wide depthwise convolution."""
    return 0 < passes.expand <= ghost.ratio and ghost.kernel > 1


def plan_layouts(
    nodes: Sequence[fx.Node],
    kinds: Mapping[fx.Node, Kind],
    modules: Mapping[str, nn.Module],
    passes: Passes,
) -> dict[fx.Node, Layout]:
    """Return the layout in which each convolution and Ghost module should give its maps.

    Streams that meet in a sum or product must be in the same parts. Where all Ghost modules
    of such a meeting agree, the dense convolutions in it are cut alike; where they do not,
    or where maps come from elsewhere, that stream travels whole. Nodes that are left out of
    the result give whole maps.
    """
    if not passes.norms:
        return {}
    homes = _Sets()
    for node in nodes:
        for source in _same_channels(node, kinds, modules, passes):
            homes.unite(node, source)
    layouts: dict[fx.Node, Layout] = {}
    stuck: set[fx.Node] = set()
    for node in nodes:
        home = homes.find(node)
        if kinds[node] == "ghost":
            own = ghost_layout(_ghost(node, modules))
            agreed = same_layout(layouts.setdefault(home, own), own)
            if not agreed or expands(_ghost(node, modules), passes):
                stuck.add(home)
        elif not _divisible(node, kinds, modules, passes):
            stuck.add(home)
    return {
        node: layouts[homes.find(node)]
        for node in nodes
        if kinds[node] in ("conv", "ghost")
        and homes.find(node) in layouts
        and homes.find(node) not in stuck
    }


def _same_channels(
    node: fx.Node,
    kinds: Mapping[fx.Node, Kind],
    modules: Mapping[str, nn.Module],
    passes: Passes,
) -> list[fx.Node]:
    """Return the inputs whose channels are those of the output, one by one."""
    sources = [one for one in node.args if isinstance(one, fx.Node)]
    kind = kinds[node]
    if kind in ("norm", "nothing"):
        return sources[:1]
    if kind in ("map", "prelu") or (kind == "conv" and _one_to_one(node, modules)):
        return sources[:1] if passes.maps else []
    if kind == "stream" and passes.streams:
        wanted = (shape(node) or (0, 0))[1:2]
        return [one for one in sources if len(shape(one) or ()) == 4 and _channels(one) == wanted]
    return []


def _divisible(
    node: fx.Node,
    kinds: Mapping[fx.Node, Kind],
    modules: Mapping[str, nn.Module],
    passes: Passes,
) -> bool:
    """Return whether a node can hand its maps on in any parts, or has no maps to hand on."""
    found = shape(node)
    if found is None or len(found) != 4 or found[2:] == (1, 1):
        return True
    if kinds[node] == "conv":
        conv = modules[str(node.target)]
        assert isinstance(conv, nn.Conv2d)
        return conv.groups == 1 or bool(_same_channels(node, kinds, modules, passes))
    return bool(_same_channels(node, kinds, modules, passes))


def _channels(node: fx.Node) -> tuple[int, ...]:
    return (shape(node) or (0, 0))[1:2]


def _one_to_one(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    conv = modules[str(node.target)]
    assert isinstance(conv, nn.Conv2d)
    return conv.groups == conv.in_channels == conv.out_channels


def _ghost(node: fx.Node, modules: Mapping[str, nn.Module]) -> GhostModule:
    ghost = modules[str(node.target)]
    assert isinstance(ghost, GhostModule)
    return ghost


class _Sets:
    """Disjoint sets of nodes."""

    def __init__(self) -> None:
        self._above: dict[fx.Node, fx.Node] = {}

    def find(self, node: fx.Node) -> fx.Node:
        while node in self._above:
            node = self._above[node]
        return node

    def unite(self, one: fx.Node, two: fx.Node) -> None:
        first, second = self.find(one), self.find(two)
        if first is not second:
            self._above[first] = second
