"""Layers are cut to the maps that are kept, by index."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ghostify.errors import PlanError
from ghostify.graph.rewrite import rewrite
from ghostify.graph.slices import Kept, cut, read_slices, slices_as_json
from ghostify.nn.ghost import GhostModule
from ghostify.plan import Plan
from ghostify.spec import GhostSpec
from tests.pruners.networks import IMAGE, residual


def test_weights_are_those_that_hand_slicing_leaves() -> None:
    model = residual()
    kept = (0, 3, 4, 11, 19)

    narrow = cut(
        model,
        {
            "wide": Kept(out=kept),
            "wide_bn": Kept(out=kept),
            "deep": Kept(out=kept),
            "act": Kept(out=kept),
            "narrow": Kept(reads=kept),
        },
    )

    rows = list(kept)
    assert torch.equal(narrow.wide.weight, model.wide.weight[rows])
    assert torch.equal(narrow.wide.bias, model.wide.bias[rows])
    assert torch.equal(narrow.wide_bn.running_var, model.wide_bn.running_var[rows])
    assert torch.equal(narrow.deep.weight, model.deep.weight[rows])
    assert torch.equal(narrow.act.weight, model.act.weight[rows])
    assert torch.equal(narrow.narrow.weight, model.narrow.weight[:, rows])
    assert torch.equal(narrow.narrow.bias, model.narrow.bias)


def test_the_result_computes_what_the_network_does_when_nobody_reads_the_removed_maps() -> None:
    model = residual()
    kept = (1, 2, 8, 9, 17)
    deaf = copy.deepcopy(model)
    with torch.no_grad():
        gone = [index for index in range(20) if index not in kept]
        deaf.narrow.weight[:, gone] = 0
    slices = {name: Kept(out=kept) for name in ("wide", "wide_bn", "deep", "act")}

    narrow = cut(model, slices | {"narrow": Kept(reads=kept)})

    torch.testing.assert_close(narrow(IMAGE), deaf(IMAGE))


def test_the_original_stays_as_it_was() -> None:
    model = residual()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    cut(model, {"plain": Kept(out=(0, 1))})

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.plain.out_channels == 16


@pytest.mark.parametrize("spec", ["s2,d3", "s3,d3", "s2,d1", "s4,d5"])
@pytest.mark.parametrize("reordered", [False, True])
def test_a_ghost_module_keeps_whole_families(spec: str, reordered: bool) -> None:
    model = rewrite(residual(), Plan({"plain": GhostSpec.parse(spec)})).model.eval()
    ghost = model.plain
    assert isinstance(ghost, GhostModule)
    count = ghost.intrinsic_channels
    if reordered:
        ghost.reorder(torch.randperm(16, generator=torch.Generator().manual_seed(2)))
    order = torch.arange(16) if ghost.order is None else ghost.order
    keep = {0, count - 1}
    positions = tuple(place for place in range(16) if int(order[place]) % count in keep)
    inside = torch.randn(2, 10, 9, 9)

    narrow = cut(model, {"plain": Kept(out=positions, reads=(0, 2, 5))}).plain

    with torch.no_grad():
        deaf = copy.deepcopy(ghost)
        gone = [index for index in range(10) if index not in (0, 2, 5)]
        deaf.primary.weight[:, gone] = 0
        wanted = deaf(inside)[:, list(positions)]
        torch.testing.assert_close(narrow(inside[:, [0, 2, 5]]), wanted)
    assert narrow.out_channels == len(positions)


def test_a_ghost_module_does_not_lose_half_a_family() -> None:
    model = rewrite(residual(), Plan({"plain": GhostSpec()})).model

    with pytest.raises(PlanError, match="plain is a Ghost module: a map can only go together"):
        cut(model, {"plain": Kept(out=tuple(range(1, 16)))})


def test_indices_survive_being_written_in_ranges() -> None:
    slices = {"a": Kept(out=(0, 1, 2, 5, 7, 8), reads=(3,)), "b": Kept(reads=(0, 2))}

    written = slices_as_json(slices)

    assert written == {"a": {"out": "0-2,5,7-8", "reads": "3"}, "b": {"reads": "0,2"}}
    assert read_slices(written) == slices


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ({"nowhere": Kept(out=(0,))}, "maps are to be cut from 'nowhere'"),
        ({"plain": Kept(out=(0, 16))}, "plain gives 16 maps"),
        ({"plain": Kept(out=(3, 1))}, "kept in order"),
        ({"plain": Kept(out=())}, "at least one must be kept"),
        ({"plain": Kept(reads=(0, 10))}, "plain reads 10 maps"),
        ({"deep": Kept(reads=(0, 1))}, "deep is depthwise"),
    ],
)
def test_slices_of_another_network_are_refused(slices: dict[str, Kept], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        cut(residual(), slices)


def test_grouped_convolutions_and_other_norms_cannot_lose_maps() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.GroupNorm(2, 4))

    with pytest.raises(PlanError, match="0 is a grouped convolution"):
        cut(model, {"0": Kept(out=(0, 1))})
    with pytest.raises(PlanError, match="a GroupNorm cannot lose maps"):
        cut(model, {"1": Kept(out=(0, 1))})
