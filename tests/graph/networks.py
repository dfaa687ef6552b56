"""Small networks, each with one difficulty."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def plain(channels: int = 8) -> nn.Sequential:
    """Three convolutions with batch norm between them."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU(),
        nn.Conv2d(2 * channels, 2 * channels, 3, padding=2, dilation=2, groups=2),
    )


class Branching(nn.Module):
    """Goes one way or another by the values of its input, which torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(8, 8, 3, padding=1)
        self.right = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.left(x) if float(x.abs().sum()) >= 0 else self.right(x)


class ByShape(nn.Module):
    """Decides by shapes: no trouble for fake tensors, but torch.fx cannot trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.body(x) if x.shape[-1] > 4 else x


class Shared(nn.Module):
    """One convolution under two names, called three times on two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.tower = nn.Conv2d(8, 8, 3, padding=1)
        self.again = self.tower

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return self.again(self.tower(x)), self.tower(functional.avg_pool2d(x, 2))


class Tied(nn.Module):
    """Two convolutions that hold the same weight, with strides of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.fine = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.coarse = nn.Conv2d(8, 8, 3, padding=1, stride=2, bias=False)
        self.coarse.weight = self.fine.weight

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return self.fine(x), self.coarse(x)


class Functional(nn.Module):
    """Convolves by function: with a weight of its own, and with another layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.lender = nn.Conv2d(8, 8, 3, padding=1)
        self.inner = nn.Module()
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lender(self.stem(x))
        x = functional.conv2d(x, self.lender.weight, None, 1, 1)
        return functional.conv2d(x, self.weight, stride=2, dilation=2, groups=2)


class TwoInputs(nn.Module):
    """Takes an image and a guide, and an optional mask that changes the way it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 8, 3, padding=1)
        self.guide = nn.Conv2d(1, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.masked = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, image: Tensor, guide: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
        x = self.image(image) + self.guide(guide)
        if mask is not None:
            x = self.masked(x * mask)
        return {"out": self.body(x), "pair": (x, [x])}


class ListInput(nn.Module):
    """Takes a list of images of several sizes, as detectors do, and needs targets to train."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images: list[Tensor], targets: Any = None) -> list[dict[str, Tensor]]:
        if self.training and targets is None:
            raise ValueError("targets should not be none when in training mode")
        return [{"scores": self.body(self.stem(image[None])).mean((2, 3))} for image in images]


class Auxiliary(nn.Module):
    """Has a head that runs in train mode only, and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.aux = nn.Conv2d(8, 8, 3, padding=1)
        self.dead = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Any:
        x = self.body(self.stem(x))
        return (self.up(x), self.aux(x)) if self.training else self.up(x)


class Asymmetric(nn.Conv2d):
    """A subclass of Conv2d whose maps depend on each other: no part of it can be taken."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(0), self.bias)


class Modulated(nn.Conv2d):
    """A subclass of Conv2d that takes a second argument."""

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return super().forward(x) * style
