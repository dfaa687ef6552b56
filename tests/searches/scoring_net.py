"""A small trained residual network, and images to score plans with."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from ghostify.searches.scoring.pictures import Pictures, draw
from ghostify.train.loop import train
from tests.train.toys import CLASSES, PREPROCESS, Synthetic, recipe


class Small(nn.Module):
    """A stem, one residual block, and a head that reads 16 maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(self.norm1(self.first(x)))
        x = torch.relu(x + self.norm2(self.second(y)))
        return self.head(torch.relu(self.wide(x)).mean((2, 3)))  # type: ignore[no-any-return]


@functools.cache
def _trained() -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small()
    images = Synthetic(128)
    outcome = train(model, recipe(epochs=4), images, PREPROCESS, device="cpu", seed=0)
    assert isinstance(outcome.model, Small)
    return outcome.model.eval()


def small() -> Small:
    """Return the trained network, a copy of its own for each caller."""
    model = Small()
    model.load_state_dict(_trained().state_dict())
    return model.eval()


@functools.cache
def pictures() -> Pictures:
    """Return 64 images to fit, 48 to judge by, and the others."""
    return draw(Synthetic(160, seed=1), PREPROCESS, calibration=64, held_back=48, seed=0)
