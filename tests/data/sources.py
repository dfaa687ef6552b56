"""Small sets of images, written to disk in every layout."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from ghostify.data.base import Images
from ghostify.errors import CorruptImageError

Pixels = npt.NDArray[np.uint8]


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


class Arrays(Images):
    """Images in memory; those of the given indices are corrupt."""

    def __init__(
        self, pixels: Sequence[Pixels], labels: Sequence[int], corrupt: Sequence[int] = ()
    ) -> None:
        super().__init__("arrays", np.asarray(labels, dtype=np.int64))
        self.pixels = pixels
        self.corrupt = frozenset(corrupt)
        self.loads = 0

    def load(self, index: int) -> Image.Image:
        self.loads += 1
        if index in self.corrupt:
            raise CorruptImageError(index, "it was made so")
        return Image.fromarray(self.pixels[index])

    def listing(self) -> list[tuple[str, int]]:
        return [(str(index), one.nbytes) for index, one in enumerate(self.pixels)]


def numbered(count: int, *, side: int = 8, classes: int = 4, corrupt: Sequence[int] = ()) -> Arrays:
    """Make images that can be told apart: the first pixel's red and green hold the index."""
    pixels = noise(count, side, side, 3)
    pixels[..., 0] = (np.arange(count) % 256)[:, None, None]
    pixels[..., 1] = (np.arange(count) // 256)[:, None, None]
    return Arrays(list(pixels), [index % classes for index in range(count)], corrupt)


def cifar_py(root: Path, *, each: int = 4, protocol: int = 2) -> tuple[Path, Pixels]:
    """Write the pickled layout; return its folder and the pixels (6, each, 3072)."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    pixels = noise(6, each, 3072)
    files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for number, file in enumerate(files):
        batch = {
            "batch_label": file,
            "labels": [(number + i) % 10 for i in range(each)],
            "data": pixels[number],
            "filenames": [f"{i}.png" for i in range(each)],
        }
        (folder / file).write_bytes(pickle.dumps(batch, protocol=protocol))
    names = [f"class{i}" for i in range(10)]
    meta = {"num_cases_per_batch": each, "label_names": names, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return folder, pixels


def cifar_bin(root: Path, *, each: int = 4) -> tuple[Path, Pixels]:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    pixels = noise(6, each, 3072)
    files = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    for number, file in enumerate(files):
        rows = [bytes([(number + i) % 10]) + pixels[number, i].tobytes() for i in range(each)]
        (folder / file).write_bytes(b"".join(rows))
    (folder / "batches.meta.txt").write_text("".join(f"class{i}\n" for i in range(10)) + "\n")
    return folder, pixels


def table(
    cells: Sequence[Any],
    labels: Sequence[Any] | None,
    *,
    names: Sequence[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
) -> pa.Table:
    """Make a table as Hugging Face's hub serves it; with its metadata if there are names."""
    data: dict[str, Any] = {columns[0]: list(cells)}
    if labels is not None:
        data[columns[1]] = list(labels)
    made = pa.table(data)
    if names is None:
        return made
    features = {
        columns[0]: {"_type": "Image"},
        columns[1]: {"names": list(names), "_type": "ClassLabel"},
    }
    info = json.dumps({"info": {"features": features}})
    return made.replace_schema_metadata({"huggingface": info})


def cells(count: int, *, side: int = 8, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"bytes": png(noise(side, side, 3, seed=first + i)), "path": f"{i}.png"}
        for i in range(count)
    ]


def write_parquet(file: Path, made: pa.Table) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(made, file)
    return file


def write_image(file: Path, pixels: Pixels) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file
