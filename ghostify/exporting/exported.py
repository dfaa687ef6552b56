"""What an export has made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Exported"]


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written, and how it was proven."""

    file: Path
    format: str
    files: tuple[Path, ...]  # the file and what belongs to it
    size_bytes: int  # of all of them
    inputs: tuple[str, ...]  # shapes, such as "1x3x224x224"
    dynamic_batch: bool
    passes: str | None  # the runtime that the network was optimised for
    differences: Mapping[str, float]  # max |a - b| / max |b| by the input that it was found on
    tolerance: float
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def max_difference(self) -> float:
        """The largest difference from the eager network, relative to its largest output."""
        return max(self.differences.values())

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "file": str(self.file),
            "format": self.format,
            "files": [str(one) for one in self.files],
            "size_bytes": self.size_bytes,
            "inputs": list(self.inputs),
            "dynamic_batch": self.dynamic_batch,
            "passes": self.passes,
            "max_difference": self.max_difference,
            "tolerance": self.tolerance,
            "differences": dict(self.differences),
            "versions": dict(self.versions),
            "notes": list(self.notes),
        }
