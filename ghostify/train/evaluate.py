"""Accuracy and loss of a network over labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.data.preprocess import Preprocess, normalise
from ghostify.errors import TrainingError
from ghostify.train.device import Engine, choose_engine
from ghostify.train.network import logits_of, modes_kept

__all__ = ["Evaluation", "evaluate", "tally"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy in percent, mean cross-entropy, and over how many images."""

    top1: float
    top5: float
    images: int
    loss: float

    def as_json(self) -> dict[str, float | int]:
        """Return plain values."""
        return {"top1": self.top1, "top5": self.top5, "images": self.images, "loss": self.loss}

    @classmethod
    def of(cls, sums: Tensor) -> Evaluation:
        """Turn what :func:`tally` counted into means."""
        top1, top5, loss, images = sums.tolist()
        if not images:
            raise TrainingError("no image could be evaluated; give a set with labelled images")
        return cls(100 * top1 / images, 100 * top5 / images, round(images), loss / images)


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    preprocess: Preprocess,
    *,
    device: str | torch.device = "auto",
    amp: str | None = None,
    channels_last: bool | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure a network; its mode, its device and its weights are afterwards what they were.

    Args:
        batches: uint8 images ``(N, C, H, W)`` and labels ``(N,)``.
        on_batch: called with the number of images after each batch.

    Raises:
        TrainingError: a label outside the head's range, or no image at all.
    """
    engine = choose_engine(device, amp=amp or "none", channels_last=channels_last)
    homes = {tensor: tensor.device for tensor in (*model.parameters(), *model.buffers())}
    try:
        model.to(engine.device)
        return Evaluation.of(tally(model, batches, preprocess, engine, on_batch=on_batch))
    finally:
        if any(home != engine.device for home in homes.values()):
            model.to(next(iter(homes.values())))


def tally(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    preprocess: Preprocess,
    engine: Engine,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> Tensor:
    """Return the sums ``[top1, top5, loss, images]`` in float64, on the CPU.

    They can be added up over processes. The device is asked for its result once, at the end.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=engine.device)
    count = 0
    with modes_kept(model), torch.inference_mode(), engine.tuned():
        model.eval()
        for images, labels in batches:
            lowest, highest = _range(labels)
            inputs = normalise(images.to(engine.device, non_blocking=True), preprocess)
            inputs = inputs.contiguous(memory_format=engine.memory_format)
            with engine.autocast():
                logits = logits_of(model(inputs)).float()
            if lowest < 0 or highest >= logits.shape[1]:
                raise TrainingError(
                    f"labels must be from 0 to {logits.shape[1] - 1}, as the network tells "
                    f"{logits.shape[1]} classes apart (got {lowest if lowest < 0 else highest}); "
                    "give the data of this network"
                )
            labels = labels.to(engine.device, non_blocking=True)
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            sums += torch.stack(
                [
                    best[:, 0].sum(),
                    best.sum(),
                    functional.cross_entropy(logits, labels, reduction="sum"),
                ]
            ).double()
            count += len(labels)
            if on_batch is not None:
                on_batch(len(labels))
    return torch.cat([sums.cpu(), torch.tensor([count], dtype=torch.float64)])


def _range(labels: Tensor) -> tuple[int, int]:
    if not labels.numel():
        return 0, -1
    return int(labels.min()), int(labels.max())
