"""Equations 4 and 5 by hand."""

from __future__ import annotations

import pytest

from ghostify.cost.budget import Cost
from ghostify.cost.closed_form import (
    ghost_macs,
    ghost_params,
    layer_costs,
    macs_ratio,
    paper_ratio,
    planned_cost,
)
from ghostify.spec import ConvSite, GhostSpec


def site(**changes: object) -> ConvSite:
    """3x3, 16 -> 10 maps on 8x8, with biases."""
    values: dict[str, object] = {
        "name": "conv", "type": "Conv2d", "in_channels": 16, "out_channels": 10,
        "kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "groups": 1, "bias": True,
        "in_size": (8, 8), "out_size": (8, 8), "calls": 1, "pixels": 64, "eligible": True,
    }  # fmt: skip
    return ConvSite(**(values | changes))  # type: ignore[arg-type]


def test_the_convolution_itself() -> None:
    assert site().macs == 64 * 10 * 16 * 9
    assert site().params == 10 * 16 * 9 + 10


def test_a_ratio_that_does_not_divide_the_maps() -> None:
    """s = 4 on 10 maps: m = 3, so 7 ghosts, not 9."""
    spec = GhostSpec(4, 5)

    assert ghost_macs(site(), spec) == 64 * (3 * 16 * 9 + 7 * 25)
    assert ghost_params(site(), spec) == 3 * 16 * 9 + 7 * 25 + 10


def test_rounding_up_computes_more_maps() -> None:
    """s = 4 on 10 maps: m = 3, rounded up to 8, so 2 ghosts."""
    spec = GhostSpec(4, 3, round_to=8)

    assert ghost_macs(site(), spec) == 64 * (8 * 16 * 9 + 2 * 9)
    assert ghost_params(site(), spec) == 8 * 16 * 9 + 2 * 9 + 10


def test_fixed_filters_are_computed_but_not_learned() -> None:
    """s = 2 on 10 maps: 5 ghosts, each with one number and a 3x3 filter that stays."""
    spec = GhostSpec(2, 3, "blur")

    assert ghost_macs(site(), spec) == 64 * (5 * 16 * 9 + 5 * 9)
    assert ghost_params(site(), spec) == 5 * 16 * 9 + 5 + 10


def test_affine_ghosts_have_offsets_of_their_own() -> None:
    spec = GhostSpec(2, cheap="affine")

    assert ghost_macs(site(), spec) == 64 * (5 * 16 * 9 + 5)
    assert ghost_params(site(), spec) == 5 * 16 * 9 + 5 + 10
    assert ghost_params(site(bias=False), spec) == 5 * 16 * 9 + 5 + 5


def test_mixed_kernels_are_counted_map_by_map() -> None:
    """s = 4 on 10 maps: m = 3, branches of 3, 3 and 1: the smaller side takes what is left."""
    spec = GhostSpec(4, mixed=(1, 5))

    assert ghost_macs(site(), spec) == 64 * (3 * 16 * 9 + 2 * (1 + 1 + 25) + 1)


def test_groups_divide_the_weights() -> None:
    """In 2 groups at s = 3: 10 / 3 = 3.33, the next multiple of 2 is 4, so 6 ghosts."""
    assert ghost_macs(site(groups=2), GhostSpec(3)) == 64 * (4 * 8 * 9 + 6 * 9)


def test_parameters_of_a_subclass_follow_the_intrinsic_maps() -> None:
    """A gain for each of 10 maps becomes one for each of 5."""
    assert ghost_params(site(extra_params=10), GhostSpec()) == 5 * 16 * 9 + 5 * 9 + 10 + 5


def test_the_exact_ratio_and_the_papers_approximation() -> None:
    spec = GhostSpec(2, 3)

    assert macs_ratio(site(), spec) == pytest.approx(10 * 144 / (5 * 144 + 5 * 9))
    assert paper_ratio(site(), spec) == pytest.approx(2 * 16 / (2 + 16 - 1))


def test_a_tied_layer_takes_no_parameters_of_its_own() -> None:
    first, second = site(name="a"), site(name="b", tied_to="a")
    layers = layer_costs([first, second], {"a": GhostSpec(), "b": GhostSpec()})
    saved = first.params - ghost_params(first, GhostSpec())

    after = planned_cost(Cost(10_000, 10**6), layers)

    assert after.params == 10_000 - saved
    assert after.macs == 10**6 - 2 * (first.macs - ghost_macs(first, GhostSpec()))
