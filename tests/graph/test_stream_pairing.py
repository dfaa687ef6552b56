"""One order for several writers, against enumeration of every order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from ghostify.graph.pairing import choose
from ghostify.graph.stream_pairing import Indices, Writer, choose_together
from tests.graph.test_pairing import check_form, random_costs

EIGHT = np.arange(8)


def costs_of(writers: Sequence[Writer], content: dict[int, int]) -> float:
    """Sum what the ghosts cost when wire w carries the maps of wire ``content[w]``."""
    whole = 0.0
    for writer in writers:
        wires = writer.wires.tolist()
        for place in range(writer.computed, len(wires)):
            owner = wires[(place - writer.computed) % writer.computed]
            made_from, made = content[owner], content[wires[place]]
            whole += float(writer.costs[wires.index(made_from), wires.index(made)])
    return whole


def cheapest(writers: Sequence[Writer], atoms: Sequence[Indices]) -> float:
    """Try every permutation of each atom."""
    lowest = math.inf
    for orders in itertools.product(*(itertools.permutations(atom.tolist()) for atom in atoms)):
        content = {
            wire: other
            for atom, order in zip(atoms, orders, strict=True)
            for wire, other in zip(atom.tolist(), order, strict=True)
        }
        lowest = min(lowest, costs_of(writers, content))
    return lowest


def chosen(writers: Sequence[Writer], atoms: Sequence[Indices]) -> float:
    """Return what the choice costs, after a look at its form: all writers have one order."""
    pairings = choose_together(writers, atoms)
    content: dict[int, int] = {}
    for writer, pairing in zip(writers, pairings, strict=True):
        wires = writer.wires.tolist()
        check_form(pairing, len(wires), writer.ratio, 1, writer.round_to)
        for place, original in enumerate(pairing.made):
            assert content.setdefault(wires[place], wires[original]) == wires[original]
    for atom in atoms:
        assert {content[wire] for wire in atom.tolist()} == set(atom.tolist())
    cost = sum(
        pairing.cost(writer.costs) for writer, pairing in zip(writers, pairings, strict=True)
    )
    assert cost == pytest.approx(costs_of(writers, content))
    return cost


@pytest.mark.parametrize("seed", range(6))
def test_writers_that_are_alike_get_the_cheapest_order_of_all(seed: int) -> None:
    writers = [Writer(EIGHT, random_costs(8, 10 * seed + k), 2) for k in range(3)]

    assert chosen(writers, [EIGHT]) == pytest.approx(cheapest(writers, [EIGHT]))


def test_one_writer_alone_gets_what_it_would_choose() -> None:
    costs = random_costs(8, 1)

    (found,) = choose_together([Writer(EIGHT, costs, 3)], [EIGHT])

    assert found == choose(costs, ratio=3)


@pytest.mark.parametrize("seed", range(4))
def test_a_narrow_stream_within_a_wide_one_gets_the_cheapest_order_of_all(seed: int) -> None:
    """As a shortcut that pads maps of zeros ties them."""
    inside, outside = np.arange(2, 6), np.array([0, 1, 6, 7])
    writers = [
        Writer(inside, random_costs(4, seed), 2),
        Writer(EIGHT, random_costs(8, seed + 100), 2),
        Writer(EIGHT, random_costs(8, seed + 200), 2),
    ]

    found = chosen(writers, [inside, outside])

    assert found == pytest.approx(cheapest(writers, [inside, outside]))


@pytest.mark.parametrize("seed", range(3))
def test_ratios_that_differ_share_an_order_that_is_nearly_the_cheapest(seed: int) -> None:
    writers = [Writer(EIGHT, random_costs(8, seed + 10 * ratio), ratio) for ratio in (2, 3, 4)]

    found, lowest = chosen(writers, [EIGHT]), cheapest(writers, [EIGHT])

    assert lowest * (1 - 1e-9) <= found <= 1.15 * lowest


def test_wires_may_be_numbered_in_any_way() -> None:
    atoms = [np.array([70, 3, 12, 41]), np.array([5, 99])]
    wires = np.array([99, 12, 41, 5, 70, 3])
    writers = [Writer(wires, random_costs(6, 1), 2), Writer(atoms[0], random_costs(4, 2), 4)]

    assert chosen(writers, atoms) == pytest.approx(cheapest(writers, atoms))


def test_many_maps_of_several_ratios_cost_less_than_either_order_alone() -> None:
    wires = np.arange(160)
    halves, quarters = random_costs(160, 3), random_costs(160, 4)
    writers = [Writer(wires, halves, 2), Writer(wires, quarters, 4)]

    found = chosen(writers, [wires])

    for costs, ratio in ((halves, 2), (quarters, 4)):
        made = choose(costs, ratio=ratio).made
        assert found < costs_of(writers, dict(enumerate(made)))
