"""Layouts of maps in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.graph.layout import (
    channels_last_breaks_gradients,
    laid_out,
    takes_channels_last,
)
from ghostify.nn.ghost import GhostModule
from tests.graph.networks import plain

IMAGES = list(torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)).split(2))


class Viewing(nn.Module):
    """Views its maps as vectors, as many older networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 36, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return self.head(maps.view(len(maps), -1))


def test_images_are_laid_out_map_by_map_or_position_by_position_but_never_changed() -> None:
    model = plain().eval()

    found = laid_out(IMAGES, model, trained=model)

    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in found)
    assert all(torch.equal(one, other) for one, other in zip(found, IMAGES, strict=True))


def test_a_network_that_views_its_maps_keeps_the_usual_layout() -> None:
    model = Viewing().eval()

    assert not takes_channels_last(model, IMAGES[0])
    assert all(one.is_contiguous() for one in laid_out(IMAGES, model, trained=model))


def test_a_ghost_module_keeps_the_layout_to_its_end() -> None:
    """An indexed copy does not, which is why orders are folded before the joint steps."""
    ghost = GhostModule(3, 8, 3, padding=1)
    images = IMAGES[0].contiguous(memory_format=torch.channels_last)

    assert ghost(images).is_contiguous(memory_format=torch.channels_last)


class Calling(nn.Module):
    """Runs a convolution of its own as a function."""

    def __init__(self, reads: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, reads, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(20, reads, kernel, kernel))
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        return functional.conv2d(self.first(images), self.weight, stride=self.stride)


@pytest.mark.parametrize(
    ("reads", "kernel", "stride", "broken"),
    [(4, 1, 2, True), (15, 1, 3, True), (16, 1, 2, False), (4, 1, 1, False), (4, 2, 2, False)],
)
def test_strided_convolutions_from_few_maps_are_not_trained_position_by_position(
    reads: int, kernel: int, stride: int, broken: bool
) -> None:
    """oneDNN, its issue 6035: the backward pass for their weights writes past its memory."""
    calling = Calling(reads, kernel, stride)
    safe = plain().eval()

    assert channels_last_breaks_gradients(calling, IMAGES[0]) == broken
    assert laid_out(IMAGES, safe, trained=calling)[0].is_contiguous() == broken
