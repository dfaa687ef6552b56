"""``ghostify prune``: remove maps until a budget is kept, check the result, save it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ghostify.artefact import save
from ghostify.cli import render
from ghostify.cli.calibration import Calibration, read_calibration, sized, with_images
from ghostify.cli.data_options import DataRequest
from ghostify.cli.fit_options import FitRequest
from ghostify.cli.models import open_requested
from ghostify.cli.options import Request, UsageError
from ghostify.cli.progress import Steps
from ghostify.cost.budget import Budget
from ghostify.data.batches import LabelledBatches
from ghostify.data.images import open_images
from ghostify.data.preprocess import Preprocess, preprocess_of
from ghostify.errors import InputError
from ghostify.files import check_output
from ghostify.models.zoo import Built
from ghostify.pruners.methods import method_of
from ghostify.pruning import Pruned
from ghostify.pruning import prune as prune_model

__all__ = ["run"]

_IMAGES = 2048
_BATCH = 128


def run(
    request: Request,
    *,
    budget: str,
    method: str,
    data: DataRequest | None,
    images: int | None,
    sparse_steps: int | None,
    keep: tuple[str, ...],
    fit: FitRequest | None,
    keep_original: bool,
    output: Path | None,
    verify: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Prune a network, print what was done, and write the artefact; return the exit code."""
    limits = Budget.parse(budget)
    name, chosen = method_of(method)
    if chosen.needs and data is None:
        raise UsageError(f"{name} ranks maps by labelled images; give them by --data PATH")
    if sparse_steps is not None and not chosen.trains:
        raise UsageError(f"--sparse-steps goes with group-sparse and growing-reg (got {name})")
    if output is not None:
        check_output(output, force=force)
    total = 6 + 2 * verify + (output is not None) + (fit is not None) + (data is not None)
    with Steps(total, quiet=quiet or as_json) as step:
        given = data if data is not None or fit is None else fit.data
        built = sized(open_requested(request, step), given, request)
        labelled: LabelledBatches | None = None
        preprocess: Preprocess | None = None
        told: Mapping[str, Any] | None = None
        calibration: Calibration | None = None
        if data is not None and chosen.needs:
            step("reading images")
            count = None if chosen.trains else images or _IMAGES
            labelled, preprocess, told = _labelled(data, built, request, count)
        if fit is not None:
            calibration = read_calibration(fit, built, request)
        pruned = prune_model(
            built,
            budget=limits,
            method=name,
            images=labelled,
            sparse_steps=sparse_steps,
            input_size=request.input_size,
            keep=keep,
            seed=request.seed,
            verify=verify,
            calibration=None if calibration is None else calibration.images,
            fit=None if calibration is None else calibration.options,
            calibration_data=None if calibration is None else calibration.data,
            data=told,
            on_step=step,
            on_progress=step.detail,
        )
        if calibration is not None:
            pruned = with_images(pruned, calibration)
        elif preprocess is not None:
            pruned = replace(pruned, images=preprocess.to_json())
        if not (keep_original and (request.trained or calibration is not None)):
            pruned = replace(pruned, original=None)
        if output is not None:
            step(f"writing {output}")
            save(pruned, output, force=force)
    if as_json:
        artefact = None if output is None else str(output)
        render.print_json(_as_json(request.model, pruned) | {"artefact": artefact})
    elif not quiet:
        _show(pruned, output, verified=verify)
    return 0


def _labelled(
    data: DataRequest, built: Built, request: Request, count: int | None
) -> tuple[LabelledBatches, Preprocess, Mapping[str, Any]]:
    """Return labelled batches, how they are prepared, and what is to be told of them."""
    size = request.input_size or built.input_size
    if size is None or built.kind != "image":
        raise InputError(
            f"{request.model} does not say how large its images are; give --input-size CxHxW"
        )
    if len(size) == 2:
        size = (3 if built.input_size is None else built.input_size[0], *size)
    preprocess = preprocess_of(built.model, built.origin, size, **data.overrides)
    images = open_images(data.require(), split=data.split or "train")
    batches = LabelledBatches(
        images,
        preprocess,
        count=count,
        seed=request.seed,
        batch_size=data.batch_size or _BATCH,
        workers=data.workers,
    )
    told = {
        "name": images.name,
        "images": len(images),
        "digest": images.digest,
        "ranked_by": count,
    }
    return batches, preprocess, told


def _as_json(model: str, pruned: Pruned) -> dict[str, Any]:
    assert pruned.before is not None
    assert pruned.after is not None
    maps = {site.name: site.out_channels for site in pruned.sites}
    fits = [one for one in pruned.history if one.get("kind") == "fit"]
    return {
        "model": model,
        "method": pruned.method,
        "before": pruned.before.as_json(),
        "after": pruned.after.as_json(),
        "pruned": [
            {"name": name, "maps": maps.get(name), "kept": len(kept)}
            for name, kept in pruned.kept.items()
        ],
        "skipped": [{"name": one.name, "reason": one.reason} for one in pruned.skipped],
        "fit": fits[-1] if fits else None,
    }


def _show(pruned: Pruned, output: Path | None, *, verified: bool) -> None:
    render.pruned_page(pruned)
    done = "verified: shapes, finite values, and nothing else than the removed maps is missing"
    notes = [*pruned.notes, done if verified else "not verified"]
    if len(pruned.history) == 1:
        notes.append("train the network before use, or fit it to the original by --calibrate")
    notes.append("nothing was written; -o DIR keeps it" if output is None else f"wrote {output}")
    render.notes(notes)
