"""Which images fit a plan's layers, which judge it, and which it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghostify.data.base import NO_LABEL, Images
from ghostify.data.batches import calibration_order, evaluation_batches
from ghostify.data.preprocess import Preprocess, normalise
from ghostify.data.subset import Subset
from ghostify.errors import DataError, InputError
from ghostify.graph.probe import copy_model
from ghostify.graph.synthetic import synthetic_images

__all__ = ["Pictures", "Supply", "draw", "invent"]

_SMALL_SIDE = 64  # pixels
_PARTS = ("steps, images to fit to", "steps, images to judge by")
_STEPS = 40  # by which synthetic images are matched to the network's statistics


@dataclass(frozen=True, slots=True)
class Supply:
    """Images to train on, and how the network wants them."""

    images: Images
    preprocess: Preprocess


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images of a search; no image of ``held_back`` is in any other part.

    Args:
        calibration: ``(N, C, H, W)``, normalised.
        held_back: the same, to judge by.
        labels: ``(N,)`` of the images held back, or None where some have none.
        supply: all others, to train on.
    """

    calibration: Tensor
    held_back: Tensor
    labels: Tensor | None = None
    supply: Supply | None = None


def draw(
    images: Images,
    preprocess: Preprocess,
    *,
    calibration: int = 512,
    held_back: int = 512,
    seed: int = 0,
    workers: int = 0,
) -> Pictures:
    """Draw images for calibration and others to judge by, both evenly from all classes.

    If there are too few for both, each gets its share of what is there.

    Raises:
        DataError: fewer than two images, or none that can be decoded.
    """
    if len(images) < 2:
        raise DataError(
            f"{images.name} has {len(images)} images; a search takes two at least, to fit and to "
            "judge"
        )
    if calibration + held_back > len(images):
        share = calibration / (calibration + held_back)
        calibration = min(len(images) - 1, max(1, round(share * len(images))))
        held_back = len(images) - calibration
    order = calibration_order(images, seed)
    first, last = order[:calibration], order[calibration : calibration + held_back]
    fitting, _ = _tensors(Subset(images, first), preprocess, workers)
    judging, labels = _tensors(Subset(images, last), preprocess, workers)
    aside = set(last.tolist())
    others = Subset(images, [index for index in range(len(images)) if index not in aside])
    known = bool((labels != NO_LABEL).all())
    return Pictures(fitting, judging, labels if known else None, Supply(others, preprocess))


def invent(
    model: nn.Module,
    input_size: tuple[int, ...] | None,
    *,
    calibration: int | None = None,
    held_back: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Pictures:
    """Make images out of the network's own batch-norm statistics, where there are no others.

    Both parts come from seeds of their own. What is found on them is clearly worse than on
    real images.

    Args:
        on_progress: called with the steps that are done, of how many, and which part it is.

    Raises:
        InputError: the size of the network's input is unknown.
    """
    if input_size is None or len(input_size) != 3:
        raise InputError("synthetic images need the network's input size; give it as C, H, W")
    channels, height, width = input_size
    usual = 512 if max(height, width) <= _SMALL_SIDE else 64
    scratch = copy_model(model, hooks=False).eval().requires_grad_(False)
    made: list[Tensor] = []
    for part, count in enumerate((calibration, held_back)):

        def tell(step: int, steps: int, part: int = part) -> None:
            if on_progress is not None:
                on_progress(part * steps + step, 2 * steps, _PARTS[part])

        made.append(
            synthetic_images(
                scratch,
                (channels, height, width),
                count=count or usual,
                steps=_STEPS,
                seed=seed + part,
                on_step=tell,
            )
        )
    return Pictures(made[0], made[1])


def _tensors(images: Images, preprocess: Preprocess, workers: int) -> tuple[Tensor, Tensor]:
    batches = evaluation_batches(images, preprocess, workers=workers)
    found = [(normalise(pixels, preprocess), labels) for pixels, labels in batches]
    if not found:
        raise DataError(f"{images.name}: not one of {len(images)} images can be decoded")
    return torch.cat([one for one, _ in found]), torch.cat([labels for _, labels in found])
