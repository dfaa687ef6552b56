"""GhostNet as a backbone: its pyramid always, whole detectors where torchvision can run them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ghostify.errors import SpecError, WeightsError
from ghostify.models.ghostnet import GhostNet
from ghostify.models.ghostnet_detection import (
    GhostNetFpn,
    fasterrcnn_ghostnet_fpn,
    has_compiled_operators,
    retinanet_ghostnet_fpn,
)

_DETECTORS = {"retinanet": retinanet_ghostnet_fpn, "fasterrcnn": fasterrcnn_ghostnet_fpn}


@pytest.fixture
def compiled_operators() -> None:
    if not has_compiled_operators():
        pytest.skip("torchvision's compiled operators (nms) do not fit this build of torch")


def _targets() -> list[dict[str, torch.Tensor]]:
    box = torch.tensor([[10.0, 12.0, 50.0, 60.0]])
    return [{"boxes": box, "labels": torch.tensor([label])} for label in (1, 2)]


@pytest.mark.parametrize(
    ("strides", "extra", "expected"),
    [
        ((8, 16, 32), "p6p7", {"0": 8, "1": 16, "2": 32, "p6": 64, "p7": 128}),
        ((4, 8, 16, 32), "pool", {"0": 4, "1": 8, "2": 16, "3": 32, "pool": 64}),
        ((16, 32), None, {"0": 16, "1": 32}),
    ],
)
def test_the_pyramid_has_levels_at_the_strides(
    strides: tuple[int, ...], extra: str | None, expected: dict[str, int]
) -> None:
    backbone = GhostNetFpn(strides=strides, extra=extra, out_channels=24, width=0.5)

    levels = backbone(torch.randn(2, 3, 128, 256))

    shapes = {name: tuple(level.shape) for name, level in levels.items()}
    assert shapes == {n: (2, 24, 128 // s, 256 // s) for n, s in expected.items()}
    assert backbone.out_channels == 24


def test_a_training_step_reaches_every_layer_of_backbone_and_pyramid() -> None:
    torch.manual_seed(0)
    backbone = GhostNetFpn(extra="p6p7", out_channels=16, width=0.5)

    sum(
        level.square().mean() for level in backbone(torch.randn(2, 3, 128, 128)).values()
    ).backward()

    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_the_backbone_takes_a_classifiers_weights_and_may_freeze_its_norms(tmp_path: Path) -> None:
    whole = GhostNet(width=0.5).eval()
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    save_file(whole.state_dict(), tmp_path / "ghostnet.safetensors")
    x = torch.randn(2, 3, 64, 64)

    backbone = GhostNetFpn(width=0.5, weights=tmp_path / "ghostnet.safetensors", frozen_norms=True)

    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.body.modules())
    assert torch.allclose(
        backbone.train().body(x)[-1], whole.blocks(whole.stem(x)), atol=1e-4, rtol=1e-4
    )


def test_retinanet_learns_a_box() -> None:
    """Its training needs no compiled operator."""
    torch.manual_seed(0)
    model = retinanet_ghostnet_fpn(width=0.5, num_classes=3, min_size=96, max_size=96).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = [torch.rand(3, 96, 96), torch.rand(3, 80, 96)]
    losses = []

    for _ in range(2):
        found = model(images, _targets())
        loss = sum(found.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert set(found) == {"classification", "bbox_regression"}
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    assert losses[1] < losses[0]


@pytest.mark.usefixtures("compiled_operators")
@pytest.mark.parametrize("name", _DETECTORS)
def test_a_detector_finds_boxes_and_takes_a_training_step(name: str) -> None:
    torch.manual_seed(0)
    model = _DETECTORS[name](width=0.5, num_classes=3, min_size=96, max_size=96)
    images = [torch.rand(3, 96, 96), torch.rand(3, 80, 96)]

    sum(model.train()(images, _targets()).values()).backward()

    assert all(parameter.grad is not None for parameter in model.backbone.body.parameters())
    for found in model.eval()(images):
        assert found["boxes"].shape[-1] == 4
        assert len(found["scores"]) == len(found["labels"]) == len(found["boxes"])


def test_bad_arguments_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"extra is one of pool, p6p7 \(got 'p8'\)"):
        GhostNetFpn(extra="p8")
    with pytest.raises(SpecError, match="frozen_norms needs trained weights"):
        GhostNetFpn(frozen_norms=True)
    with pytest.raises(SpecError, match="ascending"):
        GhostNetFpn(strides=(32, 8))
    with pytest.raises(WeightsError, match="does not exist"):
        retinanet_ghostnet_fpn(weights_backbone=tmp_path / "none.pth")
