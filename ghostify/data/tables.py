"""Open parquet files, arrow files and saved data sets as tables of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostify.errors import DataError

__all__ = ["Table", "open_table"]

IN_MEMORY_BYTES = 2**30
"""Parquet files larger than this are not read into memory."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows, and what their metadata say of the columns."""

    rows: Any  # datasets.Dataset
    images: tuple[str, ...]  # columns that are said to hold images
    classes: Mapping[str, tuple[str, ...]]  # class names of the columns that have some

    @property
    def columns(self) -> list[str]:
        return list(self.rows.column_names)

    def only(self, column: str) -> Any:
        """Return one column, to be read undecoded."""
        return self.rows.select_columns([column]).with_format("arrow")

    def values(self, column: str) -> Any:
        """Return all values of one column."""
        import pyarrow as pa

        values = self.only(column)[:].column(0)
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        return values


def open_table(files: Sequence[Path], name: str) -> Table:
    """Open files of one kind as one table.

    Small parquet files are read into memory; large ones become memory-mapped files in the
    cache of the datasets library, since single rows of parquet cannot be read quickly.

    Raises:
        DataError: a file is damaged, of another kind, or unlike the others.
    """
    import datasets
    import pyarrow as pa

    unreadable = (pa.ArrowException, datasets.exceptions.DatasetsError)
    try:
        return _saved(files[0]) if files[0].is_dir() else _read(files)
    except (*unreadable, ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{name} cannot be read: {error.strerror}") from None
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{name} cannot be read as a table ({line[:200].rstrip('.: ')}); make the file again"
        ) from None


def _saved(folder: Path) -> Table:
    import datasets

    rows = datasets.load_from_disk(str(folder), keep_in_memory=False)
    features = rows.features.items()
    return Table(
        rows,
        tuple(name for name, feature in features if isinstance(feature, datasets.Image)),
        {
            name: tuple(feature.names)
            for name, feature in features
            if isinstance(feature, datasets.ClassLabel)
        },
    )


def _read(files: Sequence[Path]) -> Table:
    """Read files without the library's types, which refuse ImageNet: two classes are "crane"."""
    import datasets
    import pyarrow as pa
    from pyarrow import parquet

    if files[0].suffix == ".arrow":
        tables = [datasets.table.MemoryMappedTable.from_file(str(file)) for file in files]
        schema = tables[0].schema
        rows = datasets.concatenate_datasets(
            [datasets.Dataset(table.replace_schema_metadata(None)) for table in tables]
        )
        return Table(rows, *_declared(schema.metadata))
    schema = parquet.read_schema(files[0])
    if sum(file.stat().st_size for file in files) <= IN_MEMORY_BYTES:
        read = [parquet.read_table(file, partitioning=None) for file in files]
        whole = pa.concat_tables([one.replace_schema_metadata(None) for one in read])
        rows = datasets.Dataset(datasets.table.InMemoryTable(whole))
    else:
        features = datasets.Features.from_arrow_schema(schema.remove_metadata())
        with _no_progress_bars(datasets):
            rows = datasets.Dataset.from_parquet([str(file) for file in files], features=features)
    return Table(rows, *_declared(schema.metadata))


def _declared(
    metadata: Mapping[bytes, bytes] | None,
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Return the columns of images and the class names that Hugging Face metadata tell of."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        kinds = {name: one for name, one in features.items() if isinstance(one, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return (), {}
    return (
        tuple(name for name, one in kinds.items() if one.get("_type") == "Image"),
        {
            name: tuple(map(str, one.get("names") or ()))
            for name, one in kinds.items()
            if one.get("_type") == "ClassLabel"
        },
    )


@contextmanager
def _no_progress_bars(datasets: Any) -> Iterator[None]:
    were_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            datasets.enable_progress_bars()
