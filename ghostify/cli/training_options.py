"""The options of the verbs that train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ghostify.cli.data_options import DataRequest, read_data_request
from ghostify.cli.options import UsageError, parse_model_args

__all__ = [
    "Amp",
    "ChannelsLast",
    "CheckpointEvery",
    "Compile",
    "Device",
    "Epochs",
    "EvaluateEvery",
    "LearningRate",
    "ModelRequest",
    "NoTeacher",
    "RecipeName",
    "RecipeSet",
    "Steps",
    "Teacher",
    "TeacherWeights",
    "Test",
    "TrainingRequest",
    "read_model_request",
    "read_training_request",
]

Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="original|MODEL",
        help="What to learn from: the network before its conversion, or any other.",
    ),
]
TeacherWeights = Annotated[
    Path | None, typer.Option("--teacher-weights", help="Checkpoint for the teacher.")
]
NoTeacher = Annotated[bool, typer.Option("--no-teacher", help="Learn by labels alone.")]
RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME|FILE.yaml", help="How to train; see ghostify recipes."),
]
RecipeSet = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe. Repeatable."),
]
Epochs = Annotated[float | None, typer.Option("--epochs", help="In place of the recipe's.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="In place of epochs.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="In place of the recipe's.")]
Test = Annotated[
    Path | None,
    typer.Option("--test", help="Images to measure accuracy on. Default: the data's test part."),
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 ...")
]
Amp = Annotated[
    str,
    typer.Option(
        "--amp", metavar="auto|none|bf16|fp16", help="Number format; auto: bf16 on a GPU."
    ),
]
ChannelsLast = Annotated[
    bool | None,
    typer.Option(
        "--channels-last/--no-channels-last",
        help="Memory layout. Default: on a GPU, and in float32.",
    ),
]
Compile = Annotated[bool, typer.Option("--compile", help="Train through torch.compile.")]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(
        "--checkpoint-every",
        metavar="STEPS",
        min=1,
        help="Default: each epoch and each two minutes.",
    ),
]
EvaluateEvery = Annotated[
    int | None,
    typer.Option("--evaluate-every", metavar="STEPS", min=1, help="Default: after each epoch."),
]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Which network, with which weights, and where it runs."""

    model: str
    settings: dict[str, Any]  # arguments of the functions in ghostify.training


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What to train, on what, and how."""

    model: str
    data: DataRequest
    output: Path | None
    settings: dict[str, Any]


def read_model_request(params: Mapping[str, Any]) -> ModelRequest:
    """Read the options that all verbs with data and a network have in common.

    Raises:
        UsageError: an option is not written as it should be.
    """
    if params["weights"] is not None and params["pretrained"]:
        raise UsageError("--weights and --pretrained exclude each other; leave one out")
    return ModelRequest(
        params["model"],
        {
            "weights": params["weights"],
            "pretrained": params["pretrained"],
            "model_args": parse_model_args(params["model_arg"] or ()),
            "device": params["device"],
            "amp": params["amp"],
            "channels_last": params["channels_last"],
        },
    )


def read_training_request(params: Mapping[str, Any]) -> TrainingRequest:
    """Read the options of ``finetune`` and ``train``.

    Raises:
        UsageError: an option is not written as it should be, or two contradict each other.
    """
    if params["epochs"] is not None and params["steps"] is not None:
        raise UsageError("--epochs and --steps exclude each other; leave one out")
    no_teacher = params.get("no_teacher", False)
    named = params["teacher"] not in (None, "original") or params["teacher_weights"] is not None
    if no_teacher and named:
        raise UsageError("--no-teacher and --teacher exclude each other; leave one out")
    if params["teacher"] is None and params["teacher_weights"] is not None:
        raise UsageError("--teacher-weights are for a teacher; name it by --teacher")
    request = read_model_request(params)
    data = read_data_request(params)
    data.require()
    settings = request.settings | {
        "teacher": None if no_teacher else params["teacher"],
        "teacher_weights": params["teacher_weights"],
        "recipe": params["recipe"],
        "overrides": parse_settings(params["set_"] or ()) | {"lr": params["lr"]},
        "epochs": params["epochs"],
        "steps": params["steps"],
        "batch_size": data.batch_size,
        "test": params["test"],
        "images": data.overrides,
        "workers": data.workers,
        "seed": params["seed"],
        "compile": params["compile_"],
        "checkpoint_every": params["checkpoint_every"],
        "evaluate_every": params["evaluate_every"],
        "output": params["output"],
        "force": params["force"],
    }
    return TrainingRequest(request.model, data, params["output"], settings)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs of a recipe; values are YAML.

    Raises:
        UsageError: a pair is not written like that.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"--set is written KEY=VALUE, such as ema=0.999 (got {text!r})")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {key}: {value!r} cannot be read; quote it") from None
    return settings
