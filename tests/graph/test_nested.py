"""Filters of several sides from one set of sums: against numpy and gradient descent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ghostify.graph.fit import PairSums, patches
from ghostify.graph.nested import nested_errors, nested_taps, pair_filter, surroundings

KERNELS = (1, 3, 5, 7)


def smooth_maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.avg_pool2d(torch.randn(*shape, generator=generator), 3, 1, 1)


def sums_of(maps: Tensor, kernel: int = 7) -> PairSums:
    sums = PairSums(maps.shape[1], kernel)
    sums.add(maps)
    return sums


def test_errors_are_those_of_least_squares_by_numpy() -> None:
    maps = smooth_maps(3, 3, 9, 8)

    found = nested_errors(sums_of(maps), KERNELS)

    for row, kernel in enumerate(KERNELS):
        near = patches(maps.double(), kernel).numpy()
        for source in range(3):
            for target in range(3):
                wanted = maps[:, target].flatten().double().numpy()
                design = np.vstack([near[source], np.ones(near.shape[2])]).T
                solution = np.linalg.lstsq(design, wanted, rcond=None)[0]
                error = np.square(design @ solution - wanted).mean()
                assert found.mse[row, source, target].item() == pytest.approx(
                    error, abs=2e-6 * wanted.var()
                )
    assert found.variance.numpy() == pytest.approx(
        maps.transpose(0, 1).flatten(1).var(1, correction=0).numpy(), rel=1e-5
    )


def test_500_steps_of_gradient_descent_are_no_better() -> None:
    maps = smooth_maps(4, 4, 12, 12, seed=1)
    pairs = [(0, 1), (2, 3), (3, 0)]

    found = nested_errors(sums_of(maps), KERNELS)

    for row, kernel in enumerate(KERNELS):
        weight = torch.zeros(len(pairs), 1, kernel, kernel, requires_grad=True)
        offset = torch.zeros(len(pairs), requires_grad=True)
        descent = torch.optim.Adam([weight, offset], lr=0.02)
        wanted = maps[:, [target for _, target in pairs]]
        given = maps[:, [source for source, _ in pairs]]
        for _ in range(500):  # all pairs side by side: none has a part in another's loss
            made = functional.conv2d(given, weight, offset, padding=kernel // 2, groups=len(pairs))
            losses = (made - wanted).square().mean((0, 2, 3))
            descent.zero_grad()
            losses.sum().backward()
            descent.step()
        for (source, target), loss in zip(pairs, losses.tolist(), strict=True):
            assert found.mse[row, source, target] <= loss * (1 + 1e-5)
            assert loss < 1.2 * found.mse[row, source, target] + 0.02  # it did get there


@pytest.mark.parametrize("seed", range(3))
def test_errors_do_not_grow_with_the_side(seed: int) -> None:
    maps = smooth_maps(2, 6, 7, 7, seed=seed)
    maps[:, 1] = 0.0  # a dead map
    maps[:, 2] = 3.0  # a constant one, which the zero padding gives a border
    maps[:, 3] = maps[:, 0]
    maps[:, 4] = maps[:, 0, :, :1]  # the same in every column, so its shifts depend on each other

    found = nested_errors(sums_of(maps), KERNELS)

    assert found.mse.isfinite().all()
    assert (found.mse.diff(dim=0) <= 0).all()
    assert (found.mse <= found.variance + 1e-12).all()
    assert found.mse[0, 0, 3] < 1e-6 * found.variance[3]


def test_a_planted_filter_is_found() -> None:
    maps = smooth_maps(8, 3, 16, 16, seed=2)
    planted = torch.randn(3, 3, generator=torch.Generator().manual_seed(3))
    maps[:, 2:] = functional.conv2d(maps[:, :1], planted[None, None], padding=1) - 4

    sums = sums_of(maps)
    found = nested_errors(sums, KERNELS)
    gram, cross, variance = sums.central()

    assert found.mse[0, 0, 2] > 0.05 * variance[2]
    assert (found.mse[1:, 0, 2] < 1e-5 * variance[2]).all()
    for kernel in (3, 5, 7):
        cut = (kernel - 3) // 2
        weights = pair_filter(gram[0], cross[0, :, 2], kernel)
        assert weights[cut : kernel - cut, cut : kernel - cut].numpy() == pytest.approx(
            planted.numpy(), abs=2e-3
        )
        assert float(weights.square().sum()) == pytest.approx(
            float(planted.square().sum()), rel=1e-2
        )


def test_the_error_is_that_of_the_filter_run_as_a_convolution() -> None:
    maps = smooth_maps(4, 3, 10, 10, seed=4)
    sums = sums_of(maps)
    gram, cross, _ = sums.central()

    found = nested_errors(sums, KERNELS)

    for row, kernel in enumerate(KERNELS):
        weights = pair_filter(gram[1], cross[1, :, 0], kernel).float()
        made = functional.conv2d(maps[:, 1:2], weights[None, None], padding=kernel // 2)[:, 0]
        missed = (made - maps[:, 0]).var(correction=0)
        assert found.mse[row, 1, 0].item() == pytest.approx(missed.item(), rel=1e-4)


def test_surroundings_are_the_unfolded_patches() -> None:
    maps = smooth_maps(2, 4, 5, 6)
    positions = torch.tensor([0, 5, 29, 30, 41, 59])

    pieces = list(surroundings(maps, 3, positions, sources=slice(1, 3)))
    near = torch.cat([one for one, _ in pieces], 2)
    flat = torch.cat([one for _, one in pieces], 1)

    assert torch.equal(near, patches(maps, 3)[1:3][:, :, positions])
    assert torch.equal(flat, maps.transpose(0, 1).reshape(4, -1)[:, positions])


def test_sums_of_some_sources_are_rows_of_the_whole() -> None:
    maps = smooth_maps(3, 5, 6, 6)
    part = PairSums(5, 3, sources=2)

    for near, flat in surroundings(maps, 3, torch.arange(108), sources=slice(3, 5)):
        part.take(near, flat)

    whole = nested_errors(sums_of(maps, 3), (1, 3))
    found = nested_errors(part, (1, 3))
    assert found.mse.numpy() == pytest.approx(whole.mse[:, 3:].numpy(), rel=1e-5, abs=1e-9)
    assert part.means()[1].numpy() == pytest.approx(maps.mean((0, 2, 3)).numpy(), abs=1e-6)


def test_taps_of_smaller_filters_come_first() -> None:
    assert nested_taps(3).tolist() == [4, 0, 1, 2, 3, 5, 6, 7, 8]
    assert set(nested_taps(5)[:9].tolist()) == {6, 7, 8, 11, 12, 13, 16, 17, 18}
    assert sorted(nested_taps(7).tolist()) == list(range(49))
