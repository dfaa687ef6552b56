"""Prune a network to a budget: the baselines that Ghost modules are compared with."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from ghostify import looking, opening
from ghostify.cost.budget import Budget, Cost, say_amount
from ghostify.errors import BudgetError, CountError, PruneError, RuleError, nearest
from ghostify.fitting import fit_conversion
from ghostify.graph.calibrate import FitOptions, Progress
from ghostify.graph.probe import Probe, copy_model
from ghostify.graph.rewrite import Conversion
from ghostify.graph.sites import conv_shapes
from ghostify.graph.slices import Kept, Slices, cut
from ghostify.graph.verify import verify as verify_conversion
from ghostify.models.zoo import Built
from ghostify.nn.ghost import GhostModule
from ghostify.opening import stages_before, undisturbed
from ghostify.plan import Plan
from ghostify.provenance import provenance
from ghostify.pruners.check import check_equal_without
from ghostify.pruners.costs import Costs
from ghostify.pruners.groups import Graph, find_groups, slices_of
from ghostify.pruners.learning import Images
from ghostify.pruners.methods import METHODS, method_of
from ghostify.pruners.scores import score_groups
from ghostify.pruners.selection import order_of_removal, within_budget
from ghostify.rules import Skipped

__all__ = ["METHODS", "Pruned", "prune"]

_RESOURCES = ("macs", "params")
_LAYERS = (nn.Conv2d, nn.Linear, GhostModule)


@dataclass(frozen=True, slots=True)
class Pruned(Conversion):
    """A pruned network; it is saved, trained and exported like any conversion.

    ``kept`` are the indices of the output maps that each layer has kept of its own.
    """

    method: str = ""
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@undisturbed
def prune(
    model: nn.Module | str | Built,
    *,
    budget: Budget | str,
    method: str = "l1",
    images: Images | None = None,
    sparse_steps: int | None = None,
    example: Any = None,
    input_size: tuple[int, ...] | None = None,
    keep: Iterable[str] = (),
    seed: int = 0,
    verify: bool = True,
    calibration: Iterable[Tensor] | str | None = None,
    fit: FitOptions | None = None,
    calibration_data: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    on_step: opening.Step | None = None,
    on_progress: Progress | None = None,
) -> Pruned:
    """Remove output maps until the network keeps a budget; the network itself stays untouched.

    Maps inside blocks go, with their batch norms and with the filters that read them; what is
    added to other maps and what the network gives stay as wide as they were. torch-pruning
    tells what belongs together and scores it. The result stays at most 1 % below the budget.

    Args:
        model: any ``nn.Module``, or a name as in :func:`ghostify.models.zoo.build`, or the
            directory of an artefact; Ghost modules lose intrinsic maps with their ghosts.
        budget: multiply-adds and parameters, such as ``"macs=0.5x"``.
        method: a name in :data:`ghostify.pruners.methods.METHODS`.
        images: batches of images and labels, for methods that need them.
        sparse_steps: of the training of ``group-sparse`` and ``growing-reg``; 391 by default.
        example: an input, as for :func:`ghostify.convert`.
        keep: names or patterns of layers that lose nothing.
        verify: run the result: shapes, finite values, and the same values as the network in
            which nobody reads the removed maps.
        calibration: images without labels, to which the blocks are fitted so that they do what
            they did before.
        data: what is known of the labelled images, for the record.

    Raises:
        GhostifyError: whatever is wrong with the arguments, in one sentence; PruneError if the
            budget cannot be kept.
    """
    step = on_step or _ignore
    name, chosen = method_of(method)
    limits = _limits(budget)
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    seen = looking.look(model, example=example, input_size=input_size, seed=seed, on_step=step)
    built, call = seen.built, seen.probe.call
    wanted = limits.absolute({"macs": seen.cost.macs, "params": seen.cost.params})
    step("finding what goes together")
    graph = find_groups(built.model, call, keep=keep)
    _check_found(graph, built.model, keep, seen.probe.name)
    step(f"ranking maps by {name}")
    scores = score_groups(
        graph, name, chosen, images=images, steps=sparse_steps, seed=seed,
        ghosted=any(isinstance(module, GhostModule) for module in built.model.modules()),
        on_step=_telling(on_progress, f"ranking maps by {name}"),
    )  # fmt: skip
    base = _base(built.model, graph.model, trained=chosen.trains)
    step("removing maps")

    costs = Costs(base, call, seen.counted)
    gone = within_budget(
        order_of_removal(graph.groups, scores, everywhere=chosen.everywhere),
        lambda gone: costs.after(slices_of(graph.groups, gone)),
        wanted,
        name=name,
        say=say_amount,
        on_try=_telling(on_progress, "removing maps"),
    )
    slices = slices_of(graph.groups, gone)
    narrow = cut(base, slices)
    if verify:
        step("verifying")
        check_equal_without(base, narrow, slices, call)
    after = _checked(costs, narrow, slices, seen.probe.name)
    pruned = Pruned(
        model=narrow,
        plan=_plan(built, seen.probe.name),
        replaced=(),
        skipped=tuple(Skipped(one, why) for one, why in graph.reasons.items()),
        seed=seed,
        origin=built.origin,
        input=seen.input,
        sites=seen.sites,
        before=seen.cost,
        after=after,
        notes=seen.notes,
        original=_state(built.model) if built.ghosted is None else None,
        history=(_entry(name, seen.cost, after, limits, slices, seed, data, sparse_steps),),
        slices=slices,
        stages=(slices,),
        method=name,
        kept=_kept(graph, slices),
    )
    if calibration is not None:
        step("fitting to the original")
        pruned = fit_conversion(
            pruned, built, calibration, options=fit, data=calibration_data, on_progress=on_progress
        )
    if verify:
        converted = Probe(pruned.model, call, name=seen.probe.name, converted=True)
        notes = verify_conversion(seen.probe, converted).notes
        pruned = dataclasses.replace(pruned, notes=(*pruned.notes, *notes))
    return dataclasses.replace(pruned, stages=(*stages_before(built), slices))


def _checked(costs: Costs, narrow: nn.Module, slices: Slices, name: str) -> Cost:
    """Return what the network costs now by torch's counter.

    Raises:
        CountError: it is not what the slices should leave.
    """
    found, expected = costs.counted(narrow), costs.after(slices)
    if found != expected:
        raise CountError(
            f"the pruned {name} takes {found['macs']:,} multiply-adds and {found['params']:,} "
            f"parameters, {expected['macs']:,} and {expected['params']:,} were expected; it does "
            "not take the same way each time"
        )
    return Cost(int(found["params"]), int(found["macs"]))


def _limits(budget: Budget | str) -> Budget:
    """Read a budget of what can be counted.

    Raises:
        BudgetError: it is none, or limits something else.
    """
    if isinstance(budget, str):
        budget = Budget.parse(budget)
    if not isinstance(budget, Budget):
        raise BudgetError(f"a budget is written like macs=0.5x (got {budget!r})")
    for limit in budget.limits:
        if limit.resource not in _RESOURCES:
            raise BudgetError(
                f"a pruning method takes a budget of {' and '.join(_RESOURCES)} (got {limit}); "
                "search for a plan to keep other limits"
            )
    return budget


def _check_found(graph: Graph, model: nn.Module, keep: Sequence[str], name: str) -> None:
    """Make sure that something can be pruned, and that every pattern means a layer."""
    layers = [one for one, module in model.named_modules() if isinstance(module, _LAYERS)]
    for pattern in keep:
        if not any(pattern == one or fnmatchcase(one, pattern) for one in layers):
            raise RuleError(f"{pattern!r} keeps no layer" + nearest(pattern, layers))
    if not graph.groups:
        reasons = Counter(graph.reasons.values()).most_common(1)
        why = reasons[0][0] if reasons else "it runs no layer"
        raise PruneError(f"nothing can be pruned in {name}: {why}")


def _base(model: nn.Module, scored: nn.Module, *, trained: bool) -> nn.Module:
    """Return the network to cut: with the weights of ``scored`` if ranking has trained them."""
    if not trained:
        return model
    base = copy_model(model)
    base.load_state_dict(scored.state_dict())
    return base


def _plan(built: Built, name: str) -> Plan:
    """Return the plan by which a network was ghosted before, or one that converts nothing."""
    return built.ghosted or Plan({}, model=name, convs=conv_shapes(built.model))


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def _kept(graph: Graph, slices: Mapping[str, Kept]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for group in graph.groups:
        for writer in group.writers:
            kept = slices.get(writer)
            if kept is not None and kept.out is not None:
                found[writer] = kept.out
    return found


def _entry(
    name: str,
    before: Cost,
    after: Cost,
    budget: Budget,
    slices: Mapping[str, Kept],
    seed: int,
    data: Mapping[str, Any] | None,
    sparse_steps: int | None,
) -> dict[str, Any]:
    """Return what was done, for the record."""
    share = after.macs / max(1, before.macs)
    return {
        "kind": "prune",
        "what": f"pruned by {name} ({METHODS[name].source}) to {share:.3f}x the multiply-adds",
        "method": name,
        "budget": str(budget),
        "layers": sum(kept.out is not None for kept in slices.values()),
        "seed": seed,
        "sparse_steps": sparse_steps,
        "data": None if data is None else dict(data),
        **provenance(),
    }


def _telling(on_progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if on_progress is None:
        return None
    return lambda done, of: on_progress(done, of, what)


def _ignore(_step: str) -> None:
    return None
