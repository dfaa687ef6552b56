"""The verbs that look at feature maps: ``redundancy`` and ``maps``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ghostify.cli import interrupt
from ghostify.cli.common_options import Json, Model, ModelArg, Pretrained, Quiet, Seed, Weights
from ghostify.cli.data_options import (
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
from ghostify.cli.options import UsageError, parse_model_args
from ghostify.cli.training_options import Device

__all__ = ["app"]

app = typer.Typer()

Layers = Annotated[
    list[str] | None,
    typer.Option("--layers", metavar="PATTERN", help="Only these, such as 'layer1.*'. Repeatable."),
]
Kernels = Annotated[
    str, typer.Option("--kernels", metavar="D,D...", help="Sides of the filters, odd.")
]
Ratios = Annotated[
    str, typer.Option("--ratios", metavar="S,S...", help="From which settings are suggested.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@app.command()
def redundancy(
    context: typer.Context,
    model: Model,
    data: Data = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory for tables, pictures, and a plan."),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images", metavar="N", min=1, help="Default: 256, or 64 if larger than 64x64."
        ),
    ] = None,
    layers: Layers = None,
    kernels: Kernels = "1,3,5,7",
    ratios: Ratios = "2,3,4",
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            help="The share of a layer's output that its ghosts may miss under a suggestion.",
        ),
    ] = 0.2,
    positions: Annotated[
        int,
        typer.Option("--positions", min=1, help="Of each layer's output that are looked at."),
    ] = 1 << 15,
    pairs: Annotated[
        int, typer.Option("--pairs", min=0, help="Most similar pairs to tell of each layer.")
    ] = 6,
    picture: Annotated[
        str | None,
        typer.Option("--picture", metavar="LAYER", help="Whose pairs are drawn. Default: chosen."),
    ] = None,
    picture_image: Annotated[
        int, typer.Option("--picture-image", min=0, help="Number of the image that is drawn.")
    ] = 0,
    weights: Weights = None,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    split: Split = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    workers: Workers = 0,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Tell how well each feature map follows from another by one small linear filter.

    Every pair of output maps of every convolution is solved for in closed form, on real images.
    Without -o nothing is written.
    """
    request = read_data_request(context.params)
    request.require()
    _exclude(weights, pretrained)
    sides, shares = _numbers("--kernels", kernels), _numbers("--ratios", ratios)
    arguments = parse_model_args(model_arg or ())
    with interrupt.deferred():
        from ghostify.cli.redundancy import run

    return run(
        model,
        request,
        output=output,
        count=images,
        device=device,
        weights=weights,
        pretrained=pretrained,
        model_args=arguments,
        seed=seed,
        force=force,
        as_json=json,
        quiet=quiet,
        settings={
            "kernels": sides,
            "ratios": shares,
            "layers": layers,
            "tolerance": tolerance,
            "positions": positions,
            "pairs": pairs,
            "gallery": picture or "",
            "gallery_image": picture_image,
        },
    )


@app.command()
def maps(
    context: typer.Context,
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Picture to write: .png, .svg or .pdf."),
    ] = None,
    image: Annotated[Path | None, typer.Option("--image", help="An image file to look at.")] = None,
    data: Data = None,
    index: Annotated[
        int, typer.Option("--index", min=0, help="Which image of the data, from 0.")
    ] = 0,
    layer: Annotated[
        str | None,
        typer.Option("--layer", metavar="NAME", help="Default: the first Ghost module."),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="original|none|MODEL",
            help="Show its maps too: what the artefact was made from, or another.",
        ),
    ] = "original",
    against_weights: Annotated[
        Path | None, typer.Option("--against-weights", help="Checkpoint for that.")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=2, max=512, help="Maps in the picture.")] = 48,
    weights: Weights = None,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    split: Split = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Draw the intrinsic and ghost maps of a layer, beside the original network's maps."""
    request = read_data_request(context.params)
    if (image is None) == (request.path is None):
        raise UsageError("give one image: --image FILE, or --data PATH with --index")
    if image is not None and {"index", "split"} & _given(context):
        raise UsageError("--index and --split go with --data; leave them out")
    if output is None and not json:
        raise UsageError("there is nothing to do; give the picture's file by -o maps.png")
    _exclude(weights, pretrained)
    arguments = parse_model_args(model_arg or ())
    with interrupt.deferred():
        from ghostify.cli.maps import run

    return run(
        model,
        request,
        image=image,
        index=index,
        output=output,
        layer=layer,
        against=None if against == "none" else against,
        against_weights=against_weights,
        most=most,
        weights=weights,
        pretrained=pretrained,
        model_args=arguments,
        seed=seed,
        force=force,
        as_json=json,
        quiet=quiet,
    )


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    """Read ``1,3,5``.

    Raises:
        UsageError: it is not written like that.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} is written like 1,3,5 (got {text!r})") from None
    return found


def _exclude(weights: Path | None, pretrained: bool) -> None:
    if weights is not None and pretrained:
        raise UsageError("--weights and --pretrained exclude each other; leave one out")


def _given(context: typer.Context) -> set[str]:
    """Return the names of the options that the user typed."""
    return {
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
