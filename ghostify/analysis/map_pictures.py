"""The picture of a layer's intrinsic and ghost maps, and the original's beside them (Fig. 4, 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostify.analysis.drawing import COLOURS, figure_of, save, show_image, show_map
from ghostify.analysis.feature_maps import FeatureMaps
from ghostify.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SUFFIXES", "check_picture", "draw_maps", "save_maps"]

SUFFIXES = (".png", ".svg", ".pdf")
"""Of files that pictures are written to."""

_INTRINSIC, _GHOST, _ORDINARY = COLOURS[0], COLOURS[1], COLOURS[2]
_SIDE = 0.82  # inches of one map
_COLUMNS = 6


def check_picture(path: Path) -> None:
    """Make sure that a file's name says which kind of picture it is.

    Raises:
        InputError: it does not.
    """
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise InputError(f"a picture is written to a file that ends in {known} (got {path.name})")


def save_maps(found: FeatureMaps, path: str | Path, *, most: int = 48) -> None:
    """Draw the maps and write the picture; its kind is that of the file's name.

    Raises:
        InputError: as :func:`check_picture`.
    """
    path = Path(path)
    check_picture(path)
    save(draw_maps(found, most=most), path)


def draw_maps(found: FeatureMaps, *, most: int = 48) -> Figure:
    """Draw the image, the intrinsic maps and the ghosts, and below them the original's maps.

    Each map bears the number of the original's map that it stands for; a ghost also that of the
    intrinsic map which it is made from (``12 ← 40``). A map and the original's below it share
    the scale of colours, each about its own mean, since the batch norm behind takes up an
    offset. Of more than ``most`` maps those of the first intrinsic ones are shown,
    and their ghosts.
    """
    blocks = _blocks(found, most)
    rows = max(-(-len(places) // _COLUMNS) for _, _, places in blocks)
    lines = 1 if found.original is None else 2
    columns = [min(_COLUMNS, max(3, len(places))) for _, _, places in blocks]
    widths = [2.2, *(one * _SIDE + 0.15 for one in columns)]
    figure = figure_of((sum(widths), lines * (rows * (_SIDE + 0.2) + 0.45) + 0.35))
    parts = np.atleast_2d(figure.subfigures(lines, len(widths), width_ratios=widths, squeeze=False))
    axis = parts[0, 0].subplots()
    show_image(axis, found.image)
    axis.set_title("image", fontsize=9)
    shown = sum(len(places) for _, _, places in blocks)
    whole = "" if shown == len(found.maps) else f" ({shown} of {len(found.maps)} maps)"
    figure.suptitle(f"{found.model}, {found.layer}{whole}", fontsize=10)
    for line in range(lines):
        for part, (title, colour, places), width in zip(
            parts[line, 1:], blocks, columns, strict=True
        ):
            part.suptitle(title if line == 0 else f"{found.against}: the same maps", fontsize=9)
            part.patch.set_edgecolor(colour if line == 0 else "0.6")
            part.patch.set_linewidth(2.0)
            _grid(part, found, places, rows, width, theirs=line == 1)
    return figure


def _blocks(found: FeatureMaps, most: int) -> list[tuple[str, str, list[int]]]:
    """Return title, colour and places of the maps that are drawn side by side."""
    count = len(found.maps)
    if not found.ghosts:
        return [("maps of the layer", _ORDINARY, list(range(min(count, most))))]
    intrinsic = found.intrinsic
    if count > most:
        intrinsic = max(1, most * found.intrinsic // count)
    ghosts = [place for place in range(found.intrinsic, count) if found.maker(place) < intrinsic]
    return [
        ("intrinsic: primary convolution", _INTRINSIC, list(range(intrinsic))),
        ("ghosts: cheap operations", _GHOST, ghosts),
    ]


def _grid(
    part: Any, found: FeatureMaps, places: Sequence[int], rows: int, width: int, *, theirs: bool
) -> None:
    axes = part.subplots(rows, width, squeeze=False).flatten()
    for axis, place in zip(axes, places, strict=False):
        number = found.stands_for[place]
        label = str(number)
        if not theirs and place >= found.intrinsic:
            label += f" ← {found.stands_for[found.maker(place)]}"
        ours = found.maps[place]
        both = [ours] if found.original is None else [ours, found.original[place]]
        spread = np.stack([one - one.mean() for one in both])
        values = both[-1] if theirs else ours
        middle = float(values.mean())
        show_map(axis, values, (middle + float(spread.min()), middle + float(spread.max())))
        axis.set_title(label, fontsize=7, pad=1.5)
    for axis in axes[len(places) :]:
        axis.remove()
