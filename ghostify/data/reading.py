"""Read batches of images: keep small sets decoded, and keep account of what was skipped."""

from __future__ import annotations

import contextlib
import logging
import math
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ghostify.data.augment import augment_views
from ghostify.data.base import Images
from ghostify.data.decoding import Chunk, Indices, Job, corrupt_limit, decoded
from ghostify.data.preprocess import Preprocess
from ghostify.data.transforms import Pixels
from ghostify.errors import DataError

__all__ = ["KEPT_BYTES", "OnSkip", "Reader"]

KEPT_BYTES = 512 * 2**20
"""Sets whose pixels take no more than this are decoded once and stay in memory."""

OnSkip = Callable[[int, str], None]
"""Called with the index of an image that cannot be decoded, and why; once for each."""

_log = logging.getLogger("ghostify.data")


@dataclass(slots=True)
class _Kept:
    """All images of a set, decoded."""

    pixels: Pixels  # (N, C, H, W)
    readable: npt.NDArray[np.bool_]
    instead: Indices  # of each image, itself or the next readable one
    remarks: Counter[str]


_kept: weakref.WeakKeyDictionary[Images, dict[Any, _Kept]] = weakref.WeakKeyDictionary()


class Reader:
    """Reads jobs one after the other, and keeps account of what it met."""

    def __init__(
        self,
        images: Images,
        preprocess: Preprocess,
        *,
        augment: bool,
        whole: bool = True,
        workers: int = 0,
        on_skip: OnSkip | None = None,
    ) -> None:
        """Make a reader.

        Args:
            augment: change images as in training.
            whole: most of the set will be read, so that it pays to decode all of it at once.
        """
        if workers < 0:
            raise DataError(f"--workers must be 0 or more (got {workers})")
        self._images = images
        self._preprocess = preprocess
        self._augment = augment
        self._whole = whole
        self._workers = workers
        self._on_skip = on_skip
        self._remarks: Counter[str] = Counter()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done with images that are not of the network's kind, so far."""
        return tuple(f"{count} {remark}" for remark, count in sorted(self._remarks.items()))

    def read(self, jobs: Sequence[Job]) -> Generator[tuple[Tensor, Tensor]]:
        """Yield pixels ``(N, C, H, W)`` uint8 and indices ``(N,)`` of each job, in order.

        Raises:
            DataError: too many images are corrupt, or one has an impossible size.
        """
        self._remarks.clear()
        chunks = self._from_memory(jobs) if self._may_keep() else self._decoded(jobs, self._augment)
        with contextlib.closing(chunks):
            for chunk in chunks:
                yield torch.as_tensor(chunk.pixels), torch.from_numpy(chunk.indices)

    def _may_keep(self) -> bool:
        if self._preprocess.view in _kept.get(self._images, {}):
            return not (self._augment and self._preprocess.crops_at_random)
        if not self._whole:
            return False
        size = len(self._images) * self._preprocess.channels * math.prod(self._preprocess.size)
        return size <= KEPT_BYTES and not (self._augment and self._preprocess.crops_at_random)

    def _from_memory(self, jobs: Sequence[Job]) -> Generator[Chunk]:
        kept = self._keep()
        self._remarks.update(kept.remarks)
        for job in jobs:
            if job.substitute:
                indices = kept.instead[job.indices]
            else:
                indices = job.indices[kept.readable[job.indices]]
            pixels = kept.pixels[indices]
            if self._augment and job.draws is not None:
                pixels = augment_views(pixels, job.draws, self._preprocess)
            yield Chunk(torch.from_numpy(pixels), indices)

    def _keep(self) -> _Kept:
        views = _kept.setdefault(self._images, {})
        found = views.get(self._preprocess.view)
        if found is not None:
            return found
        count = len(self._images)
        shape = (count, self._preprocess.channels, *self._preprocess.size)
        pixels: Pixels = np.zeros(shape, dtype=np.uint8)
        readable = np.zeros(count, dtype=np.bool_)
        jobs = [Job(np.arange(at, min(at + 256, count))) for at in range(0, count, 256)]
        remarks: Counter[str] = Counter()
        for chunk in self._decoded(jobs, augment=False):
            pixels[chunk.indices] = np.asarray(chunk.pixels)
            readable[chunk.indices] = True
            remarks += chunk.remarks
        self._remarks.clear()
        kept = _Kept(pixels, readable, _next_readable(readable), remarks)
        views[self._preprocess.view] = kept
        return kept

    def _decoded(self, jobs: Sequence[Job], augment: bool) -> Generator[Chunk]:
        chunks = decoded(
            self._images, self._preprocess, jobs, augment=augment, workers=self._workers
        )
        with contextlib.closing(chunks):  # ends the worker processes at once if it stops here
            for chunk in chunks:
                self._account(chunk)
                yield chunk

    def _account(self, chunk: Chunk) -> None:
        """Report what is new, once, and stop where too much is corrupt."""
        for index, why in chunk.skipped:
            if index in self._images.skipped:
                continue
            self._images.skipped[index] = why
            if self._on_skip is not None:
                self._on_skip(index, why)
            else:
                _log.warning("%s: image %d is skipped: %s", self._images.name, index, why)
        count, most = len(self._images), corrupt_limit(self._images)
        if len(self._images.skipped) == count:
            why = next(iter(self._images.skipped.values()))
            raise DataError(f"{self._images.name}: not one image can be read ({why}); mend them")
        if len(self._images.skipped) > most:
            index, why = next(iter(self._images.skipped.items()))
            raise DataError(
                f"{self._images.name}: more than {most} of {count} images cannot be "
                f"read (image {index}: {why}); mend or remove them"
            )
        self._remarks += chunk.remarks
        if chunk.error is not None:
            raise chunk.error


def _next_readable(readable: npt.NDArray[np.bool_]) -> Indices:
    count = len(readable)
    at = np.where(np.concatenate([readable, readable]), np.arange(2 * count), 4 * count)
    following = np.minimum.accumulate(at[::-1])[::-1][:count]
    return following % count
