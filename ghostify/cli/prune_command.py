"""The verb ``prune`` and its options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ghostify.cli import interrupt
from ghostify.cli.common_options import Json, Model, ModelArg, Pretrained, Quiet, Seed, Weights
from ghostify.cli.data_options import (
    BatchSize,
    Crop,
    Data,
    Interpolation,
    Mean,
    Resize,
    Split,
    Std,
    Workers,
    read_data_request,
)
from ghostify.cli.fit_options import (
    BlockSteps,
    Calibrate,
    CalibrationImages,
    FitRequest,
    JointSteps,
    KeepOriginal,
)
from ghostify.cli.options import Request, UsageError, parse_input_size, parse_model_args
from ghostify.graph.fit_options import SYNTHETIC
from ghostify.rules import PlanRules
from ghostify.spec import GhostSpec

__all__ = ["app"]

app = typer.Typer()

_ONLY_WITH_IMAGES = {
    "split": "--split",
    "mean": "--mean",
    "std": "--std",
    "resize": "--resize",
    "crop": "--crop",
    "interpolation": "--interpolation",
}


@app.command()
def prune(
    context: typer.Context,
    model: Model,
    budget: Annotated[
        str,
        typer.Option(metavar="macs=0.5x,params=…", help="What is left.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory to write the pruned network to."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="l1, l1-global, l2, random, fpgm, lamp, bn-scale, taylor, hessian, group-norm, "
            "group-sparse or growing-reg.",
        ),
    ] = "l1",
    data: Data = None,
    images: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Labelled images to rank by. Default: 2048."),
    ] = None,
    sparse_steps: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Of the training of sparse methods. Default: 391."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="These layers lose nothing. Repeatable."),
    ] = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="N|HxW|CxHxW", help="Default: the model's own.")
    ] = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    seed: Seed = 0,
    calibrate: Calibrate = None,
    calibration_images: CalibrationImages = None,
    block_steps: BlockSteps = None,
    joint_steps: JointSteps = None,
    split: Split = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    workers: Workers = 0,
    batch_size: BatchSize = None,
    original: KeepOriginal = True,
    verify: Annotated[
        bool, typer.Option(help="Run the result: shapes, finite values, nothing else missing.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing artefact.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Remove the least of a network's maps until it keeps a budget.

    Without -o nothing is written.
    """
    if weights is not None and pretrained:
        raise UsageError("--weights and --pretrained exclude each other; leave one out")
    params = context.params
    if calibrate is None and data is None:
        for name, flag in _ONLY_WITH_IMAGES.items():
            if params[name] is not None:
                raise UsageError(f"{flag} goes with images; give --data or --calibrate")
    given = {"calibration_images": "--calibration-images", "block_steps": "--block-steps",
             "joint_steps": "--joint-steps"}  # fmt: skip
    for name, flag in given.items():
        if calibrate is None and params[name] is not None:
            raise UsageError(f"{flag} goes with --calibrate DATA; give that or leave it out")
    wish = read_data_request(params)
    fit = None
    if calibrate is not None:
        steps = {
            name: params[name]
            for name in ("block_steps", "joint_steps")
            if params[name] is not None
        }
        path = None if calibrate == SYNTHETIC else Path(calibrate)
        fit = FitRequest(replace(wish, path=path), calibration_images, steps)
    request = Request(
        model=model,
        rules=PlanRules(GhostSpec()),
        plan=None,
        input_size=parse_input_size(input_size),
        weights=weights,
        pretrained=pretrained,
        model_args=parse_model_args(model_arg or ()),
        seed=seed,
    )
    with interrupt.deferred():
        from ghostify.cli.prune import run

    return run(
        request,
        budget=budget,
        method=method,
        data=None if data is None else wish,
        images=images,
        sparse_steps=sparse_steps,
        keep=tuple(keep or ()),
        fit=fit,
        keep_original=original,
        output=output,
        verify=verify,
        force=force,
        as_json=json,
        quiet=quiet,
    )
