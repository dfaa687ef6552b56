"""The Python interface from one end to the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ghostify
from ghostify.errors import InputError, RuleError, SpecError
from ghostify.nn.ghost import GhostModule
from tests.graph import networks

IMAGE = torch.randn(1, 3, 16, 16)


def names(conversion: ghostify.Conversion) -> list[str]:
    return [replaced.name for replaced in conversion.replaced]


def test_convert_returns_model_plan_replaced_and_skipped() -> None:
    conversion = ghostify.convert(networks.plain(), ratio=2, kernel=3, example=IMAGE)

    assert isinstance(conversion.model[3], GhostModule)
    assert names(conversion) == list(conversion.plan) == ["3", "6"]
    assert [(one.ratio, one.kernel) for one in conversion.replaced] == [(2, 3), (2, 3)]
    assert [skip.name for skip in conversion.skipped] == ["0"]


def test_inspect_predicts_what_convert_does() -> None:
    settings: dict[str, Any] = {"ratio": 3, "kernel": 5, "example": IMAGE}
    found = ghostify.inspect(networks.plain(), **settings)
    conversion = ghostify.convert(networks.plain(), **settings)

    assert found.plan == conversion.plan
    assert found.skipped == conversion.skipped
    assert (found.before, found.after) == (conversion.before, conversion.after)


def test_rules_and_keep_reach_the_plan() -> None:
    conversion = ghostify.convert(
        networks.plain(), example=IMAGE, keep=["6"], rules={"0": "s4,d1", "3": None}
    )

    assert [(one.name, one.ratio, one.kernel) for one in conversion.replaced] == [("0", 4, 1)]


def test_costs_are_those_of_one_image_whatever_the_batch() -> None:
    one = ghostify.inspect(networks.plain(), example=IMAGE)
    eight = ghostify.inspect(networks.plain(), example=IMAGE.repeat(8, 1, 1, 1))

    assert one.before == eight.before


def test_nothing_to_convert_is_an_error_that_says_why() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8))

    with pytest.raises(RuleError) as error:
        ghostify.convert(model, example=IMAGE)

    assert str(error.value) == (
        "nothing would be converted in Sequential: 1x first convolution, which stays by default; "
        "1x depthwise convolution"
    )
    assert ghostify.inspect(model, example=IMAGE).layers == ()


def test_a_ratio_above_all_maps_is_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))

    with pytest.raises(RuleError, match="fewer than the ratio 100"):
        ghostify.convert(model, ratio=100, example=IMAGE)


@pytest.mark.parametrize(("ratio", "kernel"), [(1, 3), (0, 3), (-2, 3), (2, 2), (2, 0)])
def test_an_impossible_setting_is_refused(ratio: int, kernel: int) -> None:
    with pytest.raises(SpecError):
        ghostify.convert(networks.plain(), ratio=ratio, kernel=kernel, example=IMAGE)


def test_an_empty_plan_is_exact() -> None:
    model = networks.plain()

    conversion = ghostify.convert(model, plan=ghostify.Plan.empty(), example=IMAGE)

    assert torch.equal(conversion.model.eval()(IMAGE), model.eval()(IMAGE))
    assert {skip.reason for skip in conversion.skipped} == {"not in the plan"}


def test_a_model_without_a_known_input_needs_an_example() -> None:
    with pytest.raises(InputError, match="give an example input or its size"):
        ghostify.convert(networks.plain())


def test_the_size_may_stand_in_for_an_example() -> None:
    assert names(ghostify.convert(networks.plain(), input_size=(3, 16, 16))) == ["3", "6"]


@pytest.mark.parametrize(
    ("model", "example", "expected"),
    [
        (networks.TwoInputs(), (IMAGE, torch.randn(1, 1, 16, 16)), ["body"]),
        (networks.ListInput(), [torch.randn(3, 16, 16)], ["body"]),
        (networks.Branching(), IMAGE, ["left"]),
        (networks.ByShape(), IMAGE, ["body"]),
        (networks.Shared(), IMAGE, ["tower"]),
        (networks.Tied(), IMAGE, ["fine", "coarse"]),
        (networks.Auxiliary(), IMAGE, ["body"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_difficult_networks_convert(model: nn.Module, example: Any, expected: list[str]) -> None:
    assert names(ghostify.convert(model, example=example)) == expected


def test_torchs_own_generator_and_mode_are_left_alone() -> None:
    model = networks.plain().train()
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)

    conversion = ghostify.convert(model, example=IMAGE)

    assert torch.equal(torch.rand(2), expected)
    assert model.training
    assert conversion.model.training
    assert torch.is_grad_enabled()


def test_a_ghosted_network_can_be_converted_further(tmp_path: Path) -> None:
    first = ghostify.convert("resnet20_cifar", keep=["layer3.*"])
    ghostify.save(first, tmp_path / "first")

    second = ghostify.convert(str(tmp_path / "first"), ratio=4)
    ghostify.save(second, tmp_path / "second")
    again = ghostify.load(tmp_path / "second").eval()

    assert all(one.name.startswith("layer3.") for one in second.replaced)
    assert len(second.plan) == 18
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(image), second.model.eval()(image))
    assert {skip.reason for skip in second.skipped if ".primary" in skip.name} == {
        "already part of a Ghost module"
    }


def test_subclasses_of_timm_keep_their_class_and_arithmetic() -> None:
    """TensorFlow's "same" padding depends on the input; standardised weights on all of one map."""
    same = ghostify.convert("timm:tf_mobilenetv3_small_minimal_100", verify=False)
    standardised = ghostify.convert("timm:test_nfnet")

    assert {type(m.primary).__name__ for m in same.model.modules() if isinstance(m, GhostModule)}
    kinds = {
        type(module.primary).__name__
        for module in standardised.model.modules()
        if isinstance(module, GhostModule)
    }
    assert "ScaledStdConv2d" in kinds


def test_images_of_one_channel_and_other_types() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)).double()

    conversion = ghostify.convert(model, example=torch.randn(4, 1, 9, 9, dtype=torch.float64))

    assert conversion.model(torch.randn(1, 1, 9, 9, dtype=torch.float64)).dtype == torch.float64
