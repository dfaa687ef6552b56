"""Which maps can be removed, and what goes with them, as torch-pruning's graph tells."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from ghostify.cost.mixed import Prunable
from ghostify.errors import PruneError
from ghostify.graph.probe import Call, as_call, copy_model, sentence
from ghostify.graph.slices import Kept
from ghostify.nn.cheap import filters_of
from ghostify.nn.ghost import GhostModule

__all__ = [
    "Graph",
    "Group",
    "Part",
    "find_groups",
    "prunable",
    "prunable_layers",
    "prunables_of",
    "slices_of",
]


@dataclass(frozen=True, slots=True)
class Part:
    """One side of a layer that loses ``indices[k]`` where the group loses map ``roots[k]``."""

    name: str
    side: str  # "out" or "reads"
    size: int  # maps that this side has
    indices: tuple[int, ...]
    roots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """The maps of one layer, and everything that must lose them at the same time.

    ``families`` are sets of maps that can only go together: an intrinsic map of a Ghost module
    and its ghosts; elsewhere each map is a family of its own. ``writers`` are the layers that
    compute these maps, ``layer`` first; more than one where they are multiplied.
    """

    layer: str
    maps: int
    families: tuple[tuple[int, ...], ...]
    writers: tuple[str, ...]
    parts: tuple[Part, ...]
    handle: Any  # torch-pruning's own group, for its scores


@dataclass(frozen=True, slots=True)
class Graph:
    """The groups of a network in execution order, and why other layers have none.

    ``model`` is the copy that torch-pruning has looked at, with one convolution in the place
    of each Ghost module. ``handle`` is torch-pruning's graph of it.
    """

    groups: tuple[Group, ...]
    reasons: Mapping[str, str]
    model: nn.Module
    handle: Any


def find_groups(model: nn.Module, example: object, *, keep: Sequence[str] = ()) -> Graph:
    """Find the layers whose output maps can be removed, by torch-pruning's dependency graph.

    Only maps inside blocks are candidates: those that nothing adds to other maps. So the
    residual stream stays as wide as it was, and so do the network's outputs.

    Args:
        model: stays untouched.
        keep: names or patterns of layers that lose nothing.

    Raises:
        PruneError: torch-pruning cannot follow the network.
    """
    import torch_pruning

    call = example if isinstance(example, Call) else as_call(example)
    scratch, families = _stand_in(model)
    calls = _calls(scratch, call)
    tied = _tied(scratch)
    try:
        with warnings.catch_warnings(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph()
            graph.build_dependency(
                scratch,
                example_inputs=call.map(lambda tensor: tensor.detach().clone()),
                forward_fn=lambda net, one: net(*one.args, **one.kwargs),
                verbose=False,
            )
    except Exception as error:
        raise PruneError(
            f"torch-pruning cannot follow {type(model).__name__} ({sentence(error)}); "
            "such a network cannot be pruned"
        ) from error
    groups: list[Group] = []
    reasons: dict[str, str] = {}
    names = {module: name for name, module in scratch.named_modules()}
    taken: set[str] = set()
    for name in calls:
        layer = scratch.get_submodule(name)
        if name in taken or not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        if layer not in graph.module2node:
            reasons[name] = "torch-pruning does not see it run"
            continue
        found = _group(graph, name, layer, names, families.get(name))
        reason = found if isinstance(found, str) else _why_not(found, scratch, calls, tied, keep)
        if reason or isinstance(found, str):
            reasons[name] = reason
            continue
        groups.append(found)
        taken |= set(found.writers)
    return Graph(tuple(groups), reasons, scratch, graph)


def slices_of(groups: Sequence[Group], removed: Mapping[str, Set[int]]) -> dict[str, Kept]:
    """Return what every layer keeps if the groups lose these maps, by the groups' layers."""
    gone: dict[tuple[str, str], set[int]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for group in groups:
        lost = removed.get(group.layer, set())
        if not lost:
            continue
        for part in group.parts:
            key = part.name, part.side
            sizes[key] = part.size
            gone.setdefault(key, set()).update(
                index for index, root in zip(part.indices, part.roots, strict=True) if root in lost
            )
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for (name, side), indices in gone.items():
        rest = tuple(index for index in range(sizes[name, side]) if index not in indices)
        sides.setdefault(name, {})[side] = rest
    return {name: Kept(**kept) for name, kept in sides.items()}


def prunable(model: nn.Module, example: object) -> dict[str, Prunable]:
    """Return the convolutions that a plan may prune, with what their maps cost elsewhere.

    Raises:
        PruneError: torch-pruning cannot follow the network.
    """
    return prunables_of(find_groups(model, example))


def prunables_of(graph: Graph) -> dict[str, Prunable]:
    """Return the convolutions of a graph that a plan may prune."""
    return {
        group.layer: _as_prunable(group, graph.model)
        for group in graph.groups
        if len(group.writers) == 1 and type(graph.model.get_submodule(group.layer)) is nn.Conv2d
    }


def prunable_layers(model: nn.Module, example: object) -> dict[str, list[tuple[str, int]]]:
    """Return the convolutions that a plan may prune, each with the convolutions that read it.

    With a reader comes the number of its input channels that one map takes.

    Raises:
        PruneError: torch-pruning cannot follow the network.
    """
    return {name: list(one.readers) for name, one in prunable(model, example).items()}


def _as_prunable(group: Group, model: nn.Module) -> Prunable:
    readers: list[tuple[str, int]] = []
    params = macs = 0
    for part in group.parts:
        module = model.get_submodule(part.name)
        each = len(part.indices) // group.maps
        if isinstance(module, nn.Conv2d):
            if part.side == "reads" or part.name != group.layer:
                readers.append((part.name, each))
        elif isinstance(module, nn.Linear):
            params += each * module.out_features
            macs += each * module.out_features
        else:
            params += each * sum(
                value.numel() // part.size
                for value in module.parameters(recurse=False)
                if value.shape[0] == part.size
            )
    return Prunable(group.layer, group.maps, tuple(dict.fromkeys(readers)), params, macs)


def _stand_in(model: nn.Module) -> tuple[nn.Module, dict[str, tuple[tuple[int, ...], ...]]]:
    """Copy a model with one convolution for each Ghost module; return the families of these.

    The row of a ghost is its intrinsic filter times the norm of its cheap filter, which gives
    it its share of a magnitude. The copy is looked at and never computes results.
    """
    memo: dict[int, Any] = {}
    families: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name, module in model.named_modules():
        if isinstance(module, GhostModule):
            memo[id(module)], families[name] = _one_convolution(module)
    scratch = copy_model(model, memo, hooks=False).eval()
    for parameter in scratch.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return scratch, families


def _one_convolution(ghost: GhostModule) -> tuple[nn.Conv2d, tuple[tuple[int, ...], ...]]:
    primary: Any = ghost.primary
    conv = nn.Conv2d(
        ghost.in_channels, ghost.out_channels, primary.kernel_size, stride=primary.stride,
        padding=primary.padding, dilation=primary.dilation, groups=primary.groups,
        bias=primary.bias is not None, padding_mode=primary.padding_mode,
        device=primary.weight.device, dtype=primary.weight.dtype,
    )  # fmt: skip
    with torch.no_grad():
        rows = [primary.weight]
        for branch in ghost.cheap:
            sizes = filters_of(branch).flatten(1).norm(dim=1)
            rows.append(primary.weight[: len(sizes)] * sizes.view(-1, 1, 1, 1))
        made = torch.cat(rows)
        order = list(range(ghost.out_channels)) if ghost.order is None else ghost.order.tolist()
        conv.weight.copy_(made[order])
        if conv.bias is not None:
            conv.bias.zero_()
    count = ghost.intrinsic_channels
    together: dict[int, list[int]] = {}
    for position, index in enumerate(order):
        together.setdefault(index % count, []).append(position)
    return conv, tuple(tuple(together[index]) for index in range(count))


def _calls(model: nn.Module, call: Call) -> Counter[str]:
    """Count how often each layer runs, in the order of the first time."""
    calls: Counter[str] = Counter()
    handles = [
        module.register_forward_pre_hook(lambda _m, _i, name=name: calls.update([name]))
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            one = call.map(lambda tensor: tensor.detach().clone())
            model(*one.args, **one.kwargs)
    except Exception as error:
        raise PruneError(
            f"{type(model).__name__} cannot run on an input of shape {call.describe()} "
            f"({sentence(error)}); give the input that it was made for"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _tied(model: nn.Module) -> frozenset[str]:
    """Return the layers that share a parameter with another."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(name)
    return frozenset(name for held in owners.values() if len(held) > 1 for name in held)


def _group(
    graph: Any,
    name: str,
    layer: nn.Module,
    names: Mapping[nn.Module, str],
    families: tuple[tuple[int, ...], ...] | None,
) -> Group | str:
    """Return everything that goes with a layer's output maps, or why they must stay."""
    import torch_pruning

    if isinstance(layer, nn.Linear):
        count, remove = layer.out_features, torch_pruning.prune_linear_out_channels
    else:
        assert isinstance(layer, nn.Conv2d)
        count, remove = layer.out_channels, torch_pruning.prune_conv_out_channels
        if layer.groups > 1:
            depthwise = layer.groups == layer.in_channels == layer.out_channels
            return "depthwise, its maps are its input's" if depthwise else "a grouped convolution"
    try:
        handle = graph.get_pruning_group(layer, remove, list(range(count)))
    except Exception as error:  # torch-pruning's own troubles with an operation
        return f"torch-pruning cannot follow its maps ({sentence(error)})"
    parts: list[Part] = []
    writers: list[str] = []
    for item in handle:
        target = item.dep.target.module
        if not isinstance(target, nn.Module) or isinstance(target, nn.Parameter):
            return "a parameter of no layer goes with its maps"
        if target not in names:
            if "Add" in str(target) or "Sub" in str(target):
                return "its maps are added to others"
            if "OutputOp" in str(target):
                return "its maps are the network's output"
            continue
        if not isinstance(
            target, nn.Conv2d | nn.Linear | nn.modules.batchnorm._BatchNorm | nn.PReLU
        ):
            if any(True for _ in target.parameters(recurse=False)):
                return f"its maps pass a {type(target).__name__}"
            continue
        part = _part(graph, item, target, names[target])
        if isinstance(part, str):
            return part
        parts.append(part)
        dense = isinstance(target, nn.Linear) or (
            isinstance(target, nn.Conv2d) and target.groups == 1
        )
        if part.side == "out" and dense:
            writers.append(part.name)
    if not any(part.side == "reads" for part in parts):
        return "its maps are the network's output"
    whole = families or tuple((index,) for index in range(count))
    return Group(name, count, whole, tuple(dict.fromkeys(writers)), tuple(parts), handle)


def _part(graph: Any, item: Any, target: nn.Module, name: str) -> Part | str:
    layer: Any = target
    side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "reads"
    roots, indices = item.root_idxs, item.idxs
    if len(roots) != len(indices) or any(root is None for root in roots):
        return f"torch-pruning does not know which maps of {name} are which"
    if isinstance(target, nn.Conv2d):
        if target.groups > 1 and not target.groups == target.in_channels == target.out_channels:
            return f"{name} behind it is a grouped convolution"
        if target.groups > 1:
            side = "out"
        size = target.out_channels if side == "out" else target.in_channels
    elif isinstance(target, nn.Linear):
        size = target.out_features if side == "out" else target.in_features
    elif isinstance(target, nn.PReLU):
        if target.num_parameters == 1:
            return Part(name, "out", 1, (), ())
        side, size = "out", target.num_parameters
    else:
        side, size = "out", layer.num_features
    if len(set(indices)) != len(indices) or (indices and max(indices) >= size):
        return f"torch-pruning does not know which maps of {name} are which"
    return Part(name, side, size, tuple(indices), tuple(roots))


def _why_not(
    group: Group, model: nn.Module, calls: Counter[str], tied: Set[str], keep: Sequence[str]
) -> str:
    for part in group.parts:
        module = model.get_submodule(part.name)
        if calls[part.name] > 1:
            return f"{part.name} runs more than once"
        if part.name in tied:
            return f"{part.name} shares its weights"
        if len(list(module.parameters())) > sum(
            one in module._parameters for one in ("weight", "bias")
        ):
            return f"{part.name} has parameters that other {type(module).__name__}s have not"
    for name in group.writers:
        if any(name == pattern or fnmatchcase(name, pattern) for pattern in keep):
            return "kept"
    return ""
