"""What a report is made of, before it is written in any format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "EMPTY",
    "PUBLISHED_MARK",
    "UNKNOWN",
    "Cell",
    "Column",
    "Command",
    "Figure",
    "Footnote",
    "Report",
    "Row",
    "Source",
    "Table",
]

Source = Literal["measured", "published"]
"""Whether a figure comes from a run record or from a paper."""

UNKNOWN = "\N{EN DASH}"
"""Stands where nothing is known, or nothing applies."""

PUBLISHED_MARK = "†"
"""Stands at each published row's name and at each published column's title."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry of a table, in plain text that no format has escaped yet."""

    text: str = UNKNOWN  # as it is read: "92.31 ± 0.42", "1.90x"
    value: float | None = None  # what a column is sorted by, in the column's unit
    spread: float | None = None  # half the width of the 95 % confidence interval, same unit
    bold: bool = False  # the best of its group
    marks: tuple[str, ...] = ()  # of footnotes, and of significance
    title: str = ""  # more in words, such as the values of the single seeds


EMPTY = Cell()
"""What is not known or does not apply."""


@dataclass(frozen=True, slots=True)
class Column:
    """What the cells below one heading are."""

    key: str  # of CSV and of anchors: "top1", "params", "latency-onnxruntime"
    title: str  # "Top-1, %"
    numeric: bool = True  # set to the right and sorted by value
    better: Literal["higher", "lower", ""] = ""  # which values are good
    source: Source | None = None  # of all its figures; None: each row's own
    marks: tuple[str, ...] = ()  # of footnotes
    title_long: str = ""  # an explanation, shown on demand


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; all rows of one group stand together, under its name."""

    id: str  # of anchors, unique in the report: "resnet20.ghost-fitted.macs-0.52x"
    cells: tuple[Cell, ...]  # one for each column; the first one names the method
    group: str = ""  # heading over the rows: "ResNet-20", "ResNet-56, published"
    source: Source = "measured"
    pareto: bool = False  # no other row of the group is better in accuracy and cost both
    reference: bool = False  # the one that the others are tested against
    records: tuple[str, ...] = ()  # ids of the run records that it sums up


@dataclass(frozen=True, slots=True)
class Footnote:
    """A sentence under a table, and the mark that points at it."""

    mark: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; ``columns[0]`` is the method's name.

    Raises:
        ValueError: a row has not as many cells as there are columns.
    """

    id: str  # of files and anchors: "table5", "tuning"
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[Footnote, ...] = ()
    caption: str = ""  # what ± and bold mean here, over how many seeds

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"table {self.id}: row {row.id} has {len(row.cells)} cells for "
                    f"{len(self.columns)} columns"
                )

    @property
    def groups(self) -> tuple[str, ...]:
        """The headings, in the order in which they come."""
        return tuple(dict.fromkeys(row.group for row in self.rows))


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture in two formats, the same in both."""

    id: str  # of files and anchors: "accuracy-macs"
    title: str
    caption: str
    svg: str
    png: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Command:
    """What to type to make one row's figures again."""

    row: str  # the id of the row
    label: str  # "ResNet-20, Ghost s=2, fitted, seed 0"
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that a comparison has to say; pages and files only set it."""

    title: str
    summary: tuple[str, ...]  # sentences: what won, by how much, with what certainty
    methods: tuple[str, ...]  # paragraphs: recipe, data, machine, seeds, tuning, statistics
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...] = ()
    commands: tuple[Command, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)  # versions, machine, data, dates
    remarks: tuple[str, ...] = ()  # what was left out and why: broken lines, missing figures
    files: tuple[str, ...] = ()  # that lie beside the page: records.jsonl, table5.csv
