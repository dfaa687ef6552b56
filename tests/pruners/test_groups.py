"""What belongs to a map is found, and what must stay has its reason."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ghostify.cost.mixed import Prunable
from ghostify.errors import PruneError
from ghostify.graph.rewrite import rewrite
from ghostify.graph.slices import cut
from ghostify.nn.ghost import GhostModule
from ghostify.plan import Plan
from ghostify.pruners.check import deafened
from ghostify.pruners.groups import find_groups, prunable, prunable_layers, slices_of
from ghostify.spec import GhostSpec
from tests.pruners.networks import IMAGE, Grouped, residual, trained


def test_only_maps_inside_blocks_can_go() -> None:
    graph = find_groups(residual(), IMAGE)

    assert [group.layer for group in graph.groups] == ["wide", "plain"]
    assert graph.reasons == {
        "stem": "its maps are added to others",
        "deep": "depthwise, its maps are its input's",
        "narrow": "its maps are added to others",
        "head": "its maps are the network's output",
    }


def test_readers_and_costs_of_a_map() -> None:
    found = prunable(residual(), IMAGE)

    assert found["wide"] == Prunable(
        "wide", 20, (("deep", 1), ("narrow", 1)), params=2 + 1, macs=0
    )  # a batch norm's two and a PReLU's one
    assert found["plain"] == Prunable("plain", 16, (), params=9 * 7, macs=9 * 7)
    assert prunable_layers(residual(), IMAGE) == {"wide": [("deep", 1), ("narrow", 1)], "plain": []}


@pytest.mark.parametrize("ghosted", [False, True])
def test_removing_maps_is_the_same_as_not_hearing_them(ghosted: bool) -> None:
    model = residual()
    if ghosted:
        layers = {"wide": GhostSpec(3), "plain": GhostSpec(2, 5), "narrow": GhostSpec()}
        model = trained(rewrite(model, Plan(layers)).model)
        assert isinstance(model.wide, GhostModule)
        model.wide.reorder(torch.randperm(20, generator=torch.Generator().manual_seed(3)))
    graph = find_groups(model, IMAGE)
    gone = {
        group.layer: {index for family in group.families[::2] for index in family}
        for group in graph.groups
    }

    slices = slices_of(graph.groups, gone)

    narrow = cut(model, slices)
    assert narrow.wide.out_channels < 20
    torch.testing.assert_close(narrow(IMAGE), deafened(model, slices)(IMAGE))
    assert not torch.allclose(narrow(IMAGE), model(IMAGE))


def test_the_model_is_left_alone() -> None:
    model = residual()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())

    find_groups(model, IMAGE)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.again(self.again(self.first(images)))  # type: ignore[no-any-return]


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1))


@pytest.mark.parametrize(
    ("model", "layer", "reason"),
    [
        (Twice(), "first", "again runs more than once"),
        (Normed(), "0", "its maps pass a GroupNorm"),
        (Grouped(), "group", "a grouped convolution"),
    ],
)
def test_what_cannot_go_has_its_reason(model: nn.Module, layer: str, reason: str) -> None:
    graph = find_groups(model, IMAGE)

    assert layer not in {group.layer for group in graph.groups}
    assert graph.reasons[layer] == reason


def test_an_input_that_does_not_suit_is_named() -> None:
    with pytest.raises(PruneError, match="cannot run on an input of shape 1x4x8x8"):
        find_groups(residual(), torch.zeros(1, 4, 8, 8))
