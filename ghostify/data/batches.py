"""Batches for evaluation, training and calibration, in an order that numbers alone decide."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ghostify.data.base import Images
from ghostify.data.decoding import Indices, Job, deaths_explained
from ghostify.data.preprocess import Preprocess, normalise
from ghostify.data.reading import KEPT_BYTES, OnSkip, Reader
from ghostify.errors import DataError

__all__ = [
    "Batches",
    "CalibrationBatches",
    "LabelledBatches",
    "calibration_batches",
    "calibration_order",
    "evaluation_batches",
    "training_batches",
]


class Batches:
    """Images ``(N, C, H, W)`` uint8 with labels ``(N,)`` int64, batch by batch.

    Can be gone through again. In evaluation, a batch lacks the images that cannot be
    decoded; in training the next readable image stands in for such a one, so that every
    batch is full.
    """

    def __init__(self, images: Images, reader: Reader, jobs: Sequence[Job]) -> None:
        self._labels = torch.tensor(images.labels)
        self._reader = reader
        self._jobs = jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        with deaths_explained(), contextlib.closing(self._reader.read(self._jobs)) as read:
            for pixels, indices in read:
                if len(pixels):
                    yield pixels, self._labels[indices]

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the images seen, for people."""
        return self._reader.notes


class LabelledBatches:
    """Normalised images ``(N, C, H, W)`` with labels ``(N,)``, the same each time.

    Args:
        count: images at the most, in whole batches; None takes all.
    """

    def __init__(
        self,
        images: Images,
        preprocess: Preprocess,
        *,
        count: int | None,
        seed: int,
        batch_size: int = 128,
        workers: int = 0,
    ) -> None:
        self._images, self._preprocess, self._seed = images, preprocess, seed
        self._size, self._workers = min(batch_size, len(images)), workers
        self._batches = None if count is None else max(1, count // self._size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        shuffled = training_batches(
            self._images,
            self._preprocess,
            batch_size=self._size,
            seed=self._seed,
            epoch=0,
            workers=self._workers,
        )
        for pixels, labels in itertools.islice(shuffled, self._batches):
            yield normalise(pixels, self._preprocess), labels


def evaluation_batches(
    images: Images,
    preprocess: Preprocess,
    *,
    batch_size: int = 256,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    on_skip: OnSkip | None = None,
) -> Batches:
    """Return all images once, in their own order; process ``rank`` gets every ``world``-th."""
    _check(batch_size, rank, world)
    mine = np.arange(rank, len(images), world)
    reader = Reader(images, preprocess, augment=False, workers=workers, on_skip=on_skip)
    return Batches(images, reader, [Job(indices) for indices in _cut(mine, batch_size)])


def training_batches(
    images: Images,
    preprocess: Preprocess,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    on_skip: OnSkip | None = None,
) -> Batches:
    """Return the batches of one epoch, from batch ``start`` on.

    The order follows from ``(seed, epoch)`` and the augmentation of an image from
    ``(seed, epoch, index)``, whatever the number of workers and wherever one starts. Each of
    ``world`` processes gets its part of every batch of ``world * batch_size`` images; what is
    left in the end is dropped.

    Raises:
        DataError: not one batch can be filled, or the epoch has fewer than ``start``.
    """
    _check(batch_size, rank, world)
    whole = batch_size * world
    steps = len(images) // whole
    if steps == 0:
        raise DataError(
            f"{images.name} has {len(images)} images, fewer than one batch of {whole}; choose a "
            "smaller --batch-size"
        )
    if not 0 <= start <= steps:
        raise DataError(f"an epoch of {steps} batches cannot start at batch {start}")
    order = np.random.default_rng((seed, epoch, 0)).permutation(len(images))
    draws = np.random.default_rng((seed, epoch, 1)).integers(2**62, size=len(images))
    jobs = []
    for step in range(start, steps):
        first = step * whole + rank * batch_size
        indices = order[first : first + batch_size]
        jobs.append(Job(indices, draws[indices], substitute=True))
    reader = Reader(images, preprocess, augment=True, workers=workers, on_skip=on_skip)
    return Batches(images, reader, jobs)


class CalibrationBatches:
    """Normalised images ``(N, C, H, W)`` float32, batch by batch, the same each time."""

    def __init__(
        self,
        images: Images,
        preprocess: Preprocess,
        *,
        order: Indices,
        count: int,
        batch_size: int,
        reader: Reader,
    ) -> None:
        self._images = images
        self._preprocess = preprocess
        self._order = order
        self._count = min(count, len(images))
        self._batch_size = batch_size
        self._reader = reader
        self._wanted = count
        self._kept: list[Tensor] | None = None

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)

    @property
    def images(self) -> int:
        """How many images there are."""
        return self._count

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the images seen, for people."""
        short = f"{self._count} images are all there are ({self._wanted} were asked for)"
        return (*((short,) if self._count < self._wanted else ()), *self._reader.notes)

    def __iter__(self) -> Iterator[Tensor]:
        for pixels in self._pixels():
            yield normalise(pixels, self._preprocess)

    def _pixels(self) -> Iterator[Tensor]:
        if self._kept is not None:
            yield from self._kept
            return
        height, width = self._preprocess.size
        small = self._count * self._preprocess.channels * height * width <= KEPT_BYTES
        kept: list[Tensor] = []
        for batch in self._read():
            if small:
                kept.append(batch)
            yield batch
        if small:
            self._kept = kept

    def _read(self) -> Iterator[Tensor]:
        """Read full batches, passing over images that cannot be decoded."""
        left = self._count
        waiting: list[Tensor] = []
        jobs = [Job(indices) for indices in _cut(self._order, self._batch_size)]
        with deaths_explained(), contextlib.closing(self._reader.read(jobs)) as read:
            for pixels, _ in read:
                waiting.append(pixels)
                size = min(self._batch_size, left)
                if sum(map(len, waiting)) >= size:
                    ready = torch.cat(waiting)
                    yield ready[:size]
                    waiting = [ready[size:]]
                    left -= size
                if left == 0:
                    return
        if waiting and len(ready := torch.cat(waiting)):
            yield ready
            left -= len(ready)
        self._count -= left  # of the others, not one could be decoded


def calibration_batches(
    images: Images,
    preprocess: Preprocess,
    *,
    count: int,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 0,
    on_skip: OnSkip | None = None,
) -> CalibrationBatches:
    """Return ``count`` images drawn by the seed, evenly from all classes where labels exist.

    They come as in evaluation, not augmented. If there are fewer, all are taken, and a note
    says so.

    Raises:
        DataError: no image is asked for.
    """
    if count < 1:
        raise DataError(f"calibration takes at least one image (got {count})")
    _check(batch_size, 0, 1)
    reader = Reader(
        images,
        preprocess,
        augment=False,
        whole=2 * count > len(images),
        workers=workers,
        on_skip=on_skip,
    )
    return CalibrationBatches(
        images,
        preprocess,
        order=calibration_order(images, seed),
        count=count,
        batch_size=batch_size,
        reader=reader,
    )


def calibration_order(images: Images, seed: int) -> Indices:
    """Return all images in a random order whose every beginning is even over the classes.

    One image of each class (in random order) is followed by a second of each, and so on.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(images))
    classes, of = np.unique(images.labels[order], return_inverse=True)
    by_class = np.argsort(of, kind="stable")
    counts = np.bincount(of, minlength=len(classes))
    turn = np.empty(len(order), dtype=np.int64)  # of an image within its class
    turn[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[np.lexsort((generator.permutation(len(classes))[of], turn))]


def _cut(indices: Indices, size: int) -> list[Indices]:
    return [indices[at : at + size] for at in range(0, len(indices), size)]


def _check(batch_size: int, rank: int, world: int) -> None:
    if batch_size < 1:
        raise DataError(f"--batch-size must be at least 1 (got {batch_size})")
    if not 0 <= rank < world:
        raise DataError(f"process {rank} is none of {world}; ranks count from 0")
