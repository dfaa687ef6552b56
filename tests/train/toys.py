"""A small network and small images that can be learnt in seconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ghostify.data.images import Images
from ghostify.data.preprocess import Preprocess
from ghostify.train.recipe import Recipe

SIDE, CLASSES = 8, 4

PREPROCESS = Preprocess(
    channels=3, size=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3, augment="flip"
)


class Toy(nn.Module):
    """Two stages with batch norm, and dropout, so that random numbers matter."""

    def __init__(self, classes: int = CLASSES, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.input_size = (3, SIDE, SIDE)
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.linear(self.dropout(x.mean(dim=(2, 3))))  # type: ignore[no-any-return]


class Synthetic(Images):
    """Noise with a bright bar whose place is the label."""

    def __init__(self, count: int = 64, *, seed: int = 0, classes: int = CLASSES) -> None:
        random = np.random.default_rng(seed)
        labels = random.integers(classes, size=count)
        super().__init__(f"synthetic-{seed}", labels.astype(np.int64))
        self.pixels = random.integers(0, 80, (count, SIDE, SIDE, 3), dtype=np.uint8)
        for image, label in zip(self.pixels, labels, strict=True):
            image[2 * label : 2 * label + 2] += 150

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def listing(self) -> Iterable[tuple[str, int]]:
        return [(self.name, self.pixels.nbytes)]


def toy(seed: int = 0, **settings: Any) -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Toy(**settings)


def recipe(**settings: Any) -> Recipe:
    defaults: dict[str, Any] = {"batch_size": 16, "lr": 0.05, "feature_weight": 0.0}
    if "epochs" not in settings:
        defaults["steps"] = 8
    return Recipe(**(defaults | settings))


def write_folder(path: Path, count: int = 64, *, seed: int = 0, split: str = "train") -> Path:
    """Write synthetic images as a folder for each class."""
    images = Synthetic(count, seed=seed)
    for index, label in enumerate(images.labels):
        folder = path / split / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        images.load(index).save(folder / f"{index:04}.png")
    return path


def same(first: nn.Module, second: nn.Module) -> bool:
    """Tell whether two networks have the same state, bit for bit."""
    ours, theirs = first.state_dict(), second.state_dict()
    return list(ours) == list(theirs) and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )


def plain() -> nn.Module:
    """A network without batch norm and dropout, always with the same weights."""
    model = toy(dropout=0.0)
    model.bn1 = model.bn2 = nn.Identity()  # type: ignore[assignment]
    return model
