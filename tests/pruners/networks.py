"""Small networks whose maps can be removed, or not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(5))


class Residual(nn.Module):
    """A stem, a residual block with a depthwise layer inside, a plain layer, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(10)
        self.wide = nn.Conv2d(10, 20, 1)
        self.wide_bn = nn.BatchNorm2d(20)
        self.deep = nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.act = nn.PReLU(20)
        self.narrow = nn.Conv2d(20, 10, 1)
        self.plain = nn.Conv2d(10, 16, 3, padding=1)
        self.head = nn.Linear(16 * 3 * 3, 7)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.relu(self.stem_bn(self.stem(images)))
        inside = functional.relu(self.wide_bn(self.wide(maps)))
        maps = maps + self.narrow(self.act(self.deep(inside)))
        maps = functional.max_pool2d(functional.relu(self.plain(maps)), 4)
        return self.head(maps.flatten(1))  # type: ignore[no-any-return]


class Chain(nn.Module):
    """Three convolutions with batch norms, one after another."""

    def __init__(self, maps: int = 24) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, maps, 3, padding=1, bias=False)
        self.a_bn = nn.BatchNorm2d(maps)
        self.b = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.b_bn = nn.BatchNorm2d(maps)
        self.c = nn.Conv2d(maps, maps, 3, padding=1, stride=2, bias=False)
        self.c_bn = nn.BatchNorm2d(maps)
        self.head = nn.Linear(maps, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.relu(self.a_bn(self.a(images)))
        maps = functional.relu(self.b_bn(self.b(maps)))
        maps = functional.relu(self.c_bn(self.c(maps)))
        return self.head(maps.mean((2, 3)))  # type: ignore[no-any-return]


class Grouped(nn.Module):
    """Nothing in it can lose maps: grouped convolutions, and a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.group = nn.Conv2d(8, 8, 3, padding=1, groups=2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        return maps + self.group(maps)  # type: ignore[no-any-return]


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms values such as training leaves behind."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.2, generator=generator)
            nn.init.normal_(module.running_mean, 0.0, 0.2, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
    return model.eval()


def residual(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return trained(Residual(), seed)


def chain(seed: int = 0, maps: int = 24) -> nn.Module:
    torch.manual_seed(seed)
    return trained(Chain(maps), seed)


def batches(classes: int = 5) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(8, 3, 12, 12, generator=generator),
            torch.randint(0, classes, (8,), generator=generator),
        )
        for _ in range(3)
    ]
