"""A network, its weights and images, small enough to be searched in a second or two."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.train.toys import CLASSES, SIDE, write_folder

__all__ = ["Net", "write_all"]


class Net(nn.Module):
    """Four convolutions; the inner ones can be pruned."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.input_size = (3, SIDE, SIDE)
        maps = (3, width, width, 2 * width, 2 * width)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(maps)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in maps[1:])
        self.linear = nn.Linear(maps[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(norm(conv(x)))
        return self.linear(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def write_all(folder: Path, *, seed: int = 3) -> tuple[Path, Path]:
    """Write weights and images; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net()
        net.train()(torch.randn(64, 3, SIDE, SIDE))  # batch norms that have seen something
    weights = folder / f"net{seed}.safetensors"
    save_file(net.state_dict(), weights)
    return weights, write_folder(folder / "data", 96)
