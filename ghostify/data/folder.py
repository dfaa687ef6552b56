"""Folders of image files: one folder for each class, or plain files without labels."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ghostify.data.base import NO_LABEL, Images, Parts, decode
from ghostify.data.splits import is_split
from ghostify.errors import DataError

__all__ = ["EXTENSIONS", "FolderImages", "find"]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Of the files that are taken for images: those of torchvision's ImageFolder."""


class FolderImages(Images):
    """Image files in the order of torchvision's ImageFolder: by class, then by path.

    Names that begin with a dot are passed over.
    """

    def __init__(self, folder: Path, classes: tuple[str, ...], *, name: str) -> None:
        self._folder = folder
        found: list[str] = []
        labels: list[int] = []
        if classes:
            for label, one in enumerate(classes):
                files = list(_walk(folder, one)) if (folder / one).is_dir() else []
                found += files
                labels += [label] * len(files)
        else:
            found = list(_walk(folder, ""))
            labels = [NO_LABEL] * len(found)
        if not found:
            raise DataError(
                f"{name} has no images: looked for {', '.join(EXTENSIONS)} in folders of classes; "
                "give another directory"
            )
        # One block of bytes: a list of a million strings would be copied into each worker
        # process, since counting a reference writes to it.
        names = [os.fsencode(file) for file in found]
        self._names = b"".join(names)
        self._ends = np.cumsum([len(file) for file in names])
        super().__init__(name, np.asarray(labels, dtype=np.int64), classes)

    def _file(self, index: int) -> str:
        start = 0 if index == 0 else self._ends[index - 1]
        return os.fsdecode(self._names[start : self._ends[index]])

    def load(self, index: int) -> Image.Image:
        index = range(len(self))[index]
        name = self._file(index)
        return decode(self._folder / name, index, name=name)

    def listing(self) -> Iterable[tuple[str, int]]:
        root = os.fspath(self._folder)
        for index in range(len(self)):
            name = self._file(index)
            yield name, os.stat(f"{root}/{name}").st_size  # noqa: PTH116 - a path each is slow


def find(path: Path) -> Parts | None:
    """Return the parts of a folder of images, or None if there is no folder."""
    if not path.is_dir():
        return None
    below = _folders(path)
    splits = [name for name in below if is_split(name)]
    # A class may be called "train": a part has classes of its own, or stands among parts only.
    if splits and (splits == below or any(_folders(path / name) for name in splits)):
        # All parts share one numbering, even if one of them lacks a class.
        classes = tuple(sorted({one for name in splits for one in _folders(path / name)}))
        return {
            name: functools.partial(
                FolderImages,
                path / name,
                classes if _folders(path / name) else (),
                name=str(path / name),
            )
            for name in splits
        }
    return {"": functools.partial(FolderImages, path, tuple(below), name=str(path))}


def _folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        )


def _walk(root: Path, below: str) -> Iterator[str]:
    """Yield image files relative to ``root``: those of a folder, then those of the next one."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root / below, followlinks=True, onerror=_raise):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue  # a link to a folder above
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = os.path.relpath(folder, root)
        for file in sorted(files):
            if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                yield file if prefix == "." else f"{prefix}/{file}"


def _raise(error: OSError) -> None:
    raise error
