"""Convert a network: the Python interface of ``ghostify convert``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ghostify.cost.closed_form import planned_cost
from ghostify.cost.macs import (
    check_macs,
    check_params,
    count,
)
from ghostify.errors import CountError, InputError
from ghostify.fitting import fit_conversion
from ghostify.graph.calibrate import FitOptions, Progress
from ghostify.graph.probe import Call, Probe, copy_model
from ghostify.graph.rewrite import Conversion, Stage, rewrite
from ghostify.graph.slices import Slices
from ghostify.graph.streams import rechunked
from ghostify.graph.verify import verify as verify_conversion
from ghostify.looking import Inspection, look_by, refuse_nothing, rules_of
from ghostify.models.zoo import Built
from ghostify.only_faster import Faster, FasterOptions, faster_plan
from ghostify.opening import Step, ignore, stages_before, undisturbed
from ghostify.plan import Plan
from ghostify.pruners.groups import find_groups
from ghostify.pruners.planned import check_prunes, choose_maps
from ghostify.pruners.reconstruction import reconstruction_scores
from ghostify.rules import PlanRules, Skipped
from ghostify.spec import GhostSpec, PruneSpec

__all__ = ["convert"]


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
    step = on_step or ignore
    if not isinstance(rules, PlanRules):
        rules = rules_of(GhostSpec(ratio, kernel, cheap, round_to), keep, rules, convert_all)
    built, probe, found = look_by(model, example, input_size, rules, plan, seed, step)
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
        solved = fit is not None and fit.block_steps == fit.joint_steps == 0
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
