"""Small networks whose maps are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def images(count: int = 16, *, side: int = 12, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.avg_pool2d(torch.randn(count, 3, side, side, generator=generator), 3, 1, 1)


def passing(channels: int = 3) -> nn.Conv2d:
    """Make a convolution that gives its input."""
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.dirac_(conv.weight)
    return conv


class Net(nn.Module):
    """Two convolutions with a batch norm behind the first."""

    def __init__(self, maps: int = 6) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.first = nn.Conv2d(3, maps, 3, padding=1)
            self.norm = nn.BatchNorm2d(maps)
            self.second = nn.Conv2d(maps, 8, 3, stride=2, padding=1, bias=False)
            nn.init.uniform_(self.norm.running_var, 0.5, 2.0)

    def forward(self, image: Tensor) -> Tensor:
        maps = torch.relu_(self.norm(self.first(image)))
        return self.second(maps)


def doubled() -> Net:
    """Make a network in which maps 2k + 1 of ``second`` are multiples of maps 2k."""
    net = Net()
    with torch.no_grad():
        factors = torch.linspace(-2.0, 1.5, 4)
        net.second.weight[1::2] = net.second.weight[::2] * factors[:, None, None, None]
    return net
