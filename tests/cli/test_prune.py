"""``ghostify prune``: from the command line to an artefact, and every mistake in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ghostify as package
from ghostify.models.resnet import resnet20_cifar
from tests.data.sources import cells, table, write_parquet
from tests.pruners.networks import trained

Command = Callable[..., Any]
MODEL = "resnet20_cifar"
HALF = ("--budget", "macs=0.5x")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    write_parquet(folder / "train-00000.parquet", table(cells(24, side=32), [0, 1] * 12))
    write_parquet(folder / "test-00000.parquet", table(cells(8, side=32), [0, 1] * 4))
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    file = tmp_path / "weights.pt"
    torch.save(trained(resnet20_cifar()).state_dict(), file)
    return file


def test_it_writes_an_artefact_and_one_json_object(
    ghostify: Command, tmp_path: Path, weights: Path
) -> None:
    out = tmp_path / "out"

    run = ghostify("prune", MODEL, *HALF, "--weights", weights, "-o", out, "--json")

    assert run.code == 0, run.err
    value = json.loads(run.out)
    assert value["method"] == "l1"
    assert 0.49 <= value["after"]["macs"] / value["before"]["macs"] <= 0.5
    assert value["artefact"] == str(out)
    assert {one["name"] for one in value["pruned"]} == {
        f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)
    }
    model = package.load(out)
    for one in value["pruned"]:
        assert model.get_submodule(one["name"]).out_channels == one["kept"] < one["maps"]


def test_labelled_images_rank_and_others_fit(
    ghostify: Command, tmp_path: Path, weights: Path, images: Path
) -> None:
    out = tmp_path / "out"

    run = ghostify(
        "prune", MODEL, *HALF, "--method", "taylor", "--weights", weights, "--data", images,
        "--batch-size", 8, "--calibrate", images, "--block-steps", 1, "--joint-steps", 1,
        "-o", out, "--json",
    )  # fmt: skip

    assert run.code == 0, run.err
    history = json.loads((out / "ghostify.json").read_text())["history"]
    assert [entry["kind"] for entry in history] == ["prune", "fit"]
    assert history[0]["data"]["images"] == 24
    assert (out / "original.safetensors").is_file()


def test_the_artefact_is_trained_judged_and_exported_like_any(
    ghostify: Command, tmp_path: Path, weights: Path, images: Path
) -> None:
    pruned, tuned = tmp_path / "pruned", tmp_path / "tuned"
    assert ghostify("prune", MODEL, *HALF, "--weights", weights, "-o", pruned, "-q").code == 0

    run = ghostify(
        "finetune", pruned, "--data", images, "--epochs", 1, "--batch-size", 8, "-o", tuned, "-q"
    )
    assert run.code == 0, run.err

    run = ghostify("evaluate", tuned, "--data", images, "--json")
    assert run.code == 0, run.err
    run = ghostify("export", tuned, "-o", tmp_path / "net.onnx", "-q")
    assert run.code == 0, run.err
    assert package.load(tuned).layer1[0].conv1.out_channels == 8


def test_a_mixed_plan_goes_the_whole_way(
    ghostify: Command, tmp_path: Path, weights: Path, images: Path
) -> None:
    plan, out, tuned = tmp_path / "mixed.yaml", tmp_path / "out", tmp_path / "tuned"
    plan.write_text(
        "layers:\n  layer1.0.conv1: p0.5\n  layer1.0.conv2: s2,d3\n"
        "  layer3.1.conv1: {prune: 0.25}\n  layer3.1.conv2: s3,d1\n"
    )

    run = ghostify(
        "convert", MODEL, "--weights", weights, "--plan", plan, "--calibrate", images,
        "--block-steps", 1, "--joint-steps", 1, "-o", out, "--json",
    )  # fmt: skip

    assert run.code == 0, run.err
    value = json.loads(run.out)
    assert value["pruned"] == [
        {"name": "layer1.0.conv1", "prune": 0.5},
        {"name": "layer3.1.conv1", "prune": 0.25},
    ]
    assert [one["name"] for one in value["replaced"]] == ["layer1.0.conv2", "layer3.1.conv2"]
    run = ghostify(
        "finetune", out, "--data", images, "--epochs", 1, "--batch-size", 8, "-o", tuned, "-q"
    )
    assert run.code == 0, run.err
    assert ghostify("evaluate", tuned, "--data", images, "-q").code == 0
    assert ghostify("export", tuned, "-o", tmp_path / "net.onnx", "-q").code == 0
    again = ghostify("convert", MODEL, "--plan", tuned, "--json")
    assert json.loads(again.out)["after"] == value["after"]


def test_people_see_what_is_left(ghostify: Command) -> None:
    run = ghostify("prune", MODEL, *HALF)

    assert run.code == 0
    assert "9 pruned, 10 kept" in run.out
    assert "nothing was written; -o DIR keeps it" in run.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--budget", "mac=0.5x"), 1, "a budget limits macs"),
        (("--budget", "macs=half"), 1, "the limit of macs is a number"),
        (("--budget", "latency=3ms@eager"), 1, "takes a budget of macs and params"),
        (("--budget", "macs=1k"), 1, "l1 cannot bring macs to 1k"),
        ((*HALF, "--method", "tailor"), 1, "did you mean taylor?"),
        ((*HALF, "--method", "taylor"), 2, "give them by --data PATH"),
        ((*HALF, "--method", "bn-scale"), 1, "all factors of the batch norms are 1"),
        ((*HALF, "--sparse-steps", 3), 2, "--sparse-steps goes with group-sparse"),
        ((*HALF, "--block-steps", 3), 2, "--block-steps goes with --calibrate DATA"),
        ((*HALF, "--mean", 0), 2, "--mean goes with images"),
        ((*HALF, "--keep", "layr1"), 1, "'layr1' keeps no layer"),
        ((*HALF, "--weights", "none.pt"), 1, "none.pt"),
        ((*HALF, "--data", "nowhere", "--method", "hessian"), 1, "nowhere"),
    ],
)
def test_a_mistake_is_one_line(
    ghostify: Command, tmp_path: Path, arguments: tuple[object, ...], code: int, message: str
) -> None:
    run = ghostify("prune", MODEL, *arguments, "-o", tmp_path / "out")

    assert run.code == code
    assert message in run.message
    assert not (tmp_path / "out").exists()


def test_an_artefact_is_not_overwritten_unasked(ghostify: Command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note").write_text("mine")

    run = ghostify("prune", MODEL, *HALF, "-o", tmp_path / "out")

    assert run.code == 1
    assert "use --force to replace it" in run.message or "choose another" in run.message


def test_a_wrong_label_is_named(ghostify: Command, tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "images"
    write_parquet(folder / "train-00000.parquet", table(cells(8, side=32), [0, 77] * 4))

    run = ghostify("prune", MODEL, *HALF, "--method", "taylor", "--data", folder)

    assert run.code == 1
    assert "label" in run.message


def test_a_damaged_record_of_what_was_cut_is_noticed(ghostify: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ghostify("prune", MODEL, *HALF, "-o", out, "-q")
    file = out / "ghostify.json"
    file.write_text(file.read_text().replace('"out": "', '"out": "0,', 1))

    run = ghostify("inspect", out)

    assert run.code == 1
    assert "damaged or was edited" in run.message
