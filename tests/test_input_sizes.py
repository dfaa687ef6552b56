"""Networks that do not say how large their images are take small ones as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import ghostify as library
from ghostify.data.images import open_images
from ghostify.models import zoo
from ghostify.sources import sized_by
from tests.train.toys import SIDE, Toy, toy, write_folder

Ghostify = Callable[..., Any]

SILENT = "tests.test_input_sizes:silent"
DEEP = "tests.test_input_sizes:deep"
SMALL = ("--steps", "2", "--recipe", "finetune", "--batch-size", "16")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def silent() -> nn.Module:
    """A network that says nothing of its input size."""
    network = Toy(dropout=0.0)
    del network.input_size
    return network


def deep() -> nn.Module:
    """One that needs more pixels than small images have."""
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1)]
    layers += [nn.MaxPool2d(2) for _ in range(4)]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_folder(folder, 32)
    return write_folder(folder, 16, seed=1, split="test")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "toy.pth"
    torch.save(toy(3).state_dict(), path)
    return path


def multiply_adds(network: nn.Module, side: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, side, side))
    return int(counter.get_total_flops() // 2)


def test_evaluate_shows_the_network_the_pixels_that_are_there(
    ghostify: Ghostify, data: Path, weights: Path
) -> None:
    network = toy(3).eval()
    images, labels = [], []
    for file in sorted((data / "test").rglob("*.png")):
        images.append(np.asarray(Image.open(file)))
        labels.append(int(file.parent.name.removeprefix("class")))
    names = sorted({f"class{label}" for label in labels})
    assert len(names) == 4, "labels are positions in the list of classes"
    pixels = torch.tensor(np.stack(images)).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        loss = functional.cross_entropy(network(pixels), torch.tensor(labels)).item()

    run = ghostify("evaluate", SILENT, "--weights", weights, "--data", data, "--json")

    assert run.code == 0, run.err
    found = json.loads(run.out)
    assert found["images"] == 16
    assert found["loss"] == pytest.approx(loss, rel=1e-4)


def test_convert_counts_and_fits_at_the_size_of_the_images(
    ghostify: Ghostify, data: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    run = ghostify(
        "convert", SILENT, "--weights", weights, "--calibrate", data, "--all", "--json", "-o", out
    )

    assert run.code == 0, run.err
    found = json.loads(run.out)
    assert found["before"]["macs"] == multiply_adds(toy(), SIDE)
    assert found["after"]["macs"] == multiply_adds(library.load(out), SIDE)
    manifest = json.loads((out / "ghostify.json").read_text())
    assert manifest["input"] == [f"1x3x{SIDE}x{SIDE}"]


def test_the_callers_word_comes_first(ghostify: Ghostify, data: Path, weights: Path) -> None:
    common = ("convert", SILENT, "--weights", weights, "--calibrate", data, "--all", "--json")
    for option in ("--input-size", "--crop"):
        run = ghostify(*common, option, "16", "--resize", "16")

        assert run.code == 0, run.err
        assert json.loads(run.out)["before"]["macs"] == multiply_adds(toy(), 16)


def test_training_says_the_size_that_it_took(
    ghostify: Ghostify, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    run = ghostify("train", SILENT, "--data", data, *SMALL, "-o", out)

    assert run.code == 0, run.err
    assert json.loads((out / "ghostify.json").read_text())["input"] == [f"1x3x{SIDE}x{SIDE}"]


def test_search_counts_at_the_size_of_the_images(
    ghostify: Ghostify, data: Path, weights: Path, tmp_path: Path
) -> None:
    run = ghostify(
        "search", SILENT, "--weights", weights, "--data", data, "--budget", "macs=0.9x",
        "--trials", 2, "-o", tmp_path / "run", "--json",
    )  # fmt: skip

    assert run.code == 0, run.err
    original = multiply_adds(toy(), SIDE)
    assert json.loads(run.out)["best"]["macs"] <= 0.9 * original


def test_images_that_do_not_suit_leave_the_assumed_size(data: Path) -> None:
    images = open_images(data, split="train")
    built = zoo.build(DEEP)

    assert built.assumed
    assert sized_by(built, images) is built
    assert sized_by(zoo.build("resnet20_cifar"), images).input_size == (3, 32, 32)
    assert sized_by(zoo.build(SILENT), images).input_size == (3, SIDE, SIDE)


def test_images_of_several_sizes_leave_it_too(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for side in (8, 12):
            Image.new("RGB", (side, side)).save(tmp_path / kind / f"{side}.png")

    built = zoo.build(SILENT)

    assert sized_by(built, open_images(tmp_path)) is built


def test_a_size_is_called_assumed_only_where_none_is_given(
    ghostify: Ghostify, tmp_path: Path
) -> None:
    said = "assumed; --input-size or --crop says otherwise"

    assert said in ghostify("inspect", SILENT).err
    for verb in ("inspect", "convert"):
        assert said not in ghostify(verb, SILENT, "--input-size", SIDE).err
    assert said in ghostify("export", SILENT, "-o", tmp_path / "a.pt2").err
    given = ghostify("export", SILENT, "--input-size", SIDE, "-o", tmp_path / "b.pt2")
    assert given.code == 0, given.err
    assert said not in given.err
