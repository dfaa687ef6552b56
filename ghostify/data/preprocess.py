"""How a network wants its images: size, normalisation, augmentation."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.data.base import Images
from ghostify.data.choices import AUGMENTS, INTERPOLATIONS
from ghostify.errors import CorruptImageError, DataError, nearest
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.spec import Origin

__all__ = ["Preprocess", "normalise", "preprocess_of", "small_size"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_CROP = 0.875  # the side of the crop, as a part of the short side
_SMALL = 64  # up to this side, images are taken as they are
_LOOKED_AT = 8  # images of a set


@dataclass(frozen=True, slots=True)
class Preprocess:
    """From a stored image to the tensor that a network takes.

    For evaluation an image is scaled so that its short side is ``resize``, cut to ``size``
    around the centre, and normalised. Without ``resize`` it must have that size already.
    """

    channels: int  # 3 or 1
    size: tuple[int, int]  # (H, W)
    resize: int | None = None
    mean: tuple[float, ...] = _MEAN  # per channel, of pixels from 0 to 1
    std: tuple[float, ...] = _STD
    interpolation: str = "bilinear"
    augment: str = "none"  # in training

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise DataError(
                f"images have 3 channels or 1, so the network cannot take them: it has "
                f"{self.channels}"
            )
        if len(self.size) != 2 or not all(isinstance(one, int) and one > 0 for one in self.size):
            raise DataError(f"the size of an image is HxW, from 1 up (got {self.size})")
        if not isinstance(self.resize, int | None):
            raise DataError(f"--resize is a whole number of pixels (got {self.resize!r})")
        if self.resize is not None and self.resize < min(self.size):
            raise DataError(
                f"--resize must be at least the side of the crop, {min(self.size)} "
                f"(got {self.resize}); choose a larger one or a smaller --crop"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise DataError(
                    f"--{name} takes one number for each of the {self.channels} channels "
                    f"(got {len(values)})"
                )
            if not all(math.isfinite(value) and -1 <= value <= 1.5 for value in values):
                raise DataError(
                    f"--{name} is for pixels from 0 to 1 (got {_join(values)}); divide by 255, "
                    "as in 127/255"
                )
        if min(self.std) <= 0:
            raise DataError(f"--std must be above 0 (got {_join(self.std)})")
        for name, value, known in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("augment", self.augment, AUGMENTS),
        ):
            if value not in known:
                hint = nearest(value, known) or f"; choose from {', '.join(known)}"
                raise DataError(f"--{name} knows no {value!r}{hint}")

    @property
    def crops_at_random(self) -> bool:
        """Whether training cuts random parts out of the whole image, not out of the centre."""
        return self.augment == "imagenet" or (
            self.augment in ("randaugment", "trivialaugment") and self.resize is not None
        )

    @property
    def view(self) -> tuple[int, tuple[int, int], int | None, str]:
        """All that decides the pixels in evaluation, before normalisation."""
        return self.channels, self.size, self.resize, self.interpolation

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preprocess:
        """Read what :meth:`to_json` gives.

        Raises:
            DataError: a field is missing, unknown or of the wrong kind.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(value, Mapping) or set(value) != names:
            raise DataError(f"the settings of images have the fields {', '.join(sorted(names))}")
        plain: dict[str, Any] = {
            key: tuple(one) if isinstance(one, list) else one for key, one in value.items()
        }
        try:
            return cls(**plain)
        except (TypeError, AttributeError) as error:
            raise DataError(f"the settings of images cannot be read ({error})") from None


def normalise(batch: Tensor, preprocess: Preprocess) -> Tensor:
    """Turn pixels ``(N, C, H, W)`` uint8 into the float32 that the network takes, on any device."""
    scale, shift = _affine(preprocess.mean, preprocess.std, batch.device)
    return batch.to(torch.float32).mul_(scale).add_(shift)


@functools.lru_cache(maxsize=16)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    of = torch.tensor(std, dtype=torch.float64).view(-1, 1, 1)
    centre = torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1)
    scale, shift = 1 / (255 * of), -centre / of
    return scale.to(device, torch.float32), shift.to(device, torch.float32)


def preprocess_of(
    model: nn.Module, origin: Origin, input_size: tuple[int, ...], **overrides: Any
) -> Preprocess:
    """Return how a network wants its images, by its own configuration.

    timm's networks carry it, torchvision's have it beside their weights. All others are
    taken to be trained like ImageNet's; where images are small (64 at most), they are taken
    as they are, cropped after padding in training.

    Args:
        input_size: (C, H, W) or (H, W).
        overrides: fields of :class:`Preprocess`, in place of the network's own; None is no
            override. A ``mean`` or ``std`` of one number is for every channel.

    Raises:
        DataError: a field has an impossible value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    unknown = set(given) - {field.name for field in fields(Preprocess)}
    if unknown:
        raise DataError(f"images have no setting {sorted(unknown)[0]!r}")
    channels = given.get("channels") or (input_size[0] if len(input_size) == 3 else 3)
    size = tuple(given.get("size") or input_size[-2:])
    found = _configured(model, origin)
    small = max(size) <= _SMALL
    scale = found.get("crop", _CROP)
    settings: dict[str, Any] = {
        "channels": channels,
        "size": size,
        "resize": None if small else math.floor(min(size) / scale),
        "mean": found.get("mean", _MEAN),
        "std": found.get("std", _STD),
        "interpolation": found.get("interpolation", "bilinear"),
        "augment": "cifar" if small else "imagenet",
    }
    settings |= given | {"size": size}
    for name in ("mean", "std"):
        settings[name] = _per_channel(settings[name], channels)
    return Preprocess(**settings)


def small_size(images: Images) -> tuple[int, int] | None:
    """Return (H, W) of a set's images if all that are looked at are small and of one size."""
    count = len(images)
    sizes = set()
    for index in sorted(
        {count * part // _LOOKED_AT for part in range(_LOOKED_AT)} if count else ()
    ):
        with contextlib.suppress(CorruptImageError):
            sizes.add(images.load(index).size)
    if len(sizes) != 1:
        return None
    width, height = sizes.pop()
    return (height, width) if max(width, height) <= _SMALL else None


def _configured(model: nn.Module, origin: Origin) -> dict[str, Any]:
    """Return mean, std, interpolation and the crop's part of the short side, where known."""
    if origin.source == "torchvision":
        return _torchvision(origin.name)
    for name in ("pretrained_cfg", "default_cfg"):
        configuration = getattr(model, name, None)
        if isinstance(configuration, Mapping):
            return _plain(configuration)
    return _plain({name: getattr(model, name, None) for name in ("mean", "std")})


def _plain(configuration: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("mean", "std"):
        values = configuration.get(name)  # a tensor is a buffer: the network normalises itself
        if isinstance(values, list | tuple) and all(isinstance(one, int | float) for one in values):
            found[name] = tuple(values)
    if configuration.get("interpolation") in INTERPOLATIONS:
        found["interpolation"] = configuration["interpolation"]
    crop = configuration.get("crop_pct")
    if isinstance(crop, int | float) and 0 < crop <= 1:
        found["crop"] = crop
    return found


def _torchvision(name: str) -> dict[str, Any]:
    models = import_beside_torchvision("torchvision.models")
    try:
        preset = models.get_model_weights(name).DEFAULT.transforms()
    except (ValueError, AttributeError):
        return {}
    found: dict[str, Any] = {
        statistic: tuple(getattr(preset, statistic))
        for statistic in ("mean", "std")
        if hasattr(preset, statistic)
    }
    if hasattr(preset, "interpolation"):
        found["interpolation"] = preset.interpolation.value
    resize, crop = getattr(preset, "resize_size", None), getattr(preset, "crop_size", None)
    if resize and crop:
        found["crop"] = Fraction(crop[0], resize[0])
    return found


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return tuple(float(value) for value in values)
    if len(values) == 1:
        return (float(values[0]),) * channels
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values)  # Preprocess says what is wrong


def _join(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
