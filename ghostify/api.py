"""The Python interface: convert a network, or look at what would be converted."""

from __future__ import annotations

import dataclasses
import functools
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from ghostify.artefact import load, parse_manifest
from ghostify.cost.budget import Cost
from ghostify.cost.closed_form import LayerCost, layer_costs, planned_cost
from ghostify.cost.macs import (
    Counted,
    SecondOpinion,
    check_macs,
    check_params,
    count,
    count_params,
    second_opinion,
    survey,
)
from ghostify.cost.mixed import mixed_cost
from ghostify.errors import CountError, InputError, ModelError, PlanError, RuleError, SpecError
from ghostify.files import MANIFEST
from ghostify.fitting import fit_conversion
from ghostify.graph.calibrate import FitOptions, Progress
from ghostify.graph.probe import Call, Probe, as_call, check_model, copy_model, tensors_of
from ghostify.graph.rewrite import Conversion, Stage, rewrite
from ghostify.graph.sites import Sites, conv_shapes
from ghostify.graph.slices import Slices
from ghostify.graph.streams import rechunked
from ghostify.graph.verify import verify as verify_conversion
from ghostify.models import zoo
from ghostify.models.zoo import Built
from ghostify.only_faster import Faster, FasterOptions, faster_plan
from ghostify.plan import Plan
from ghostify.plan_file import load_plan
from ghostify.pruners.groups import find_groups, prunables_of
from ghostify.pruners.planned import check_prunes, choose_maps
from ghostify.pruners.reconstruction import reconstruction_scores
from ghostify.rules import PlanRules, Resolved, Skipped, explain_nothing, follow, resolve
from ghostify.spec import ConvSite, GhostSpec, Origin, PruneSpec

__all__ = [
    "Inspection",
    "Look",
    "Step",
    "convert",
    "inspect",
    "look",
    "open_model",
    "refuse_nothing",
    "stages_before",
    "undisturbed",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")

Step = Callable[[str], None]
"""Called with what begins now, for progress displays."""


def undisturbed(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Leave torch's generator as the caller had it, and let the garbage collector wait.

    A network may draw numbers while it runs. Copies of it are objects by the ten thousand,
    none of them garbage, and each few hundred would set the collector off through everything
    that torch has loaded.
    """

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        collecting = gc.isenabled()
        gc.disable()
        try:
            with torch.random.fork_rng(devices=[]):
                return function(*args, **kwargs)
        finally:
            if collecting:
                gc.enable()

    return wrapped


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
    step = on_step or _ignore
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise SpecError(f"a seed is a whole number from 0 to 2^63 - 1 (got {seed!r})")
    built = _built(model, seed, step)
    step("finding convolutions")
    probe, found, counted = _probed(built, _call(built, example, input_size))
    return Look(
        built=built,
        probe=probe,
        sites=found.sites,
        counted=counted,
        cost=Cost(count_params(built.model), counted.macs),
        input=_shapes(probe.call),
        notes=_notes(built, found, counted),
    )


@undisturbed
def convert(
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
    verify: bool = True,
    calibration: Iterable[Tensor] | str | None = None,
    fit: FitOptions | None = None,
    calibration_data: Mapping[str, Any] | None = None,
    only_faster: FasterOptions | str | None = None,
    on_step: Step | None = None,
    on_fit: Progress | None = None,
) -> Conversion:
    """Replace a network's convolutions by Ghost modules; the network itself stays untouched.

    Args:
        model: any ``nn.Module``, or a name as in :func:`ghostify.models.zoo.build`.
        ratio: s, output maps per intrinsic map.
        kernel: d, side of the cheap filters.
        round_to: m, the number of maps computed in full, becomes a multiple of this; 16 suits
            the vector registers of most processors.
        example: an input, ``(1, C, H, W)``, or a tuple or dict of arguments. Not needed for
            models that carry their input size (timm's, and all that go by name).
        input_size: ``(H, W)`` or ``(C, H, W)`` of a random example, in place of ``example``.
        keep: names or patterns (``head.*``) of layers to leave alone.
        rules: settings by name or pattern, such as ``{"stage4.*": "s3,d5"}``; None keeps.
            Exact names come before patterns, ``keep`` before ``rules``, the first match wins.
            A :class:`~ghostify.rules.PlanRules` stands for all of the settings above.
        convert_all: convert the first convolution too.
        plan: explicit settings by layer, or a file of them, in place of all rules.
        seed: of the new weights (and the initial ones of a model that goes by name).
        verify: run the converted network and check shapes, values and gradients.
        calibration: batches of images ``(N, C, H, W)``, normalised as the network wants them,
            to which the Ghost modules are fitted so that they do what the convolutions did; no
            labels are used. ``"synthetic"`` makes images from the network's batch norms.
            Without either, the Ghost modules start from random weights.
        fit: how much work goes into that.
        calibration_data: what is known of these images, for the record.
        only_faster: a runtime, such as ``"onnxruntime"``: layers whose Ghost modules are not
            faster there stay as they are, and so does the network if nothing helps
            (:func:`ghostify.only_faster.faster_plan`).
        on_fit: called with how much of the fit, or of the timing, is done, of how much, and
            what begins now.

    Raises:
        GhostifyError: whatever is wrong with the arguments, in one sentence; above all
            RuleError if nothing would be converted.
    """
    step = on_step or _ignore
    if not isinstance(rules, PlanRules):
        rules = _rules(GhostSpec(ratio, kernel, cheap, round_to), keep, rules, convert_all)
    built, probe, found = _look(model, example, input_size, rules, plan, seed, step)
    if plan is None:
        refuse_nothing(found)
    faster = None
    if only_faster is not None:
        if not isinstance(only_faster, FasterOptions):
            only_faster = FasterOptions(only_faster)
        step(f"timing on {only_faster.runtime}")
        faster, found = _only_faster(built, probe.call, found, only_faster, on_fit)
    slices = None
    if found.plan.prunes:
        step("choosing maps")
        calibration = _kept_batches(calibration)
        solved = fit is not None and not fit.block_steps and not fit.joint_steps
        images = calibration if solved else None
        slices = _choose(built.model, found.plan.prunes, probe.call, images)
    step("putting in Ghost modules")
    conversion = rewrite(
        built.model,
        found.plan,
        seed=seed,
        skipped=found.skipped,
        slices=slices,
    )
    check_params(conversion.model, found.after.params, model_name=probe.name)
    conversion = dataclasses.replace(conversion, sites=found.sites, after=found.after)
    if faster is not None:
        conversion = dataclasses.replace(conversion, history=(faster.as_json(),))
    if calibration is not None and conversion.changed:
        step("fitting to the original")
        conversion = fit_conversion(
            conversion,
            built,
            calibration,
            options=fit,
            data=calibration_data,
            on_progress=on_fit,
        )
    notes = found.notes + conversion.notes
    if verify:
        step("counting multiply-adds")
        converted = Probe(conversion.model, probe.call, name=probe.name, converted=True)
        notes += _check_costs(probe, found, converted, conversion)
        step("verifying")
        notes += verify_conversion(probe, converted).notes
    return dataclasses.replace(
        conversion,
        plan=_whole_plan(built, conversion.plan),
        stages=_all_stages(built, conversion),
        origin=built.origin,
        input=found.input,
        before=found.before,
        layers=found.layers,
        notes=notes,
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
    step = on_step or _ignore
    if not isinstance(rules, PlanRules):
        rules = _rules(GhostSpec(ratio, kernel, cheap, round_to), keep, rules, convert_all)
    _, probe, found = _look(model, example, input_size, rules, plan, seed, step)
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


def _look(
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


def _kept_batches(calibration: Iterable[Tensor] | str | None) -> Iterable[Tensor] | str | None:
    """Let batches be gone through twice."""
    if isinstance(calibration, Iterator):
        return list(calibration)
    return calibration


def _choose(
    model: nn.Module,
    prunes: Mapping[str, PruneSpec],
    call: Call,
    calibration: Iterable[Tensor] | str | None,
) -> Slices:
    """Choose the maps that go, by their filters, or by images if there are some.

    What least squares can best do without is the better choice where readers are only solved
    for (80.0 to 77.6 % for a ResNet-20 of half its maps), but after gradient steps large filters
    have served better (85.2 to 83.9 %, means of three runs).
    """
    graph = find_groups(model, call)
    check_prunes(graph, prunes)
    scores = None
    if calibration is not None and not isinstance(calibration, str):
        batches = rechunked([calibration] if isinstance(calibration, Tensor) else calibration)
        scores = reconstruction_scores(copy_model(model, hooks=False), graph, prunes, batches)
    return choose_maps(model, prunes, call, graph=graph, scores=scores)


def _only_faster(
    built: Built,
    call: Call,
    found: Inspection,
    options: FasterOptions,
    on_progress: Progress | None,
) -> tuple[Faster, Inspection]:
    """Take back what is not faster on a runtime; return what is left of the inspection too."""
    model = built.model
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        model = copy_model(model, hooks=False).cpu()
    faster = faster_plan(
        model,
        found.plan,
        found.sites,
        _batch(call, options.batch),
        options,
        on_progress=on_progress,
    )
    reasons = {one.name: one.why for one in faster.dropped}
    reasons |= {skip.name: skip.reason for skip in found.skipped}
    layers = tuple(layer for layer in found.layers if layer.name in faster.plan.layers)
    reduced = dataclasses.replace(
        found,
        plan=faster.plan,
        layers=layers,
        skipped=tuple(
            Skipped(site.name, reasons[site.name]) for site in found.sites if site.name in reasons
        ),
        after=planned_cost(found.before, layers),
        notes=(*found.notes, faster.what, *faster.notes),
    )
    return faster, reduced


def _batch(call: Call, batch: int) -> tuple[Any, ...]:
    """Return the arguments of a call for so many images."""
    if call.kwargs:
        raise InputError("runtimes take networks whose arguments are positional; wrap the network")
    if batch == 1:
        return call.map(lambda tensor: tensor.cpu()).args
    if call.image is None:
        raise InputError(f"a batch of {batch} needs a network that takes one batch of images")
    return (call.image[:1].cpu().repeat(batch, 1, 1, 1),)


def _ignore(_step: str) -> None:
    return None


def _built(model: nn.Module | str | Built, seed: int, step: Step) -> Built:
    if isinstance(model, Built):
        check_model(model.model)
        return model
    if not isinstance(model, str):
        checked = check_model(model)
        name = f"{type(checked).__module__}.{type(checked).__qualname__}"
        return Built(checked, Origin("memory", name), zoo.input_size_of(checked))
    step(f"building {model}")
    built = open_model(model, seed=seed)
    check_model(built.model)
    return built


def open_model(
    name: str,
    *,
    args: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    seed: int = 0,
) -> Built:
    """Build a network by name, or load it from the directory of an artefact.

    Raises:
        GhostifyError: no such model or artefact, or arguments that do not suit it.
    """
    path = Path(name)
    if not (path / MANIFEST).is_file():
        return zoo.build(name, args=args, pretrained=pretrained, seed=seed)
    if args or pretrained:
        raise ModelError(f"{path} is an artefact, which has its model arguments and weights")
    manifest = parse_manifest(path / MANIFEST)
    model = load(path)
    base = zoo.rebuild(manifest.origin)
    size = base.input_size
    if len(manifest.input) == 1 and manifest.input[0].count("x") == 3:
        size = tuple(int(side) for side in manifest.input[0].split("x")[1:])
    note = base.note if size == base.input_size else ""
    return dataclasses.replace(
        base,
        model=model,
        input_size=size,
        note=note,
        ghosted=manifest.plan,
        stages=manifest.stages,
    )


def _call(built: Built, example: Any, input_size: tuple[int, ...] | None) -> Call:
    weight = next(
        (weight for weight in built.model.parameters() if weight.is_floating_point()), None
    )
    device = None if weight is None else weight.device
    if example is not None:
        return as_call(example, device=device)
    call = as_call(zoo.example_input(built, input_size), device=device)
    return call if weight is None else call.map(lambda tensor: tensor.to(weight.dtype))


def _one(call: Call) -> Call:
    """Cut a batch of images down to one, so that costs are those of one image."""
    tensors = tensors_of(tuple(call))
    batches = {tensor.shape[0] for tensor in tensors if tensor.dim() == 4}
    if all(tensor.dim() == 4 for tensor in tensors) and len(batches) == 1:
        return call.map(lambda tensor: tensor[:1])
    return call


def _shapes(call: Call) -> tuple[str, ...]:
    return tuple("x".join(map(str, tensor.shape)) for tensor in tensors_of(tuple(call)))


def _label(origin: Origin) -> str:
    """Return the name that people know a network by."""
    return origin.name.rpartition(".")[2] if origin.source == "memory" else origin.name


def _planned(
    sites: tuple[ConvSite, ...], built: Built, plan: Plan | str | Path | None, rules: PlanRules
) -> Resolved:
    if plan is None:
        return resolve(rules, sites)
    if not isinstance(plan, Plan | str | Path):
        raise PlanError(f"a plan is a Plan or the path of a file (got {type(plan).__name__})")
    if not isinstance(plan, Plan):
        plan = load_plan(plan)
    plan.check(conv_shapes(built.model), model=_label(built.origin))
    return follow(plan, sites)


def _rules(
    default: GhostSpec,
    keep: Iterable[str],
    rules: Mapping[str, GhostSpec | str | None] | None,
    convert_all: bool,
) -> PlanRules:
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


def _notes(built: Built, found: Sites, counted: Counted) -> tuple[str, ...]:
    notes = [built.note, found.note]
    if counted.uncounted:
        operators = ", ".join(counted.uncounted)
        notes.append(f"not in the MACs, since torch's counter has no formula: {operators}")
    return tuple(note for note in notes if note)


def _check_costs(
    probe: Probe, found: Inspection, converted: Probe, conversion: Conversion
) -> tuple[str, ...]:
    """Make sure that the converted network takes what eq. 4 says; return remarks.

    Raises:
        CountError: it does not, although the network takes the same way each time.
    """
    seen = count(converted)
    if seen.macs != found.after.macs:
        by_values = not (probe.fake and converted.fake)
        if by_values or count(probe).macs != found.before.macs:
            return (
                "the network takes another way with other values, so the MACs after "
                f"conversion are those of the original's way (counted: {seen.macs})",
            )
        idle = [one.name for one in conversion.replaced if one.name not in seen.ghosts]
        if idle:
            raise CountError(
                f"the converted {probe.name} no longer runs {idle[0]}, since its code asks for "
                "the layer's class; keep that layer"
            )
    check_macs(seen, found.after.macs, model=probe.name)
    return ()


def _whole_plan(built: Built, plan: Plan) -> Plan:
    """Join the plan of a network that was ghosted before with what has come to it now."""
    if built.ghosted is None:
        return plan
    layers = {**built.ghosted.layers, **plan.layers}
    return Plan(layers, model=plan.model, convs=built.ghosted.convs)


def _all_stages(built: Built, conversion: Conversion) -> tuple[Stage, ...]:
    """Return all stages from the base network, if maps were cut now or before."""
    if not built.stages and not conversion.stages:
        return ()
    return (*stages_before(built), *(conversion.stages or (Plan(conversion.plan.ghosts),)))


def stages_before(built: Built) -> tuple[Stage, ...]:
    """Return the stages by which a network was made of its base before."""
    return built.stages or ((Plan(built.ghosted.ghosts),) if built.ghosted else ())


def _probed(built: Built, call: Call) -> tuple[Probe, Sites, Counted]:
    """Look at the network with one image, or with the whole batch if it insists on that."""
    one = _one(call)
    probe = Probe(built.model, one, name=_label(built.origin))
    try:
        return probe, *survey(probe)
    except InputError:
        if one.describe() == call.describe():
            raise
    probe = Probe(built.model, call, name=_label(built.origin))
    found, counted = survey(probe)
    note = "the network does not take a single image: MACs are those of the whole batch"
    return probe, dataclasses.replace(found, note=f"{found.note}; {note}".lstrip("; ")), counted
