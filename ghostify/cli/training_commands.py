"""The verbs that need images and labels: ``train``, ``finetune``, ``evaluate``, ``recipes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ghostify.cli import interrupt
from ghostify.cli.common_options import Json, Model, ModelArg, Pretrained, Quiet, Seed, Weights
from ghostify.cli.data_options import (
    Augment,
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
from ghostify.cli.training_options import (
    Amp,
    ChannelsLast,
    CheckpointEvery,
    Compile,
    Device,
    Epochs,
    EvaluateEvery,
    LearningRate,
    NoTeacher,
    RecipeName,
    RecipeSet,
    Steps,
    Teacher,
    TeacherWeights,
    Test,
    read_model_request,
    read_training_request,
)

__all__ = ["app"]

app = typer.Typer()

Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Directory of the run, and of the artefact that it becomes."
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Remove the run or artefact that is there; begin anew.")
]


@app.command()
def finetune(
    context: typer.Context,
    model: Model,
    data: Data = None,
    output: Output = None,
    teacher: Teacher = "original",
    teacher_weights: TeacherWeights = None,
    no_teacher: NoTeacher = False,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    set_: RecipeSet = None,
    test: Test = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    augment: Augment = None,
    seed: Seed = 0,
    device: Device = "auto",
    amp: Amp = "auto",
    channels_last: ChannelsLast = None,
    compile_: Compile = False,
    workers: Workers = 0,
    checkpoint_every: CheckpointEvery = None,
    evaluate_every: EvaluateEvery = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train a converted network further, from the weights that it has.

    By default it learns from the network that it was converted from. A run that was
    interrupted goes on by the same command. Without -o nothing is written.
    """
    request = read_training_request(context.params)
    with interrupt.deferred():
        from ghostify.cli.training import run

    return run(request, kind="finetune", as_json=json, quiet=quiet)


@app.command()
def train(
    context: typer.Context,
    model: Model,
    data: Data = None,
    output: Output = None,
    recipe: RecipeName = None,
    teacher: Teacher = None,
    teacher_weights: TeacherWeights = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    set_: RecipeSet = None,
    test: Test = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    augment: Augment = None,
    seed: Seed = 0,
    device: Device = "auto",
    amp: Amp = "auto",
    channels_last: ChannelsLast = None,
    compile_: Compile = False,
    workers: Workers = 0,
    checkpoint_every: CheckpointEvery = None,
    evaluate_every: EvaluateEvery = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train a network by a recipe, such as those of the paper.

    A run that was interrupted goes on by the same command. Without -o nothing is written.
    """
    request = read_training_request(context.params)
    with interrupt.deferred():
        from ghostify.cli.training import run

    return run(request, kind="train", as_json=json, quiet=quiet)


@app.command()
def evaluate(
    context: typer.Context,
    model: Model,
    data: Data = None,
    split: Split = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    batch_size: BatchSize = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    seed: Seed = 0,
    device: Device = "auto",
    amp: Amp = "none",
    channels_last: ChannelsLast = None,
    workers: Workers = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Measure a network's accuracy and loss on labelled images; the test part by default."""
    request = read_model_request(context.params)
    data_request = read_data_request(context.params)
    data_request.require()
    with interrupt.deferred():
        from ghostify.cli.evaluate import run

    return run(request, data_request, seed=seed, as_json=json, quiet=quiet)


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show one in full.", show_default=False)
    ] = None,
    json: Json = False,
) -> int:
    """List the recipes for train and finetune, or show one."""
    with interrupt.deferred():
        from ghostify.cli.recipes import run

    return run(name, as_json=json)
