"""The options that say which images, and how the network wants them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ghostify.cli.options import UsageError
from ghostify.data.choices import AUGMENTS, INTERPOLATIONS
from ghostify.errors import nearest

__all__ = [
    "Augment",
    "BatchSize",
    "Crop",
    "Data",
    "DataRequest",
    "Interpolation",
    "Mean",
    "Resize",
    "Split",
    "Std",
    "Workers",
    "read_data_request",
]

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", help="CIFAR archive (unpacked), folder of images, parquet, or saved data set."
    ),
]
Split = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="Which part of the data.")
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean", metavar="R,G,B", help="Of pixels from 0 to 1; 127/255 works. Default: its own."
    ),
]
Std = Annotated[
    str | None, typer.Option("--std", metavar="R,G,B", help="As --mean. Default: its own.")
]
Resize = Annotated[
    int | None,
    typer.Option(
        "--resize", metavar="N", min=1, help="Scale the short side to N before the centre crop."
    ),
]
Crop = Annotated[
    str | None, typer.Option("--crop", metavar="N|HxW", help="Size that the network sees.")
]
Interpolation = Annotated[
    str | None,
    typer.Option("--interpolation", metavar="NAME", help=f"One of {', '.join(INTERPOLATIONS)}."),
]
Augment = Annotated[
    str | None,
    typer.Option("--augment", metavar="NAME", help=f"In training: {', '.join(AUGMENTS)}."),
]
Workers = Annotated[
    int, typer.Option("--workers", min=0, max=1024, help="Processes that decode images.")
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="N", min=1, max=2**20, help="Images in one batch."),
]

_SIZE = re.compile(r"\d{1,6}(x\d{1,6})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class DataRequest:
    """Which images to read, and what the user wants of them in place of the network's own."""

    path: Path | None
    split: str | None
    overrides: Mapping[str, Any]  # for ghostify.data.preprocess.preprocess_of
    workers: int
    batch_size: int | None

    def require(self) -> Path:
        """Return the path of the images.

        Raises:
            UsageError: none was given.
        """
        if self.path is None:
            raise UsageError("there are no images; give them by --data PATH")
        return self.path


def read_data_request(params: Mapping[str, Any]) -> DataRequest:
    """Read the options by their names; those that a command does not have count as not given.

    Raises:
        UsageError: an option is not written as it should be.
    """
    read = {
        "mean": _numbers("--mean", params.get("mean")),
        "std": _numbers("--std", params.get("std")),
        "resize": params.get("resize"),
        "size": _size(params.get("crop")),
        "interpolation": _choice("--interpolation", params.get("interpolation"), INTERPOLATIONS),
        "augment": _choice("--augment", params.get("augment"), AUGMENTS),
    }
    return DataRequest(
        path=params.get("data"),
        split=params.get("split"),
        overrides={name: value for name, value in read.items() if value is not None},
        workers=params.get("workers") or 0,
        batch_size=params.get("batch_size"),
    )


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(_number(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UsageError(f"{flag} is written 0.485,0.456,0.406 or 127/255 (got {text!r})") from None
    if len(values) not in (1, 3):
        raise UsageError(f"{flag} takes one number, or one for each of 3 channels (got {text!r})")
    return values


def _number(text: str) -> float:
    above, slash, below = text.partition("/")
    value = float(above) / float(below) if slash else float(above)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = [int(side) for side in text.split("x")] if _SIZE.fullmatch(text) else [0]
    if min(sides) < 1:
        raise UsageError(f"--crop is written 224 or 224x320, from 1 up (got {text!r})")
    return sides[0], sides[-1]


def _choice(flag: str, value: str | None, known: tuple[str, ...]) -> str | None:
    if value is not None and value not in known:
        hint = nearest(value, known) or f"; choose from {', '.join(known)}"
        raise UsageError(f"{flag} knows no {value!r}{hint}")
    return value
