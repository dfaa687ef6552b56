"""``ghostify redundancy`` and ``ghostify maps`` as a user meets them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ghostify as package
from tests.data.sources import cells, noise, png, table, write_parquet

Command = Callable[..., Any]
QUICK = ("--layers", "layer1.0.*", "--kernels", "1,3", "--images", "8")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "images"
    write_parquet(folder / "train-00000.parquet", table(cells(24, side=32), [0, 1] * 12))
    write_parquet(folder / "test-00000.parquet", table(cells(6, side=32), [0, 1] * 3))
    return folder


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artefact") / "out"
    package.save(package.convert("resnet20_cifar", verify=False), out)
    return out


def test_the_table(ghostify: Command, images: Path) -> None:
    run = ghostify("redundancy", "resnet20_cifar", "--data", images, *QUICK)

    lines = run.out.splitlines()
    assert run.code == 0
    assert lines[0].split()[:5] == ["layer", "maps", "output", "d=1", "d=3"]
    assert [line.split()[0] for line in lines[1:3]] == ["layer1.0.conv1", "layer1.0.conv2"]
    assert "8 images of 3x32x32" in run.out
    assert "nothing was written" in run.err


def test_json_on_the_seed(ghostify: Command, images: Path) -> None:
    arguments = ("redundancy", "resnet20_cifar", "--data", images, *QUICK, "--json")
    first, again, other = (
        json.loads(ghostify(*arguments, "--seed", seed).out) for seed in (0, 0, 1)
    )

    names = [layer["name"] for layer in first["layers"]]
    assert names == ["layer1.0.conv1", "layer1.0.conv2"]
    assert first["images"] == 8
    assert first["data"]["images"] == 24
    assert first["report"] is None
    errors = first["layers"][0]["errors"]
    assert errors["3"]["relative_mse"] <= errors["1"]["relative_mse"] <= 1
    assert again["layers"] == first["layers"]
    assert other["layers"] != first["layers"]


def test_the_report(ghostify: Command, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    run = ghostify(
        "redundancy", "resnet20_cifar", "--data", images, *QUICK, "-o", out, "--quiet",
        "--picture", "layer1.0.conv2", "--picture-image", "3", "--tolerance", "1",
    )  # fmt: skip

    assert (run.code, run.out, run.err) == (0, "", "")
    assert {"pairs.png", "pairs.svg", "layers.csv", "summary.md"} <= {
        file.name for file in out.iterdir()
    }
    with (out / "layers.csv").open(encoding="utf-8", newline="") as file:
        assert {row["layer"] for row in csv.DictReader(file)} == {
            "layer1.0.conv1", "layer1.0.conv2"
        }  # fmt: skip
    again = ghostify("redundancy", "resnet20_cifar", "--data", images, *QUICK, "-o", out)
    assert again.code == 1
    assert "exists already" in again.message
    plan = ghostify("convert", "resnet20_cifar", "--plan", out / "plan.yaml", "--json")
    assert {one["name"] for one in json.loads(plan.out)["replaced"]} == {
        "layer1.0.conv1", "layer1.0.conv2"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "there are no images; give them by --data PATH"),
        (("--kernels", "3,x"), 2, "--kernels is written like 1,3,5 (got '3,x')"),
        (("--kernels", "2"), 1, "kernels are odd whole numbers from 1 to 15 (got 2)"),
        (("--ratios", "1"), 1, "ratios are whole numbers from 2"),
        (("--layers", "stage9*"), 1, "matches 'stage9*'"),
        (("--tolerance", "2"), 1, "the tolerance is a share from 0 to 1 (got 2.0)"),
        (("--picture", "layer9"), 1, "no layer 'layer9' to make a picture of"),
        (("--picture-image", "99"), 1, "the picture's image is one of 0 to"),
        (("--weights", "none.pth"), 1, "none.pth"),
        (("--weights", "none.pth", "--pretrained"), 2, "exclude each other"),
        (("--crop", "8"), 1, "8"),
        (("--images", "0"), 2, "--images"),
        (("--device", "tpu9"), 1, "tpu9"),
        (("-o", "/proc/none/out"), 1, "cannot be written"),
    ],
)
def test_bad_input(
    ghostify: Command, images: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    data = () if not arguments else ("--data", images)

    run = ghostify("redundancy", "resnet20_cifar", *data, "--images", "4", *arguments)

    assert run.code == code
    assert message in run.message
    assert run.out == ""


def test_no_such_data(ghostify: Command) -> None:
    run = ghostify("redundancy", "resnet20_cifar", "--data", "/nowhere")

    assert run.code == 1
    assert run.message.startswith("no such data: /nowhere")


def test_maps_of_an_artefact(
    ghostify: Command, artefact: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps.png"

    run = ghostify(
        "maps", artefact, "--data", images, "--index", 2, "--layer", "layer1.0.conv1",
        "-o", out, "--against", "resnet20_cifar",
    )  # fmt: skip

    assert run.code == 0
    assert "8 intrinsic maps and 8 ghosts" in run.out
    assert "of ghostify:resnet20_cifar's maps" in " ".join(run.out.split())
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200
    assert [file.name for file in tmp_path.iterdir()] == ["maps.png"]
    again = ghostify("maps", artefact, "--data", images, "-o", out)
    assert again.code == 1
    assert "exists already" in again.message
    assert ghostify("maps", artefact, "--data", images, "-o", out, "--force", "-q").code == 0


def test_maps_of_an_image_file(ghostify: Command, artefact: Path, tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(png(noise(32, 32, 3)))

    run = ghostify("maps", artefact, "--image", file, "--json")

    value = json.loads(run.out)
    assert run.code == 0
    assert value["layer"] == "layer1.0.conv1"
    assert value["picture"] is None
    assert value["against"] is None  # random weights were not kept
    assert [one["map"] for one in value["maps"]] == list(range(16))
    assert [one["from"] for one in value["maps"]] == [None] * 8 + list(range(8))
    assert "--against" in value["notes"][0]


def test_an_image_is_read_as_the_network_wants_it(tmp_path: Path) -> None:
    from ghostify.cli.data_options import read_data_request
    from ghostify.cli.maps import read_image
    from ghostify.data.preprocess import Preprocess

    pixels = noise(32, 32, 3)
    (tmp_path / "image.png").write_bytes(png(pixels))
    wish = Preprocess(3, (32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))

    found = read_image(tmp_path / "image.png", read_data_request({}), 0, wish)

    wanted = (pixels / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    assert found.numpy() == pytest.approx(np.moveaxis(wanted, 2, 0), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("-o", "maps.png"), 2, "give one image: --image FILE, or --data PATH with --index"),
        (("--image", "a.png", "--data", "d", "-o", "m.png"), 2, "give one image"),
        (("--image", "a.png", "--index", "1", "-o", "m.png"), 2, "--index and --split go with"),
        (("--image", "a.png"), 2, "give the picture's file by -o"),
        (("--image", "none.png", "-o", "m.png"), 1, "no such image: none.png"),
        (("--image", "none.png", "-o", "m.bmp"), 1, "ends in .png, .svg, .pdf (got m.bmp)"),
        (("--image", "none.png", "-o", "none/m.png"), 1, "does not exist; create it"),
        (("--image", "broken.png", "-o", "m.png"), 1, "cannot be read"),
        (("--image", "large.png", "-o", "m.png"), 1, "--resize"),
        (("--image", "good.png", "--layer", "layer9", "-o", "m.png"), 1, "no layer 'layer9'"),
        (("--image", "good.png", "--layer", "linear", "-o", "m.png"), 1, "gives no maps"),
        (("--image", "good.png", "--against", "nix", "-o", "m.png"), 1, "no model is called"),
    ],
)
def test_bad_input_to_maps(
    ghostify: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.png").write_bytes(png(noise(32, 32, 3)))
    (tmp_path / "large.png").write_bytes(png(noise(40, 50, 3)))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and no more")
    before = sorted(tmp_path.iterdir())

    run = ghostify("maps", "resnet20_cifar", *arguments)

    assert run.code == code
    assert message in run.message
    assert sorted(tmp_path.iterdir()) == before
