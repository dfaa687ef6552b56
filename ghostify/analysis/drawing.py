"""What all pictures of maps have in common: colours, figures, files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ghostify.analysis.values import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "MAPS", "figure_of", "save", "show_image", "show_map"]


MAPS = "viridis"
"""Perceptually even, and the same in grey or to colour-blind eyes."""

COLOURS = ("#D55E00", "#009E73", "#0072B2", "#E69F00", "#CC79A7", "#56B4E9")
"""Of frames: red, green and blue first as in the paper, in tones that all eyes can tell apart."""

_DPI = 110
_MOST = 80  # points of a map along a side, about what a small picture of it can show


def figure_of(size: tuple[float, float]) -> Figure:
    """Return an empty figure of so many inches, which no window will show."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, dpi=_DPI, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the suffix, without a date.

    A PNG gets a palette of 256 colours, which halves it.
    """
    import matplotlib as mpl

    kind = path.suffix[1:].lower()
    if kind == "png":
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind)
        with Image.open(drawn) as image:
            few = image.convert("RGB").quantize(
                256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
            )
        few.save(path, kind, optimize=True)
        return
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with mpl.rc_context({"svg.hashsalt": "ghostify"}):
        figure.savefig(path, format=kind, metadata=undated)


def show_map(axis: Axes, values: Floats, bounds: tuple[float, float] | None = None) -> None:
    """Draw one feature map ``(H, W)``, on its own scale or a given one, without ticks.

    A large map is drawn coarser, by means of squares, so that pictures stay small.
    """
    low, high = bounds or (float(values.min()), float(values.max()))
    values = _coarser(values, -(-max(values.shape) // _MOST))
    axis.imshow(
        values, cmap=MAPS, vmin=low, vmax=high if high > low else low + 1, interpolation="nearest"
    )
    axis.set_xticks([])
    axis.set_yticks([])


def show_image(axis: Axes, image: Floats) -> None:
    """Draw a normalised image ``(C, H, W)``, its numbers stretched to the range of colours."""
    low, high = float(image.min()), float(image.max())
    pixels = (image - low) / ((high - low) or 1.0)
    axis.imshow(pixels.transpose(1, 2, 0) if len(image) == 3 else pixels[0], cmap="gray")
    axis.set_xticks([])
    axis.set_yticks([])


def _coarser(values: Floats, step: int) -> Floats:
    """Average squares of so many points; what is left over at the far edges is cut off."""
    if step == 1:
        return values
    height, width = (max(1, side // step) for side in values.shape)
    cut = values[: height * step, : width * step]
    return np.asarray(cut.reshape(height, -1, width, cut.shape[1] // width).mean((1, 3)))
