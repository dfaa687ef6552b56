"""Some images of a set."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

from ghostify.data.base import Images

__all__ = ["Subset"]


class Subset(Images):
    """Some images of a set, in a given order."""

    def __init__(self, images: Images, indices: Iterable[int]) -> None:
        self._images, self._indices = images, np.asarray(list(indices), dtype=np.int64)
        super().__init__(images.name, images.labels[self._indices], images.classes)

    def load(self, index: int) -> Image.Image:
        return self._images.load(int(self._indices[index]))

    def listing(self) -> Iterable[tuple[str, int]]:
        yield from self._images.listing()
        yield " ".join(map(str, self._indices)), len(self)
