"""Random changes of images in training, each image's decided by one number alone.

torchvision's transforms draw from torch's global generator, which belongs to the network in
training: its own draws would then depend on how many images were read ahead, and by whom.
So the draws are made here; ranges and order are those of torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from ghostify.data.preprocess import Preprocess
from ghostify.data.transforms import Pixels, array

__all__ = ["PADDING", "augment_image", "augment_views", "crop_box", "randaugment", "trivialaugment"]

PADDING = 4  # He et al. (2016), sec. 4.2

_AREA, _ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # of the part that is cut out (Szegedy et al., 2015)
_OPERATIONS, _STRENGTH = 2, 0.3  # RandAugment: how many, and how strong: 9 of 30


def augment_views(views: Pixels, draws: npt.NDArray[np.int64], preprocess: Preprocess) -> Pixels:
    """Change images that were scaled and cut as in evaluation, ``(N, C, H, W)``.

    Args:
        draws: ``(N,)`` uniform whole numbers.
    """
    if preprocess.augment == "none":
        return views
    if preprocess.augment == "flip":
        return _shift_and_flip(views, draws, 0)
    if preprocess.augment == "cifar":
        return _shift_and_flip(views, draws, PADDING)
    out = np.empty_like(views)
    for into, one, draw in zip(out, views, draws.tolist(), strict=True):
        generator = np.random.default_rng(draw)
        shifted = _shift_and_flip(one[None], generator.integers(2**62, size=1), PADDING)[0]
        into[...] = array(_CHANGES[preprocess.augment](_image(shifted), generator))
    return out


def augment_image(image: Image.Image, preprocess: Preprocess, draw: int) -> Pixels:
    """Cut a random part out of a whole image and change it as ``augment`` says."""
    generator = np.random.default_rng(draw)
    height, width = preprocess.size
    box = crop_box(image.width, image.height, generator)
    how = Image.Resampling[preprocess.interpolation.upper()]
    image = image.crop(box).resize((width, height), how)
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if preprocess.augment in _CHANGES:
        image = _CHANGES[preprocess.augment](image, generator)
    return array(image)


def crop_box(width: int, height: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a part of an image: left, top, right, bottom."""
    for _ in range(10):
        area = width * height * generator.uniform(*_AREA)
        aspect = math.exp(generator.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            top = int(generator.integers(height - high + 1))
            left = int(generator.integers(width - wide + 1))
            return left, top, left + wide, top + high
    wide = min(width, round(height * _ASPECT[1]))
    high = min(height, round(width / _ASPECT[0]))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _shift_and_flip(views: Pixels, draws: npt.NDArray[np.int64], padding: int) -> Pixels:
    """Move images by up to ``padding`` pixels, black coming in, and mirror every second one."""
    height, width = views.shape[2:]
    offsets = 2 * padding + 1
    tops, lefts = draws % offsets, draws // offsets % offsets
    flips = draws // offsets**2 % 2 == 1
    border = (padding, padding)
    padded = np.pad(views, ((0, 0), (0, 0), border, border)) if padding else views
    out = np.empty_like(views)
    for image, top, left, flip, into in zip(
        padded, tops.tolist(), lefts.tolist(), flips.tolist(), out, strict=True
    ):
        cut = image[:, top : top + height, left : left + width]
        into[...] = cut[:, :, ::-1] if flip else cut
    return out


def randaugment(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Apply two operations of fixed strength (Cubuk et al., 2020)."""
    for _ in range(_OPERATIONS):
        operation = _OPERATIONS_BY_NUMBER[generator.integers(len(_OPERATIONS_BY_NUMBER))]
        image = _NARROW[operation](image, _STRENGTH, _sign(generator))
    return image


def trivialaugment(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Apply one operation of random strength (Mueller and Hutter, 2021)."""
    operation = _OPERATIONS_BY_NUMBER[generator.integers(len(_OPERATIONS_BY_NUMBER))]
    return _WIDE[operation](image, int(generator.integers(31)) / 30, _sign(generator))


_CHANGES: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "randaugment": randaugment,
    "trivialaugment": trivialaugment,
}

Operation = Callable[[Image.Image, float, int], Image.Image]
"""Takes an image, a strength from 0 to 1, and 1 or -1."""


def _sign(generator: np.random.Generator) -> int:
    return 1 if generator.random() < 0.5 else -1


def _image(pixels: Pixels) -> Image.Image:
    if len(pixels) == 1:
        return Image.fromarray(pixels[0])
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _affine(image: Image.Image, *rows: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, rows, Image.Resampling.NEAREST)


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance], most: float) -> Operation:
    return lambda image, strength, sign: kind(image).enhance(1 + sign * strength * most)


def _operations(
    *, shear: float, shift: Callable[[int], float], turn: float, enhance: float, bits: int
) -> dict[str, Operation]:
    """Return the operations, each with its greatest strength."""
    return {
        "identity": lambda image, strength, sign: image,
        "shear_x": lambda image, strength, sign: _affine(
            image, 1, sign * strength * shear, 0, 0, 1, 0
        ),
        "shear_y": lambda image, strength, sign: _affine(
            image, 1, 0, 0, sign * strength * shear, 1, 0
        ),
        "translate_x": lambda image, strength, sign: _affine(
            image, 1, 0, int(sign * strength * shift(image.width)), 0, 1, 0
        ),
        "translate_y": lambda image, strength, sign: _affine(
            image, 1, 0, 0, 0, 1, int(sign * strength * shift(image.height))
        ),
        "rotate": lambda image, strength, sign: image.rotate(sign * strength * turn),
        "brightness": _enhanced(ImageEnhance.Brightness, enhance),
        "colour": _enhanced(ImageEnhance.Color, enhance),
        "contrast": _enhanced(ImageEnhance.Contrast, enhance),
        "sharpness": _enhanced(ImageEnhance.Sharpness, enhance),
        "posterize": lambda image, strength, sign: ImageOps.posterize(
            image, 8 - round(strength * bits)
        ),
        "solarize": lambda image, strength, sign: ImageOps.solarize(
            image, math.ceil(255 * (1 - strength))
        ),
        "autocontrast": lambda image, strength, sign: ImageOps.autocontrast(image),
        "equalize": lambda image, strength, sign: ImageOps.equalize(image),
    }


_NARROW = _operations(shear=0.3, shift=lambda side: 150 / 331 * side, turn=30, enhance=0.9, bits=4)
_WIDE = _operations(shear=0.99, shift=lambda side: 32, turn=135, enhance=0.99, bits=6)
_OPERATIONS_BY_NUMBER = tuple(_NARROW)
