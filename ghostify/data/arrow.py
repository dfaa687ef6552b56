"""Hugging Face data sets on disk: parquet and arrow files, and directories of ``save_to_disk``."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ghostify.data.base import NO_LABEL, Images, Labels, Parts, decode
from ghostify.data.splits import is_split
from ghostify.data.tables import Table, open_table
from ghostify.errors import CorruptImageError, DataError

__all__ = ["ArrowImages", "find"]

_IMAGE_COLUMNS = ("image", "img", "images", "jpg", "jpeg", "png", "webp")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class", "cls", "category")
_SHARD = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?$")
_SUFFIXES = (".parquet", ".arrow")


class ArrowImages(Images):
    """Rows of a table with an image each, and a label where there is one."""

    def __init__(
        self, files: Sequence[Path], *, name: str, siblings: Sequence[Sequence[Path]] = ()
    ) -> None:
        self._files = tuple(files)
        self._rows: Any = None
        table = open_table(self._files, name)
        self._column = _image_column(table, name)
        label = _label_column(table)
        if label is None:
            labels = np.full(len(table.rows), NO_LABEL, dtype=np.int64)
            classes: tuple[str, ...] = ()
        else:
            others = (open_table(files, name) for files in siblings)
            labels, classes = _labels(table, label, name, others)
        self._rows = table.only(self._column)
        if len(labels) == 0:
            raise DataError(f"{name} has no images: the table has no rows; give another file")
        super().__init__(name, labels, classes)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rows": None}  # a worker process opens the files itself

    def load(self, index: int) -> Image.Image:
        index = range(len(self))[index]
        if self._rows is None:
            self._rows = open_table(self._files, self.name).only(self._column)
        cell = self._rows[index].column(0)[0].as_py()
        return _image(cell, index, self._files[0])

    def listing(self) -> Iterable[tuple[str, int]]:
        for file in self._files:
            for one in sorted(file.glob("*.arrow")) if file.is_dir() else (file,):
                yield one.name, one.stat().st_size


def find(path: Path) -> Parts | None:
    """Return the parts of a table file, a directory of such, or a saved data set, or None."""
    if path.is_file():
        return _parts(path, {"": [path]}) if path.suffix in _SUFFIXES else None
    if not path.is_dir():
        return None
    if (path / "dataset_dict.json").is_file():
        return _parts(path, {name: [path / name] for name in _saved_parts(path)})
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return _parts(path, {"": [path]})
    for folder in (path, path / "data", *_only_folder(path)):
        groups = _groups(folder)
        if groups:
            return _parts(path, groups)
    return None


def _parts(path: Path, groups: dict[str, list[Path]]) -> Parts:
    everything = list(groups.values())
    return {
        name: functools.partial(
            ArrowImages,
            files,
            name=f"{path} ({name})" if name else str(path),
            siblings=[other for other in everything if other is not files],
        )
        for name, files in groups.items()
    }


def _saved_parts(path: Path) -> list[str]:
    try:
        names = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
    except (ValueError, KeyError, TypeError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path / 'dataset_dict.json'} is damaged; save the data set again")
    return names


def _only_folder(path: Path) -> list[Path]:
    folders = [one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")]
    return folders if len(folders) == 1 else []


def _groups(folder: Path) -> dict[str, list[Path]]:
    """Sort table files into parts: by name (``train-00000-of-00002``), or by folder."""
    if not folder.is_dir():
        return {}
    below = [one for one in sorted(folder.iterdir()) if one.is_dir() and is_split(one.name)]
    by_folder = {one.name: files for one in below if (files := _tables(one))}
    if by_folder:
        return by_folder
    groups: dict[str, list[Path]] = {}
    for file in _tables(folder):
        groups.setdefault(_SHARD.sub("", file.stem), []).append(file)
    if not any(is_split(name) for name in groups):
        return {"": [file for files in groups.values() for file in files]} if groups else {}
    return groups


def _tables(folder: Path) -> list[Path]:
    for suffix in _SUFFIXES:
        files = sorted(
            file
            for file in folder.glob(f"*{suffix}")
            if file.is_file() and not file.name.startswith(".")
        )
        if files:
            return files
    return []


def _image_column(table: Table, name: str) -> str:
    named = [one for one in _IMAGE_COLUMNS if one in table.columns]
    found = [one for one in named if one in table.images] or [*named, *table.images]
    if not found:
        raise DataError(
            f"{name} has no column of images: looked for {', '.join(_IMAGE_COLUMNS)} and found "
            f"{', '.join(table.columns)}; rename the column to image"
        )
    return found[0]


def _label_column(table: Table) -> str | None:
    named = [one for one in _LABEL_COLUMNS if one in table.columns]
    typed = list(table.classes)
    return next(iter(named or typed), None) if named or len(typed) == 1 else None


def _labels(
    table: Table, column: str, name: str, siblings: Iterable[Table]
) -> tuple[Labels, tuple[str, ...]]:
    """Read labels and class names; text is numbered in the order of all parts' sorted names."""
    import pyarrow as pa

    values = table.values(column)
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = values.to_pylist()
        known = set(texts)
        for sibling in siblings:
            if column in sibling.columns:
                known |= set(map(str, sibling.values(column).drop_null().to_pylist()))
        classes = tuple(sorted(known - {None}))
        numbers = {text: number for number, text in enumerate(classes)} | {None: NO_LABEL}
        return np.asarray([numbers[text] for text in texts], dtype=np.int64), classes
    if pa.types.is_boolean(kind):
        values, kind = values.cast(pa.int8()), pa.int8()
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise DataError(
            f"{name}: the column {column} must hold one class number for each image (got {kind})"
        )
    array = values.cast(pa.float64(), safe=False).to_numpy()
    array = np.where(np.isnan(array), NO_LABEL, array)
    wrong = np.flatnonzero((array != np.floor(array)) | (array < NO_LABEL) | (array > 2**31))
    if len(wrong):
        raise DataError(
            f"{name}: a label must be a whole number from 0, or {NO_LABEL} where there is none "
            f"(row {wrong[0]} has {array[wrong[0]]:g}); mend the column {column}"
        )
    return array.astype(np.int64), table.classes.get(column, ())


def _image(cell: object, index: int, beside: Path) -> Image.Image:
    name = ""
    if isinstance(cell, dict):
        name = cell.get("path") or ""
        cell = cell["bytes"] if cell.get("bytes") is not None else cell.get("path")
    if isinstance(cell, bytes):
        return decode(cell, index, name=name)
    if isinstance(cell, str):
        folder = beside if beside.is_dir() else beside.parent
        return decode(folder / cell, index, name=cell)
    if isinstance(cell, list):
        return _from_numbers(cell, index)
    raise CorruptImageError(index, "the cell is empty" if cell is None else "no image in the cell")


def _from_numbers(cell: list[Any], index: int) -> Image.Image:
    try:
        pixels = np.asarray(cell)
        if pixels.min() < 0 or pixels.max() > 255 or pixels.dtype.kind not in "iu":
            raise ValueError
        return Image.fromarray(pixels.astype(np.uint8))
    except (ValueError, TypeError):
        raise CorruptImageError(index, "no HxW or HxWxC numbers from 0 to 255") from None
