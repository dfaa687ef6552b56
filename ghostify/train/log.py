"""The curves of a run: ``log.csv`` for people and tools, event files for TensorBoard."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ghostify.files import explain

__all__ = ["COLUMNS", "Log", "log_files"]

COLUMNS = (
    "step",
    "epoch",
    "lr",
    "loss",
    "top1",
    "images_per_s",
    "test_loss",
    "test_top1",
    "test_top5",
)
_TABLE = "log.csv"
_EVENTS = "events.out.tfevents.*"


def log_files(directory: Path) -> list[Path]:
    """Return the files of a run's curves that are there."""
    table = directory / _TABLE
    return [*sorted(directory.glob(_EVENTS)), *([table] if table.exists() else [])]


class Log:
    """Appends rows; after a resume, it first cuts what lies past the checkpoint.

    Args:
        sizes: of the files, as :meth:`flush` gave them at the checkpoint; None begins anew.

    Raises:
        OutputError: the files cannot be written.
    """

    def __init__(self, directory: Path, sizes: Mapping[str, int] | None) -> None:
        self._directory = directory
        try:
            self._cut(sizes or {})
            self._table = (directory / _TABLE).open("a", newline="", encoding="utf-8")
            self._rows = csv.DictWriter(self._table, COLUMNS, lineterminator="\n")
            if not self._table.tell():
                self._rows.writeheader()
        except OSError as error:
            raise explain(directory / _TABLE, error) from None
        from torch.utils.tensorboard.writer import SummaryWriter  # slow to import

        self._events = SummaryWriter(str(directory))

    def row(self, values: Mapping[str, Any]) -> None:
        """Append one row, and the same to the event file."""
        try:
            self._rows.writerow({name: _short(values.get(name)) for name in COLUMNS})
            for name in COLUMNS[2:]:
                if values.get(name) is not None:
                    part, _, rest = name.rpartition("test_")
                    tag = f"test/{rest}" if part or name != rest else f"train/{name}"
                    self._events.add_scalar(tag, values[name], values["step"])
        except OSError as error:
            raise explain(self._directory / _TABLE, error) from None

    def flush(self) -> dict[str, int]:
        """Bring everything to the disk; return the size of each file by name."""
        try:
            self._table.flush()
            self._events.flush()
            sizes = {}
            for file in log_files(self._directory):
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
                    sizes[file.name] = os.fstat(opened.fileno()).st_size
        except OSError as error:
            raise explain(self._directory / _TABLE, error) from None
        return sizes

    def close(self) -> None:
        """Close the files; what matters has been flushed with the last checkpoint."""
        for file in (self._table, self._events):
            with contextlib.suppress(OSError):
                file.close()

    def _cut(self, sizes: Mapping[str, int]) -> None:
        for file in log_files(self._directory):
            if file.name not in sizes:
                file.unlink(missing_ok=True)
            elif file.stat().st_size > sizes[file.name]:
                os.truncate(file, sizes[file.name])


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
