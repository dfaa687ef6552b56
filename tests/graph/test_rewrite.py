"""Ghost modules go into a copy; everything else is bit for bit what it was."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ghostify.errors import ModelError, PlanError
from ghostify.graph.rewrite import rewrite
from ghostify.nn.ghost import GhostModule
from ghostify.plan import Plan
from ghostify.spec import GhostSpec
from tests.graph import networks

IMAGE = torch.randn(1, 3, 16, 16)


def plan(*names: str, spec: GhostSpec | None = None) -> Plan:
    return Plan(dict.fromkeys(names, spec or GhostSpec()))


@pytest.mark.parametrize("mode", [True, False])
def test_an_empty_plan_is_exact(mode: bool) -> None:
    model = networks.plain().train(mode)

    converted = rewrite(model, Plan.empty()).model

    assert converted is not model
    assert converted.training == mode
    assert torch.equal(converted(IMAGE), copy.deepcopy(model)(IMAGE))


def test_the_callers_model_is_untouched() -> None:
    model = networks.plain()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modules = list(model.modules())

    converted = rewrite(model, plan("3", "6")).model
    converted(IMAGE).sum().backward()
    with torch.no_grad():
        for parameter in converted.parameters():
            parameter.zero_()

    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [id(module) for module in model.modules()] == [id(module) for module in modules]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_class_keys_and_values_of_the_rest_survive() -> None:
    model = networks.TwoInputs()

    converted = rewrite(model, plan("body")).model

    assert type(converted) is networks.TwoInputs
    assert isinstance(converted.body, GhostModule)
    for name, value in model.state_dict().items():
        if not name.startswith("body."):
            assert torch.equal(converted.state_dict()[name], value)


def test_settings_of_the_convolution_survive() -> None:
    ghost = rewrite(networks.plain(), plan("6")).model[6]

    assert isinstance(ghost, GhostModule)
    assert (ghost.dilation, ghost.groups, ghost.padding) == ((2, 2), 2, (2, 2))
    assert ghost.primary.bias is not None


def test_a_shared_convolution_is_replaced_once() -> None:
    converted = rewrite(networks.Shared(), plan("tower")).model

    assert isinstance(converted.tower, GhostModule)
    assert converted.again is converted.tower


def test_a_shared_weight_stays_shared() -> None:
    converted = rewrite(networks.Tied(), plan("fine", "coarse")).model

    assert converted.coarse.primary.weight is converted.fine.primary.weight
    assert converted.coarse.cheap[0].weight is converted.fine.cheap[0].weight
    assert converted.coarse.stride == (2, 2)


def test_layers_that_share_a_weight_must_be_planned_alike() -> None:
    with pytest.raises(PlanError, match="fine and coarse share one weight"):
        rewrite(networks.Tied(), plan("fine"))


def test_hooks_survive_on_replaced_and_on_other_layers() -> None:
    model = networks.plain()
    seen: list[str] = []
    model[3].register_forward_hook(lambda *_: seen.append("replaced"))
    model[3].register_forward_pre_hook(lambda *_: seen.append("before"))
    model[4].register_forward_hook(lambda *_: seen.append("other"))

    rewrite(model, plan("3")).model(IMAGE)

    assert seen == ["before", "replaced", "other"]


def test_buffers_modes_and_what_hangs_on_a_layer_survive() -> None:
    model = networks.plain()
    model.register_buffer("scale", torch.tensor(3.0), persistent=False)
    model[4].eval()
    model[3].route = [-1, 2]  # as detectors note where a layer takes its input from

    converted = rewrite(model, plan("3")).model

    assert converted.scale.item() == 3.0
    assert [module.training for module in converted] == [module.training for module in model]
    assert converted[3].route == [-1, 2]


def test_a_layer_held_in_a_plain_list_is_replaced_there_too() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.order = [self.conv]

        def forward(self, x: Tensor) -> Tensor:
            return self.order[0](x)

    converted = rewrite(Listed(), plan("conv")).model

    assert converted.order[0] is converted.conv


def test_a_model_that_is_one_convolution_becomes_one_ghost_module() -> None:
    converted = rewrite(nn.Conv2d(3, 8, 3), plan("")).model

    assert isinstance(converted, GhostModule)


def test_dtype_and_frozen_neighbours_survive() -> None:
    model = networks.plain().double().requires_grad_(False)

    converted = rewrite(model, plan("3")).model

    assert converted[3].primary.weight.dtype == torch.float64
    assert converted[3].primary.weight.requires_grad  # new weights have to be trained
    assert not converted[0].weight.requires_grad


def test_the_seed_decides_the_new_weights_layer_by_layer() -> None:
    model = networks.plain()
    one, same, other = (
        rewrite(model, plan(*names), seed=seed).model[6].primary.weight
        for names, seed in ((("3", "6"), 1), (("6",), 1), (("3", "6"), 2))
    )

    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_torchs_own_generator_is_not_touched() -> None:
    model = networks.plain()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    rewrite(model, plan("3"))

    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"conv": 1}, "a model must be a torch.nn.Module (got dict); pass the network itself"),
        (nn.Conv2d, "Conv2d is a class; pass an instance of it"),
        (nn.DataParallel(nn.Conv2d(3, 8, 3)), "convert before wrapping"),
        (nn.Sequential(nn.LazyConv2d(8, 3)), "has lazy layers without weights"),
    ],
)
def test_what_is_no_model_is_refused(model: Any, message: str) -> None:
    with pytest.raises(ModelError) as error:
        rewrite(model, Plan.empty())

    assert message in str(error.value)


def test_a_model_that_cannot_be_copied_says_what_to_do() -> None:
    model = networks.plain()
    model.log = open(__file__)  # noqa: SIM115, PTH123
    try:
        with pytest.raises(ModelError, match=r"cannot be copied .*; remove what copy.deepcopy"):
            rewrite(model, plan("3"))
    finally:
        model.log.close()


def test_a_plan_that_names_no_layer_of_the_model_is_refused() -> None:
    with pytest.raises(PlanError, match="has no convolution '5'"):
        rewrite(networks.plain(), plan("5"))


def test_names_with_dots_are_found() -> None:
    model = nn.Sequential(OrderedDict(a=nn.Sequential(OrderedDict(b=networks.plain()))))

    assert isinstance(rewrite(model, plan("a.b.3")).model.a.b[3], GhostModule)


@pytest.mark.parametrize("text", ["s2,d3", "s2,d3,shift", "s3,d1+3"])
def test_twins_share_their_filters_fixed_ones_included(text: str) -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    model[1].weight = model[0].weight
    spec = GhostSpec.parse(text)

    first, second = rewrite(model, Plan({"0": spec, "1": spec})).model

    for name, value in first.cheap.state_dict(keep_vars=True).items():
        same = second.cheap.state_dict(keep_vars=True)[name] is value
        assert same == (not name.endswith("bias")), name
