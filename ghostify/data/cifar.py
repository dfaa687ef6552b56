"""CIFAR-10 and CIFAR-100 in the layouts of their official archives, pickled and binary."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ghostify.data.base import Images, Parts
from ghostify.errors import DataError

__all__ = ["CifarImages", "find", "load_batch"]

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclass(frozen=True, slots=True)
class _Layout:
    folder: str
    parts: dict[str, tuple[str, ...]]  # files by part
    names: str  # the file of class names
    labels: str  # key in a pickled batch, or "" for a binary one
    name_key: str = ""
    label_bytes: int = 1  # before each binary image; the last of them is the label


_LAYOUTS = (
    _Layout(
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        "batches.meta",
        "labels",
        "label_names",
    ),
    _Layout(
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        "batches.meta.txt",
        "",
    ),
    _Layout(
        "cifar-100-python",
        {"train": ("train",), "test": ("test",)},
        "meta",
        "fine_labels",
        "fine_label_names",
    ),
    _Layout(
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        "fine_label_names.txt",
        "",
        label_bytes=2,
    ),
)


class CifarImages(Images):
    """One part of an archive, its pixels held in memory as they are stored."""

    def __init__(self, folder: Path, layout: _Layout, part: str) -> None:
        self._files = [folder / name for name in layout.parts[part]]
        read = _read_pickled if layout.labels else _read_binary
        batches = [read(file, layout) for file in self._files]
        self._pixels = np.concatenate([pixels for pixels, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        super().__init__(f"{folder} ({part})", labels, _class_names(folder / layout.names, layout))

    def load(self, index: int) -> Image.Image:
        planes = self._pixels[index].reshape(3, _SIDE, _SIDE)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))

    def listing(self) -> Iterable[tuple[str, int]]:
        for file in self._files:
            yield file.name, file.stat().st_size


def find(path: Path) -> Parts | None:
    """Return the parts of an unpacked archive at ``path`` or right below it, or None.

    Raises:
        DataError: some of the files of a part are missing.
    """
    for layout in _LAYOUTS:
        for folder in (path, path / layout.folder):
            parts = [part for part in layout.parts if _is_there(folder, layout, part)]
            if parts:
                return {
                    part: functools.partial(CifarImages, folder, layout, part) for part in parts
                }
    return None


def _is_there(folder: Path, layout: _Layout, part: str) -> bool:
    files = layout.parts[part]
    missing = [name for name in files if not (folder / name).is_file()]
    if len(missing) == len(files):
        return False
    if folder.name != layout.folder and not (folder / layout.names).is_file():
        return False  # files called "train" and "test" may be anything
    if missing:
        raise DataError(
            f"{folder} is an incomplete archive: {missing[0]} is missing; unpack it again"
        )
    return True


def _read_pickled(file: Path, layout: _Layout) -> tuple[npt.NDArray[np.uint8], Any]:
    batch = load_batch(file)
    pixels, labels = batch.get("data"), batch.get(layout.labels)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise DataError(f"{file} is no CIFAR batch: its 'data' are no bytes; unpack it again")
    if pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
        shape = "x".join(map(str, pixels.shape))
        raise DataError(f"{file} is no CIFAR batch: 'data' must be Nx{_PIXELS} (got {shape})")
    if not isinstance(labels, list) or not all(type(one) is int and one >= 0 for one in labels):
        raise DataError(
            f"{file} is no CIFAR batch: {layout.labels!r} is no list of whole numbers from 0; "
            "unpack it again"
        )
    if len(labels) != len(pixels):
        raise DataError(f"{file} is damaged: {len(pixels)} images, but {len(labels)} labels")
    return pixels, np.asarray(labels, dtype=np.int64)


def _read_binary(file: Path, layout: _Layout) -> tuple[npt.NDArray[np.uint8], Any]:
    row = layout.label_bytes + _PIXELS
    content = np.fromfile(file, dtype=np.uint8)
    if len(content) == 0 or len(content) % row:
        raise DataError(
            f"{file} is damaged: its size must be a multiple of {row} bytes (got {len(content)}); "
            "unpack it again"
        )
    rows = content.reshape(-1, row)
    return rows[:, layout.label_bytes :], rows[:, layout.label_bytes - 1].astype(np.int64)


def _class_names(file: Path, layout: _Layout) -> tuple[str, ...]:
    if not file.is_file():
        return ()
    if not layout.labels:
        return tuple(file.read_text(encoding="utf-8", errors="replace").split())
    names = load_batch(file).get(layout.name_key)
    if not isinstance(names, list):
        return ()
    return tuple(_text(name) for name in names)


def load_batch(file: Path) -> dict[str, Any]:
    """Read a pickled batch; nothing in it can be executed.

    Raises:
        DataError: it holds more than numbers, text, arrays, lists and mappings, or is damaged.
    """
    try:
        content = _Unpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
    except _ForeignObjectError as error:
        raise DataError(
            f"{file} is no CIFAR batch: it asks for {error}, which a batch has no use for; "
            "unpack the official archive again"
        ) from None
    except (OSError, MemoryError):
        raise
    except Exception:  # a damaged pickle fails in every way
        raise DataError(f"{file} is no CIFAR batch, or damaged; unpack it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} is no CIFAR batch: it holds a {type(content).__name__}")
    return {_text(key): value for key, value in content.items()}


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class _ForeignObjectError(Exception):
    """A pickle names something that is no part of a plain array."""


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for ``_codecs.encode``, by which old pickles of Python 3 write bytes."""
    if encoding != "latin1":
        raise _ForeignObjectError(f"the encoding {encoding}")
    return text.encode("latin1")


_RECONSTRUCT = np.empty(0).__reduce__()[0]
_FROM_BUFFER = np.empty(0).__reduce_ex__(5)[0]
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    """Admits what a plain array consists of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _ForeignObjectError(f"{module}.{name}") from None
