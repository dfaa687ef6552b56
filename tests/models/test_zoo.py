"""Networks by name, and one clear sentence where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ghostify.errors import InputError, ModelError, ModelNotFoundError
from ghostify.models.zoo import Built, build, example_input
from ghostify.spec import Origin


@pytest.mark.parametrize(
    ("name", "source", "size"),
    [
        ("resnet20_cifar", "ghostify", (3, 32, 32)),
        ("resnet18", "torchvision", (3, 224, 224)),
        ("torchvision:efficientnet_b1", "torchvision", (3, 240, 240)),
        ("timm:resnet18", "timm", (3, 224, 224)),
        ("ghostnet_050", "timm", (3, 224, 224)),
        ("timm:test_resnet.r160_in1k", "timm", (3, 160, 160)),
    ],
)
def test_a_name_finds_its_library_and_input(name: str, source: str, size: tuple[int, ...]) -> None:
    built = build(name)

    assert built.origin.source == source
    assert built.input_size == size
    if ":" not in name and source != "ghostify":
        assert source in built.note


def test_arguments_reach_the_librarys_function() -> None:
    assert build("resnet18", args={"num_classes": 7}).model.fc.out_features == 7
    assert build("timm:resnet18", args={"in_chans": 1}).model.conv1.in_channels == 1
    assert build("vgg16_cifar", args={"num_classes": 7}).model.classifier[-1].out_features == 7


def test_a_seed_decides_the_initial_weights_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, same, other = (build("resnet20_cifar", seed=seed).model for seed in (1, 1, 2))

    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(one.conv1.weight, same.conv1.weight)
    assert not torch.equal(one.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt50", "no model is called 'resnt50'; did you mean resnet50"),
        ("torchvision:resnet5", "torchvision has no model 'resnet5'; did you mean resnet50"),
        ("timm:mobilnetv3_large_100", "did you mean mobilenetv3_large_100"),
        ("ghostify:vgg", "ghostify has no model 'vgg'"),
        ("timm:", "names no model; write timm:NAME"),
        ("no_such_package.nets:build", "no module 'no_such_package' is installed"),
        ("os:system", "names no factory"),
        ("qqqq", "give a name of torchvision or timm, or package.module:factory"),
    ],
)
def test_an_unknown_name_is_one_sentence(name: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError) as error:
        build(name)

    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_nets.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def build(width=4):\n"
        "    return nn.Sequential(nn.Conv2d(1, width, 3), nn.Conv2d(width, width, 3))\n"
        "def wrong(): return {'state': 1}\n"
        "def broken(): raise RuntimeError('no such file')\n"
        "ready = build(6)\n"
        "number = 3\n"
    )
    (tmp_path / "broken_nets.py").write_text("import torch\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "some_nets", raising=False)


@pytest.mark.usefixtures("nets")
def test_a_factory_is_called_with_arguments() -> None:
    built = build("some_nets:build", args={"width": 8})

    assert built.model[0].out_channels == 8
    assert built.input_size == (1, 224, 224)
    assert "assumed" in built.note


@pytest.mark.usefixtures("nets")
def test_a_model_that_stands_ready_is_taken() -> None:
    assert build("some_nets:ready").model[0].out_channels == 6


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some_nets:wrong", "gives a dict, not a torch.nn.Module"),
        ("some_nets:broken", "building some_nets:broken fails (RuntimeError: no such file)"),
        ("some_nets:number", "is a int, not a function that builds a model"),
        ("broken_nets:build", "importing broken_nets fails (ZeroDivisionError: division by zero)"),
    ],
)
def test_a_factory_that_makes_no_model_is_one_sentence(name: str, message: str) -> None:
    with pytest.raises(ModelError) as error:
        build(name)

    assert message in str(error.value)


@pytest.mark.usefixtures("nets")
def test_a_missing_factory_names_the_nearest() -> None:
    with pytest.raises(ModelNotFoundError, match="some_nets has no 'bild'; did you mean build"):
        build("some_nets:bild")


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18", "resnet20_cifar"])
def test_wrong_arguments_are_named(name: str) -> None:
    with pytest.raises(ModelError, match=r"building .* fails \(.*wdth.*\); check --model-arg"):
        build(name, args={"wdth": 2})


def test_own_networks_have_no_weights_of_their_own() -> None:
    with pytest.raises(ModelError, match="pass them by --weights"):
        build("vgg16_cifar", pretrained=True)


def test_the_example_suits_the_kind_of_network() -> None:
    assert example_input(build("resnet20_cifar"))[0].shape == (1, 3, 32, 32)
    assert example_input(build("resnet20_cifar"), (48, 64))[0].shape == (1, 3, 48, 64)
    assert example_input(build("r3d_18"))[0].shape == (1, 3, 16, 112, 112)
    assert [image.shape for image in example_input(build("raft_small"))] == [(1, 3, 128, 128)] * 2
    images = example_input(build("fasterrcnn_mobilenet_v3_large_320_fpn"))[0]
    assert [image.shape for image in images] == [(3, 320, 320)]


def test_a_model_without_a_known_input_asks_for_one() -> None:
    built = Built(nn.Conv2d(3, 8, 3), Origin("memory", "net"), None)

    with pytest.raises(InputError, match="the input of net is unknown"):
        example_input(built)
