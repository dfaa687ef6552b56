"""The algebra of a fit, against least squares on patches that are written out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from ghostify.graph import fit as rooms
from ghostify.graph.fit import PairSums, fit_branches, inherit, misses, patches, set_filters
from ghostify.graph.pairing import Pairing
from ghostify.graph.synthetic import dead_leaves
from ghostify.nn.ghost import GhostModule
from ghostify.spec import GhostSpec

Array = npt.NDArray[np.float64]


def structured(count: int, channels: int, side: int = 9, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return dead_leaves(count, (channels, side, side), generator=generator)


def written_out(one: Tensor, kernel: int) -> Array:
    """The zero-padded d x d neighbourhood of every position: (N, H, W) to (N * H * W, d * d)."""
    reach = kernel // 2
    maps = one.double().numpy()
    count, height, width = maps.shape
    padded = np.zeros((count, height + 2 * reach, width + 2 * reach))
    padded[:, reach : reach + height, reach : reach + width] = maps
    columns = [
        padded[:, dy : dy + height, dx : dx + width].reshape(-1)
        for dy in range(kernel)
        for dx in range(kernel)
    ]
    return np.stack(columns, axis=1)


def least_squares(near: Array, wanted: Array, *, intercept: bool = True) -> tuple[Array, float]:
    """Return filter and mean squared error of a fit, with an intercept or without."""
    design = np.concatenate([near, np.full((len(near), 1), float(intercept))], axis=1)
    solution = np.linalg.lstsq(design, wanted, rcond=None)[0]
    return solution[:-1], float(np.mean((design @ solution - wanted) ** 2))


def test_where_nothing_takes_up_an_offset_the_mean_of_the_miss_counts() -> None:
    maps = structured(6, 4) + torch.tensor([0.0, 1.0, -2.0, 0.5]).view(-1, 1, 1)
    sums = PairSums(4, 3)
    for part in maps.split(4):
        sums.add(part)

    _, errors = sums.solve(offset=False)

    for i in range(4):
        for g in range(4):
            wanted = maps[:, g].reshape(-1).double().numpy()
            _, error = least_squares(written_out(maps[:, i], 3), wanted, intercept=False)
            assert float(errors[i, g]) == pytest.approx(error, abs=1e-3)


def test_branches_without_an_offset_are_least_squares_too() -> None:
    conv = nn.Conv2d(3, 6, 3, padding=1, bias=False)
    ghost = GhostModule.from_conv(conv, GhostSpec(2, 3))
    source = structured(8, 3) + 1.0
    target = conv(source).detach() + 0.5
    pairing = a_pairing(ghost)

    fit_branches(ghost, pairing, lambda: iter([(source, target)]), offset=False)

    made = ghost.primary(source).detach()
    output = ghost(source).detach()[:, 3:]
    for position, original in enumerate(pairing.ghosts):
        wanted = target[:, original].reshape(-1).double().numpy()
        near = written_out(made[:, position], 3)
        _, error = least_squares(near, wanted, intercept=False)
        miss = (output[:, position] - target[:, original]).double()
        assert float(miss.square().mean()) == pytest.approx(error, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_pair_costs_are_those_of_brute_force(kernel: int) -> None:
    maps = structured(6, 4)
    sums = PairSums(4, kernel)
    sums.add(maps)

    filters, errors = sums.solve()

    for i in range(4):
        for g in range(4):
            expected, error = least_squares(
                written_out(maps[:, i], kernel), maps[:, g].reshape(-1).double().numpy()
            )
            assert float(errors[i, g]) == pytest.approx(error, abs=2e-4)
            if i != g:
                assert filters[i, :, g].numpy() == pytest.approx(expected, abs=3e-2)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_patches_are_the_zero_padded_neighbourhoods(kernel: int) -> None:
    maps = torch.randn(2, 3, 5, 7)

    near = patches(maps, kernel)

    assert near.shape == (3, kernel**2, 2 * 5 * 7)
    for channel in range(3):
        assert near[channel].T.double().numpy() == pytest.approx(
            written_out(maps[:, channel], kernel)
        )


def test_pair_costs_do_not_depend_on_how_the_stream_is_cut() -> None:
    maps = structured(12, 3)
    answers = []
    for size in (1, 5, 12):
        sums = PairSums(3, 3)
        for part in maps.split(size):
            sums.add(part)
        answers.append(sums.solve())

    for filters, errors in answers[1:]:
        assert torch.allclose(filters, answers[0][0], atol=1e-4)
        assert torch.allclose(errors, answers[0][1], atol=1e-6)


def test_pieces_of_a_large_batch_give_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = structured(7, 3)
    whole, cut = PairSums(3, 3), PairSums(3, 3)
    whole.add(maps)
    monkeypatch.setattr(rooms, "_ELEMENTS", 3 * 81 * 9 * 2)
    cut.add(maps)

    assert cut.count == whole.count
    assert torch.allclose(cut.solve()[1], whole.solve()[1], atol=1e-6)


def test_a_large_mean_does_not_drown_the_costs() -> None:
    """Sums in single precision about zero would lose 1e-7 of the square of the mean."""
    maps = structured(8, 3)
    near, far = PairSums(3, 1), PairSums(3, 1)
    near.add(maps)
    far.add(maps + 1000)

    assert torch.allclose(far.solve()[1], near.solve()[1], rtol=1e-2, atol=1e-3)


def test_a_dead_map_gives_zeros() -> None:
    maps = structured(4, 3)
    maps[:, 1] = 0
    sums = PairSums(3, 3)
    sums.add(maps)

    filters, errors = sums.solve()

    assert filters.isfinite().all()
    assert filters[1].abs().max() == 0
    assert float(errors[1, 0]) == pytest.approx(float(maps[:, 0].double().var(correction=0)))
    assert float(errors[0, 1]) == 0


def test_one_image_of_one_pixel_is_no_failure() -> None:
    sums = PairSums(4, 3)
    sums.add(torch.randn(1, 4, 1, 1))

    filters, errors = sums.solve()

    assert filters.isfinite().all()
    assert errors.abs().max() < 1e-12


def a_pairing(module: GhostModule, seed: int = 0) -> Pairing:
    order = torch.randperm(
        module.out_channels, generator=torch.Generator().manual_seed(seed)
    ).tolist()
    count = module.intrinsic_channels
    return Pairing(tuple(order[:count]), tuple(order[count:]))


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(
    ("ratio", "maps", "round_to"),
    [(2, 6, 1), (2, 7, 1), (3, 8, 1), (4, 9, 1), (2, 6, 4), (4, 9, 4)],
)
@pytest.mark.parametrize("bias", [False, True])
def test_branches_are_least_squares(
    kernel: int, ratio: int, maps: int, round_to: int, bias: bool
) -> None:
    conv = nn.Conv2d(3, maps, 3, stride=2, padding=1, bias=bias)
    ghost = GhostModule.from_conv(conv, GhostSpec(ratio, kernel, round_to=round_to))
    source = structured(8, 3, side=15)
    target = conv(source).detach()
    pairing = a_pairing(ghost)
    if bias:
        nn.init.normal_(ghost.primary.bias)

    fit_branches(ghost, pairing, lambda: iter([(source[:3], target[:3]), (source[3:], target[3:])]))

    made = ghost.primary(source).detach()
    count = ghost.intrinsic_channels
    output = ghost(source).detach()[:, count:]
    for position, original in enumerate(pairing.ghosts):
        near = written_out(made[:, position % count], kernel)
        wanted = target[:, original].reshape(-1).double().numpy()
        _, error = least_squares(near, wanted)
        miss = (output[:, position] - target[:, original]).double()
        assert float(miss.var(correction=0)) <= error * (1 + 1e-3) + 1e-6


def test_filters_and_misses_are_in_the_order_in_which_maps_are_made() -> None:
    conv = nn.Conv2d(2, 7, 3, padding=1)
    ghost = GhostModule.from_conv(conv, GhostSpec(3, 3))
    pairing = a_pairing(ghost)
    source = structured(3, 2)
    target = conv(source).detach()
    filters = torch.randn(ghost.ghost_channels, 9)
    inherit(ghost, conv, pairing)
    set_filters(ghost, filters)

    mean, miss, energy = misses(ghost, pairing, lambda: iter([(source, target)]))

    made = target[:, list(pairing.intrinsic)]
    assert torch.allclose(ghost.primary(source), made, atol=1e-6)
    ghosts = [
        nn.functional.conv2d(made[:, k % 3, None], filters[k].view(1, 1, 3, 3), padding=1)
        for k in range(4)
    ]
    expected = torch.cat([made, *ghosts], 1) - target[:, list(pairing.made)]
    assert torch.allclose(mean, expected.mean((0, 2, 3)).double(), atol=1e-5)
    assert torch.allclose(miss, expected.double().var((0, 2, 3), correction=0), rtol=1e-4)
    assert torch.allclose(
        energy, target[:, list(pairing.made)].double().var((0, 2, 3), correction=0), rtol=1e-4
    )


def test_a_dead_intrinsic_map_does_not_break_the_branches() -> None:
    conv = nn.Conv2d(3, 4, 1, bias=False)
    ghost = GhostModule.from_conv(conv, GhostSpec(2, 3))
    nn.init.zeros_(ghost.primary.weight)
    source = structured(1, 3, side=2)

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        yield source, conv(source).detach()

    fit_branches(ghost, a_pairing(ghost), stream)

    assert ghost.cheap[0].weight.abs().max() == 0
