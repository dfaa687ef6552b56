"""Small networks for the tests of export."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import ghostify


class Residual(nn.Module):
    """A block with a residual sum, behind which maps are joined with those before it."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(maps)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(maps)) + maps)


def small() -> nn.Module:
    """A network of 4 convolutions with live batch norms, in train mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            Residual(16),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            Residual(32),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


def small_ghost() -> nn.Module:
    """The same with Ghost modules, in eval mode."""
    example = torch.zeros(1, 3, 64, 64)
    return ghostify.convert(small(), example=example, verify=False).model.eval()


class Pair(nn.Module):
    """Two inputs, two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(2, 4, 3)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        left, right = self.left(a), self.right(b)
        return {"sum": left + right, "mean": left.mean((2, 3))}


class Applied(nn.Module):
    """Any function, as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, maps: Tensor) -> Tensor:
        return self.function(maps)


def with_layer(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """A network whose layer ``body.odd`` applies a function."""
    body = nn.Sequential()
    body.add_module("conv", nn.Conv2d(3, 4, 3))
    body.add_module("odd", Applied(function))
    model = nn.Sequential()
    model.add_module("body", body)
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    return model.eval()
