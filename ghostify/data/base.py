"""What every set of images offers, and how one image is decoded."""

from __future__ import annotations

import abc
import functools
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ghostify.errors import CorruptImageError

__all__ = ["NO_LABEL", "Images", "Labels", "Parts", "decode", "listing_digest"]

NO_LABEL = -1
"""Stands for the label of an image that has none."""

Labels: TypeAlias = npt.NDArray[np.int64]

_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Images(abc.ABC):
    """A set of images, decoded one by one when they are asked for.

    Sets can be pickled, so that worker processes may open them again.
    """

    name: str  # for messages: the path, and the part where there are several
    labels: Labels  # (N,), NO_LABEL where there is none
    classes: tuple[str, ...]  # names by label; may be empty

    def __init__(self, name: str, labels: Labels, classes: tuple[str, ...] = ()) -> None:
        self.name = name
        self.labels = labels
        self.classes = classes
        self.skipped: dict[int, str] = {}  # images that could not be decoded so far, and why

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def load(self, index: int) -> Image.Image:
        """Decode one image; its mode stays as it is stored.

        Raises:
            CorruptImageError: it cannot be decoded.
        """

    @abc.abstractmethod
    def listing(self) -> Iterable[tuple[str, int]]:
        """Yield the name and the size in bytes of every file, in a fixed order."""

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over names and sizes of the files and over the labels: cheap, for provenance."""
        return listing_digest(self.listing(), self.labels)


Parts: TypeAlias = Mapping[str, Callable[[], Images]]
"""The parts of a source by name, each to be opened; a source without parts has only ``""``."""


def listing_digest(listing: Iterable[tuple[str, int]], labels: Labels) -> str:
    """Return the SHA-256 of file names, sizes and labels."""
    digest = hashlib.sha256()
    for name, size in listing:
        digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
    digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    return digest.hexdigest()


def decode(source: bytes | Path, index: int, *, name: str = "") -> Image.Image:
    """Decode a whole image, turned upright as its EXIF orientation says.

    Args:
        name: what to call the image in an error, beside its index.

    Raises:
        CorruptImageError: it is no image, cut off, or too large to be meant.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
            return _upright(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever comes to their mind
        why = _say(error)
        raise CorruptImageError(index, f"{name}: {why}" if name else why) from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block is no damage to the image
        return image
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _say(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line[:200].rstrip(".: ")
