"""How a table is laid out: which columns, in which units, and where published figures stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ghostify.errors import RecordError, nearest

__all__ = ["LAYOUTS", "Layout", "read_layouts"]


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to lay out a table, mostly that of a table of the paper."""

    name: str
    title: str
    unit: Literal["M", "G"] = "M"  # of multiply-adds; parameters are in millions
    sweep: Literal["s", "d", ""] = ""  # the rows are the values of this setting of Ghost modules
    beside: bool = False  # published figures have columns of their own, else rows of their own
    top5: bool = False  # whether top-5 is told


LAYOUTS: dict[str, Layout] = {
    "plain": Layout("plain", "Methods side by side", top5=True),
    "table3": Layout("table3", "The side d of the cheap filters", sweep="d", beside=True),
    "table4": Layout("table4", "The ratio s of all maps to intrinsic maps", sweep="s", beside=True),
    "table5": Layout("table5", "Methods side by side"),
    "table6": Layout("table6", "Methods side by side", unit="G", beside=True, top5=True),
    "table7": Layout("table7", "Small networks side by side", top5=True),
    "table8": Layout("table8", "Backbones of detectors"),
}
"""By name; ``tableN`` has the columns of the paper's Table N."""


def read_layouts(names: str | Sequence[str]) -> tuple[Layout, ...]:
    """Return layouts by name: ``"table5"``, ``"table3,table4"`` or a list of names.

    Raises:
        RecordError: there is none of that name, or none is given.
    """
    given = names.split(",") if isinstance(names, str) else list(names)
    found = [name.strip() for name in given if name.strip()]
    for name in found:
        if name not in LAYOUTS:
            raise RecordError(
                f"there is no layout {name!r}; choose one of {', '.join(LAYOUTS)}"
                + nearest(name, LAYOUTS)
            )
    if not found:
        raise RecordError(f"a report needs a layout; choose one of {', '.join(LAYOUTS)}")
    return tuple(LAYOUTS[name] for name in dict.fromkeys(found))
