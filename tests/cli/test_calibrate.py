"""``convert --calibrate``: the Ghost modules are fitted before they are written."""

from __future__ import annotations

import dataclasses
import json
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ghostify as package
from ghostify import fitting
from ghostify.graph import calibrate
from ghostify.models.resnet import resnet20_cifar
from tests.data.sources import cells, noise, table, write_image, write_parquet

Command = Callable[..., Any]
FEW = ("--block-steps", 2, "--joint-steps", 2)
LITTLE = ("--keep", "layer1*", "--keep", "layer2*", *FEW)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    write_parquet(folder / "train-00000.parquet", table(cells(24, side=32), [0, 1] * 12))
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    model = resnet20_cifar()
    with torch.no_grad():
        model(torch.randn(16, 3, 32, 32))
    file = tmp_path / "weights.pt"
    torch.save(model.state_dict(), file)
    return file


def start(weights: Path) -> nn.Module:
    model = resnet20_cifar()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def miss(model: nn.Module, original: nn.Module) -> float:
    image = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = original(image)
        return float((model.eval()(image) - wanted).square().mean() / wanted.var())


def test_a_fitted_artefact_does_nearly_what_the_original_did(
    ghostify: Command, tmp_path: Path, images: Path, weights: Path
) -> None:
    out = tmp_path / "out"

    run = ghostify(
        "convert", "resnet20_cifar", "--weights", weights, "--calibrate", images, *FEW, "--json",
        "-o", out,
    )  # fmt: skip

    assert run.code == 0, run.err
    value = json.loads(run.out)
    fit = value["fit"]
    assert fit["kind"] == "fit"
    assert fit["images"] == 24
    assert [layer["name"] for layer in fit["layers"]] == [one["name"] for one in value["replaced"]]
    assert fit["options"]["block_steps"] == 2
    assert fit["data"]["images"] == 24
    assert len(fit["blocks"]) == 9

    loaded = package.load(out)
    fresh = ghostify("convert", "resnet20_cifar", "--weights", weights, "-o", tmp_path / "fresh")
    assert fresh.code == 0
    original = start(weights)
    assert miss(loaded, original) < 0.5 * miss(package.load(tmp_path / "fresh"), original)
    summary = (out / "summary.md").read_text()
    assert "fitted to the original on 24 images, without labels" in summary
    manifest = json.loads((out / "ghostify.json").read_text())
    assert [entry["kind"] for entry in manifest["history"]] == ["fit"]


def test_the_same_seed_writes_the_same_weights(
    ghostify: Command, tmp_path: Path, images: Path, weights: Path
) -> None:
    states = []
    for number, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(number)
        run = ghostify(
            "convert", "resnet20_cifar", "--weights", weights, "--calibrate", images, *LITTLE,
            "--calibration-images", 12, "--seed", seed, "-q", "-o", out,
        )  # fmt: skip
        assert run.code == 0, run.err
        states.append(package.load(out).state_dict())

    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first if key in other)


def test_image_folders_serve_as_well(ghostify: Command, tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        for number in range(3):
            write_image(tmp_path / "set" / "train" / kind / f"{number}.png", noise(32, 32, 3))

    run = ghostify("convert", "resnet20_cifar", "--calibrate", tmp_path / "set", *LITTLE, "--json")

    assert run.code == 0, run.err
    assert json.loads(run.out)["fit"]["images"] == 6


def test_synthetic_images_serve_without_any(
    ghostify: Command, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "_SMALL", 16)
    monkeypatch.setattr(fitting, "_STEPS", 2)
    out = tmp_path / "out"

    run = ghostify(
        "convert", "resnet20_cifar", "--weights", weights, "--calibrate", "synthetic", *LITTLE,
        "-o", out,
    )  # fmt: skip

    assert run.code == 0, run.err
    assert "fitted to the original on 16 synthetic images, which is clearly worse" in run.err
    assert "synthetic" in (out / "summary.md").read_text()
    package.load(out)


def bad(ghostify: Command, out: Path, *arguments: object, code: int = 1) -> str:
    run = ghostify("convert", "resnet20_cifar", *arguments, "-o", out)

    assert run.code == code, run.err
    assert not out.exists()
    assert "Traceback" not in run.err
    return str(run.err)


def test_a_path_that_is_not_there(ghostify: Command, tmp_path: Path) -> None:
    assert "missing" in bad(ghostify, tmp_path / "out", "--calibrate", tmp_path / "missing")


def test_a_folder_without_images(ghostify: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert "empty" in bad(ghostify, tmp_path / "out", "--calibrate", tmp_path / "empty")


@pytest.mark.parametrize(
    "option",
    [
        ("--block-steps", 2), ("--joint-steps", 2), ("--calibration-images", 8), ("--mean", "0.5"),
        ("--std", "0.2"), ("--resize", 40), ("--crop", 32), ("--split", "train"),
        ("--stream-order", "own"),
    ],
)  # fmt: skip
def test_options_of_a_fit_go_with_a_fit(
    ghostify: Command, tmp_path: Path, option: Sequence[object]
) -> None:
    message = bad(ghostify, tmp_path / "out", *option, code=2)

    assert f"{option[0]} goes with --calibrate DATA" in message


@pytest.mark.parametrize("option", [("--calibration-images", 8), ("--split", "train")])
def test_options_of_images_do_not_go_with_synthetic_ones(
    ghostify: Command, tmp_path: Path, option: Sequence[object]
) -> None:
    message = bad(ghostify, tmp_path / "out", "--calibrate", "synthetic", *option, code=2)

    assert str(option[0]) in message


@pytest.mark.parametrize(
    "option",
    [
        ("--mean", "0.5,0.5"), ("--mean", "grey"), ("--std", "0,0,0"), ("--std", "nan,1,1"),
        ("--block-steps", -1), ("--joint-steps", "many"), ("--calibration-images", 0),
        ("--stream-order", "any"),
    ],
)  # fmt: skip
def test_values_that_cannot_be(
    ghostify: Command, tmp_path: Path, images: Path, option: Sequence[object]
) -> None:
    run = ghostify(
        "convert", "resnet20_cifar", "--calibrate", images, *option, "-o", tmp_path / "out"
    )

    assert run.code in (1, 2), run.err
    assert "Traceback" not in run.err
    assert not (tmp_path / "out").exists()


def test_grey_images_are_taken_as_colours_that_are_alike(ghostify: Command, tmp_path: Path) -> None:
    """A grey picture is a picture: decoders make three equal channels of it."""
    for number in range(4):
        write_image(tmp_path / "set" / "train" / "a" / f"{number}.png", noise(32, 32))

    run = ghostify("convert", "resnet20_cifar", "--calibrate", tmp_path / "set", *LITTLE, "--json")

    assert run.code == 0, run.err
    assert json.loads(run.out)["fit"]["images"] == 4


def test_images_of_another_size_are_brought_to_size_where_that_is_asked_for(
    ghostify: Command, tmp_path: Path
) -> None:
    for number, side in enumerate((20, 32, 48, 100)):
        write_image(tmp_path / "set" / "train" / "a" / f"{number}.png", noise(side, side + 7, 3))

    message = bad(ghostify, tmp_path / "out", "--calibrate", tmp_path / "set")
    assert "the network takes 32x32; say by --resize N how to scale it" in message
    run = ghostify(
        "convert",
        "resnet20_cifar",
        "--calibrate",
        tmp_path / "set",
        "--resize",
        32,
        *LITTLE,
        "--json",
    )

    assert run.code == 0, run.err
    assert json.loads(run.out)["fit"]["images"] == 4


def test_a_corrupt_image_is_told_and_passed_over(
    ghostify: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = cells(40, side=32)
    made[7]["bytes"] = b"no image"
    write_parquet(tmp_path / "set" / "train.parquet", table(made, [0] * 40))

    run = ghostify("convert", "resnet20_cifar", "--calibrate", tmp_path / "set", *LITTLE)

    assert run.code == 0, run.err
    assert "image 7 is skipped" in caplog.text + run.err
    assert "fitted to the original on 39 images" in run.err


def test_an_interrupted_fit_leaves_nothing(
    ghostify: Command, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a block is refined, with all activations on disk."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    fields = dataclasses.fields(calibrate.FitOptions)
    small = {one.name: one.default for one in fields} | {"memory_bytes": 0, "block_steps": 2}
    monkeypatch.setattr(
        "ghostify.cli.calibration.FitOptions", lambda **_: calibrate.FitOptions(**small)
    )

    def interrupt(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrate, "refine", interrupt)
    before = signal.getsignal(signal.SIGINT)

    run = ghostify("convert", "resnet20_cifar", "--calibrate", images, "-o", tmp_path / "out")

    assert run.code == 130
    assert "Traceback" not in run.err
    assert not (tmp_path / "out").exists()
    assert list(scratch.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_a_trained_resnet_keeps_most_of_its_accuracy(
    ghostify: Command, tmp_path: Path, checkpoints: Path
) -> None:
    """256 images, no label, few steps: above 70 %; a random start is near 10 %."""
    data = checkpoints.parent / "cifar10-subset"
    if not data.is_dir():
        pytest.skip(f"no images at {data}")
    (file,) = checkpoints.glob("resnet20-*")
    tops = []
    for number, more in enumerate((("--calibrate", data, "--calibration-images", 256,
                                    "--block-steps", 20, "--joint-steps", 20), ())):  # fmt: skip
        out = tmp_path / str(number)
        run = ghostify("convert", "resnet20_cifar", "--weights", file, *more, "-q", "-o", out)
        assert run.code == 0, run.err
        run = ghostify("evaluate", out, "--data", data, "--json")
        assert run.code == 0, run.err
        tops.append(json.loads(run.out)["top1"])

    assert tops[0] > 70
    assert tops[1] < 20
