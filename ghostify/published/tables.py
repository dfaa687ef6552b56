"""Read the tables that come with the package as CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources

from ghostify.errors import DataFileError, nearest
from ghostify.published.footnotes import COLUMNS, FOOTNOTES, GENERAL

__all__ = ["CITATION", "PublishedRow", "PublishedTable", "published_tables", "read_published"]

CITATION = (
    "Han, Wang, Tian, Guo, Xu and Xu: GhostNet: More Features from Cheap Operations. CVPR 2020, "
    "arXiv:1911.11907"
)

_TITLES = {
    "table3": "The kernel d of the Ghost modules of VGG-16 on CIFAR-10, at s=2",
    "table4": "The ratio s of the Ghost modules of VGG-16 on CIFAR-10, at d=3",
    "table5": "Compressed VGG-16 and ResNet-56 on CIFAR-10",
    "table6": "Compressed ResNet-50 on ImageNet",
    "table7": "Small networks on ImageNet",
    "table8": "Detectors on MS COCO",
}


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of a table of the paper; None is what it does not report.

    ``network`` is what was compressed (of table 8, the detector; of table 7, nothing). The row
    of the network itself has it for its ``method``. Accuracies and mAP are in percent.
    """

    network: str
    method: str
    ratio: int | None  # s, of Ghost modules
    kernel: int | None  # d
    params: int | None
    macs: int | None
    top1: float | None
    top5: float | None
    map: float | None
    footnotes: tuple[str, ...]  # texts

    def footnotes_of(self, figure: str) -> tuple[str, ...]:
        """Return the footnotes that speak of one figure: "params", "macs" or "top1"."""
        about = {FOOTNOTES[key] for key, column in COLUMNS.items() if column == figure}
        return tuple(text for text in self.footnotes if text in about)

    @property
    def is_original(self) -> bool:
        """Whether it is the network before any compression."""
        return self.network == self.method

    @property
    def is_ghost(self) -> bool:
        """Whether it is the paper's own."""
        return "Ghost" in self.method


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table of the paper."""

    name: str  # "table5"
    title: str
    rows: tuple[PublishedRow, ...]
    footnotes: tuple[str, ...]  # of the whole table
    source: str = CITATION

    @property
    def networks(self) -> tuple[str, ...]:
        """What was compressed, in the table's order."""
        return tuple(dict.fromkeys(row.network for row in self.rows))

    def of(self, network: str) -> tuple[PublishedRow, ...]:
        """Return the rows of one network."""
        return tuple(row for row in self.rows if row.network == network)


def published_tables() -> tuple[str, ...]:
    """Return the names of the tables there are."""
    return tuple(_TITLES)


def read_published(name: str) -> PublishedTable:
    """Read a table of the paper by its name, such as ``"table5"``.

    Raises:
        DataFileError: there is no such table.
    """
    if name not in _TITLES:
        raise DataFileError(
            f"there is no published {name!r}, known are {', '.join(_TITLES)}"
            + nearest(name, _TITLES)
        )
    text = (resources.files("ghostify.published") / f"{name}.csv").read_text(encoding="utf-8")
    rows = tuple(_row(row) for row in csv.DictReader(text.splitlines()))
    return PublishedTable(name, f"{_TITLES[name]} (the paper's Table {name[5:]})", rows, (GENERAL,))


def _row(row: dict[str, str]) -> PublishedRow:
    return PublishedRow(
        network=row["network"],
        method=row["method"],
        ratio=int(row["s"]) if row["s"] else None,
        kernel=int(row["d"]) if row["d"] else None,
        params=_millions(row["params_M"]),
        macs=_millions(row["macs_M"]),
        top1=_percent(row["top1"]),
        top5=_percent(row["top5"]),
        map=_percent(row["map"]),
        footnotes=tuple(FOOTNOTES[key] for key in row["footnotes"].split()),
    )


def _millions(text: str) -> int | None:
    return int(Decimal(text) * 1_000_000) if text else None


def _percent(text: str) -> float | None:
    return float(text) if text else None
