"""The paper's CIFAR networks, against the checkpoints that everybody uses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ghostify.models.resnet import PadShortcut
from ghostify.models.weights import load_weights
from ghostify.models.zoo import OWN


@pytest.mark.parametrize("name", OWN)
def test_each_network_takes_cifar_images(name: str) -> None:
    model = OWN[name](num_classes=7)

    assert model.eval()(torch.randn(2, *model.input_size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "depth"), [(f"resnet{n}_cifar", n) for n in (20, 32, 44, 56, 110)]
)
def test_a_resnet_has_as_many_layers_as_its_name_says(name: str, depth: int) -> None:
    layers = [m for m in OWN[name]().modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    assert len(layers) == depth


def test_the_shortcut_has_no_parameters_and_pads_on_both_sides() -> None:
    x = torch.randn(1, 4, 6, 6)

    out = PadShortcut(4, 8)(x)

    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


@pytest.mark.parametrize(
    ("name", "file"),
    [("resnet20_cifar", "resnet20-12fca82f.th"), ("resnet56_cifar", "resnet56-4bfd9763.th")],
)
def test_the_public_checkpoints_load(checkpoints: Path, name: str, file: str) -> None:
    model = OWN[name]()
    published = torch.load(checkpoints / file, weights_only=True, map_location="cpu")["state_dict"]

    load_weights(model, checkpoints / file, name=name)

    for key, value in published.items():
        assert torch.equal(model.state_dict()[key.removeprefix("module.")], value)
