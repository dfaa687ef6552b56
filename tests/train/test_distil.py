"""Distillation losses against hand arithmetic, and the choice of stages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ghostify
from ghostify.errors import TrainingError
from ghostify.models.zoo import build
from ghostify.train.distil import Taps, feature_loss, logits_loss, stages
from ghostify.train.loop import train
from tests.train.toys import CLASSES, PREPROCESS, Synthetic, recipe, same, toy

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_logits_loss_is_the_divergence_of_softened_logits() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    said, told = (student / 2).softmax(1), (teacher / 2).softmax(1)

    found = logits_loss(student, teacher, temperature=2.0)

    assert found.item() == pytest.approx(
        (4 * (told * (told / said).log()).sum(1).mean()).item(), rel=1e-4
    )
    assert logits_loss(teacher, teacher, temperature=2.0).item() == pytest.approx(0, abs=1e-6)


def test_the_feature_loss_is_relative_to_the_teacher() -> None:
    wanted = {"a": torch.randn(2, 3, 4, 4), "b": 100 * torch.randn(2, 5, 2, 2)}
    zero = {name: torch.zeros_like(value) for name, value in wanted.items()}

    assert feature_loss(wanted, wanted).item() == 0
    assert feature_loss(zero, wanted).item() == pytest.approx(2.0)  # 1 for each stage


def test_the_stages_of_a_resnet_are_found() -> None:
    teacher = build("resnet20_cifar", seed=0)
    student = ghostify.convert(teacher, verify=False).model

    assert stages(student, teacher.model, IMAGE) == ("layer1", "layer2", "layer3")


def test_a_pruned_student_is_compared_where_the_shapes_agree() -> None:
    """Inner maps may be fewer; the residual stream is the same."""
    teacher, student = build("resnet20_cifar").model, build("resnet20_cifar").model
    block = student.layer3[2]
    block.conv1, block.bn1 = nn.Conv2d(64, 40, 3, padding=1, bias=False), nn.BatchNorm2d(40)
    block.conv2 = nn.Conv2d(40, 64, 3, padding=1, bias=False)

    assert stages(student, teacher, IMAGE) == ("layer1", "layer2", "layer3")
    with pytest.raises(TrainingError, match=r"layer3.2.conv1 gives 2x40x8x8 in the student and"):
        stages(student, teacher, IMAGE, ("layer3.2.conv1",))


def test_wanted_features_must_exist() -> None:
    with pytest.raises(TrainingError, match="the student has no layer 'convl' that gives a tensor"):
        stages(toy(), toy(), torch.zeros(2, 3, 8, 8), ("convl",))


def test_networks_without_a_common_layer_are_compared_by_their_logits() -> None:
    other = nn.Sequential(nn.Conv2d(3, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    wish = recipe(feature_weight=1.0)

    assert stages(other, toy(), torch.zeros(2, 3, 8, 8)) == ()
    with_both = train(other, wish, Synthetic(), PREPROCESS, teacher=toy(), device="cpu")
    plain = wish.changed(feature_weight=0.0)
    with_logits = train(other, plain, Synthetic(), PREPROCESS, teacher=toy(), device="cpu")

    assert same(with_both.model, with_logits.model)
    assert "only its logits are learnt from" in with_both.notes[0]
    assert not with_logits.notes
    with pytest.raises(TrainingError, match="no layer of the same name and shape to compare, and"):
        train(other, wish.changed(alpha=0.0), Synthetic(), PREPROCESS, teacher=toy(), device="cpu")


def test_taps_hear_and_go_away() -> None:
    model = toy()
    taps = Taps(model, ("conv1",))
    image = torch.zeros(1, 3, 8, 8)
    model(image)

    assert taps.take()["conv1"].shape == (1, 8, 8, 8)
    assert taps.take() == {}

    taps.close()
    model(image)

    assert taps.take() == {}
    assert not model.conv1._forward_hooks


def test_layers_in_another_order_are_not_compared() -> None:
    """What a fit leaves in another order inside a block must not pull the wrong maps together."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    image = torch.zeros(2, 3, 8, 8)

    assert stages(network, network, image) == ("1",)
    assert stages(network, network, image, unlike={"1"}) == ("0",)
    with pytest.raises(TrainingError, match="changed the order of 1's maps"):
        stages(network, network, image, ["1"], unlike={"1"})
