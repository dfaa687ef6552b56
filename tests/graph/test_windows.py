"""Pieces of networks that are timed alone: what is in them, and which are alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import ghostify
from ghostify.graph.windows import Windows, cut_windows
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.nn.ghost import GhostModule
from ghostify.spec import GhostSpec
from tests.graph import networks

IMAGE = torch.randn(1, 3, 16, 16)


def windows(model: nn.Module, image: Tensor = IMAGE) -> Windows:
    return cut_windows(model, (image,), ghostify.inspect(model, example=image).sites)


def layers(found: Windows, name: str) -> list[str]:
    """The classes of the modules that a window runs, in order."""
    module = found.by_layer[name].module
    return [
        type(module.get_submodule(str(node.target))).__name__
        for node in module.graph.nodes
        if node.op == "call_module"
    ]


def test_a_window_runs_to_the_next_reader() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),  # depthwise: reads each map by itself
        nn.MaxPool2d(2),
        nn.Conv2d(8, 4, 1),
        nn.BatchNorm2d(4),
    )

    found = windows(model)

    assert layers(found, "0") == [
        "Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "MaxPool2d", "Conv2d", "AdaptiveAvgPool2d",
    ]  # fmt: skip
    assert layers(found, "5") == ["Conv2d", "BatchNorm2d", "AdaptiveAvgPool2d"]
    assert found.by_layer["5"].shapes == ((1, 8, 8, 8),)
    assert found.by_layer["0"].what == "3-8 3x3 on 16x16"
    assert found.note == ""


def test_a_window_computes_what_the_network_does() -> None:
    """With the maps that come in, the averages of those that leave are the network's."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    ).eval()

    [pooled] = [windows(model).by_layer["0"].build(None)(IMAGE)]

    assert torch.allclose(pooled, model(IMAGE).mean((2, 3), keepdim=True), atol=1e-5)


def test_the_layer_becomes_a_ghost_module_and_the_network_stays() -> None:
    model = networks.plain()
    window = windows(model).by_layer["3"]

    made = window.build(GhostSpec(4, 5))

    ghosts = [one for one in made.modules() if isinstance(one, GhostModule)]
    assert [ghost.spec for ghost in ghosts] == [GhostSpec(4, 5)]
    assert not any(isinstance(one, GhostModule) for one in model.modules())
    for one in (made, window.build(None)):
        assert not one.training
        one(*window.example())


def test_residual_sums_take_the_other_stream_from_outside() -> None:
    model = import_beside_torchvision("torchvision.models").resnet18()
    found = windows(model, torch.randn(1, 3, 64, 64))

    second = found.by_layer["layer1.0.conv2"]
    assert second.shapes == ((1, 64, 16, 16), (1, 64, 16, 16))
    assert layers(found, "layer1.0.conv2")[-2:] == ["AdaptiveAvgPool2d"] * 2  # to both readers
    assert found.by_layer["layer1.0.conv1"].key == found.by_layer["layer1.1.conv1"].key
    assert found.by_layer["layer1.0.conv1"].key != found.by_layer["layer2.1.conv1"].key
    assert set(found.by_layer) == {
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    }


def test_weights_do_not_matter_and_sizes_do() -> None:
    one, other = windows(networks.plain()), windows(networks.plain())
    larger = windows(networks.plain(), torch.randn(1, 3, 32, 32))
    batch = windows(networks.plain(), IMAGE.repeat(2, 1, 1, 1))

    keys = {name: window.key for name, window in one.by_layer.items()}
    assert keys == {name: window.key for name, window in other.by_layer.items()}
    assert one.network == other.network != larger.network
    for changed in (larger, batch):
        assert not set(keys.values()) & {window.key for window in changed.by_layer.values()}


@pytest.mark.parametrize(
    "name",
    ["mobilenet_v3_small", "shufflenet_v2_x0_5", "densenet121", "efficientnet_b0", "googlenet"],
)
def test_every_eligible_layer_of_real_networks_has_a_window_that_runs(name: str) -> None:
    models = import_beside_torchvision("torchvision.models")
    settings = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model = getattr(models, name)(**settings)
    image = torch.randn(1, 3, 64, 64)
    found = ghostify.inspect(model, example=image)

    cut = cut_windows(model, (image,), found.sites)

    assert cut.note == ""
    assert set(found.plan) <= set(cut.by_layer)
    some = {cut.by_layer[layer].key: layer for layer in list(found.plan)[::7]}
    with torch.no_grad():
        for layer in some.values():
            window = cut.by_layer[layer]
            for spec in (None, GhostSpec()):
                window.build(spec)(*window.example())


def test_a_network_that_cannot_be_traced_gets_windows_out_of_context() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, image: Tensor) -> Tensor:
            found: Tensor = self.conv(image)
            return found if found.sum() > 0 else -found

    found = windows(Branching())

    assert found.note.startswith("layers are timed out of context, since tracing failed")
    assert layers(found, "conv") == ["Conv2d", "BatchNorm2d", "ReLU", "AdaptiveAvgPool2d"]
    assert found.by_layer["conv"].shapes == ((1, 3, 16, 16),)
    found.by_layer["conv"].build(GhostSpec())(*found.by_layer["conv"].example())
