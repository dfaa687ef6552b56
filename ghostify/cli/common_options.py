"""The options that several verbs have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Json", "Model", "ModelArg", "Pretrained", "Quiet", "Seed", "Weights"]

_MODEL_HELP = (
    "resnet50, timm:NAME, torchvision:NAME, package.module:factory, or the directory of an artefact"
)
Model = Annotated[str, typer.Argument(help=_MODEL_HELP, metavar="MODEL", show_default=False)]
Weights = Annotated[
    Path | None, typer.Option(help="Checkpoint for the original: .pth, .pt, .th, .safetensors.")
]
Pretrained = Annotated[
    bool, typer.Option("--pretrained", help="Take the library's own trained weights.")
]
ModelArg = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Argument for the model's function. Repeatable."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of all new random weights.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
