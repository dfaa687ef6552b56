"""Compare what a network says with what the original says, on images held back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghostify.errors import InputError
from ghostify.searches.scoring.score import Score
from ghostify.train.distil import logits_loss
from ghostify.train.network import logits_of, modes_kept

__all__ = ["Judge", "logits"]


class Judge:
    """Images held back, what the original says of them, and their labels if they are known.

    Args:
        told: the original's logits ``(N, classes)``.
        images: ``(N, C, H, W)``, on the device of the networks.
        labels: ``(N,)``.

    Raises:
        InputError: labels that are not one for each image.
    """

    def __init__(
        self,
        told: Tensor,
        images: Tensor,
        labels: Tensor | None,
        *,
        chunk: int,
        temperature: float,
    ) -> None:
        if labels is not None and labels.shape != (len(images),):
            raise InputError(
                f"{len(images)} images held back take as many labels (got "
                f"{'x'.join(map(str, labels.shape)) or 'one number'})"
            )
        self.told, self.temperature = told, temperature
        self.images = images
        self.batches: Sequence[Tensor] = images.split(chunk)
        self._labels = None if labels is None else labels.to(told.device)

    def score(self, model: nn.Module) -> Score:
        """Judge a network by all images."""
        return self.compare(logits(model, self.batches))

    def compare(self, said: Tensor) -> Score:
        """Judge by what a network has said of the first images."""
        found = self.divergence(said)
        top1 = None
        if self._labels is not None:
            right = said.argmax(1) == self._labels[: len(said)]
            top1 = 100 * float(right.double().mean())
        return Score(found, top1)

    def divergence(self, said: Tensor) -> float:
        """Return the divergence on the first images, infinite where something is not finite."""
        told = self.told[: len(said)]
        found = float(logits_loss(said, told, temperature=self.temperature))
        return max(found, 0.0) if math.isfinite(found) else math.inf


def logits(model: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    """Return a network's logits in eval mode, in float32; its mode stays as it was."""
    with modes_kept(model), torch.no_grad():
        model.eval()
        return torch.cat([logits_of(model(batch)).float() for batch in batches])
