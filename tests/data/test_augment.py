"""Random changes: their ranges, beside torchvision's, and what decides them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ghostify.data import augment
from ghostify.data.preprocess import Preprocess
from ghostify.models.torchvision_import import import_beside_torchvision
from tests.data import sources

CIFAR = Preprocess(channels=3, size=(8, 8), augment="cifar")


def every_draw() -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.arange(9 * 9 * 2)


def test_every_shift_and_mirror_image_occurs_once() -> None:
    image = sources.noise(3, 8, 8)
    draws = every_draw()

    made = augment.augment_views(np.stack([image] * len(draws)), draws, CIFAR)

    padded = np.pad(image, ((0, 0), (4, 4), (4, 4)))
    expected = {
        cut[:, :, ::flip].tobytes()
        for top in range(9)
        for left in range(9)
        for flip in (1, -1)
        for cut in [padded[:, top : top + 8, left : left + 8]]
    }
    assert {one.tobytes() for one in made} == expected
    assert len(expected) == len(draws)


def test_mirroring_alone() -> None:
    image = sources.noise(1, 8, 8)
    flip = Preprocess(channels=1, size=(8, 8), mean=(0.5,), std=(0.5,), augment="flip")

    made = augment.augment_views(np.stack([image] * 2), np.arange(2), flip)

    assert np.array_equal(made[0], image)
    assert np.array_equal(made[1], image[:, :, ::-1])


@pytest.mark.parametrize("kind", ["none", "flip", "cifar", "randaugment", "trivialaugment"])
def test_an_image_is_changed_by_its_own_number_only(kind: str) -> None:
    preprocess = Preprocess(channels=3, size=(8, 8), augment=kind)
    images, draws = sources.noise(6, 3, 8, 8), np.arange(100, 106)

    together = augment.augment_views(images, draws, preprocess)

    for index in range(6):
        alone = augment.augment_views(
            images[index : index + 1], draws[index : index + 1], preprocess
        )
        assert np.array_equal(alone[0], together[index])


@pytest.mark.parametrize("kind", ["imagenet", "randaugment", "trivialaugment"])
def test_whole_images_are_cut_to_size_by_the_number(kind: str) -> None:
    preprocess = Preprocess(channels=3, size=(20, 24), resize=30, augment=kind)
    image = Image.fromarray(sources.noise(50, 40, 3))
    state = torch.random.get_rng_state()

    made = [augment.augment_image(image, preprocess, draw) for draw in (1, 1, 2)]

    assert made[0].shape == (3, 20, 24)
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (64, 64), (30, 300), (1, 1), (1000, 3)])
def test_parts_are_cut_out_as_by_torchvision(width: int, height: int) -> None:
    """The mean of each side's place and length over many draws, and the bounds of all."""
    v2 = import_beside_torchvision("torchvision.transforms.v2")
    transform = v2.RandomResizedCrop(8)
    generator = np.random.default_rng(0)
    image = torch.empty(3, height, width)
    torch.manual_seed(0)

    ours = np.asarray([augment.crop_box(width, height, generator) for _ in range(1000)])

    drawn = [transform.make_params([image]) for _ in range(1000)]
    theirs = np.asarray(
        [(p["left"], p["top"], p["left"] + p["width"], p["top"] + p["height"]) for p in drawn]
    )
    assert ours.min() >= 0
    assert (ours[:, 2] <= width).all()
    assert (ours[:, 3] <= height).all()
    assert (ours[:, 0] < ours[:, 2]).all()
    assert (ours[:, 1] < ours[:, 3]).all()
    spread = np.maximum(theirs.std(axis=0), 1e-9)
    error = np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) / spread
    assert (error < 5 * math.sqrt(2 / 1000)).all()


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("table", "wide"), [(augment._NARROW, False), (augment._WIDE, True)])
def test_operations_are_those_of_torchvision(
    strength: float, sign: int, table: dict[str, augment.Operation], *, wide: bool
) -> None:
    functional = import_beside_torchvision("torchvision.transforms.v2.functional")
    image = Image.fromarray(sources.noise(20, 24, 3))
    most = 0.99 if wide else 0.9
    factor = 1 + sign * strength * most
    expected = {
        "identity": image,
        "brightness": functional.adjust_brightness(image, factor),
        "colour": functional.adjust_saturation(image, factor),
        "contrast": functional.adjust_contrast(image, factor),
        "sharpness": functional.adjust_sharpness(image, factor),
        "posterize": functional.posterize(image, 8 - round(strength * (6 if wide else 4))),
        "autocontrast": functional.autocontrast(image),
        "equalize": functional.equalize(image),
        "rotate": functional.rotate(image, sign * strength * (135 if wide else 30)),
    }

    for name, one in expected.items():
        assert np.array_equal(table[name](image, strength, sign), one), name


def test_solarising_begins_with_the_brightest() -> None:
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))

    assert np.array_equal(augment._WIDE["solarize"](image, 1.0, 1), ImageOps.invert(image))
    some = np.asarray(augment._WIDE["solarize"](image, 0.5, 1)).ravel()
    assert some[:128].tolist() == list(range(128))
    assert some[128:].tolist() == list(range(127, -1, -1))


def test_images_move_and_lean_by_their_strength() -> None:
    image = Image.fromarray(sources.noise(331, 331))

    moved = np.asarray(augment._NARROW["translate_x"](image, 1.0, 1))

    assert np.array_equal(moved[:, :181], np.asarray(image)[:, 150:])
    assert not moved[:, 181:].any()
    leaning = np.asarray(augment._NARROW["shear_y"](image, 1.0, -1))
    assert np.array_equal(leaning[:, 0], np.asarray(image)[:, 0])
    assert not np.array_equal(leaning[:, 100], np.asarray(image)[:, 100])


@pytest.mark.parametrize("name", augment._NARROW)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_operations_keep_mode_and_size(name: str, mode: str) -> None:
    image = Image.fromarray(sources.noise(20, 24, 3)).convert(mode)

    for table in (augment._NARROW, augment._WIDE):
        made = table[name](image, 0.7, -1)
        assert (made.mode, made.size) == (image.mode, image.size)
