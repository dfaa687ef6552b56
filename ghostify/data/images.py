"""Open a set of images, whatever its layout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ghostify.data import arrow, cifar, folder
from ghostify.data.base import NO_LABEL, Images, Parts
from ghostify.data.splits import candidates, is_split
from ghostify.errors import DataError

__all__ = ["SOURCES", "Images", "check_labels", "has_split", "open_images"]

SOURCES: dict[str, Callable[[Path], Parts | None]] = {
    "CIFAR archive": cifar.find,
    "Hugging Face data set": arrow.find,
    "folder of images": folder.find,
}
"""Finds the parts of a source, each asked in this order; None where the layout is another."""

_log = logging.getLogger("ghostify.data")
_ARCHIVES = (".gz", ".tgz", ".tar", ".zip", ".bz2", ".xz", ".zst", ".7z")


def open_images(path: Path | str, *, split: str | None = None) -> Images:
    """Open the images at ``path``.

    Known are the official CIFAR archives (unpacked), folders of images (a folder for each
    class; below ``train`` and ``val`` or ``test`` where there are parts), parquet and arrow
    files, directories of them, and what the datasets library's ``save_to_disk`` wrote. A part
    may also be named by the path, as ``DIR/train`` where ``DIR`` holds ``train.parquet``.

    Args:
        split: which part: its own name, or "train" or "test" for whatever serves as such (the
            validation part, where the test part has no labels). A source without parts is
            taken whole. None is enough where there is one part.

    Raises:
        DataError: nothing is there, it cannot be read, or the part is missing or not named.
    """
    path = Path(path)
    parts = _find(path)
    try:
        opened = (parts[name]() for name in _choose(path, parts, split))
        first = next(opened)
        if split != "test" or _labelled(first):
            return first
        # The labels of some tests are kept secret, ImageNet's for one: validation stands in.
        for other in opened:
            if _labelled(other):
                _log.warning("%s has no labels; %s is taken", first.name, other.name)
                return other
        return first
    except OSError as error:
        raise _unreadable(path, error) from None


def has_split(path: Path | str, split: str) -> bool:
    """Tell whether the source has parts and one of them is meant by ``split``.

    Raises:
        DataError: nothing is there, or it cannot be read.
    """
    parts = _find(Path(path))
    return "" not in parts and bool(candidates(split, parts))


def check_labels(images: Images, classes: int) -> None:
    """Make sure that every image has a label that a network of so many classes can give.

    Raises:
        DataError: some image has no label, or one that is too large.
    """
    missing = np.flatnonzero(images.labels == NO_LABEL)
    if len(missing):
        raise DataError(
            f"{images.name} has no label for {len(missing)} of {len(images)} images "
            f"(the first is image {missing[0]}); give labelled images, or choose another --split"
        )
    wrong = np.flatnonzero(images.labels >= classes)
    if len(wrong):
        raise DataError(
            f"{images.name}: a label must be below {classes}, the number of classes of the network "
            f"(image {wrong[0]} has {images.labels[wrong[0]]}); give the data of this network"
        )


def _choose(path: Path, parts: Parts, split: str | None) -> list[str]:
    """Return the parts that may be meant, the likeliest first."""
    if "" in parts:
        if split is not None and not is_split(split):
            raise DataError(f"{path} has no parts, so none is called {split!r}; leave out --split")
        return [""]
    listed = ", ".join(parts)
    if split is None and len(parts) > 1:
        raise DataError(f"{path} has several parts ({listed}); choose one by --split")
    found = list(parts) if split is None else candidates(split, parts)
    if not found:
        raise DataError(f"{path} has no part {split!r}, but {listed}; choose one by --split")
    return found


def _labelled(images: Images) -> bool:
    return bool((images.labels != NO_LABEL).any())


def _unreadable(path: Path, error: OSError) -> DataError:
    what = error.filename or path
    return DataError(f"{what} cannot be read: {error.strerror or error}; check the permissions")


def _part_of_parent(path: Path) -> Parts | None:
    """Return the part that a path names below a source which is no directory of parts.

    Raises:
        DataError: the source has other parts.
    """
    if not is_split(path.name) or not path.parent.is_dir():
        return None
    parts = next(filter(None, (find(path.parent) for find in SOURCES.values())), None)
    if parts is None or "" in parts:
        return None
    if path.name not in parts:
        raise DataError(f"no such data: {path}; {path.parent} has {', '.join(parts)}")
    return {"": parts[path.name]}


def _find(path: Path) -> Parts:
    try:
        if not path.exists():
            parts = _part_of_parent(path)
            if parts is not None:
                return parts
            raise DataError(
                f"no such data: {path}; give a directory or a file (a data set of the Hugging Face "
                "hub is saved by datasets.load_dataset(...).save_to_disk(...))"
            )
        if path.is_file() and path.suffix.lower() in _ARCHIVES:
            raise DataError(f"{path} is packed; unpack it and give the directory")
        for find in SOURCES.values():
            parts = find(path)
            if parts is not None:
                return parts
    except OSError as error:
        raise _unreadable(path, error) from None
    raise DataError(f"{path} is no set of images; give a directory, or a .parquet or .arrow file")
