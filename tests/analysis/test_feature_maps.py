"""Intrinsic and ghost maps beside the original's, in whatever order a module keeps them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ghostify
from ghostify.analysis.feature_maps import FeatureMaps, feature_maps
from ghostify.analysis.map_pictures import draw_maps, save_maps
from ghostify.errors import GhostifyError
from ghostify.graph.calibrate import FitOptions
from ghostify.graph.rewrite import Conversion
from ghostify.nn.ghost import GhostModule
from tests.analysis.networks import Net, doubled, images


@pytest.fixture(scope="module")
def conversion() -> Conversion:
    """Convert a network whose second half of maps are multiples, so that nothing is lost."""
    return ghostify.convert(
        doubled(),
        kernel=1,
        example=images(1),
        calibration=[images(64)],
        fit=FitOptions(block_steps=0, joint_steps=0),
    )


def test_maps_are_those_of_the_module(conversion: Conversion) -> None:
    net, image = conversion.model.eval(), images(1, seed=3)
    ghost = net.second
    assert isinstance(ghost, GhostModule)

    found = feature_maps(conversion, image, layer="second", against=None)

    with torch.no_grad():
        source = torch.relu(net.norm(net.first(image)))  # type: ignore[operator]
        intrinsic = ghost.primary(source)[0]
        ghosts = ghost.cheap[0](intrinsic[None])[0]
    assert found.intrinsic == found.ghosts == 4
    assert found.maps[:4] == pytest.approx(intrinsic.numpy(), abs=1e-6)
    assert found.maps[4:] == pytest.approx(ghosts.numpy(), abs=1e-6)
    assert [found.maker(place) for place in range(4, 8)] == [0, 1, 2, 3]
    assert found.image == pytest.approx(image[0].numpy())


def test_the_order_of_the_module_is_undone(conversion: Conversion) -> None:
    ghost = conversion.model.get_submodule("second")
    assert isinstance(ghost, GhostModule)
    assert ghost.order is not None  # nothing behind it can take the order up

    found = feature_maps(conversion, images(1, seed=3), layer="second", against=doubled())

    assert sorted(found.stands_for) == list(range(8))
    for place in range(4, 8):
        pair = {found.stands_for[place], found.stands_for[found.maker(place)]}
        assert pair in ({0, 1}, {2, 3}, {4, 5}, {6, 7})
    errors = found.relative_errors()
    assert errors is not None
    assert errors.max() < 1e-4


def test_an_artefact_holds_the_original(conversion: Conversion, tmp_path: Path) -> None:
    model = ghostify.convert(
        "resnet20_cifar",
        calibration=[torch.rand(16, 3, 32, 32)],
        keep=["layer2*", "layer3*"],
        fit=FitOptions(block_steps=0, joint_steps=0),
    )
    ghostify.save(model, tmp_path / "out")

    found = feature_maps(tmp_path / "out", torch.rand(3, 32, 32))  # type: ignore[arg-type]

    assert found.layer == "layer1.0.conv1"
    assert found.against == "the original"
    assert found.original is not None
    errors = found.relative_errors()
    assert errors is not None
    assert np.median(errors[:8]) < 0.2  # the intrinsic maps of the first layer read what they did
    assert np.median(errors[:8]) < np.median(errors[8:])
    told = found.as_json()
    assert [one["kind"] for one in told["maps"]] == ["intrinsic"] * 8 + ["ghost"] * 8
    assert told["maps"][8]["from"] == told["maps"][0]["map"]


def test_maps_in_an_order_of_their_own_are_matched_by_likeness() -> None:
    """After a fit the layer behind may have taken up the order, and nothing tells it any more."""

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            net = doubled()
            self.stem, self.first = nn.Conv2d(3, 6, 3, padding=1), net.second
            self.norm, self.last = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.norm(self.first(self.stem(image)))))  # type: ignore[no-any-return]

    net = Chain().eval()
    found = ghostify.convert(
        net,
        kernel=1,
        keep=["last"],
        example=images(1),
        calibration=[images(64)],
        fit=FitOptions(block_steps=0, joint_steps=0),
    )
    ghost = found.model.get_submodule("first")
    assert isinstance(ghost, GhostModule)
    assert ghost.order is None

    maps = feature_maps(found, images(1, seed=5), layer="first", against=net)

    assert maps.matched
    assert maps.stands_for != tuple(range(8))
    errors = maps.relative_errors()
    assert errors is not None
    assert errors.max() < 1e-4
    assert "order of their own" in maps.notes[0]


def test_an_ordinary_network_has_no_ghosts() -> None:
    net = Net().train()

    found = feature_maps(net, images(1), against=None)

    assert found.layer == "second"  # as in the paper
    assert found.ghosts == 0
    assert found.relative_errors() is None
    assert net.training
    assert found.as_json()["maps"][0]["kind"] == "ordinary"


def drawn(maps: int, intrinsic: int, *, original: bool) -> FeatureMaps:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(maps, 5, 5))
    return FeatureMaps(
        "net", "layer", generator.normal(size=(3, 8, 8)), values, intrinsic,
        tuple(reversed(range(maps))), values + 1 if original else None,
        "the original" if original else "",
    )  # fmt: skip


def test_the_picture_has_every_map_labelled() -> None:
    figure = draw_maps(drawn(10, 5, original=True))

    blocks = {
        part.get_suptitle(): [axis.get_title() for axis in part.axes]
        for part in figure.subfigs
        if part.axes and part.get_suptitle()
    }
    assert [axis.get_title() for axis in figure.subfigs[0].axes] == ["image"]
    assert blocks["intrinsic: primary convolution"] == ["9", "8", "7", "6", "5"]
    assert blocks["ghosts: cheap operations"] == ["4 ← 9", "3 ← 8", "2 ← 7", "1 ← 6", "0 ← 5"]
    assert blocks["the original: the same maps"] == ["4", "3", "2", "1", "0"]
    assert len(figure.axes) == 1 + 2 * 10


def test_a_map_and_the_originals_share_their_scale_but_for_an_offset() -> None:
    found = drawn(4, 2, original=True)

    parts = draw_maps(found).subfigs
    ours, theirs = (part.axes[0].images[0] for part in (parts[1], parts[4]))

    low, high = ours.get_clim()
    assert theirs.get_clim() == pytest.approx((low + 1, high + 1))
    assert (low, high) == pytest.approx((found.maps[0].min(), found.maps[0].max()))
    assert ours.get_cmap().name == "viridis"


def test_of_many_maps_some_are_drawn_with_their_ghosts() -> None:
    figure = draw_maps(drawn(300, 100, original=False), most=48)

    labels = [axis.get_title() for part in figure.subfigs for axis in part.axes]
    assert len(labels) == 1 + 48
    assert labels[1] == "299"
    assert f"{299 - 100} ← 299" in labels
    assert f"{299 - 200} ← 299" in labels
    assert "(48 of 300 maps)" in str(figure.get_suptitle())


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_pictures_are_files_of_their_kind(kind: str, tmp_path: Path) -> None:
    found = drawn(4, 2, original=False)

    save_maps(found, tmp_path / f"one.{kind}")

    first = (tmp_path / f"one.{kind}").read_bytes()
    assert {"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}[kind] in first[:400]
    if kind == "png":
        save_maps(found, tmp_path / "two.png")
        assert (tmp_path / "two.png").read_bytes() == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "secnd"}, "has no layer 'secnd'; did you mean second?"),
        ({"image": images(1)[:, :2]}, "does not take an image of 2x12x12"),
        ({"image": images(2)}, "the image is a normalised floating-point tensor (C, H, W)"),
        ({"image": images(1) * float("nan")}, "not finite"),
        ({"against": Net(7), "layer": "first"}, "gives 6x12x12 in"),
        ({"against": nn.Sequential(nn.Conv2d(3, 6, 3))}, "has no layer 'second' to compare with"),
        ({"against": "nothing"}, "no model is called 'nothing'"),
        ({"against_weights": "w.pt"}, "name it by --against"),
        ({"model": nn.Flatten()}, "has no convolution"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"model": Net(), "image": images(1)}

    with pytest.raises(GhostifyError) as raised:
        feature_maps(**(arguments | change))  # type: ignore[arg-type]

    assert message in str(raised.value)
