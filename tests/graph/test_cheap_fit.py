"""The best filters of each cheap operation, against brute force over all that it could do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.graph.calibrate import calibrate
from ghostify.graph.cheap_fit import best_filters, ghost_sides, settle_sides
from ghostify.graph.fit import PairSums, fit_branches, inherit, misses
from ghostify.graph.fit_options import FitOptions
from ghostify.graph.layer_fit import choose_ghosts, pair_costs, solve
from ghostify.graph.pairing import Pairing
from ghostify.graph.rewrite import rewrite
from ghostify.graph.synthetic import dead_leaves
from ghostify.nn.cheap import filters_of, fixed_filters
from ghostify.nn.ghost import GhostModule
from ghostify.plan import Plan
from ghostify.spec import GhostSpec


def maps_of(channels: int, *, count: int = 6, side: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return dead_leaves(count, (channels, side, side), generator=generator)


def sums_of(maps: Tensor, kernel: int) -> PairSums:
    sums = PairSums(maps.shape[1], kernel)
    sums.add(maps)
    return sums


def miss(made: Tensor, wanted: Tensor, factor: float) -> float:
    """Return the variance of ``wanted - factor * made``."""
    return float((wanted - factor * made).var(correction=0))


@pytest.mark.parametrize(("cheap", "kernel"), [("wavelet", 3), ("shift", 3), ("blur", 5)])
def test_the_best_fixed_filter_is_found(cheap: str, kernel: int) -> None:
    """Tried one by one, each with the factor of a regression."""
    maps = maps_of(4)

    filters, errors = sums_of(maps, kernel).solve(cheap=cheap)

    choices = fixed_filters(cheap, kernel).float().view(-1, 1, 1, kernel, kernel)
    for i, g in itertools.permutations(range(4), 2):
        tried = []
        for choice in choices:
            made = functional.conv2d(maps[:, i : i + 1], choice, padding=kernel // 2)[:, 0]
            centred = made - made.mean()
            factor = float((centred * maps[:, g]).sum() / centred.square().sum())
            tried.append((miss(made, maps[:, g], factor), factor))
        best = min(range(len(tried)), key=lambda k: tried[k][0])
        assert float(errors[i, g]) == pytest.approx(tried[best][0], rel=2e-3)
        expected = tried[best][1] * choices[best].flatten()
        assert torch.allclose(filters[i, :, g].float(), expected, atol=2e-3)


def test_a_smaller_side_is_the_smaller_problem() -> None:
    maps = maps_of(4)

    filters, errors = sums_of(maps, 5).solve(side=3)
    alone, its_errors = sums_of(maps, 3).solve()

    inside = filters.view(4, 5, 5, 4)[:, 1:4, 1:4].reshape(4, 9, 4)
    assert torch.allclose(inside, alone, atol=1e-5)
    assert torch.allclose(errors, its_errors, atol=1e-6)
    assert not filters.view(4, 5, 5, 4)[:, 0].any()


def test_a_dead_map_gives_zeros() -> None:
    gram, cross = torch.zeros(2, 9, 9).double(), torch.zeros(2, 9, 3).double()

    for cheap in ("depthwise", "shift", "blur"):
        assert not best_filters(gram, cross, cheap=cheap, kernel=3, side=3).any()


def test_freedom_never_hurts() -> None:
    """Of one map, a learned filter makes the others better than any fixed one does."""
    sums = sums_of(maps_of(6), 3)
    free = sums.solve()[1]

    for cheap in ("shift", "blur", "wavelet"):
        assert bool((sums.solve(cheap=cheap)[1] >= free - 1e-3 * free.mean()).all())
    point = sums.solve(side=1)[1]
    assert bool((sums.solve(cheap="shift")[1] <= point + 1e-3 * point.mean()).all())  # it may stay


def test_sides_are_dealt_out_branch_by_branch() -> None:
    assert ghost_sides((1, 3), 8, 3) == (1, 1, 3, 1, 1, 3, 1, 3)
    assert ghost_sides((3,), 5, 4) == (3,) * 5


@pytest.mark.parametrize(("ratio", "maps", "groups"), [(2, 8, 1), (3, 8, 1), (4, 10, 1), (2, 8, 2)])
def test_mixed_sides_go_where_they_cost_least(ratio: int, maps: int, groups: int) -> None:
    """Against all orders of the intrinsic maps, their ghosts going along."""
    rng = np.random.default_rng(ratio + maps)
    large = rng.random((maps, maps))
    costs = {3: large, 1: large + rng.random((maps, maps))}
    computed = groups * -(-maps // (ratio * groups))
    made = rng.permutation(maps) if groups == 1 else np.arange(maps).reshape(2, 2, 2).swapaxes(0, 1)
    made = made.flatten().tolist()
    start = Pairing(tuple(made[:computed]), tuple(made[computed:]))
    sides = ghost_sides((1, 3), maps - computed, computed)

    def cost(pairing: Pairing) -> float:
        return sum(
            costs[side][pairing.intrinsic[k % computed], ghost]
            for k, (side, ghost) in enumerate(zip(sides, pairing.ghosts, strict=True))
        )

    found = settle_sides(start, costs, groups)

    rest = (maps - computed) % computed
    families = [start.ghosts[k::computed] for k in range(computed)]
    orders = []
    for order in itertools.permutations(range(computed)):
        per_group = computed // groups
        if any(row // per_group != k // per_group for k, row in enumerate(order)):
            continue
        if any((row < rest) != (k < rest) for k, row in enumerate(order)):
            continue
        rows = [families[row] for row in order]
        depth = max(map(len, rows))
        ghosts = [row[level] for level in range(depth) for row in rows if level < len(row)]
        orders.append(Pairing(tuple(start.intrinsic[row] for row in order), tuple(ghosts)))
    assert cost(found) == pytest.approx(min(map(cost, orders)))
    pairs = {(start.intrinsic[k % computed], ghost) for k, ghost in enumerate(start.ghosts)}
    assert {(found.intrinsic[k % computed], g) for k, g in enumerate(found.ghosts)} == pairs


SETTINGS = ["s2,affine", "s2,d3,shift", "s2,d5,blur", "s2,wavelet", "s2,d1+3", "s3,d3+5,shift"]


@pytest.mark.parametrize("text", SETTINGS)
def test_a_convolution_that_is_a_ghost_module_is_found_again(text: str) -> None:
    """Its maps are made by such an operation, in a strange order, so nothing need be missed."""
    spec = GhostSpec.parse(text)
    torch.manual_seed(0)
    teacher = GhostModule.from_conv(nn.Conv2d(3, 12, 3, padding=1, bias=False), spec)
    for branch in teacher.cheap:
        for parameter in branch.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)
    teacher.reorder(torch.randperm(12))
    images = maps_of(3, count=16, side=12)
    with torch.no_grad():
        wanted = teacher(images)
    ghost = GhostModule.from_conv(nn.Conv2d(3, 12, 3, padding=1, bias=False), spec)
    ghost.requires_grad_(False)
    theirs = torch.argsort(teacher.order)  # which output map each of the made ones is
    count = teacher.intrinsic_channels
    pairing = Pairing(tuple(theirs[:count].tolist()), tuple(theirs[count:].tolist()))
    ghost.primary.weight.copy_(teacher.primary.weight)

    fit_branches(ghost, pairing, lambda: iter([(images, wanted)]))

    _, left, energy = misses(ghost, pairing, lambda: iter([(images, wanted)]))
    assert float(left.sum() / energy.sum()) < 1e-5
    for mine, other in zip(ghost.cheap, teacher.cheap, strict=True):
        assert torch.allclose(filters_of(mine), filters_of(other), atol=1e-2)


@pytest.mark.parametrize("text", ["s2,d3", *SETTINGS])
def test_the_chosen_ghosts_cost_what_their_filters_miss(text: str) -> None:
    """The closed form of the costs against the maps as they are made from the original's."""
    spec = GhostSpec.parse(text)
    conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    ghost = GhostModule.from_conv(conv, spec).requires_grad_(False)
    maps = maps_of(8)
    ones = torch.ones(8, dtype=torch.float64)

    pairing, filters = choose_ghosts(ghost, [maps], ones)
    costs, _ = pair_costs(ghost, [maps], ones)

    side = ghost.kernel
    count = len(pairing.intrinsic)
    left = []
    for k, wanted in enumerate(pairing.ghosts):
        source = maps[:, pairing.intrinsic[k % count]][:, None]
        kernel = filters[k].view(1, 1, side, side)
        made = functional.conv2d(source, kernel, padding=side // 2)[:, 0]
        left.append(miss(made, maps[:, wanted], 1.0))
    if len(spec.kernels) == 1:
        assert sum(left) == pytest.approx(pairing.cost(costs), rel=5e-3)
    else:  # each got the side that suits it, which is no worse than the mean over the sides
        assert sum(left) <= pairing.cost(costs) * 1.01


@pytest.mark.parametrize("text", SETTINGS)
def test_the_alternating_fit_of_a_convolution_lowers_the_miss(text: str) -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(4, 12, 3, padding=1).requires_grad_(False)
    ghost = GhostModule.from_conv(conv, GhostSpec.parse(text)).requires_grad_(False)
    images = maps_of(4, count=12)
    stream = lambda: iter([(images, conv(images))])  # noqa: E731
    ones = torch.ones(12, dtype=torch.float64)
    pairing, _ = choose_ghosts(ghost, [conv(images)], ones)
    inherit(ghost, conv, pairing)

    start, error, _ = solve(ghost, pairing, stream, ones, FitOptions(rounds=2))

    assert error < 0.97 * start
    assert start < 1


def test_offsets_of_affine_ghosts_take_up_the_mean_where_nothing_else_does() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 1))
    model.eval()
    images = maps_of(3, count=16) + 1.0
    converted = rewrite(model, Plan({"0": GhostSpec(cheap="affine")})).model.eval()

    calibrate(model, converted, ["0"], [images], options=FitOptions(block_steps=0, joint_steps=0))

    ghost = converted[0]
    with torch.no_grad():
        wanted, found = model[0](images), ghost(images)
        if ghost.order is None:  # the layer behind took the order up: compare what it gives
            wanted, found = model(images), converted(images)
    assert ghost.cheap[0].bias.any()
    miss_of_mean = (found - wanted).mean((0, 2, 3)).abs()
    assert float(miss_of_mean.max()) < 0.1 * float(wanted.std())
