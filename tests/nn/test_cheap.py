"""The cheap operations: what each does to a map, what it learns, and the nearest it can do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.cheap import CHEAP_COSTS
from ghostify.nn.cheap import (
    CHEAP_OPERATIONS,
    ChannelScale,
    FixedFilters,
    MixedKernels,
    add_offsets,
    build_branch,
    filters_of,
    fixed_filters,
    offsets_of,
    set_filters,
)
from ghostify.nn.ghost import GhostModule
from ghostify.spec import GhostSpec


def made(text: str, maps: int, *, bias: bool = False, first: int = 0) -> nn.Module:
    spec = GhostSpec.parse(text)
    branch = build_branch(spec, maps, bias=bias, first=first, device="cpu", dtype=None)
    for parameter in branch.parameters():
        nn.init.normal_(parameter)
    return branch


def test_a_kernel_of_one_equals_a_1x1_depthwise_convolution() -> None:
    scale = ChannelScale(6, bias=True)
    nn.init.normal_(scale.weight)
    nn.init.normal_(scale.bias)
    x = torch.randn(2, 6, 4, 5)

    expected = functional.conv2d(x, scale.weight, scale.bias, groups=6)

    assert torch.allclose(scale(x), expected, atol=1e-6)


def test_a_shift_moves_each_map_and_lets_zeros_in() -> None:
    branch = CHEAP_OPERATIONS["shift"](9, 3, bias=False, first=0, device="cpu", dtype=None)
    x = torch.randn(2, 9, 5, 6)

    found = branch(x)

    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    for number, (dy, dx) in enumerate([*steps, (0, 0)]):
        wide = functional.pad(x[:, number], (1, 1, 1, 1))
        expected = wide[:, 1 + dy : 6 + dy, 1 + dx : 7 + dx]
        assert torch.equal(found[:, number], expected), (dy, dx)


def test_a_blur_keeps_a_constant_and_spreads_a_point() -> None:
    branch = CHEAP_OPERATIONS["blur"](1, 3, bias=False, first=0, device="cpu", dtype=None)
    point = torch.zeros(1, 1, 5, 5)
    point[0, 0, 2, 2] = 1.0
    side = torch.exp(torch.tensor(-1 / (2 * 0.8**2)))  # sigma 0.8 for d = 3
    row = torch.tensor([side, 1.0, side]) / (1 + 2 * side)

    flat = branch(torch.ones(1, 1, 5, 5))
    spread = branch(point)

    assert torch.allclose(flat[0, 0, 1:4, 1:4], torch.ones(3, 3))
    assert torch.allclose(spread[0, 0, 1:4, 1:4], torch.outer(row, row))


def test_the_wavelet_bands_are_those_of_haar() -> None:
    """Sums and differences of neighbours, which keep the energy of each 2x2 window."""
    branch = CHEAP_OPERATIONS["wavelet"](4, 3, bias=False, first=0, device="cpu", dtype=None)
    image = torch.randn(1, 1, 6, 6)

    bands = branch(image.expand(1, 4, 6, 6))[0, :, :5, :5]

    a, b, c, d = image[0, 0, :5, :5], image[0, 0, :5, 1:], image[0, 0, 1:, :5], image[0, 0, 1:, 1:]
    expected = [a - b + c - d, a + b - c - d, a - b - c + d, a + b + c + d]
    assert torch.allclose(bands, torch.stack(expected) / 2, atol=1e-6)
    assert torch.allclose(bands.square().sum(0), a**2 + b**2 + c**2 + d**2, atol=1e-5)


def test_an_affine_ghost_has_an_offset_where_the_convolution_has_none() -> None:
    module = GhostModule(3, 8, 1, bias=False, cheap="affine")
    nn.init.normal_(module.cheap[0].weight)
    nn.init.normal_(module.cheap[0].bias)
    x = torch.randn(2, 3, 4, 4)

    maps = module(x)

    for number in range(4):
        scale, offset = module.cheap[0].weight[number], module.cheap[0].bias[number]
        assert torch.allclose(maps[:, 4 + number], maps[:, number] * scale + offset, atol=1e-6)


def test_mixed_kernels_share_the_maps_of_a_branch() -> None:
    branch = made("s2,d1+3+5", 8, bias=True)
    x = torch.randn(2, 8, 7, 7)
    sides = [1, 1, 1, 3, 3, 3, 5, 5]  # smaller ones take what is left over

    found = branch(x)

    for number, side in enumerate(sides):
        block, place = divmod(number, 3)
        kernel = branch.blocks[block].weight[place : place + 1]
        offset = branch.blocks[block].bias[place : place + 1]
        assert kernel.shape[-1] == side
        expected = functional.conv2d(x[:, number : number + 1], kernel, offset, padding=side // 2)
        assert torch.allclose(found[:, number : number + 1], expected, atol=1e-5)


def test_a_branch_of_one_map_has_no_empty_blocks() -> None:
    module = GhostModule(3, 5, 1, ratio=2, mixed=(1, 3, 5))

    assert [len(branch.blocks) for branch in module.cheap] == [2]
    assert module(torch.randn(1, 3, 4, 4)).shape == (1, 5, 4, 4)


def test_the_ghosts_of_one_map_get_different_fixed_filters() -> None:
    module = GhostModule(3, 16, 1, ratio=4, cheap="wavelet")

    bands = [branch.filters[0] for branch in module.cheap]

    assert not torch.equal(bands[0], bands[1])
    assert not torch.equal(bands[1], bands[2])


OPERATIONS = ["s2,d1", "s2,d3", "s2,affine", "s2,wavelet", "s2,d5,shift", "s2,d3,blur", "s2,d1+3",
              "s2,d3+5,shift"]  # fmt: skip


@pytest.mark.parametrize("text", OPERATIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_every_operation_is_its_filters_and_offsets(text: str, bias: bool) -> None:
    branch = made(text, 7, bias=bias)
    x = torch.randn(2, 7, 6, 5)

    filters, offsets = filters_of(branch, 5), offsets_of(branch)

    expected = functional.conv2d(x, filters, offsets, padding=2, groups=7)
    assert torch.allclose(branch(x), expected, atol=1e-5)


@pytest.mark.parametrize("text", OPERATIONS)
def test_filters_that_an_operation_has_are_set_exactly(text: str) -> None:
    spec = GhostSpec.parse(text)
    wanted, branch = made(text, 7, first=2), made(text, 7)
    filters = filters_of(wanted).detach().flatten(1)

    set_filters(branch, spec.cheap, filters)

    assert torch.allclose(filters_of(branch).flatten(1), filters, atol=1e-6)


def test_the_nearest_fixed_filter_stands_for_one_that_there_is_not() -> None:
    branch = made("s2,d3,shift", 1)
    wanted = torch.tensor([[0.1, 0, 0, 0, 0.3, -0.9, 0, 0, 0.2]])

    set_filters(branch, "shift", wanted)

    expected = torch.zeros(9)
    expected[5] = -0.9
    assert torch.allclose(filters_of(branch).flatten(), expected)


@pytest.mark.parametrize("text", ["s2,d3", "s2,affine", "s2,blur", "s2,d1+3"])
def test_offsets_are_added_map_by_map(text: str) -> None:
    branch = made(text, 5, bias=True)
    before, more = offsets_of(branch), torch.randn(5)

    add_offsets(branch, more)

    assert torch.allclose(offsets_of(branch), before + more)


def test_every_operation_has_a_cost_and_the_other_way_round() -> None:
    assert list(CHEAP_OPERATIONS) == list(CHEAP_COSTS)


@pytest.mark.parametrize("text", OPERATIONS)
def test_the_weights_of_an_operation_are_counted(text: str) -> None:
    spec, branch = GhostSpec.parse(text), made(text, 7)

    learned = sum(one.numel() for one in branch.parameters())

    assert learned == spec.ghost_weights(7, 7) + 7 * spec.own_offsets


@pytest.mark.parametrize("cheap", ["wavelet", "shift", "blur"])
def test_a_choice_of_filters_is_part_of_the_state(cheap: str) -> None:
    first, second = (GhostModule(3, 12, 3, padding=1, cheap=cheap) for _ in range(2))
    set_filters(first.cheap[0], cheap, torch.randn(6, 9))

    second.load_state_dict(first.state_dict())

    x = torch.randn(1, 3, 6, 6)
    assert torch.equal(second(x), first(x))
    assert "cheap.0.filters" in first.state_dict()


def test_new_scales_are_one_or_minus_one() -> None:
    module = GhostModule(3, 200, 1, cheap="blur", bias=False)

    scales = module.cheap[0].weight.flatten()

    assert set(scales.tolist()) == {-1.0, 1.0}
    assert 20 < int((scales > 0).sum()) < 80


@pytest.mark.parametrize("cheap", ["wavelet", "shift", "blur"])
def test_fixed_filters_follow_the_modules_type_and_device(cheap: str) -> None:
    module = GhostModule(3, 8, 1, cheap=cheap, dtype=torch.float64)

    assert module.cheap[0].filters.dtype == torch.float64
    assert module(torch.randn(1, 3, 4, 4, dtype=torch.float64)).dtype == torch.float64
    assert isinstance(module.float().cheap[0], FixedFilters)
    assert module(torch.randn(1, 3, 4, 4)).dtype == torch.float32


def test_fixed_filters_are_not_near_each_other() -> None:
    """Each choice is another direction, so the nearest one is well defined."""
    for cheap, kernel in (("wavelet", 3), ("shift", 5)):
        choices: Tensor = fixed_filters(cheap, kernel)
        assert torch.allclose(choices @ choices.T, torch.eye(len(choices), dtype=torch.float64))


def test_mixed_kernels_hold_a_module_for_each_side() -> None:
    assert isinstance(made("s2,d1+3", 4), MixedKernels)
