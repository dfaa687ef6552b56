"""Decode batches of images, in this process or in worker processes."""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ghostify.data.augment import augment_image, augment_views
from ghostify.data.base import Images
from ghostify.data.preprocess import Preprocess
from ghostify.data.transforms import Pixels, to_channels, view
from ghostify.errors import CorruptImageError, DataError, GhostifyError

__all__ = ["Chunk", "Indices", "Job", "corrupt_limit", "deaths_explained", "decoded"]

Indices: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Job:
    """Images to read together."""

    indices: Indices
    draws: Indices | None = None  # one number for each image, which decides its augmentation
    substitute: bool = False  # in place of an image that cannot be read, take the next one


@dataclass(slots=True)
class Chunk:
    """What became of a job."""

    pixels: Tensor | Pixels  # (N, C, H, W) uint8; no tensor where shared memory is short
    indices: Indices  # (N,), of the images that these pixels are of
    remarks: Counter[str] = field(default_factory=Counter)
    skipped: list[tuple[int, str]] = field(default_factory=list)
    error: GhostifyError | None = None  # carried over, for a traceback would be


def corrupt_limit(images: Images) -> int:
    """Return how many images of a set may be corrupt: one in a hundred, or ten of a small set."""
    return max(10, len(images) // 100)


class _Decoder(Dataset[Chunk]):
    """Does jobs; its copies do so in worker processes."""

    def __init__(self, images: Images, preprocess: Preprocess, *, augment: bool) -> None:
        self._images = images
        self._preprocess = preprocess
        self._augment = augment

    def __getitem__(self, job: Any) -> Chunk:
        chunk = Chunk(torch.empty(0, dtype=torch.uint8), np.empty(0, dtype=np.int64))
        draws = job.draws if job.draws is not None else np.zeros(len(job.indices), dtype=np.int64)
        shape = (self._preprocess.channels, *self._preprocess.size)
        pixels: Pixels = np.empty((len(job.indices), *shape), dtype=np.uint8)
        taken: list[int] = []
        try:
            for index, draw in zip(job.indices.tolist(), draws.tolist(), strict=True):
                tried = self._read(index, draw, chunk, substitute=job.substitute)
                if tried is not None:
                    pixels[len(taken)] = tried[1]
                    taken.append(tried[0])
        except GhostifyError as error:
            chunk.error = error
        chunk.pixels = _to_send(pixels[: len(taken)])
        chunk.indices = np.asarray(taken, dtype=np.int64)
        return chunk

    def _read(
        self, index: int, draw: int, chunk: Chunk, *, substitute: bool
    ) -> tuple[int, Pixels] | None:
        for _ in range(min(len(self._images), corrupt_limit(self._images) + 2)):
            try:
                image = self._images.load(index)
                image, remark = to_channels(image, self._preprocess.channels, index)
            except CorruptImageError as error:
                chunk.skipped.append((index, error.why))
                index = (index + 1) % len(self._images)
                if not substitute:
                    return None
                continue
            if remark:
                chunk.remarks[remark] += 1
            return index, self._pixels(image, index, draw)
        return None

    def _pixels(self, image: Image.Image, index: int, draw: int) -> Pixels:
        if not self._augment or self._preprocess.augment == "none":
            return view(image, self._preprocess, index)
        if self._preprocess.crops_at_random:
            return augment_image(image, self._preprocess, draw)
        alone = view(image, self._preprocess, index)[None]
        pixels: Pixels = augment_views(alone, np.asarray([draw]), self._preprocess)[0]
        return pixels


def _to_send(pixels: Pixels) -> Tensor | Pixels:
    """Put pixels into shared memory if a worker process will send them.

    torch would do so later, in a thread, where a full /dev/shm (64 MB in many a container)
    would make it lose them and the main process wait for ever. A plain array is sent
    through a pipe: slower, but it arrives.
    """
    tensor = torch.from_numpy(pixels)
    if get_worker_info() is not None:
        try:
            tensor.share_memory_()
        except RuntimeError:
            return pixels
    return tensor


def decoded(
    images: Images,
    preprocess: Preprocess,
    jobs: Sequence[Job],
    *,
    augment: bool,
    workers: int,
) -> Generator[Chunk]:
    """Do jobs one after the other, here or in worker processes; in order either way."""
    decoder = _Decoder(images, preprocess, augment=augment)
    if workers == 0:
        yield from (decoder[job] for job in jobs)
        return
    with warnings.catch_warnings():
        # how many workers there are was asked for, whatever the cores
        warnings.filterwarnings("ignore", "This DataLoader will create")
        decoding = iter(
            DataLoader(
                decoder,
                batch_size=None,
                sampler=_Jobs(jobs),
                num_workers=min(workers, len(jobs)),
                collate_fn=_as_it_is,
                worker_init_fn=_leave_signals,
                generator=torch.Generator(),  # else it draws from torch's own
            )
        )
    yield from decoding


@contextlib.contextmanager
def deaths_explained() -> Iterator[None]:
    """Say in one sentence that a worker process was ended from outside.

    torch reports it by an error in whatever the main process does just then, so this goes
    around all that is done while there are workers.

    Raises:
        DataError: in place of that error.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _ENDED):
            raise
        raise DataError(
            "a worker process that decodes images was ended, perhaps for want of memory (or of "
            "shared memory in /dev/shm); choose fewer --workers or a smaller --batch-size"
        ) from None


_ENDED = ("DataLoader worker", "unable to open shared memory", "Too many open files")
"""In the errors of torch that say so."""


class _Jobs(Sequence[Job]):
    """Jobs as a sampler: what is sent to a worker is the job itself."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, index: Any) -> Any:
        return self._jobs[index]


def _as_it_is(chunk: Any) -> Any:
    return chunk


def _leave_signals(_worker: int) -> None:
    """Let the main process alone end its workers, whatever it does with signals itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
