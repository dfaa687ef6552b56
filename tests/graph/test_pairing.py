"""The choice of intrinsic maps and ghosts, against enumeration and networkx."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import networkx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghostify.graph import pairing as rooms
from ghostify.graph.pairing import Pairing, choose
from ghostify.spec import intrinsic_maps

Costs = npt.NDArray[np.float64]


def random_costs(maps: int, seed: int, *, spread: float = 1.0) -> Costs:
    generator = np.random.default_rng(seed)
    return np.asarray(np.exp(spread * generator.normal(size=(maps, maps))))


def matchings(maps: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Enumerate every way to pair the maps up."""
    if not maps:
        yield ()
        return
    first, *rest = maps
    for other in rest:
        left = tuple(one for one in rest if one != other)
        for pairs in matchings(left):
            yield ((first, other), *pairs)


def cheapest_by_enumeration(costs: Costs, ratio: int, groups: int, round_to: int = 1) -> float:
    """Try every set of intrinsic maps and every way to give them the ghosts.

    The module makes ghost k from its intrinsic map k % m, the intrinsic maps stand in the order
    of their groups, and within a group in any order.
    """
    maps = len(costs)
    size, each = maps // groups, intrinsic_maps(maps, ratio, groups, round_to) // groups
    lowest = math.inf
    by_group = [
        itertools.permutations(range(start, start + size), each) for start in range(0, maps, size)
    ]
    for chosen in itertools.product(*by_group):
        intrinsic = [one for group in chosen for one in group]
        ghosts = sorted(set(range(maps)) - set(intrinsic))
        owners = [intrinsic[k % len(intrinsic)] for k in range(len(ghosts))]
        for order in itertools.permutations(ghosts):
            cost = sum(costs[owner, ghost] for owner, ghost in zip(owners, order, strict=True))
            lowest = min(lowest, cost)
    return float(lowest)


def check_form(found: Pairing, maps: int, ratio: int, groups: int, round_to: int = 1) -> None:
    """Every position of the module is filled, each group computes its share of its own maps."""
    wanted = intrinsic_maps(maps, ratio, groups, round_to)
    size, each = maps // groups, wanted // groups

    assert len(found.intrinsic) == wanted
    assert sorted(found.made) == list(range(maps))
    assert [found.made[position] for position in found.order] == list(range(maps))
    assert [one // size for one in found.intrinsic] == [k // each for k in range(wanted)]


@pytest.mark.parametrize("maps", [2, 4, 6, 8])
@pytest.mark.parametrize("seed", range(5))
def test_at_ratio_2_the_matching_is_the_cheapest_of_all(maps: int, seed: int) -> None:
    costs = random_costs(maps, seed)
    both = np.minimum(costs, costs.T)

    found = choose(costs, ratio=2)

    lowest = min(
        sum(both[one, other] for one, other in pairs) for pairs in matchings(tuple(range(maps)))
    )
    assert found.cost(costs) == pytest.approx(lowest, rel=1e-9)
    check_form(found, maps, 2, 1)


@pytest.mark.parametrize("maps", [20, 40])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_at_ratio_2_networkx_finds_nothing_cheaper(maps: int, spread: float) -> None:
    costs = random_costs(maps, 7, spread=spread)
    both = np.minimum(costs, costs.T)
    graph = networkx.Graph()
    for one, other in itertools.combinations(range(maps), 2):
        graph.add_edge(one, other, weight=both[one, other])

    found = choose(costs, ratio=2)

    lowest = sum(both[one, other] for one, other in networkx.min_weight_matching(graph))
    assert found.cost(costs) == pytest.approx(lowest, rel=1e-9)


def test_each_pair_is_computed_in_its_cheaper_direction() -> None:
    costs = random_costs(12, 3)

    found = choose(costs, ratio=2)

    for intrinsic, ghost in zip(found.intrinsic, found.ghosts, strict=True):
        assert costs[intrinsic, ghost] <= costs[ghost, intrinsic]


def test_with_few_partners_only_a_perfect_matching_is_found_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All maps but one like the same few partners, so most of them must take another."""
    monkeypatch.setattr(rooms, "_DENSE", 8)
    monkeypatch.setattr(rooms, "_PARTNERS", 3)
    costs = random_costs(40, 5) + 1
    costs[:3], costs[:, :3] = 0.01, 0.01

    check_form(choose(costs, ratio=2), 40, 2, 1)


def test_among_the_cheapest_partners_the_matching_is_nearly_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs = random_costs(64, 5)
    best = choose(costs, ratio=2).cost(costs)
    monkeypatch.setattr(rooms, "_DENSE", 8)
    monkeypatch.setattr(rooms, "_PARTNERS", 12)

    assert choose(costs, ratio=2).cost(costs) <= best * 1.05


@pytest.mark.parametrize("maps", [5, 6, 7, 8])
@pytest.mark.parametrize("ratio", [3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_beyond_ratio_2_the_choice_is_near_the_cheapest_of_all(
    maps: int, ratio: int, seed: int
) -> None:
    """The ghosts are given exactly; the intrinsic maps are found by swaps, which may get stuck."""
    costs = random_costs(maps, seed)

    found = choose(costs, ratio=ratio)

    check_form(found, maps, ratio, 1)
    lowest = cheapest_by_enumeration(costs, ratio, 1)
    assert lowest <= found.cost(costs) * (1 + 1e-9)
    assert found.cost(costs) <= 1.35 * lowest
    assert found.cost(costs) == pytest.approx(cost_given(costs, found.intrinsic), rel=1e-9)


def cost_given(costs: Costs, intrinsic: tuple[int, ...]) -> float:
    """Enumerate every way to give the ghosts to these intrinsic maps, whatever their order."""
    ghosts = sorted(set(range(len(costs))) - set(intrinsic))
    lowest = math.inf
    for ordered in itertools.permutations(intrinsic):
        owners = [ordered[k % len(ordered)] for k in range(len(ghosts))]
        for order in itertools.permutations(ghosts):
            cost = sum(costs[owner, ghost] for owner, ghost in zip(owners, order, strict=True))
            lowest = min(lowest, cost)
    return float(lowest)


def test_the_choice_is_the_cheapest_of_all_for_most_costs() -> None:
    exact = 0
    for seed in range(30):
        costs = random_costs(7, 100 + seed)
        found = choose(costs, ratio=3).cost(costs)
        exact += found == pytest.approx(cheapest_by_enumeration(costs, 3, 1), rel=1e-9)

    assert exact >= 24


@pytest.mark.parametrize(
    ("maps", "groups", "ratio"), [(6, 2, 2), (6, 2, 3), (8, 2, 2), (8, 2, 3), (8, 2, 4), (6, 3, 2)]
)
def test_each_group_computes_its_own_maps(maps: int, groups: int, ratio: int) -> None:
    costs = random_costs(maps, 11)

    found = choose(costs, ratio=ratio, groups=groups)

    check_form(found, maps, ratio, groups)
    assert found.cost(costs) <= 1.6 * cheapest_by_enumeration(costs, ratio, groups)


@pytest.mark.parametrize(
    ("maps", "ratio", "groups", "round_to"),
    [
        (7, 2, 1, 5),
        (6, 2, 1, 4),
        (8, 2, 1, 5),
        (8, 4, 1, 3),
        (8, 3, 1, 4),
        (8, 4, 2, 2),
        (6, 3, 2, 4),
    ],
)
def test_with_more_maps_computed_than_the_ratio_asks_the_choice_is_near_the_cheapest(
    maps: int, ratio: int, groups: int, round_to: int
) -> None:
    """Fewer ghosts than computed maps: some of these make none."""
    costs = random_costs(maps, 17)

    found = choose(costs, ratio=ratio, groups=groups, round_to=round_to)

    check_form(found, maps, ratio, groups, round_to)
    lowest = cheapest_by_enumeration(costs, ratio, groups, round_to)
    assert lowest * (1 - 1e-9) <= found.cost(costs) <= 1.6 * lowest


def test_costs_that_are_all_alike_or_nothing_give_some_pairing() -> None:
    for costs in (np.zeros((9, 9)), np.ones((9, 9)), np.full((10, 10), 1e-30)):
        for ratio in (2, 3, 4):
            check_form(choose(costs, ratio=ratio), len(costs), ratio, 1)


def test_copies_of_a_map_are_found() -> None:
    """Maps k and k + 4 are alike: they cost nothing, all other pairs cost 1."""
    costs = np.ones((8, 8))
    for k in range(4):
        costs[k, k + 4] = costs[k + 4, k] = 0.0

    found = choose(costs, ratio=2)

    assert found.cost(costs) == 0.0


def test_tiny_and_huge_costs_side_by_side_keep_the_assignment_exact() -> None:
    """What is forbidden costs 1e30 inside: that must not swallow the small differences."""
    costs = random_costs(8, 2) * 1e-9
    found = choose(costs, ratio=3)

    assert found.cost(costs) == pytest.approx(cost_given(costs, found.intrinsic), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_position_is_filled_whatever_the_costs(data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, 4))
    size = data.draw(st.integers(2, 9))
    ratio = data.draw(st.integers(2, min(5, size)))
    maps = groups * size
    round_to = data.draw(st.sampled_from([1, 1, 2, 3, 4]))
    if intrinsic_maps(maps, ratio, groups) == maps:
        return
    values = st.one_of(st.just(0.0), st.floats(1e-12, 1e12))
    flat = data.draw(st.lists(values, min_size=maps * maps, max_size=maps * maps))
    costs = np.asarray(flat).reshape(maps, maps)

    found = choose(costs, ratio=ratio, groups=groups, round_to=round_to)

    check_form(found, maps, ratio, groups, round_to)
