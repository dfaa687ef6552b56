"""GhostNet against the paper's Table 1 and its published sizes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import ghostify
from ghostify.errors import ModelError, SpecError
from ghostify.models import ghostnet as models_ghostnet
from ghostify.models.ghostnet import (
    STRIDES,
    TABLE_1,
    GhostNet,
    GhostNetFeatures,
    ghostnet,
    widen,
)
from ghostify.models.zoo import build, example_input


def _macs(model: nn.Module, *size: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *size))
    return counter.get_total_flops() // 2


def _params(model: nn.Module, *, norms: bool) -> int:
    every = sum(parameter.numel() for parameter in model.parameters())
    if norms:
        return every
    return every - sum(
        parameter.numel()
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d)
        for parameter in module.parameters()
    )


@pytest.mark.parametrize(
    ("width", "params", "macs"), [(0.5, "2.6", "42"), (1.0, "5.2", "141"), (1.3, "7.3", "227")]
)
def test_parameters_and_multiply_adds_are_the_published_ones(
    width: float, params: str, macs: str
) -> None:
    """To the digit, save 1.3x, for which the paper prints 226 (0.4 % less)."""
    model = GhostNet(width=width)

    assert f"{_params(model, norms=False) / 1e6:.1f}" == params
    assert f"{_macs(model, 3, 224, 224) / 1e6:.0f}" == macs


def test_expansions_rounded_down_would_give_the_published_226_million(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrower = [int(row.expanded * 1.3) // 4 * 4 for row in TABLE_1]
    rows = tuple(
        dataclasses.replace(row, expanded=maps / 1.3)
        for row, maps in zip(TABLE_1, narrower, strict=True)
    )
    monkeypatch.setattr(models_ghostnet, "TABLE_1", rows)

    model = GhostNet(width=1.3)

    assert [block.ghost1.out_channels for block in model.blocks] == narrower
    assert f"{_macs(model, 3, 224, 224) / 1e6:.1f}" == "225.8"


def test_the_published_backbone_is_the_network_before_its_pooling() -> None:
    """Table 8: 164 M at 1.1x, which is the whole network without the two layers behind."""
    model = GhostNet(width=1.1)
    model.head, model.classifier = nn.Identity(), nn.Identity()

    assert round(_macs(model, 3, 224, 224) / 1e6) == 164


def test_rows_and_sizes_are_those_of_table_1() -> None:
    seen = []
    model = GhostNet().eval()
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))

    assert model(torch.randn(1, 3, 224, 224)).shape == (1, 1000)
    assert seen == [
        (16, 112, 112), (24, 56, 56), (24, 56, 56), (40, 28, 28), (40, 28, 28), (80, 14, 14),
        (80, 14, 14), (80, 14, 14), (80, 14, 14), (112, 14, 14), (112, 14, 14), (160, 7, 7),
        (160, 7, 7), (160, 7, 7), (160, 7, 7), (160, 7, 7),
    ]  # fmt: skip
    assert [block.ghost1.out_channels for block in model.blocks] == [
        16, 48, 72, 72, 120, 240, 200, 184, 184, 480, 672, 672, 960, 960, 960, 960,
    ]  # fmt: skip
    with_se = [i for i, b in enumerate(model.blocks) if not isinstance(b.se, nn.Identity)]
    assert with_se == [3, 4, 9, 10, 11, 13, 15]


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(16, 0.5, 8), (24, 1.3, 32), (112, 1.3, 144), (48, 1.3, 64), (16, 0.1, 4), (20, 0.7, 16)],
)
def test_widths_are_multiples_of_four(channels: int, width: float, expected: int) -> None:
    assert widen(channels, width) == expected


def test_a_width_is_never_cut_by_more_than_a_tenth() -> None:
    for channels in range(1, 400):
        rounded = widen(channels, 1)
        assert rounded % 4 == 0
        assert rounded >= 0.9 * channels
        assert abs(rounded - channels) < 4


@pytest.mark.parametrize("size", [(64, 64), (70, 97)])
def test_any_input_and_any_classes(size: tuple[int, int]) -> None:
    model = GhostNet(width=0.5, in_channels=2, num_classes=5)

    assert model(torch.randn(2, 2, *size)).shape == (2, 5)
    assert model.input_size == (2, 224, 224)


def test_the_settings_reach_every_ghost_module() -> None:
    model = GhostNet(ratio=4, kernel=5)

    specs = {str(m.spec) for b in model.blocks for m in (b.ghost1, b.ghost2)}
    assert specs == {"s4,d5"}
    assert _macs(model, 3, 224, 224) < _macs(GhostNet(), 3, 224, 224)


def test_a_training_step_moves_every_parameter() -> None:
    torch.manual_seed(0)
    model = GhostNet(width=0.5, num_classes=4).train()

    nn.functional.cross_entropy(model(torch.randn(4, 3, 64, 64)), torch.arange(4)).backward()

    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("strides", [(8, 16, 32), (4, 8, 16, 32), (2,), (16,)])
def test_features_come_at_the_strides_asked_for(strides: tuple[int, ...]) -> None:
    model = GhostNetFeatures(strides=strides, width=0.5).eval()

    maps = model(torch.randn(1, 3, 96, 64))

    assert [tuple(one.shape[1:]) for one in maps] == [
        (channels, 96 // stride, 64 // stride)
        for channels, stride in zip(model.channels, strides, strict=True)
    ]
    assert GhostNetFeatures().channels == (40, 112, 160)


def test_features_are_what_the_classifiers_own_layers_give() -> None:
    whole, part = GhostNet(width=0.5).eval(), GhostNetFeatures(width=0.5, strides=STRIDES).eval()
    part.load_state_dict({k: v for k, v in whole.state_dict().items() if k in part.state_dict()})
    x = torch.randn(1, 3, 64, 64)
    ends = [0, 2, 4, 10, 15]  # the last bottleneck at each resolution, read off Table 1
    expected = [whole.blocks[: end + 1](whole.stem(x)) for end in ends]

    for one, other in zip(part(x), expected, strict=True):
        assert torch.equal(one, other)


def test_layers_behind_the_last_feature_are_left_out() -> None:
    model = GhostNetFeatures(strides=(8,), width=0.5)

    assert len(model.blocks) == 5
    model(torch.randn(2, 3, 64, 64))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_bare_name_is_ours_and_says_so() -> None:
    built = build("ghostnet", args={"width": 0.5, "num_classes": 7})

    assert built.origin.source == "ghostify"
    assert "timm:ghostnet_100" in built.note
    assert built.model.eval()(*example_input(built)).shape == (1, 7)
    assert build("timm:ghostnet_100").origin.source == "timm"
    assert build("ghostnet_100").origin.source == "timm"


def test_features_by_name() -> None:
    model = build("ghostnet", args={"features_only": True, "strides": [4, 32]}).model

    assert [one.shape[1] for one in model.eval()(torch.randn(1, 3, 64, 64))] == [24, 160]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "ghostnet's width is a number above 0 (got 0)"),
        ({"width": "wide"}, "ghostnet's width is a number above 0 (got 'wide')"),
        ({"num_classes": 0}, "ghostnet's num_classes is a whole number from 1 on (got 0)"),
        ({"in_channels": 1.5}, "ghostnet's in_channels is a whole number from 1 on (got 1.5)"),
        ({"dropout": 1}, "ghostnet's dropout is from 0 to below 1 (got 1)"),
        ({"dropout": "half"}, "ghostnet's dropout is from 0 to below 1 (got 'half')"),
        ({"ratio": 1}, "GhostSpec.ratio"),
        ({"ratio": 64}, "choose a smaller ratio or a wider network"),
        ({"cheap": "depthwize"}, "depthwise"),
        ({"strides": [8]}, "add features_only=true"),
        ({"features_only": True, "strides": [8, 12]}, "some of 2, 4, 8, 16, 32, ascending"),
        ({"features_only": True, "strides": 8}, "some of 2, 4, 8, 16, 32, ascending (got 8)"),
        ({"features_only": True, "num_classes": 3}, "has no num_classes where features_only"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError) as error:
        ghostnet(**arguments)
    with pytest.raises(ModelError) as by_name:
        build("ghostnet", args=arguments)

    assert message in str(error.value)
    assert "\n" not in str(by_name.value)
    assert "ghostnet" in str(by_name.value)


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2"])
def test_an_exported_file_computes_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GhostNet(width=0.5, num_classes=10).train()
    for norm in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
        norm.momentum = 0.9
        nn.init.uniform_(norm.bias, -0.2, 0.2)
    model(torch.randn(4, 3, 64, 64))
    model.eval()
    x = torch.randn(1, 3, 64, 64)

    made = ghostify.export(model, tmp_path / name, example=x)

    assert made.max_difference < 1e-4
    if name == "net.pt2":
        found = torch.export.load(tmp_path / name).module()(x)
    else:
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        found = torch.from_numpy(output)
    expected = model(x)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_converted_ghostnet_is_saved_with_its_width_and_loads_again(tmp_path: Path) -> None:
    built = build("ghostnet", args={"width": 0.5, "num_classes": 10})
    conversion = ghostify.convert(built, input_size=(64, 64), verify=False)
    ghostify.save(conversion, tmp_path / "out")

    again = ghostify.load(tmp_path / "out").eval()

    x = torch.randn(1, 3, 64, 64)
    assert conversion.replaced
    assert torch.equal(again(x), conversion.model.eval()(x))
