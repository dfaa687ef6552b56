"""Let the order of a Ghost module's maps be taken up by the layers behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from ghostify.graph.segments import Segments, is_batch_norm
from ghostify.nn.ghost import GhostModule

__all__ = ["Folded", "fold_orders"]

_MAPWISE_MODULES: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Identity, nn.Dropout,
    nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
    nn.Upsample, nn.ZeroPad2d,
)  # fmt: skip
_MAPWISE_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset({
    functional.relu, functional.relu_, functional.relu6, functional.leaky_relu, functional.elu,
    functional.silu,
    functional.gelu, functional.mish, functional.hardswish, functional.hardsigmoid,
    functional.sigmoid, functional.tanh, functional.dropout, functional.max_pool2d,
    functional.avg_pool2d, functional.adaptive_avg_pool2d, functional.interpolate,
    torch.relu, torch.sigmoid, torch.tanh,
})  # fmt: skip
_MAPWISE_METHODS = frozenset({"relu", "relu_", "sigmoid", "tanh", "contiguous", "clone"})

_KNOWN = frozenset({"torch", "torchvision", "timm"})  # whose batch norms treat each map alike

_Change = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Folded:
    """The layers that keep their indexed copy, and the modules whose maps changed places."""

    copies: tuple[str, ...]
    permuted: tuple[str, ...]


def fold_orders(segments: Segments, model: nn.Module, layers: Sequence[str]) -> Folded:
    """Take away the indexed copy behind each Ghost module whose readers can be permuted instead.

    The readers may be batch norms and what treats each map alike, up to dense convolutions
    or Ghost modules, which get the permutation into their input weights. A module that runs
    twice, shares weights, or belongs to the maps of several writers (a residual stream)
    cannot take it.
    """
    kept: list[str] = []
    permuted: set[fx.Node] = set()
    for name in layers:
        ghost = model.get_submodule(name)
        if not isinstance(ghost, GhostModule) or ghost.order is None:
            continue
        if torch.equal(ghost.order.cpu(), torch.arange(ghost.out_channels)):
            ghost.reorder(None)
            continue
        found = _changes(segments, model, name, torch.argsort(ghost.order))
        if found is None:
            kept.append(name)
            continue
        changes, between = found
        for change in changes:
            change()
        permuted |= between
        ghost.reorder(None)
    return Folded(tuple(kept), _names_of(segments.graph, permuted, model))


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


def _changes(
    segments: Segments, model: nn.Module, name: str, positions: Tensor
) -> tuple[list[_Change], set[fx.Node]] | None:
    """Return what to do so that map k of the module may stand for map ``positions[k]``.

    Beside it, the nodes whose maps are permuted then.
    """
    if segments.graph is None:
        return None
    writers = [node for node, inside in segments.homes.items() if name in inside]
    if len(writers) != 1 or model.get_submodule(str(writers[0].target)) is not (
        model.get_submodule(name)
    ):
        return None
    uses = _uses(segments.graph, model)
    changes: list[_Change] = []
    between = {writers[0]}
    seen: set[fx.Node] = set()
    queue = [(reader, writers[0]) for reader in writers[0].users]
    while queue:
        reader, source = queue.pop()
        if reader.all_input_nodes != [source] or not reader.args or reader.args[0] is not source:
            return None
        if reader in seen:
            continue
        seen.add(reader)
        goes_on = True
        if reader.op == "call_module":
            module = model.get_submodule(str(reader.target))
            if not isinstance(module, _MAPWISE_MODULES):
                if uses.get(id(module), 0) != 1 or _shares(model, module):
                    return None
                change, goes_on = _permuted(module, positions)
                if change is None:
                    return None
                changes.append(change)
        elif reader.op == "call_function":
            if reader.target not in _MAPWISE_FUNCTIONS:
                return None
        elif reader.op != "call_method" or reader.target not in _MAPWISE_METHODS:
            return None
        if goes_on:
            if not reader.users:
                return None
            between.add(reader)
            queue += [(user, reader) for user in reader.users]
    return changes, between


def _uses(graph: fx.Graph, model: nn.Module) -> dict[int, int]:
    uses: dict[int, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            for module in model.get_submodule(str(node.target)).modules():
                uses[id(module)] = uses.get(id(module), 0) + 1
        elif node.op == "get_attr":  # a function reads a layer's weight
            owner = _owner(model, str(node.target))
            uses[id(owner)] = uses.get(id(owner), 0) + 1
    return uses


def _owner(model: nn.Module, target: str) -> nn.Module | None:
    try:
        return model.get_submodule(target.rpartition(".")[0])
    except AttributeError:  # a constant that tracing made
        return None


def _shares(model: nn.Module, module: nn.Module) -> bool:
    """Return whether any parameter of a module belongs to another module too."""
    mine = {id(parameter) for parameter in module.parameters()}
    inside = {id(part) for part in module.modules()}
    return any(
        id(parameter) in mine
        for part in model.modules()
        if id(part) not in inside
        for parameter in part._parameters.values()
        if parameter is not None
    )


def _permuted(module: nn.Module, positions: Tensor) -> tuple[_Change | None, bool]:
    """Return what permutes a module's maps, and whether its output is permuted too."""
    count = len(positions)
    if is_batch_norm(module):
        known = type(module).__module__.split(".")[0] in _KNOWN
        if not known or any(True for part in module.children() for _ in part.parameters()):
            return None, False
        values = [*module._parameters.values(), *module._buffers.values()]
        mine = [value for value in values if value is not None and value.shape == (count,)]
        return (lambda: _index(mine, 0, positions)), True
    if isinstance(module, nn.PReLU):
        mine = [module.weight] if module.weight.numel() == count else []
        return (lambda: _index(mine, 0, positions)), True
    if isinstance(module, GhostModule) and module.groups == 1:
        module = module.primary
    if type(module) is not nn.Conv2d or module.in_channels != count:
        return None, False
    weight, bias = module.weight, module.bias
    if module.groups == 1:
        return (lambda: _index([weight], 1, positions)), False
    if module.groups == count == module.out_channels:
        return (lambda: _index([weight, bias], 0, positions)), True
    return None, False


def _index(values: Sequence[Tensor | None], axis: int, positions: Tensor) -> None:
    with torch.no_grad():
        for value in values:
            if value is not None:
                value.copy_(value.index_select(axis, positions.to(value.device)))
