"""The options that say how the Ghost modules are fitted to the original."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ghostify.cli.data_options import DataRequest, read_data_request
from ghostify.cli.options import UsageError
from ghostify.graph.fit_options import SYNTHETIC
from ghostify.graph.fit_options import StreamOrder as Order

__all__ = [
    "BlockSteps",
    "Calibrate",
    "CalibrationImages",
    "FitRequest",
    "JointSteps",
    "KeepOriginal",
    "StreamOrder",
    "read_fit_request",
]

Calibrate = Annotated[
    str | None,
    typer.Option(
        metavar="DATA|synthetic",
        help="Fit the Ghost modules to the original on these images, without labels; "
        "'synthetic' makes some.",
    ),
]
CalibrationImages = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="How many of them. Default: 2048, or 256 if larger than 64x64."
    ),
]
BlockSteps = Annotated[
    int | None,
    typer.Option(
        "--block-steps", metavar="N", min=0, help="Gradient steps for each block. Default: 60."
    ),
]
JointSteps = Annotated[
    int | None,
    typer.Option(
        "--joint-steps",
        metavar="N",
        min=0,
        help="Gradient steps for all together. Default: by what a step costs, 50 to 1,000.",
    ),
]
StreamOrder = Annotated[
    Order | None,
    typer.Option(
        help="Whether layers that write to one residual stream choose their ghosts together, "
        "which spares copies and keeps maps in parts (common), or each alone (own).",
        show_default="common",
    ),
]
KeepOriginal = Annotated[
    bool,
    typer.Option(
        "--original/--no-original", help="Keep the original's trained weights too, as a teacher."
    ),
]

_NEEDS_CALIBRATE = {
    "calibration_images": "--calibration-images",
    "block_steps": "--block-steps",
    "joint_steps": "--joint-steps",
    "stream_order": "--stream-order",
    "split": "--split",
    "mean": "--mean",
    "std": "--std",
    "resize": "--resize",
    "crop": "--crop",
    "interpolation": "--interpolation",
    "workers": "--workers",
}
_NEEDS_IMAGES = {"calibration_images", "split", "resize", "crop", "interpolation", "workers"}


@dataclass(frozen=True, slots=True)
class FitRequest:
    """On what and how hard to fit; no ``data.path`` means synthetic images."""

    data: DataRequest
    images: int | None
    steps: Mapping[str, Any]  # fields of FitOptions


def read_fit_request(params: Mapping[str, Any], *, given: Collection[str]) -> FitRequest | None:
    """Read the options of a fit, or return None where none is asked for.

    Raises:
        UsageError: an option is not written as it should be, or makes no sense without others.
    """
    wish = params["calibrate"]
    refused = set(_NEEDS_CALIBRATE) if wish is None else set()
    if wish == SYNTHETIC:
        refused = _NEEDS_IMAGES
    flags = [flag for name, flag in _NEEDS_CALIBRATE.items() if name in refused & set(given)]
    if flags:
        raise UsageError(f"{flags[0]} goes with --calibrate DATA; give that or leave it out")
    if wish is None:
        return None
    data = read_data_request(params)
    fields = ("block_steps", "joint_steps", "stream_order")
    steps = {name: params[name] for name in fields if params[name] is not None}
    path = None if wish == SYNTHETIC else Path(wish)
    return FitRequest(replace(data, path=path), params["calibration_images"], steps)
