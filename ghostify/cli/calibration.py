"""Open the images that a conversion is fitted to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from ghostify.cli.data_options import DataRequest
from ghostify.cli.fit_options import FitRequest
from ghostify.cli.options import Request
from ghostify.data.batches import CalibrationBatches, calibration_batches
from ghostify.data.images import open_images
from ghostify.data.preprocess import Preprocess, preprocess_of
from ghostify.errors import InputError
from ghostify.graph.fit_options import SYNTHETIC, FitOptions
from ghostify.graph.rewrite import Conversion
from ghostify.models.zoo import Built
from ghostify.sources import sized_by

__all__ = ["Calibration", "read_calibration", "sized", "with_images"]

_SMALL, _FEW, _MANY = 64, 256, 2048
_BATCH = 64

_Kind = TypeVar("_Kind", bound=Conversion)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The images of a fit, how the network wants them, and how hard to fit."""

    images: Iterable[Tensor] | str
    preprocess: Preprocess
    options: FitOptions
    data: Mapping[str, Any] | None = None


def sized(built: Built, data: DataRequest | None, request: Request) -> Built:
    """Let the images settle an input size that nobody gave and that was only assumed.

    Raises:
        DataError: there are no such images.
    """
    if not built.assumed or request.input_size is not None or data is None or data.path is None:
        return built
    images = open_images(data.path, split=data.split or "train")
    return sized_by(built, images, data.overrides.get("size"))


def read_calibration(fit: FitRequest, built: Built, request: Request) -> Calibration:
    """Open the images and draw those to fit to, by the seed.

    Raises:
        DataError: there are none, or not as the network wants them.
        InputError: nobody knows how large the network wants its images.
    """
    size = request.input_size or built.input_size
    if size is None or built.kind != "image":
        raise InputError(
            f"{request.model} does not say how large its images are; give --input-size CxHxW"
        )
    if len(size) == 2:
        size = (3 if built.input_size is None else built.input_size[0], *size)
    preprocess = preprocess_of(built.model, built.origin, size, **fit.data.overrides)
    options = FitOptions(seed=request.seed, **fit.steps)
    if fit.data.path is None:
        return Calibration(SYNTHETIC, preprocess, options)
    images = open_images(fit.data.path, split=fit.data.split or "train")
    batches = calibration_batches(
        images,
        preprocess,
        count=fit.images or (_MANY if max(preprocess.size) <= _SMALL else _FEW),
        seed=request.seed,
        batch_size=_BATCH,
        workers=fit.data.workers,
    )
    data = {"name": images.name, "images": len(images), "digest": images.digest}
    return Calibration(batches, preprocess, options, data)


def with_images(conversion: _Kind, calibration: Calibration) -> _Kind:
    """Note down how the network wants its images, and what was remarkable about these."""
    notes: tuple[str, ...] = ()
    if isinstance(calibration.images, CalibrationBatches):
        notes = calibration.images.notes
    return replace(
        conversion,
        images=calibration.preprocess.to_json(),
        notes=(*conversion.notes, *notes),
    )
