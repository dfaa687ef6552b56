"""The verb ``export`` and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ghostify.cli import interrupt
from ghostify.cli.common_options import Json, Model, ModelArg, Pretrained, Quiet, Seed, Weights
from ghostify.cli.options import Request, UsageError, parse_input_size, parse_model_args
from ghostify.rules import PlanRules
from ghostify.spec import GhostSpec

__all__ = ["app"]

app = typer.Typer()


@app.command()
def export(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write.", show_default=False)
    ],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="onnx|pt2|openvino|litert|executorch",
            help="Default: by the file's ending, .onnx, .pt2, .xml, .tflite or .pte.",
        ),
    ] = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="N|HxW|CxHxW", help="Default: the model's own.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 1,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch/--fixed-batch", help="Leave the batch open.")
    ] = False,
    optimize: Annotated[
        bool, typer.Option(help="Rewrite the graph for the format's runtime first.")
    ] = True,
    weights: Weights = None,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Write a network as a file of another runtime, and prove that it computes the same."""
    if weights is not None and pretrained:
        raise UsageError("--weights and --pretrained exclude each other; leave one out")
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
        from ghostify.cli.export import run

    return run(
        request,
        output,
        format=format_,
        batch=batch,
        dynamic_batch=dynamic_batch,
        optimize=optimize,
        force=force,
        as_json=json,
        quiet=quiet,
    )
