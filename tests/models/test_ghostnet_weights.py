"""GhostNet's weights in timm's and the authors' names, there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ghostify.errors import WeightsError
from ghostify.models.ghostnet import GhostNet, GhostNetFeatures
from ghostify.models.ghostnet_weights import from_reference, renamed_for, to_reference
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.models.weights import load_weights

_WIDTHS = {"ghostnet_050": 0.5, "ghostnet_100": 1.0, "ghostnet_130": 1.3}


def _timm(name: str, **arguments: Any) -> nn.Module:
    """Build a network of timm, its norms with statistics that fit and affine parts of all kinds."""
    timm = import_beside_torchvision("timm")
    torch.manual_seed(5)
    model: nn.Module = timm.create_model(name, **arguments)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.7, 1.3)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
        norm.momentum = 0.9
    nn.init.normal_(model.classifier.weight, std=0.3)
    model.train()(torch.randn(4, 3, 96, 96))
    return model.eval()


@pytest.mark.parametrize("name", _WIDTHS)
def test_the_outputs_are_timms_with_its_weights(name: str) -> None:
    theirs = _timm(name)
    ours = GhostNet(width=_WIDTHS[name]).eval()
    ours.load_state_dict(from_reference(theirs.state_dict()))
    x = torch.randn(2, 3, 160, 160)

    with torch.no_grad():
        expected, found = theirs(x), ours(x)

    assert (expected[0] - expected[1]).abs().max() > 0.1  # the image tells in the output
    assert (found - expected).abs().max() <= 1e-5


def test_every_weight_goes_there_and_comes_back() -> None:
    theirs = _timm("ghostnet_050")
    state = theirs.state_dict()

    back = to_reference(from_reference(state))

    assert list(back) == list(state)
    assert all(back[key] is state[key] for key in state)
    assert set(from_reference(state)) == set(GhostNet(width=0.5).state_dict())


def test_our_weights_load_into_timms() -> None:
    ours = GhostNet(width=0.5, num_classes=10).eval()
    theirs = _timm("ghostnet_050", num_classes=10)
    theirs.load_state_dict(to_reference(ours.state_dict()))
    x = torch.randn(1, 3, 64, 64)

    assert torch.allclose(ours(x), theirs(x), atol=1e-5, rtol=0)


_AUTHORS_KEYS = {
    "conv_stem.weight": (16, 3, 3, 3),
    "bn1.running_mean": (16,),
    "blocks.0.0.ghost1.primary_conv.0.weight": (8, 16, 1, 1),
    "blocks.0.0.ghost1.primary_conv.1.bias": (8,),
    "blocks.0.0.ghost1.cheap_operation.0.weight": (8, 1, 3, 3),
    "blocks.0.0.ghost2.cheap_operation.1.running_var": (8,),
    "blocks.1.0.conv_dw.weight": (48, 1, 3, 3),
    "blocks.1.0.bn_dw.weight": (48,),
    "blocks.1.0.shortcut.0.weight": (16, 1, 3, 3),
    "blocks.1.0.shortcut.1.weight": (16,),
    "blocks.1.0.shortcut.2.weight": (24, 16, 1, 1),
    "blocks.1.0.shortcut.3.running_mean": (24,),
    "blocks.3.0.se.conv_reduce.weight": (20, 72, 1, 1),
    "blocks.3.0.se.conv_expand.bias": (72,),
    "blocks.6.3.shortcut.2.weight": (112, 80, 1, 1),
    "blocks.8.3.ghost2.primary_conv.0.weight": (80, 960, 1, 1),
    "blocks.9.0.conv.weight": (960, 160, 1, 1),
    "blocks.9.0.bn1.weight": (960,),
    "conv_head.weight": (1280, 960, 1, 1),
    "conv_head.bias": (1280,),
    "classifier.weight": (1000, 1280),
}
"""Some layers of the network in the authors' repository, read off its source."""


@pytest.mark.parametrize("key", _AUTHORS_KEYS)
def test_a_layer_of_the_authors_finds_its_place(key: str) -> None:
    own = GhostNet().state_dict()
    value = torch.zeros(_AUTHORS_KEYS[key])

    (renamed,) = from_reference({key: value})

    assert own[renamed].shape == value.shape


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "module."])
def test_a_file_is_recognised_by_its_keys(tmp_path: Path, wrap: str) -> None:
    theirs = _timm("ghostnet_050", num_classes=10)
    state: dict[str, Any] = dict(theirs.state_dict())
    state["blocks.0.0.total_ops"] = torch.zeros(1)  # as thop leaves them
    if wrap == "module.":
        state = {f"module.{key}": value for key, value in state.items()}
    file = tmp_path / "ghostnet.pth"
    torch.save({"state_dict": state, "epoch": 3} if wrap == "state_dict" else state, file)
    ours = GhostNet(width=0.5, num_classes=10).eval()
    x = torch.randn(1, 3, 64, 64)

    load_weights(ours, file)

    assert torch.allclose(ours(x), theirs(x), atol=1e-5, rtol=0)


def test_a_file_of_ours_goes_into_both(tmp_path: Path) -> None:
    ours = GhostNet(width=0.5, num_classes=10).eval()
    save_file(ours.state_dict(), tmp_path / "ours.safetensors")
    again = GhostNet(width=0.5, num_classes=10).eval()
    theirs = _timm("ghostnet_050", num_classes=10)
    x = torch.randn(1, 3, 64, 64)

    load_weights(again, tmp_path / "ours.safetensors")
    load_weights(theirs, tmp_path / "ours.safetensors")

    assert torch.equal(again(x), ours(x))
    assert torch.allclose(theirs(x), ours(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["timm", "ours"])
def test_features_take_a_classifiers_weights(tmp_path: Path, name: str) -> None:
    whole = GhostNet(width=0.5).eval()
    file = tmp_path / "weights.safetensors"
    state = whole.state_dict()
    save_file(state if name == "ours" else to_reference(state), file)
    part = GhostNetFeatures(width=0.5, strides=(16,)).eval()
    x = torch.randn(1, 3, 64, 64)

    load_weights(part, file)

    assert torch.equal(part(x)[0], whole.blocks[:11](whole.stem(x)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ghostnet_100", "of another shape"),
        ("ghostnetv2_100", "unexpected (blocks."),
    ],
)
def test_another_network_is_told_from_ghostnet(tmp_path: Path, name: str, message: str) -> None:
    file = tmp_path / "other.safetensors"
    save_file(import_beside_torchvision("timm").create_model(name).state_dict(), file)

    with pytest.raises(WeightsError) as error:
        load_weights(GhostNet(width=0.5), file, name="ghostnet")

    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_other_networks_keep_their_names() -> None:
    state = {"bn1.weight": torch.zeros(2), "classifier.weight": torch.zeros(2)}

    assert renamed_for(["bn1.weight", "classifier.weight"], state) == state
