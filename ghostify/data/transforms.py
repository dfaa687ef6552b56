"""From a decoded image to pixels of the network's kind and size, as in evaluation."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from ghostify.data.preprocess import Preprocess
from ghostify.errors import CorruptImageError, DataError

__all__ = ["Pixels", "array", "to_channels", "view"]

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""(C, H, W), or (N, C, H, W)."""

_COLOURS = {3: "RGB", 1: "L"}
_KINDS = {
    "1": "black-and-white",
    "L": "greyscale",
    "I;16": "16-bit greyscale",
    "P": "palette",
    "RGB": "colour",
    "RGBA": "transparent (alpha is left out)",
    "LA": "transparent greyscale (alpha is left out)",
}


def to_channels(image: Image.Image, channels: int, index: int) -> tuple[Image.Image, str]:
    """Return an image in RGB (3 channels) or greyscale (1), and a remark if it was no such image.

    Raises:
        CorruptImageError: its numbers have no fixed range.
    """
    wanted = _COLOURS[channels]
    if image.mode == wanted:
        return image, ""
    kind = image.mode
    if kind == "I" or kind.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise CorruptImageError(index, "32-bit numbers have no fixed range; save it as 8-bit")
        image, kind = Image.fromarray((values // 257).astype(np.uint8)), "I;16"
    elif kind == "F":
        raise CorruptImageError(
            index, "floating-point numbers have no fixed range; save it as 8-bit"
        )
    elif kind == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    remark = f"{_KINDS.get(kind, kind)} images taken as {'RGB' if channels == 3 else 'greyscale'}"
    return image.convert(wanted), remark


def view(image: Image.Image, preprocess: Preprocess, index: int) -> Pixels:
    """Scale and cut an image as in evaluation, by the arithmetic of torchvision's transforms.

    Raises:
        DataError: it has another size and nothing says how to scale it.
    """
    height, width = preprocess.size
    if preprocess.resize is None:
        if image.size != (width, height):
            raise DataError(
                f"image {index} is {image.height}x{image.width}, the network takes "
                f"{height}x{width}; say by --resize N how to scale it (its short side to N, then a "
                "crop around the centre)"
            )
        return array(image)
    image = _scaled(image, preprocess.resize, preprocess)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return array(image.crop((left, top, left + width, top + height)))


def _scaled(image: Image.Image, resize: int, preprocess: Preprocess) -> Image.Image:
    """Scale to ``resize`` on the short side; for an oblong crop, as far beyond the crop as that."""
    height, width = preprocess.size
    if height == width:
        long = int(resize * max(image.size) / min(image.size))
        size = (resize, long) if image.width <= image.height else (long, resize)
    else:
        cover = max(height / image.height, width / image.width)
        factor = cover * resize / min(height, width)
        size = (
            max(width, round(image.width * factor)),
            max(height, round(image.height * factor)),
        )
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling[preprocess.interpolation.upper()])


def array(image: Image.Image) -> Pixels:
    """Return the pixels of an image as ``(C, H, W)``."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
