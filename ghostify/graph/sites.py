"""Find every convolution that a network runs, and say of each whether it can be converted."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from ghostify.graph.probe import Probe, sentence
from ghostify.graph.record import Recorder, Run
from ghostify.graph.trace import CONVOLUTIONS, trace
from ghostify.nn.ghost import GhostModule, kept_maps, slim
from ghostify.spec import ConvSite, intrinsic_maps

__all__ = ["Sites", "conv_shapes", "find_sites"]

_PATCHED = frozenset({"forward", "_conv_forward"})


@dataclass(frozen=True, slots=True)
class Sites:
    """The convolutions of a network in execution order; those that did not run come last.

    ``graph`` is the traced graph, or None where ``note`` says why there is none.
    """

    sites: tuple[ConvSite, ...]
    graph: fx.Graph | None
    note: str = ""


def find_sites(
    probe: Probe,
    *,
    also: Callable[[nn.Module], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Sites:
    """List the convolutions of ``probe`` as they run in eval mode on its example.

    The network is run once on the probe's tensors, which computes nothing where they are
    fake, and traced by torch.fx. Where it cannot be traced, or the trace runs other
    convolutions, what the hooks of that one run saw is all there is, and ``note`` says so.

    Args:
        also: makes a context, given the probe's model, that watches the same run.

    Raises:
        InputError: the network does not accept the example.
    """
    while True:
        model = probe.model
        recorder = Recorder(model)
        with also(model), recorder:
            probe.run()
        if probe.model is model:  # else the probe went over to another copy
            break
    graph, note = _traced(probe, recorder)
    if note:
        note = f"found by one run with hooks, since torch.fx cannot trace the network ({note})"
    return Sites(tuple(_describe(probe.source, recorder)), graph, note)


def conv_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the weight shape of every ``Conv2d`` outside Ghost modules, by name."""
    return {
        name: (
            module.out_channels,
            module.in_channels // module.groups,
            *map(int, module.kernel_size),
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and not _inside_ghost(model, name)
    }


def _traced(probe: Probe, recorder: Recorder) -> tuple[fx.Graph | None, str]:
    probe.model.eval()
    try:
        with probe.context(), torch.no_grad():
            graph = trace(probe.model, probe.call)
    except Exception as error:
        return None, f"{type(error).__name__}: {sentence(error)}"
    modules = dict(probe.model.named_modules(remove_duplicate=False))
    for node in graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, CONVOLUTIONS) and layer not in recorder.seen:
            return None, f"its graph runs {node.target}, the network does not"
    return graph, ""


def _describe(source: nn.Module, recorder: Recorder) -> Iterator[ConvSite]:
    modules = {
        name: module for name, module in source.named_modules() if isinstance(module, CONVOLUTIONS)
    }
    names = _all_names(source)
    owners = _weight_owners(source)
    originals = {id(parameter) for parameter in source.parameters()}
    for name, run in recorder.runs.items():
        if run.described is not None:
            outside = run.weight is not None and id(run.weight) in originals
            yield ConvSite(
                name=name,
                type="functional",
                in_size=run.in_size,
                out_size=run.out_size,
                calls=run.calls,
                pixels=run.pixels,
                eligible=False,
                reason="runs through a reference to the original, which no copy follows"
                if outside
                else "functional call: its weight belongs to no Conv2d module",
                **run.described,
            )
        else:
            yield _module_site(source, name, modules[name], run, names, owners, recorder.borrowed)
    for name, module in modules.items():
        if name not in recorder.runs:
            yield _module_site(source, name, module, None, names, owners, recorder.borrowed)


def _module_site(
    source: nn.Module,
    name: str,
    module: nn.Module,
    run: Run | None,
    names: dict[int, list[str]],
    owners: dict[int, list[tuple[str, nn.Module]]],
    borrowed: set[str],
) -> ConvSite:
    conv: Any = module
    twins = owners.get(id(conv._parameters.get("weight")), [])
    reason = _why_ineligible(source, name, module, run, twins)
    if not reason:
        reason = _why_bias_is_not_its_own(conv, owners)
    if not reason and name in borrowed:
        reason = "its weight is also used by a functional call"
    aliases = [alias for alias in names[id(module)] if alias != name]
    aliases += [twin for twin, other in twins if other is not module]
    maps = conv.out_channels
    extra = [
        parameter
        for name_, parameter in module.named_parameters()
        if name_ not in ("weight", "bias")
    ]
    per_map = [one for one in extra if one.dim() and one.shape[0] == maps]
    return ConvSite(
        name=name,
        type=type(module).__name__,
        in_channels=conv.in_channels,
        out_channels=maps,
        kernel=tuple(conv.kernel_size),
        stride=tuple(conv.stride),
        dilation=tuple(conv.dilation),
        groups=conv.groups,
        bias=conv.bias is not None,
        in_size=run.in_size if run else (),
        out_size=run.out_size if run else (),
        calls=run.calls if run else 0,
        pixels=run.pixels if run else 0,
        eligible=not reason,
        reason=reason,
        transposed=bool(conv.transposed),
        aliases=tuple(aliases),
        tied_to=twins[0][0] if twins and twins[0][1] is not module else "",
        extra_params=sum(one.numel() for one in per_map),
        fixed_params=sum(one.numel() for one in extra) - sum(one.numel() for one in per_map),
    )


def _why_ineligible(
    source: nn.Module,
    name: str,
    module: nn.Module,
    run: Run | None,
    twins: list[tuple[str, nn.Module]],
) -> str:
    if _inside_ghost(source, name):
        return "already part of a Ghost module"
    if not isinstance(module, nn.Conv2d):
        kind = "transposed convolution" if getattr(module, "transposed", False) else "not 2-D"
        return f"{type(module).__name__}: {kind}"
    if parametrize.is_parametrized(module) or "weight" not in module._parameters:
        return "its weight is computed from others (weight_norm, pruning mask, ...): bake it in"
    if run is None:
        return "does not run in eval mode"
    kind = type(module).__name__
    if run.arguments > 1:
        return f"{kind} takes more than its input"
    if not run.plain_output:
        return f"{kind} gives more than one tensor"
    if _PATCHED & vars(module).keys():
        return "its forward was replaced on the instance"
    for twin, other in twins:
        if not isinstance(other, nn.Conv2d):
            return f"shares its weight with {twin or 'the network'}, a {type(other).__name__}"
        if type(other) is not type(module) or _slim_settings(other) != _slim_settings(module):
            return f"shares its weight with {twin}, a convolution of another form"
    return _why_not_slim(module)


def _why_bias_is_not_its_own(
    conv: nn.Conv2d, owners: dict[int, list[tuple[str, nn.Module]]]
) -> str:
    """A bias may be shared with a convolution of the same weight, and with nothing else."""
    for twin, other in owners.get(id(conv._parameters.get("bias")), []):
        if other is not conv and other._parameters.get("weight") is not conv.weight:
            return f"shares its bias with {twin or 'the network'}"
    return ""


def _slim_settings(conv: nn.Conv2d) -> tuple[Any, ...]:
    """Return what two convolutions that share a weight must have in common to be one."""
    return conv.out_channels, conv.in_channels, conv.groups, conv.bias is None


def _why_not_slim(conv: nn.Conv2d) -> str:
    """Check that a subclass computes its first maps alike when it has only these."""
    if type(conv) is nn.Conv2d:
        return ""
    maps = intrinsic_maps(conv.out_channels, 2, conv.groups)
    kind = type(conv).__name__
    if maps == conv.out_channels:
        return ""
    sides = [
        2 * (int(length) - 1) * int(step) + 3
        for length, step in zip(conv.kernel_size, conv.dilation, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, conv.in_channels, *sides, generator=generator).to(conv.weight)
    try:
        with torch.no_grad():
            expected = copy.deepcopy(conv).eval().forward(image)
            found = slim(conv, maps).eval().forward(image)
    except Exception as error:
        return f"{kind} cannot be rebuilt with fewer output maps ({sentence(error)})"
    if not isinstance(expected, Tensor) or expected.shape[1] != conv.out_channels:
        return f"{kind} gives something else than its {conv.out_channels} output maps"
    wanted = expected[:, kept_maps(conv, maps).to(expected.device)]
    if found.shape != wanted.shape or not torch.allclose(found, wanted, rtol=1e-3, atol=1e-4):
        return f"{kind} does not compute its output maps independently of each other"
    return ""


def _inside_ghost(model: nn.Module, name: str) -> bool:
    parts = name.split(".") if name else []
    return any(
        isinstance(model.get_submodule(".".join(parts[:depth])), GhostModule)
        for depth in range(len(parts))
    )


def _all_names(model: nn.Module) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    return names


def _weight_owners(model: nn.Module) -> dict[int, list[tuple[str, nn.Module]]]:
    """Return the modules that hold each parameter, where several do."""
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((name, module))
    return {key: held for key, held in owners.items() if len(held) > 1}
