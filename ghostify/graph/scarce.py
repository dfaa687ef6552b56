"""Fits to few images: how far filters may move, by images that are held back."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ghostify.graph.cheap_fit import DAMPING
from ghostify.graph.fit import Stream

__all__ = ["DAMPINGS", "is_scarce", "parted"]

DAMPINGS = (1.0, 1e-1, 1e-2, DAMPING)
"""Ridges, as shares of the input's mean energy: from strong, which leaves the filters where they
are, to light."""

_PLENTY = 4  # positions for each weight of a filter
_IMAGES = 32
_PART = 4  # every fourth image is held back


def is_scarce(stream: Stream, size: int) -> bool:
    """Return whether ``size`` weights of a filter would fit chance in these images."""
    images = positions = 0
    for _, aim in stream():
        images += len(aim)
        positions += len(aim) * aim.shape[-2] * aim.shape[-1]
    return images < _IMAGES or positions < _PLENTY * size


def parted(stream: Stream) -> tuple[Stream, Stream]:
    """Return the images to fit to, and those held back; either may be none."""
    return lambda: _some(stream, held_back=False), lambda: _some(stream, held_back=True)


def _some(stream: Stream, *, held_back: bool) -> Iterator[tuple[Tensor, Tensor]]:
    number = 0
    for source, aim in stream():
        chosen = [
            row for row in range(len(aim)) if ((number + row) % _PART == _PART - 1) == held_back
        ]
        number += len(aim)
        if chosen:
            yield source[chosen], aim[chosen]
