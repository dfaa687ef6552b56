"""The verbs finetune, train, evaluate and recipes, from the outside."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ghostify as library
from tests.train.toys import CLASSES, toy, write_folder

Ghostify = Callable[..., Any]

TOY = "tests.train.toys:Toy"
ROOT = Path(__file__).parents[2]
FAST = ("--device", "cpu", "--batch-size", "16")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_folder(folder, 64)
    return write_folder(folder, 24, seed=1, split="test")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted network that knows what it was before."""
    conversion = library.convert(TOY, convert_all=True, verify=False)
    original = {name: value.clone() for name, value in toy(7).state_dict().items()}
    folder = tmp_path_factory.mktemp("artefact") / "out"
    library.save(dataclasses.replace(conversion, original=original), folder)
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "ghostify.json").read_text()))


@pytest.mark.parametrize(
    "change",
    [
        ("convert", "--all"),
        ("convert", "--all", "--block-steps", 0, "--joint-steps", 0, "--calibrate"),
        ("prune", "--budget", "macs=18.8k"),
    ],
)
def test_a_network_trained_here_teaches_what_is_made_of_it(
    ghostify: Ghostify, data: Path, tmp_path: Path, change: tuple[object, ...]
) -> None:
    """The weights before the conversion are those that ``train`` has left."""
    run, out, tuned = tmp_path / "run", tmp_path / "out", tmp_path / "tuned"
    done = ghostify(
        "train", TOY, "--data", data, "--recipe", "finetune", "--steps", 6, "-o", run, *FAST
    )
    assert done.code == 0, done.err
    verb, *options = change
    more = [data] if options[-1] == "--calibrate" else []

    made = ghostify(verb, run, *options, *more, "-o", out)
    assert made.code == 0, made.err
    done = ghostify("finetune", out, "--data", data, "--steps", 2, "-o", tuned, *FAST)

    assert done.code == 0, done.err
    assert manifest(tuned)["history"][-1]["teacher"] == "original"
    before = load_file(run / "model.safetensors")
    kept = load_file(out / "original.safetensors")
    if not more:  # a fit may move maps
        assert all(torch.equal(before[name], kept[name]) for name in before)


def test_finetune_writes_an_artefact_that_evaluate_and_load_take(
    ghostify: Ghostify, data: Path, artefact: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"

    done = ghostify("finetune", artefact, "--data", data, "--steps", 6, "-o", out, *FAST)

    assert done.code == 0, done.err
    assert done.out.startswith("top-1 ")
    assert "(before: " in done.out
    assert "Traceback" not in done.err
    names = {file.name for file in out.iterdir()}
    assert {"ghostify.json", "model.safetensors", "original.safetensors", "summary.md"} <= names
    assert {"log.csv", "run.json"} <= names
    assert not names & {"checkpoint.pt", ".lock"}
    entry = manifest(out)["history"][-1]
    assert entry["kind"] == "finetune"
    assert entry["steps"] == 6
    assert entry["teacher"] == "original"
    assert entry["recipe"]["name"] == "distil"
    assert "finetune: recipe distil, 6 steps of 16 images" in (out / "summary.md").read_text()

    measured = json.loads(
        ghostify("evaluate", out, "--data", data, "--json", "--device", "cpu").out
    )

    assert set(measured) == {"top1", "top5", "images", "loss"}
    assert measured["top1"] == pytest.approx(entry["evaluation"]["top1"])
    assert measured["images"] == 24
    image = torch.zeros(1, 3, 8, 8)
    assert library.load(out)(image).shape == (1, CLASSES)
    assert ghostify("convert", out, "--dry-run", "-q").code in (0, 1)


def test_the_result_can_be_tuned_further(
    ghostify: Ghostify, data: Path, artefact: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    ghostify("finetune", artefact, "--data", data, "--steps", 2, "-o", first, "-q", *FAST)

    done = ghostify("finetune", first, "--data", data, "--steps", 2, "-o", second, "-q", *FAST)

    assert (done.code, done.out, done.err) == (0, "", "")
    assert len(manifest(second)["history"]) == 2


def test_the_same_command_again_says_that_it_is_done(
    ghostify: Ghostify, data: Path, artefact: Path, tmp_path: Path
) -> None:
    command = ("finetune", artefact, "--data", data, "--steps", 3, "-o", tmp_path / "out", *FAST)
    first = ghostify(*command)
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns

    again = ghostify(*command)

    assert again.code == 0
    assert again.out == first.out
    assert "this run is finished already" in again.err
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before

    other = ghostify(*command, "--seed", 4)

    assert other.code == 1
    assert "was begun with seed = 0, now it is 4; give what it was" in other.message

    broken = ghostify(*command, "--teacher", "nonsense", "--force")

    assert broken.code == 1
    assert manifest(tmp_path / "out")["history"][-1]["seed"] == 0  # still there

    forced = ghostify(*command, "--seed", 4, "--force")

    assert forced.code == 0
    assert manifest(tmp_path / "out")["history"][-1]["seed"] == 4


def test_train_from_scratch_by_a_recipe(ghostify: Ghostify, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    done = ghostify(
        "train", TOY, "--data", data, "--recipe", "cifar-resnet", "--set", "augment=flip",
        "--steps", 5, "--lr", 0.05, "-o", out, "--json", *FAST,
    )  # fmt: skip

    result = json.loads(done.out)
    assert done.code == 0, done.err
    assert result["steps"] == 5
    assert result["evaluation"]["images"] == 24
    assert result["artefact"] == str(out)
    assert manifest(out)["history"][0]["recipe"]["lr"] == 0.05
    assert manifest(out)["plan"]["layers"] == {}
    assert manifest(out)["images"]["augment"] == "flip"
    assert ghostify("evaluate", out, "--data", data, "-q").code == 0
    assert ghostify("convert", out, "--all", "-o", tmp_path / "ghosted", "-q").code == 0


def test_without_an_output_nothing_is_written(
    ghostify: Ghostify, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    done = ghostify("train", TOY, "--data", data, "--steps", 2, *FAST)

    assert done.code == 0
    assert "nothing was written; -o DIR keeps it" in done.err
    assert not list(tmp_path.iterdir())


def test_evaluate_takes_weights_and_agrees_with_plain_torch(
    ghostify: Ghostify, data: Path, tmp_path: Path
) -> None:
    from torch.nn import functional

    from ghostify.data.images import open_images

    model = toy(3).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    images = open_images(data, split="test")
    pixels = torch.stack(
        [torch.from_numpy(np.array(images.load(i))).permute(2, 0, 1) for i in range(24)]
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    logits = model((pixels / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    labels = torch.from_numpy(images.labels)

    done = ghostify(
        "evaluate", TOY, "--weights", tmp_path / "w.pth", "--data", data, "--json", *FAST
    )

    found = json.loads(done.out)
    assert found["top1"] == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
    assert found["loss"] == pytest.approx(functional.cross_entropy(logits, labels).item(), 1e-5)
    assert found["top5"] == 100


def test_recipes_are_listed_and_shown(ghostify: Ghostify) -> None:
    listed = ghostify("recipes")
    shown = json.loads(ghostify("recipes", "distil", "--json").out)

    assert "imagenet-ghostnet" in listed.out
    assert shown["optimizer"] == "adamw"
    hint = "did you mean distil, distil-long or distil-fitted?"
    assert ghostify("recipes", "distill").message.endswith(hint)


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        ((), "there are no images; give them by --data PATH", 2),
        (("--data", "DATA", "--epochs", 1, "--steps", 1), "--epochs and --steps exclude", 2),
        (("--data", "DATA", "--no-teacher", "--teacher", "x"), "--no-teacher and --teacher", 2),
        (("--data", "DATA", "--set", "ema"), "--set is written KEY=VALUE", 2),
        (("--data", "DATA", "--set", "emma=1"), "unknown key; did you mean ema", 1),
        (("--data", "DATA", "--recipe", "nope"), "no recipe is called 'nope'", 1),
        (("--data", "DATA", "--amp", "fp8"), "amp must be one of", 1),
        (("--data", "DATA", "--device", "tpu9"), "no device is called 'tpu9'", 1),
        (("--data", "/nowhere"), "no such data", 1),
        (("--data", "DATA", "--teacher", "resnet20_cifar"), "has no weights, so it knows", 1),
        (("--data", "DATA", "--batch-size", 100), "fewer than one batch of 100", 1),
        (("--data", "DATA", "--crop", 16, "--batch-size", 16), "8x8", 1),
    ],
)
def test_bad_input_is_one_line(
    ghostify: Ghostify,
    data: Path,
    artefact: Path,
    arguments: tuple[Any, ...],
    message: str,
    code: int,
) -> None:
    arguments = tuple(data if argument == "DATA" else argument for argument in arguments)

    done = ghostify("finetune", artefact, *arguments, "-q")

    assert done.code == code, done.err
    assert message in done.message


def test_an_artefact_without_its_original_names_the_remedy(
    ghostify: Ghostify, data: Path, tmp_path: Path
) -> None:
    ghostify("convert", TOY, "--all", "-o", tmp_path / "out", "-q")

    done = ghostify("finetune", tmp_path / "out", "--data", data, *FAST)

    assert "give it as --teacher NAME --teacher-weights FILE" in done.message
    assert ghostify(
        "finetune", tmp_path / "out", "--data", data, "--no-teacher", "--steps", 1, "-q", *FAST
    ).code == 0  # fmt: skip


def test_the_source_is_never_the_output(ghostify: Ghostify, data: Path, artefact: Path) -> None:
    before = (artefact / "model.safetensors").read_bytes()

    done = ghostify("finetune", artefact, "--data", data, "-o", artefact, "--force", *FAST)

    assert "is the network that is to be trained; choose another directory" in done.message
    assert (artefact / "model.safetensors").read_bytes() == before


def test_other_files_in_the_output_stay(
    ghostify: Ghostify, data: Path, artefact: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    command = ("finetune", artefact, "--data", data, "--steps", 1, "-o", tmp_path, "-q", *FAST)

    assert "exists already; use --force" in ghostify(*command).message
    assert ghostify(*command, "--force").code == 0
    assert (tmp_path / "thesis.tex").read_text() == "x"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ghostify", *map(str, arguments)]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_a_checkpoint_and_the_same_command_goes_on(
    ghostify: Ghostify,
    data: Path,
    artefact: Path,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
) -> None:
    arguments = (
        "finetune", artefact, "--data", data, "--steps", 60, "--evaluate-every", 1000, *FAST
    )  # fmt: skip
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(*arguments, "-o", run), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    while not (run / "log.csv").exists():
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate()

    assert process.returncode == code
    assert "of 60; the same command goes on from there" in said
    assert (run / "checkpoint.pt").exists()
    assert not (run / "ghostify.json").exists()

    assert ghostify(*arguments, "-o", run, "-q").code == 0
    assert ghostify(*arguments, "-o", tmp_path / "whole", "-q").code == 0
    assert (run / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_two_processes_learn_as_one_with_the_same_batch(
    ghostify: Ghostify, data: Path, tmp_path: Path
) -> None:
    """Without batch norm and dropout, up to the order in which gradients are added up."""
    arguments = (
        "train", "tests.train.toys:plain", "--data", data, "--steps", 8, "--evaluate-every", 2,
        "--set", "mixup=0", *FAST,
    )  # fmt: skip
    launch = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", "0", "--standalone", "-m", "ghostify",
    ]  # fmt: skip
    two = subprocess.run(
        [*launch, *map(str, arguments), "-o", str(tmp_path / "two"), "--json"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )

    assert two.returncode == 0, two.stderr
    one = ghostify(*arguments, "-o", tmp_path / "one", "--json")
    ours, theirs = json.loads(one.out)["history"], json.loads(two.stdout)["history"]
    assert [entry["step"] for entry in ours] == [entry["step"] for entry in theirs] == [2, 4, 6, 8]
    for mine, its in zip(ours, theirs, strict=True):
        assert mine["test_loss"] == pytest.approx(its["test_loss"], rel=1e-4)
        assert mine["loss"] == pytest.approx(its["loss"], rel=1e-4)
        assert mine["test_top1"] == its["test_top1"]
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=1e-5), name
