"""A network's convolutions and costs, and what rules or a plan would make of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ghostify.cost.budget import Cost
from ghostify.cost.closed_form import LayerCost, layer_costs, planned_cost
from ghostify.cost.macs import (
    Counted,
    SecondOpinion,
    count_params,
    second_opinion,
    survey,
)
from ghostify.cost.mixed import mixed_cost
from ghostify.errors import InputError, PlanError, RuleError, SpecError
from ghostify.graph.probe import Call, Probe, tensors_of
from ghostify.graph.sites import Sites, conv_shapes
from ghostify.models.zoo import Built
from ghostify.opening import Step, built_of, call_of, ignore, label_of, undisturbed
from ghostify.plan import Plan
from ghostify.plan_file import load_plan
from ghostify.pruners.groups import find_groups, prunables_of
from ghostify.pruners.planned import check_prunes
from ghostify.rules import PlanRules, Resolved, Skipped, explain_nothing, follow, resolve
from ghostify.spec import ConvSite, GhostSpec, Origin, PruneSpec

__all__ = ["Inspection", "Look", "inspect", "look", "look_by", "refuse_nothing", "rules_of"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """The convolutions of a network, and what a plan would make of them.

    ``before`` is counted by torch's own counter, ``after`` follows by eq. 4 and 5.
    """

    name: str
    origin: Origin
    sites: tuple[ConvSite, ...]
    plan: Plan
    layers: tuple[LayerCost, ...]
    skipped: tuple[Skipped, ...]
    before: Cost
    after: Cost
    input: tuple[str, ...]
    notes: tuple[str, ...]
    opinion: SecondOpinion | str | None = None  # thop's, or why there is none


@dataclass(frozen=True, slots=True)
class Look:
    """A network that was run once: its convolutions, and what it costs."""

    built: Built
    probe: Probe
    sites: tuple[ConvSite, ...]
    counted: Counted
    cost: Cost
    input: tuple[str, ...]
    notes: tuple[str, ...]


def look(
    model: nn.Module | str | Built,
    *,
    example: Any = None,
    input_size: tuple[int, ...] | None = None,
    seed: int = 0,
    on_step: Step | None = None,
) -> Look:
    """Build a network if it is not there yet, run it once, and count what it takes.

    Raises:
        GhostifyError: as :func:`convert`.
    """
    step = on_step or ignore
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise SpecError(f"a seed is a whole number from 0 to 2^63 - 1 (got {seed!r})")
    built = built_of(model, seed, step)
    step("finding convolutions")
    told = built.notes(sized=example is not None or input_size is not None)
    probe, found, counted = _probed(built, call_of(built, example, input_size))
    return Look(
        built=built,
        probe=probe,
        sites=found.sites,
        counted=counted,
        cost=Cost(count_params(built.model), counted.macs),
        input=_shapes(probe.call),
        notes=_notes(told, found, counted),
    )


@undisturbed
def inspect(
    model: nn.Module | str | Built,
    *,
    ratio: int = 2,
    kernel: int = 3,
    cheap: str = "depthwise",
    round_to: int = 1,
    example: Any = None,
    input_size: tuple[int, ...] | None = None,
    keep: Iterable[str] = (),
    rules: PlanRules | Mapping[str, GhostSpec | str | None] | None = None,
    convert_all: bool = False,
    plan: Plan | str | Path | None = None,
    seed: int = 0,
    opinion: bool = False,
    on_step: Step | None = None,
) -> Inspection:
    """List a network's convolutions and what :func:`convert` would do with the same arguments.

    Args:
        opinion: let thop count the network too, on a deep copy.

    Raises:
        GhostifyError: as :func:`convert`, but a network with nothing to convert is no error.
    """
    step = on_step or ignore
    if not isinstance(rules, PlanRules):
        rules = rules_of(GhostSpec(ratio, kernel, cheap, round_to), keep, rules, convert_all)
    _, probe, found = look_by(model, example, input_size, rules, plan, seed, step)
    if not opinion:
        return found
    step("asking thop")
    return dataclasses.replace(found, opinion=second_opinion(probe, found.sites))


def refuse_nothing(found: Inspection) -> None:
    """Make sure that rules convert something.

    Raises:
        RuleError: they convert nothing, and why.
    """
    if not found.layers:
        raise RuleError(
            f"nothing would be converted in {found.name}: {explain_nothing(found.skipped)}"
        )


def look_by(
    model: nn.Module | str | Built,
    example: Any,
    input_size: tuple[int, ...] | None,
    rules: PlanRules,
    plan: Plan | str | Path | None,
    seed: int,
    step: Step,
) -> tuple[Built, Probe, Inspection]:
    """Build the network, find its convolutions, and see what the rules or the plan make of them."""
    seen = look(model, example=example, input_size=input_size, seed=seed, on_step=step)
    built, probe, before = seen.built, seen.probe, seen.cost
    resolved = _planned(seen.sites, built, plan, rules)
    layers, after = _costs(built, probe, seen.sites, resolved, before)
    inspection = Inspection(
        name=probe.name,
        origin=built.origin,
        sites=seen.sites,
        plan=Plan(resolved.layers, model=probe.name, convs=conv_shapes(built.model)),
        layers=layers,
        skipped=resolved.skipped,
        before=before,
        after=after,
        input=seen.input,
        notes=seen.notes,
    )
    return built, probe, inspection


def rules_of(
    default: GhostSpec,
    keep: Iterable[str],
    rules: Mapping[str, GhostSpec | str | None] | None,
    convert_all: bool,
) -> PlanRules:
    """Return the rules that arguments of the verbs stand for, exceptions first.

    Raises:
        RuleError: a rule is no setting, or a name no text.
    """
    keep = (keep,) if isinstance(keep, str) else keep
    if not isinstance(keep, Iterable) or not all(isinstance(name, str) for name in (*keep,)):
        raise RuleError(f"keep takes names or patterns (got {keep!r})")
    if rules is not None and not isinstance(rules, Mapping):
        raise RuleError(f"rules map names or patterns to settings such as s2,d3 (got {rules!r})")
    ordered: list[tuple[str, GhostSpec | None]] = [(name, None) for name in keep]
    for name, spec in (rules or {}).items():
        if not isinstance(name, str) or not isinstance(spec, GhostSpec | str | None):
            raise RuleError(
                f"rules map names or patterns to settings such as s2,d3 (got {name!r}: {spec!r})"
            )
        ordered.append(
            (name, GhostSpec.parse(spec, default=default) if isinstance(spec, str) else spec)
        )
    return PlanRules(default, tuple(ordered), convert_first=convert_all)


def _planned(
    sites: tuple[ConvSite, ...], built: Built, plan: Plan | str | Path | None, rules: PlanRules
) -> Resolved:
    if plan is None:
        return resolve(rules, sites)
    if not isinstance(plan, Plan | str | Path):
        raise PlanError(f"a plan is a Plan or the path of a file (got {type(plan).__name__})")
    if not isinstance(plan, Plan):
        plan = load_plan(plan)
    plan.check(conv_shapes(built.model), model=label_of(built.origin))
    return follow(plan, sites)


def _costs(
    built: Built, probe: Probe, sites: tuple[ConvSite, ...], resolved: Resolved, before: Cost
) -> tuple[tuple[LayerCost, ...], Cost]:
    """Return the costs of the planned layers and of the network then.

    Raises:
        PlanError: a layer cannot be pruned.
    """
    prunes = {name: one for name, one in resolved.layers.items() if isinstance(one, PruneSpec)}
    if not prunes:
        layers = layer_costs(sites, Plan(resolved.layers).ghosts)
        return layers, planned_cost(before, layers)
    graph = find_groups(built.model, probe.call)
    check_prunes(graph, prunes)
    return mixed_cost(before, sites, resolved.layers, prunables_of(graph))


def _notes(told: tuple[str, ...], found: Sites, counted: Counted) -> tuple[str, ...]:
    notes = [*told, found.note]
    if counted.uncounted:
        operators = ", ".join(counted.uncounted)
        notes.append(f"not in the MACs, since torch's counter has no formula: {operators}")
    return tuple(note for note in notes if note)


def _shapes(call: Call) -> tuple[str, ...]:
    return tuple("x".join(map(str, tensor.shape)) for tensor in tensors_of(tuple(call)))


def _probed(built: Built, call: Call) -> tuple[Probe, Sites, Counted]:
    """Look at the network with one image, or with the whole batch if it insists on that."""
    one = _one(call)
    probe = Probe(built.model, one, name=label_of(built.origin))
    try:
        return probe, *survey(probe)
    except InputError:
        if one.describe() == call.describe():
            raise
    probe = Probe(built.model, call, name=label_of(built.origin))
    found, counted = survey(probe)
    note = "the network does not take a single image: MACs are those of the whole batch"
    return probe, dataclasses.replace(found, note=f"{found.note}; {note}".lstrip("; ")), counted


def _one(call: Call) -> Call:
    """Cut a batch of images down to one, so that costs are those of one image."""
    tensors = tensors_of(tuple(call))
    batches = {tensor.shape[0] for tensor in tensors if tensor.dim() == 4}
    if all(tensor.dim() == 4 for tensor in tensors) and len(batches) == 1:
        return call.map(lambda tensor: tensor[:1])
    return call
