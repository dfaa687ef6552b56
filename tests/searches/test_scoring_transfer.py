"""The algebra that carries a fitted layer over to other inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ghostify.searches.scoring.transfer import Spots, affine, carried, patches_at


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": (1, 2), "dilation": (1, 2)},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": 1, "padding_mode": "circular"},
        {"padding": 1, "groups": 2},
    ],
)
def test_filters_on_patches_give_the_convolution(settings: dict[str, Any]) -> None:
    """At the drawn positions, a product of matrices is what torch's own convolution gives."""
    conv = nn.Conv2d(4, 6, 3, bias=False, **settings)
    maps = torch.randn(3, 4, 9, 7)
    expected = conv(maps).detach()
    spots = Spots.draw(expected, 50)

    patches = patches_at(maps, conv, spots).view(conv.groups, -1, 50)
    filters = conv.weight.detach().view(conv.groups, 6 // conv.groups, -1)

    assert torch.allclose((filters @ patches).flatten(0, 1), spots.of(expected), atol=1e-5)


def test_spots_are_some_positions_once_each() -> None:
    maps = torch.arange(2 * 5 * 4.0).view(2, 1, 5, 4)

    some, every = Spots.draw(maps, 7).of(maps), Spots.draw(maps, 1000).of(maps)

    assert some.shape == (1, 7)
    assert len(set(some.flatten().tolist())) == 7
    assert every.flatten().tolist() == list(range(40))


def test_an_affine_map_is_numpys_regression() -> None:
    now, then = torch.randn(3, 200), torch.randn(3, 200)
    then[1] = 2.5 * now[1] - 1

    scale, offset = affine(now, then)

    for row in range(3):
        slope, intercept = np.polyfit(now[row].numpy(), then[row].numpy(), 1)
        assert float(scale[row]) == pytest.approx(slope, abs=1e-5)
        assert float(offset[row]) == pytest.approx(intercept, abs=1e-5)


def test_without_an_offset_the_line_goes_through_zero() -> None:
    now, then = torch.randn(2, 100) + 3, torch.randn(2, 100) + 1

    scale, offset = affine(now, then, offset=False)

    assert torch.equal(offset, torch.zeros(2, dtype=torch.float64))
    expected = (now * then).sum(1) / now.square().sum(1)
    assert torch.allclose(scale.float(), expected, atol=1e-5)


def test_a_constant_map_keeps_its_scale() -> None:
    scale, offset = affine(torch.full((1, 9), 2.0), torch.full((1, 9), 5.0))

    assert (float(scale), float(offset)) == (1.0, 3.0)


def test_what_reads_the_same_stays_the_same() -> None:
    weight, seen = torch.randn(5, 4, 3, 3), torch.randn(36, 300)

    assert torch.allclose(carried(weight, seen, seen), weight, atol=1e-6)


def test_filters_undo_a_change_of_their_input() -> None:
    """Twice the signal takes half the filter, up to the ridge of a hundredth."""
    weight, then = torch.randn(5, 4, 1, 1), torch.randn(4, 500)

    found = carried(weight, 2 * then, then)

    assert torch.allclose(found, weight / 2, atol=0.02)


def test_no_ridge_apart_it_is_least_squares() -> None:
    """The normal equations by numpy, with the ridge as rows of their own."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 6, 1, 1, generator=generator)
    then = torch.randn(6, 400, generator=generator)
    now = then + 0.5 * torch.randn(6, 400, generator=generator)

    found = carried(weight, now, then).flatten(1).numpy()

    filters = weight.flatten(1).numpy().astype(np.float64)
    x = (now - now.mean(1, keepdim=True)).numpy().astype(np.float64)
    t = filters @ (then - then.mean(1, keepdim=True)).numpy().astype(np.float64)
    ridge = np.sqrt(0.01 * np.trace(x @ x.T / 400) / 6 * 400) * np.eye(6)
    rows = np.hstack([x, ridge]).T
    aims = np.hstack([t, filters @ ridge]).T
    expected = np.linalg.lstsq(rows, aims, rcond=None)[0].T
    assert np.allclose(found, expected, atol=1e-4)


def test_groups_read_only_their_own() -> None:
    conv = nn.Conv2d(6, 4, 3, padding=1, groups=2, bias=False)
    maps = torch.randn(2, 6, 8, 8)
    spots = Spots.draw(conv(maps), 128)
    then = patches_at(maps, conv, spots)
    changed = maps.clone()
    changed[:, :3] *= 2

    found = carried(conv.weight, patches_at(changed, conv, spots), then, groups=2)

    assert torch.allclose(found[2:], conv.weight[2:], atol=1e-6)
    wanted = conv(maps).detach()
    made = functional.conv2d(changed, found, padding=1, groups=2)
    before = functional.mse_loss(conv(changed).detach(), wanted)
    assert float(functional.mse_loss(made, wanted)) < 0.01 * float(before)
