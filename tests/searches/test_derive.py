"""Spaces derived from networks: every choice is possible and saves multiply-adds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ghostify
from ghostify.errors import DataFileError
from ghostify.models.resnet import ResNetCifar
from ghostify.pruners.groups import prunable
from ghostify.searches.derive import derive_space
from ghostify.searches.problem import make_problem
from ghostify.searches.space import parse_space
from ghostify.spec import PruneSpec
from tests.graph import networks


def test_every_choice_saves_and_nothing_is_left_out() -> None:
    model = ResNetCifar(2).eval()
    found = ghostify.inspect(model)
    shrinking = prunable(model, torch.zeros(1, 3, 32, 32))

    space = derive_space(found.sites, prunable=shrinking, model="net")
    problem = make_problem(found.sites, space, total=found.before, prunable=shrinking)

    assert problem.notes == ()
    keep = problem.nothing()
    for place, size in enumerate(problem.shape):
        for choice in range(1, size):
            row = keep.copy()
            row[place] = choice
            assert problem.cost(row)["macs"] < problem.original["macs"]
    assert space.choices("conv1") == (None,)  # the first convolution
    assert PruneSpec(0.5) in space.choices("layer1.0.conv1")
    assert PruneSpec(0.5) not in space.choices("layer1.0.conv2")  # its maps are added to others


def test_depthwise_and_tiny_convolutions_stay() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.Conv2d(32, 32, 3, groups=32),
        nn.Conv2d(32, 64, 1),
        nn.Conv2d(64, 3, 1),
    )
    found = ghostify.inspect(model, example=torch.zeros(1, 3, 16, 16))

    space = derive_space(found.sites)

    assert [one.pattern for one in space.layers] == ["2"]


def test_a_derived_space_can_be_written_down() -> None:
    space = derive_space(ghostify.inspect(ResNetCifar(1)).sites, model="net")

    assert parse_space(space.as_json()) == space


def test_shares_that_leave_as_many_maps_are_offered_once() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Conv2d(4, 16, 3), nn.Conv2d(16, 16, 3)
    )
    found = ghostify.inspect(model, example=torch.zeros(1, 3, 16, 16))

    space = derive_space(found.sites, prunable=("1", "2"))

    def shares(name: str) -> list[float]:
        return [one.ratio for one in space.choices(name) if isinstance(one, PruneSpec)]

    assert shares("1") == [0.25, 0.5, 0.75]  # 3, 2 and 1 of 4 maps; an eighth of them is none
    assert shares("2") == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75]


def test_without_anything_to_prune_there_is_no_pruning() -> None:
    space = derive_space(ghostify.inspect(ResNetCifar(1)).sites)

    chosen = [choice for one in space.layers for choice in one.settings]
    assert not any(isinstance(choice, PruneSpec) for choice in chosen)


def test_random_plans_of_networks_with_difficulties_can_be_converted() -> None:
    for model in (networks.plain(), networks.Shared(), networks.Tied()):
        image = torch.zeros(1, 3, 16, 16)
        found = ghostify.inspect(model, example=image)
        problem = make_problem(found.sites, derive_space(found.sites), total=found.before)
        row = problem.random(1, np.random.default_rng(0))[0]

        converted = ghostify.convert(model, plan=problem.plan(row), example=image, verify=False)

        assert converted.after is not None
        assert converted.after.macs == problem.cost(row)["macs"]


def test_a_network_with_nothing_to_choose() -> None:
    found = ghostify.inspect(nn.Sequential(nn.Conv2d(3, 8, 3)), example=torch.zeros(1, 3, 8, 8))

    with pytest.raises(DataFileError, match="no search space can be derived for net"):
        derive_space(found.sites, model="net")
