"""The Python interface from one end to the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ghostify
from ghostify.errors import CountError, InputError, RuleError, SpecError, VerificationError
from ghostify.graph.calibrate import FitOptions
from ghostify.models.torchvision_import import import_beside_torchvision
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


def test_a_rounding_reaches_the_modules_the_costs_and_the_artefact(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3), nn.Conv2d(24, 8, 1))
    conversion = ghostify.convert(model, round_to=16, example=IMAGE)
    ghostify.save(conversion, tmp_path / "out")

    loaded = ghostify.load(tmp_path / "out", base=model)

    ghosts = [one for one in loaded.modules() if isinstance(one, GhostModule)]
    assert [ghost.intrinsic_channels for ghost in ghosts] == [16, 4]
    assert torch.equal(loaded.eval()(IMAGE), conversion.model.eval()(IMAGE))
    assert "(m to 16)" in (tmp_path / "out" / "summary.md").read_text()


def test_a_rounded_conversion_can_be_fitted() -> None:
    """With m = 16 of 24 maps, the ghosts are 8: fewer than the maps that are computed."""
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3))
    images = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    conversion = ghostify.convert(
        model.eval(),
        round_to=16,
        convert_all=True,
        example=IMAGE,
        calibration=[images],
        fit=FitOptions(block_steps=0, joint_steps=0),
    )

    assert [layer["error"] < 1 for layer in conversion.history[-1]["layers"]] == [True, True]


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
    """TensorFlow's "same" padding depends on the input; standardised weights on all of a map."""
    layers = import_beside_torchvision("timm.layers")
    for kind in (layers.Conv2dSame, layers.StdConv2d, layers.ScaledStdConv2d):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), kind(8, 6, 3, stride=2, bias=True))
        dense = model[1]

        ghost = ghostify.convert(model, example=IMAGE).model[1]
        with torch.no_grad():
            ghost.primary.weight.copy_(dense.weight[:3])
            ghost.primary.bias.copy_(dense.bias[:3])
        x = torch.randn(2, 8, 15, 15)

        assert type(ghost.primary) is kind
        assert torch.allclose(ghost(x)[:, :3], dense(x)[:, :3], atol=1e-5)


def test_images_of_one_channel_and_other_types() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)).double()

    conversion = ghostify.convert(model, example=torch.randn(4, 1, 9, 9, dtype=torch.float64))

    assert conversion.model(torch.randn(1, 1, 9, 9, dtype=torch.float64)).dtype == torch.float64


class Keyword(nn.Module):
    """Calls its convolution by keyword, as Conv2d allows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(input=self.stem(input=x))


class Picky(Keyword):
    """Runs what is a Conv2d, and nothing else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            if isinstance(layer, nn.Conv2d):
                x = layer(x)
        return x


class Nosy(Keyword):
    """Looks at an attribute that only a convolution has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.stem(x)) * float(self.body.transposed + 1)


class Masking(Keyword):
    """Has an output that nothing can be learnt from."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.stem(x)).argmax(1)


class Wavering(Keyword):
    """Calls a convolution two to six times, by the values that it gives."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(self.stem(x))
        for _ in range(1 + int(1e4 * x.detach().abs().mean().item()) % 5):
            x = self.body(x)
        return x


def test_a_convolution_may_be_called_by_keyword() -> None:
    assert names(ghostify.convert(Keyword(), example=IMAGE)) == ["body"]


def test_a_network_that_asks_for_classes_or_attributes_is_named() -> None:
    with pytest.raises(CountError, match="no longer runs body, since its code asks for the layer"):
        ghostify.convert(Picky(), example=IMAGE)
    with pytest.raises(VerificationError, match=r"does not run .*transposed.*keep the layer"):
        ghostify.convert(Nosy(), example=IMAGE)


def test_an_output_without_gradients_is_noted() -> None:
    conversion = ghostify.convert(Masking(), example=IMAGE)

    assert conversion.notes[-1] == "no gradient reaches body, as in the original"


def test_a_way_that_depends_on_values_is_noted() -> None:
    found = []
    for seed in range(8):  # for one in five seeds both ways are equally long
        conversion = ghostify.convert(Wavering(), example=IMAGE, seed=seed)
        found += [note for note in conversion.notes if "another way with other values" in note]

        assert names(conversion) == ["body"]
    assert found


def test_a_model_that_is_one_convolution() -> None:
    model = nn.Conv2d(16, 32, 3)
    example = torch.randn(1, 16, 8, 8)

    conversion = ghostify.convert(model, example=example, convert_all=True)

    assert isinstance(conversion.model, GhostModule)
    with pytest.raises(RuleError, match="1x first convolution"):
        ghostify.convert(model, example=example)
