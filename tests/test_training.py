"""The Python interface to training: what it takes, and what it keeps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import ghostify
from ghostify.errors import GhostifyError, InputError, ModelError, TrainingError
from ghostify.files import MANIFEST
from ghostify.graph.calibrate import FitOptions
from ghostify.manifest import parse_manifest
from ghostify.models.zoo import Built
from ghostify.spec import Origin
from ghostify.training import train
from tests.train.toys import SIDE, Synthetic, same, toy

TOY = "tests.train.toys:Toy"
IMAGES, TEST = Synthetic(64), Synthetic(20, seed=1)
FAST = {"device": "cpu", "batch_size": 16, "test": TEST}


@pytest.fixture
def conversion() -> ghostify.Conversion:
    converted = ghostify.convert(TOY, convert_all=True, verify=False)
    return dataclasses.replace(converted, original=toy(7).state_dict())


def test_a_conversion_is_tuned_by_its_own_original(
    conversion: ghostify.Conversion, tmp_path: Path
) -> None:
    trained = ghostify.finetune(conversion, IMAGES, steps=4, output=tmp_path / "out", **FAST)

    assert trained.path == tmp_path / "out"
    assert trained.steps == 4
    assert trained.evaluation is not None
    assert same(ghostify.load(tmp_path / "out"), trained.model)
    manifest = parse_manifest(tmp_path / "out" / MANIFEST)
    assert manifest.plan == conversion.plan
    assert manifest.history[0]["teacher"] == "original"
    assert manifest.history[0]["data"]["digest"] == IMAGES.digest
    assert manifest.images is not None
    assert manifest.images["size"] == [SIDE, SIDE]
    measured = ghostify.evaluate(tmp_path / "out", TEST, device="cpu")
    assert measured.top1 == trained.evaluation.top1


def test_the_teacher_may_be_a_network_a_name_or_none(conversion: ghostify.Conversion) -> None:
    teachers = (toy(7), Built(toy(7), Origin("memory", "toy"), (3, SIDE, SIDE)), "original")
    found = [
        ghostify.finetune(conversion, IMAGES, teacher=teacher, steps=3, **FAST).model
        for teacher in teachers
    ]
    without = ghostify.finetune(
        conversion, IMAGES, teacher=None, recipe="distil", steps=3, **FAST
    ).model

    assert same(found[0], found[1])
    assert same(found[0], found[2])
    assert not same(found[0], without)


def test_a_network_in_memory_is_trained_and_kept(tmp_path: Path) -> None:
    model = toy()

    trained = train(model, IMAGES, steps=3, output=tmp_path / "out", **FAST)

    assert same(ghostify.load(tmp_path / "out", base=toy(5)), trained.model)
    again = train(model, IMAGES, steps=3, output=tmp_path / "out", **FAST)
    assert again.finished_before
    assert same(again.model, trained.model)
    assert again.history == trained.history


def test_other_sizes_of_images_are_given_by_hand() -> None:
    class Free(nn.Sequential):
        pass

    model = Free(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))

    with pytest.raises(InputError, match="give --crop HxW"):
        train(model, IMAGES, steps=1, **FAST)

    assert train(model, IMAGES, steps=1, images={"size": (8, 8)}, **FAST).steps == 1


def test_a_recipe_may_be_an_object_with_overrides() -> None:
    recipe = ghostify.Recipe(steps=9, batch_size=16)

    trained = train(toy(), IMAGES, recipe=recipe, steps=2, overrides={"ema": 0.5}, test=TEST)

    assert trained.steps == 2


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ModelError, match=r"an nn\.Module, a name or an artefact"):
        train(3, IMAGES, steps=1, **FAST)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="there is no original of memory:"):
        ghostify.finetune(toy(), IMAGES, steps=1, **FAST)


def test_a_pruned_network_learns_from_the_whole_one() -> None:
    """Any module will do, whatever made it, so long as the stages agree."""
    student = toy(3)
    student.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
    student.bn1 = nn.BatchNorm2d(6)
    student.conv2 = nn.Conv2d(6, 16, 3, stride=2, padding=1, bias=False)

    trained = ghostify.finetune(student, IMAGES, teacher=toy(7), steps=3, **FAST)

    assert trained.model.conv1.weight.shape == (6, 3, 3, 3)


def test_a_test_part_is_found_or_missed(tmp_path: Path) -> None:
    from tests.train.toys import write_folder

    whole = write_folder(tmp_path / "whole")
    settings = {"device": "cpu", "batch_size": 16, "steps": 1}

    lone = train(toy(), whole, **settings)
    write_folder(whole, 8, seed=1, split="test")
    paired = train(toy(), whole, **settings)

    assert lone.evaluation is None
    assert any("no test part" in note for note in lone.notes)
    assert paired.evaluation is not None
    assert paired.evaluation.images == 8


def test_errors_leave_no_directory_behind(tmp_path: Path) -> None:
    with pytest.raises(GhostifyError):
        train(toy(), "/nowhere", output=tmp_path / "out", **FAST)

    assert not list(tmp_path.iterdir())


def test_the_callers_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()

    train(toy(), IMAGES, steps=1, **FAST)

    assert torch.equal(before, torch.random.get_rng_state())


def test_a_fitted_network_gets_the_recipe_for_it(
    conversion: ghostify.Conversion, tmp_path: Path
) -> None:
    """Held batch norms keep what the fit gave them; a random start would be lost with them."""
    images = torch.rand(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    fitted = ghostify.convert(
        TOY,
        convert_all=True,
        calibration=[images],
        fit=FitOptions(block_steps=1, joint_steps=0),
        verify=False,
    )

    recipes = []
    for name, one, length in (
        ("fitted", fitted, {"steps": 1}),
        ("fitted for long", fitted, {"steps": 200}),
        ("fitted for epochs", fitted, {"epochs": 50}),  # of four batches
        ("random", conversion, {"steps": 1}),
    ):
        ghostify.finetune(one, IMAGES, **length, output=tmp_path / name, **FAST)
        recipes.append(parse_manifest(tmp_path / name / MANIFEST).history[-1]["recipe"]["name"])

    assert recipes == ["distil-fitted", "distil", "distil", "distil"]
