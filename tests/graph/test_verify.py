"""A converted network that is none any more is noticed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ghostify.errors import VerificationError
from ghostify.graph.probe import Probe, as_call
from ghostify.graph.rewrite import rewrite
from ghostify.graph.verify import Verification, verify
from ghostify.nn.ghost import GhostModule
from ghostify.plan import Plan
from ghostify.spec import GhostSpec
from tests.graph import networks

IMAGE = torch.randn(1, 3, 16, 16)


def checked(original: nn.Module, converted: nn.Module, example: Any = IMAGE) -> Verification:
    call = as_call(example)
    return verify(Probe(original, call), Probe(converted, call))


def ghosted(model: nn.Module, *names: str) -> nn.Module:
    return rewrite(model, Plan(dict.fromkeys(names, GhostSpec()))).model


def test_a_sound_conversion_passes_in_both_modes() -> None:
    model = networks.plain()

    found = checked(model, ghosted(model, "3", "6"))

    assert found.modes == ("eval", "train")
    assert found.shapes == ((1, 16, 8, 8),)
    assert found.notes == ()


def test_the_converted_network_is_not_changed_by_the_check() -> None:
    model = networks.plain().train()
    converted = ghosted(model, "3")
    state = {name: value.clone() for name, value in converted.state_dict().items()}

    checked(model, converted)

    assert converted.training
    assert all(torch.equal(value, state[name]) for name, value in converted.state_dict().items())
    assert all(parameter.grad is None for parameter in converted.parameters())


def test_other_output_shapes_are_named() -> None:
    model = networks.plain()
    converted = ghosted(model, "3")
    converted[6] = nn.Conv2d(16, 16, 3)

    with pytest.raises(
        VerificationError, match=r"shape 1x16x6x6 in eval mode, the original 1x16x8"
    ):
        checked(model, converted)


def test_other_shapes_in_train_mode_only_are_named() -> None:
    model = networks.Auxiliary()
    converted = ghosted(model, "body")
    converted.aux = nn.Conv2d(8, 9, 3, padding=1)

    with pytest.raises(VerificationError, match="in train mode"):
        checked(model, converted)


def test_a_parameter_without_a_gradient_is_named() -> None:
    class Dead(GhostModule):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach() + self.primary(x).sum() * 1.0

    model = networks.plain()
    converted = ghosted(model, "3")
    converted[3] = Dead(8, 16, 3, stride=2, padding=1)

    with pytest.raises(VerificationError) as error:
        checked(model, converted)

    assert str(error.value).startswith("3.cheap.0.weight of the converted Sequential gets no grad")


def test_values_that_are_not_finite_are_noticed() -> None:
    model = networks.plain()
    converted = ghosted(model, "3")
    with torch.no_grad():
        converted[0].weight[0, 0, 0, 0] = float("nan")

    with pytest.raises(VerificationError, match="not finite in train mode; check the weights"):
        checked(model, converted)


def test_a_branch_that_starts_at_zero_is_no_failure() -> None:
    """Residual branches often start with a gain of zero, which stops every gradient."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.conv = nn.Conv2d(8, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            nn.init.zeros_(self.norm.weight)
            self.gain = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return x + self.gain * self.norm(self.conv(x))

    model = Residual()

    assert checked(model, ghosted(model, "conv")).modes == ("eval", "train")


def test_maps_that_are_negative_by_chance_are_no_failure() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1), nn.ReLU()
    )
    converted = ghosted(model, "2")
    with torch.no_grad():
        converted[2].primary.weight.zero_()
        converted[2].primary.bias.fill_(-1.0)

    assert checked(model, converted)


def test_a_network_that_needs_targets_to_train_is_checked_in_eval_mode() -> None:
    model = networks.ListInput()

    found = checked(model, ghosted(model, "body"), [torch.randn(3, 16, 16)])

    assert found.modes == ("eval",)
    assert "targets should not be none" in found.notes[0]


def test_large_images_are_checked_on_small_ones() -> None:
    model = networks.plain()

    found = checked(model, ghosted(model, "3"), torch.randn(1, 3, 256, 256))

    assert found.input == "2x3x64x64"
    assert found.shapes == ((1, 16, 128, 128),)


def test_a_network_of_fixed_size_is_checked_on_that() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Flatten(),
        nn.Linear(8 * 200 * 200, 2),
    )

    found = checked(model, ghosted(model, "1"), torch.randn(1, 3, 200, 200))

    assert found.input == "2x3x200x200"


def test_a_network_that_depends_on_values_is_run_for_real() -> None:
    model = networks.Branching()

    assert checked(model, ghosted(model, "left")).modes == ("eval", "train")
