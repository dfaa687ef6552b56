"""Evaluation against another library's figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ghostify.data.batches import evaluation_batches
from ghostify.data.images import open_images
from ghostify.data.preprocess import Preprocess, normalise, preprocess_of
from ghostify.errors import TrainingError
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.models.weights import load_weights
from ghostify.models.zoo import build
from ghostify.train.evaluate import evaluate
from tests.train.toys import PREPROCESS, SIDE, Synthetic, toy


class Fixed(nn.Module):
    """Gives random logits of ten classes by the image's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * SIDE * SIDE, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))  # type: ignore[no-any-return]


def test_the_figures_agree_with_torchmetrics() -> None:
    metrics = import_beside_torchvision("torchmetrics.classification")
    images, model = Synthetic(70, classes=4), Fixed().eval()
    batches = evaluation_batches(images, PREPROCESS, batch_size=16)
    top1 = metrics.MulticlassAccuracy(10, average="micro")
    top5 = metrics.MulticlassAccuracy(10, average="micro", top_k=5)
    losses = []
    for pixels, labels in batches:
        logits = model(normalise(pixels, PREPROCESS)).detach()
        top1.update(logits, labels)
        top5.update(logits, labels)
        losses.append(nn.functional.cross_entropy(logits, labels, reduction="none"))

    found = evaluate(model, batches, PREPROCESS, device="cpu")

    assert found.top1 == pytest.approx(100 * top1.compute().item())
    assert found.top5 == pytest.approx(100 * top5.compute().item())
    assert found.loss == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert found.images == 70


def test_the_size_of_the_batches_does_not_matter() -> None:
    images, model = Synthetic(70), toy()

    one, other = (
        evaluate(model, evaluation_batches(images, PREPROCESS, batch_size=size), PREPROCESS)
        for size in (7, 64)
    )

    assert one.top1 == other.top1
    assert one.loss == pytest.approx(other.loss, rel=1e-6)


def test_the_network_keeps_its_modes() -> None:
    model = toy().train()
    model.bn1.eval()
    seen: list[int] = []

    batches = evaluation_batches(Synthetic(20), PREPROCESS, batch_size=8)
    evaluate(model, batches, PREPROCESS, on_batch=seen.append)

    assert model.training
    assert not model.bn1.training
    assert seen == [8, 8, 4]
    assert model.bn1.num_batches_tracked == 0


def test_labels_outside_the_head_are_refused() -> None:
    images = Synthetic(20, classes=4)
    images.labels[3] = 4

    with pytest.raises(TrainingError, match=r"labels must be from 0 to 3.*\(got 4\)"):
        evaluate(toy(), evaluation_batches(images, PREPROCESS), PREPROCESS)


def test_no_image_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no image could be evaluated"):
        evaluate(toy(), [], PREPROCESS)


def test_auxiliary_heads_are_left_out() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = toy()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.net(x), x

    batches = evaluation_batches(Synthetic(20), PREPROCESS)

    assert evaluate(TwoHeads(), batches, PREPROCESS).images == 20


def test_a_known_checkpoint_has_its_known_accuracy(checkpoints: Path) -> None:
    """91.73 % is published on all test images; these are 500 of them."""
    built = build("resnet20_cifar")
    load_weights(built.model, checkpoints / "resnet20-12fca82f.th")
    images = open_images(checkpoints.parent / "cifar10-subset", split="test")
    assert built.input_size is not None
    preprocess: Preprocess = preprocess_of(built.model, built.origin, built.input_size)

    found = evaluate(built.model, evaluation_batches(images, preprocess), preprocess)

    assert found.images == 500
    assert 89 < found.top1 < 94
