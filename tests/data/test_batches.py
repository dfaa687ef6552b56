"""The order of images, and that nothing but numbers decides it."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ghostify.data import reading
from ghostify.data.base import NO_LABEL
from ghostify.data.batches import (
    Batches,
    calibration_batches,
    calibration_order,
    evaluation_batches,
    training_batches,
)
from ghostify.data.images import check_labels
from ghostify.data.preprocess import Preprocess, normalise
from ghostify.errors import DataError
from tests.data import sources
from tests.data.sources import Arrays, numbered

PLAIN = Preprocess(channels=3, size=(8, 8))
KINDS = [
    PLAIN,
    Preprocess(channels=3, size=(8, 8), augment="cifar"),
    Preprocess(channels=3, size=(8, 8), augment="flip"),
    Preprocess(channels=3, size=(8, 8), augment="randaugment"),
    Preprocess(channels=3, size=(6, 6), resize=7, augment="imagenet"),
    Preprocess(channels=3, size=(6, 6), resize=7, augment="flip"),
]


def numbers(batches: Iterable[tuple[Tensor, Tensor]]) -> list[int]:
    """Read the indices out of the first pixels of images made by ``numbered``."""
    return [
        int(image[0, 0, 0]) + 256 * int(image[1, 0, 0]) for images, _ in batches for image in images
    ]


def same(one: Iterable[tuple[Tensor, Tensor]], other: Iterable[tuple[Tensor, Tensor]]) -> bool:
    pairs = list(zip(list(one), list(other), strict=True))
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def train(images: Arrays, preprocess: Preprocess = PLAIN, **settings: int) -> Batches:
    return training_batches(
        images, preprocess, **{"batch_size": 8, "seed": 1, "epoch": 0, **settings}
    )


@pytest.fixture(params=[True, False], ids=["kept", "streamed"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways to read: all images decoded once, or each when it is its turn."""
    if not request.param:
        monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    return bool(request.param)


def test_evaluation_sees_all_images_in_order(kept: bool) -> None:
    images = numbered(21)

    batches = evaluation_batches(images, PLAIN, batch_size=8)

    assert len(batches) == 3
    assert [len(labels) for _, labels in batches] == [8, 8, 5]
    assert numbers(batches) == list(range(21))
    assert torch.cat([labels for _, labels in batches]).tolist() == images.labels.tolist()


def test_images_come_as_they_are_stored(kept: bool) -> None:
    images = numbered(3)

    ((pixels, _),) = evaluation_batches(images, PLAIN)

    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.numpy(), np.stack(images.pixels).transpose(0, 3, 1, 2))


def test_processes_share_an_evaluation(kept: bool) -> None:
    images = numbered(21)

    parts = [
        numbers(evaluation_batches(images, PLAIN, batch_size=4, rank=rank, world=3))
        for rank in range(3)
    ]

    assert parts == [list(range(rank, 21, 3)) for rank in range(3)]


def test_training_sees_every_image_once_but_for_the_last_batch(kept: bool) -> None:
    batches = train(numbered(300))

    seen = numbers(batches)
    assert len(batches) == 37
    assert len(seen) == len(set(seen)) == 296
    assert seen != sorted(seen)
    assert [labels.tolist() for _, labels in batches] == [
        [index % 4 for index in seen[at : at + 8]] for at in range(0, 296, 8)
    ]


@pytest.mark.parametrize("preprocess", KINDS, ids=lambda one: one.augment)
def test_seed_and_epoch_decide_everything(kept: bool, preprocess: Preprocess) -> None:
    images = numbered(40)
    first = list(train(images, preprocess))

    assert same(first, train(numbered(40), preprocess))
    assert not same(first, train(images, preprocess, seed=2))
    assert not same(first, train(images, preprocess, epoch=1))


@pytest.mark.parametrize("preprocess", KINDS, ids=lambda one: one.augment)
def test_an_epoch_can_be_taken_up_anywhere(kept: bool, preprocess: Preprocess) -> None:
    images = numbered(40)
    whole = list(train(images, preprocess))

    for start in range(6):
        rest = train(images, preprocess, start=start)
        assert len(rest) == 5 - start
        assert same(whole[start:], rest)


def test_what_is_left_out_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    images = numbered(40)

    list(train(images, start=4))

    assert images.loads == 8


@pytest.mark.parametrize("preprocess", KINDS, ids=lambda one: one.augment)
def test_keeping_images_decoded_changes_nothing(
    preprocess: Preprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupt = (3, 17, 18)
    kept = list(train(numbered(40, corrupt=corrupt), preprocess))
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)

    assert same(kept, train(numbered(40, corrupt=corrupt), preprocess))


@pytest.mark.parametrize("preprocess", [KINDS[1], KINDS[4]], ids=lambda one: one.augment)
def test_workers_change_nothing(
    kept: bool, preprocess: Preprocess, caplog: pytest.LogCaptureFixture
) -> None:
    state = torch.random.get_rng_state()
    corrupt = (3, 17)
    alone = list(train(numbered(40, corrupt=corrupt), preprocess))

    images = numbered(40, corrupt=corrupt)
    assert same(alone, train(images, preprocess, workers=2))
    assert sorted(images.skipped) == [3, 17]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_workers_do_without_shared_memory(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lack showed as a wait for ever, in a container with a small /dev/shm."""

    def full(_: Tensor) -> Tensor:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    alone = list(train(numbered(40)))
    monkeypatch.setattr(Tensor, "share_memory_", full)

    assert same(alone, train(numbered(40), workers=2))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batches_of_one(kept: bool, world: int) -> None:
    preprocess = KINDS[1]
    whole = list(train(numbered(50), preprocess, batch_size=4 * world))

    parts = [
        list(train(numbered(50), preprocess, batch_size=4, rank=rank, world=world))
        for rank in range(world)
    ]

    joined = [
        (torch.cat([part[0] for part in step]), torch.cat([part[1] for part in step]))
        for step in zip(*parts, strict=True)
    ]
    assert same(whole, joined)


def test_a_small_set_is_decoded_once() -> None:
    images = numbered(40)

    for epoch in range(3):
        list(train(images, KINDS[1], epoch=epoch))
    list(evaluation_batches(images, PLAIN))

    assert images.loads == 40


def test_decoded_images_go_with_their_set() -> None:
    images = numbered(8)
    list(evaluation_batches(images, PLAIN))
    gone = weakref.ref(images)

    del images
    gc.collect()

    assert gone() is None


def test_batches_are_not_views_of_what_is_kept() -> None:
    images = numbered(8)
    for pixels, _ in evaluation_batches(images, PLAIN):
        pixels.zero_()

    assert numbers(evaluation_batches(images, PLAIN)) == list(range(8))


def test_evaluation_leaves_out_corrupt_images(kept: bool) -> None:
    met: list[tuple[int, str]] = []
    images = numbered(12, corrupt=(0, 5, 6, 7))

    batches = evaluation_batches(
        images, PLAIN, batch_size=4, on_skip=lambda index, why: met.append((index, why))
    )

    assert numbers(batches) == [1, 2, 3, 4, 8, 9, 10, 11]
    assert numbers(batches) == [1, 2, 3, 4, 8, 9, 10, 11]
    assert met == [(index, "it was made so") for index in (0, 5, 6, 7)]  # once each


def test_a_batch_of_corrupt_images_only_is_passed_over(kept: bool) -> None:
    batches = evaluation_batches(numbered(6, corrupt=(2, 3)), PLAIN, batch_size=2)

    assert [len(labels) for _, labels in batches] == [2, 2]


def test_in_training_the_next_image_stands_in(kept: bool) -> None:
    whole = numbers(train(numbered(40)))
    batches = train(numbered(40, corrupt=(7, 8, 39)))

    seen = numbers(batches)
    assert seen == [{7: 9, 8: 9, 39: 0}.get(index, index) for index in whole]
    labels = [label for _, labels in batches for label in labels.tolist()]
    assert labels == [index % 4 for index in seen]


def test_skipped_images_are_logged(kept: bool, caplog: pytest.LogCaptureFixture) -> None:
    list(evaluation_batches(numbered(6, corrupt=(2,)), PLAIN))

    assert caplog.messages == ["arrays: image 2 is skipped: it was made so"]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_corrupt_images_stop_the_run(kept: bool, workers: int) -> None:
    images = numbered(100, corrupt=range(11))

    with pytest.raises(DataError) as caught:
        list(evaluation_batches(images, PLAIN, batch_size=10, workers=workers))

    assert str(caught.value) == (
        "arrays: more than 10 of 100 images cannot be read (image 0: it was made so); "
        "mend or remove them"
    )


def test_one_in_a_hundred_may_be_corrupt(kept: bool) -> None:
    assert len(numbers(evaluation_batches(numbered(1500, corrupt=range(15)), PLAIN))) == 1485
    with pytest.raises(DataError, match="more than 15 of 1500 images"):
        list(evaluation_batches(numbered(1500, corrupt=range(16)), PLAIN))


def test_a_set_with_nothing_readable_is_refused(kept: bool) -> None:
    images = numbered(8, corrupt=range(8))

    with pytest.raises(DataError, match=r"not one image can be read \(it was made so\)"):
        list(evaluation_batches(images, PLAIN))
    with pytest.raises(DataError, match="not one image can be read"):
        list(train(numbered(8, corrupt=range(8))))


_DEADLY = """
import os, signal
from ghostify.data.batches import evaluation_batches
from ghostify.data.decoding import deaths_explained
from ghostify.data.preprocess import Preprocess
from ghostify.errors import DataError
from tests.data.sources import Arrays, noise

class Deadly(Arrays):
    def load(self, index):
        if index == 39:
            os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out
        return super().load(index)

try:
    with deaths_explained():
        images = Deadly([noise(8, 8, 3)] * 40, [0] * 40)
        preprocess = Preprocess(channels=3, size=(8, 8))
        list(evaluation_batches(images, preprocess, batch_size=4, workers=2))
except DataError as error:
    print(error, flush=True)
os._exit(0)
"""


def test_a_worker_that_is_killed_is_no_riddle() -> None:
    """In a process of its own, since torch may raise its error at any later moment."""
    done = subprocess.run(
        [sys.executable, "-c", _DEADLY],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )

    assert done.stdout.startswith("a worker process that decodes images was ended, perhaps for wa")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_of_another_size_stops_the_run(kept: bool, workers: int) -> None:
    images = numbered(6)
    images.pixels[4] = sources.noise(9, 8, 3)

    with pytest.raises(DataError, match="image 4 is 9x8, the network takes 8x8; say by --resize"):
        list(evaluation_batches(images, PLAIN, workers=workers))


def test_greyscale_images_are_taken_as_colour_and_told_of(kept: bool) -> None:
    pixels = [sources.noise(8, 8), sources.noise(8, 8, 3), sources.noise(8, 8, 4)]
    batches = evaluation_batches(Arrays(pixels, [0, 1, 2]), PLAIN)

    for _ in range(2):
        ((made, _),) = batches
        assert made.shape == (3, 3, 8, 8)
        assert torch.equal(made[0, 0], made[0, 2])
        assert batches.notes == (
            "1 greyscale images taken as RGB",
            "1 transparent (alpha is left out) images taken as RGB",
        )


def test_colour_images_are_taken_as_greyscale_by_a_network_of_one_channel(kept: bool) -> None:
    grey = Preprocess(channels=1, size=(8, 8), mean=(0.5,), std=(0.5,), augment="cifar")

    ((made, _),) = train(numbered(8), grey)

    assert made.shape == (8, 1, 8, 8)


def test_a_batch_that_cannot_be_filled_is_refused() -> None:
    with pytest.raises(DataError, match="has 7 images, fewer than one batch of 8; choose a small"):
        train(numbered(7))


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 0}, {"start": 6}, {"start": -1}, {"rank": 2, "world": 2}, {"workers": -1}],
)
def test_impossible_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(DataError):
        train(numbered(40), **settings)


def test_labels_are_checked_against_the_network() -> None:
    images = numbered(8)

    check_labels(images, 4)
    with pytest.raises(DataError, match=r"a label must be below 3, .* \(image 3 has 3\)"):
        check_labels(images, 3)
    images.labels[5] = NO_LABEL
    with pytest.raises(DataError, match=r"no label for 1 of 8 images \(the first is image 5\)"):
        check_labels(images, 4)


# Calibration


def sorted_classes(each: int, classes: int) -> Arrays:
    images = numbered(each * classes)
    images.labels[:] = np.repeat(np.arange(classes), each)
    return images


def test_a_file_sorted_by_class_gives_all_classes() -> None:
    images = sorted_classes(50, 10)

    for count in (10, 35, 200):
        chosen = images.labels[calibration_order(images, 0)[:count]]
        counts = np.bincount(chosen, minlength=10)
        assert counts.max() - counts.min() <= 1


def test_small_classes_are_used_up() -> None:
    images = numbered(20)
    images.labels[:] = [0] * 17 + [1] * 2 + [2]

    order = calibration_order(images, 3)

    assert sorted(order) == list(range(20))
    assert sorted(images.labels[order[:5]]) == [0, 0, 1, 1, 2]


def test_images_without_labels_are_shuffled() -> None:
    images = numbered(200)
    images.labels[:] = NO_LABEL

    order = calibration_order(images, 0)

    assert sorted(order) == list(range(200))
    assert np.abs(np.mean(order[:100]) - 99.5) < 30


def test_the_seed_decides_the_choice() -> None:
    images = sorted_classes(20, 5)

    assert np.array_equal(calibration_order(images, 1), calibration_order(images, 1))
    assert not np.array_equal(calibration_order(images, 1), calibration_order(images, 2))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_same_images_come_each_time(kept: bool, batch_size: int) -> None:
    images = sorted_classes(20, 5)
    order = calibration_order(images, 5)[:30]

    batches = calibration_batches(images, PLAIN, count=30, seed=5, batch_size=batch_size)

    expected = normalise(
        torch.from_numpy(np.stack([images.pixels[i] for i in order]).transpose(0, 3, 1, 2)), PLAIN
    )
    assert len(batches) == -(-30 // batch_size)
    for _ in range(2):
        made = list(batches)
        assert len(made) == len(batches)
        assert made[0].dtype == torch.float32
        assert torch.equal(torch.cat(made), expected)


def test_images_are_not_augmented_and_read_once() -> None:
    images = numbered(1000)
    batches = calibration_batches(images, KINDS[1], count=20, batch_size=8)

    assert all(torch.equal(a, b) for a, b in zip(list(batches), list(batches), strict=True))
    assert images.loads == 24


def test_fewer_images_than_asked_for_are_all_taken() -> None:
    batches = calibration_batches(numbered(10), PLAIN, count=64)

    assert len(batches) == 1
    assert batches.images == 10
    assert batches.notes == ("10 images are all there are (64 were asked for)",)


def test_others_are_taken_in_place_of_corrupt_images(kept: bool) -> None:
    images = sorted_classes(10, 4)
    first = calibration_order(images, 0)[:12]
    images.corrupt = frozenset(first[[0, 5, 6]].tolist())

    batches = calibration_batches(images, PLAIN, count=12, batch_size=4)

    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert sorted(images.skipped) == sorted(images.corrupt)


def test_a_set_that_turns_out_smaller_says_so(kept: bool) -> None:
    batches = calibration_batches(numbered(10, corrupt=(1, 2)), PLAIN, count=10, batch_size=4)

    assert [len(batch) for batch in batches] == [4, 4]
    assert len(batches) == 2
    assert batches.notes == ("8 images are all there are (10 were asked for)",)


def test_no_image_at_all_is_refused() -> None:
    with pytest.raises(DataError, match=r"calibration takes at least one image \(got 0\)"):
        calibration_batches(numbered(10), PLAIN, count=0)


def test_sets_go_to_other_processes_without_what_is_kept() -> None:
    images = numbered(8)
    size = len(pickle.dumps(images))

    list(evaluation_batches(images, PLAIN))

    assert len(pickle.dumps(images)) == size
