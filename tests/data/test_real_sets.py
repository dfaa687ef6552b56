"""The real sets of images, where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ghostify.data.batches import calibration_batches, evaluation_batches, training_batches
from ghostify.data.images import check_labels, open_images
from ghostify.data.preprocess import preprocess_of
from ghostify.models import zoo
from ghostify.models.weights import load_weights


def folder(checkpoints: Path, name: str) -> Path:
    path = checkpoints.parent / name
    if not path.is_dir():
        pytest.skip(f"no {name} beside {checkpoints}")
    return path


def test_a_checkpoint_reaches_its_accuracy(checkpoints: Path) -> None:
    """92.7 % of ResNet-56 on these images was measured by another script."""
    images = open_images(folder(checkpoints, "cifar10-subset"), split="test")
    built = zoo.build("resnet20_cifar")
    load_weights(built.model, checkpoints / "resnet20-12fca82f.th")
    preprocess = preprocess_of(built.model, built.origin, (3, 32, 32))
    check_labels(images, 10)

    right = 0
    with torch.no_grad():
        from ghostify.data.preprocess import normalise

        for pixels, labels in evaluation_batches(images, preprocess):
            right += int(
                (built.model.eval()(normalise(pixels, preprocess)).argmax(1) == labels).sum()
            )

    assert 100 * right / len(images) > 89


def test_photographs_of_all_sizes(checkpoints: Path) -> None:
    images = open_images(folder(checkpoints, "imagenet-sample"), split="test")
    built = zoo.build("timm:resnet18")
    preprocess = preprocess_of(built.model, built.origin, (3, 224, 224))

    (first,) = calibration_batches(images, preprocess, count=16)
    batch, labels = next(iter(training_batches(images, preprocess, batch_size=8, seed=0, epoch=0)))

    assert first.shape == (16, 3, 224, 224)
    assert batch.shape == (8, 3, 224, 224)
    assert len(np.unique(images.labels)) > 200
    assert int(labels.max()) < 1000
