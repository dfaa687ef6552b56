"""The rows of a comparison before they are set: what was measured, and what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ghostify.published.tables import PublishedRow, PublishedTable
from ghostify.reports.layouts import Layout
from ghostify.reports.results import LatencyKey, Result, Timing, anchor
from ghostify.reports.significance import trained_top1
from ghostify.reports.statistics import estimate
from ghostify.reports.values import PUBLISHED_MARK

__all__ = ["Line", "lines_of", "original_top1", "same_network", "swept"]


@dataclass(frozen=True, slots=True)
class Line:
    """One row before it is set: a measured result or the original, or published figures."""

    id: str
    name: str
    group: str
    result: Result | None = None  # None for the original network and for published figures
    original: Result | None = None  # any result of the network, for the original's row
    published: PublishedRow | None = None
    timings: Mapping[LatencyKey, Timing] = field(default_factory=dict)

    @property
    def network(self) -> str:
        """The suite's name of the network; "" for what was only published."""
        known = self.result or self.original
        return known.first.network if known else ""

    @property
    def point(self) -> tuple[float, float] | None:
        """Multiply-adds and accuracy, where both were measured."""
        if self.result is not None:
            values, macs = trained_top1(self.result), self.result.mean("macs")
        elif self.original is not None:
            values, macs = original_top1(self.original), self.original.mean("macs_before")
        else:
            return None
        return (macs, estimate(values).mean) if values and macs is not None else None


def lines_of(
    results: Sequence[Result], layout: Layout, published: Sequence[PublishedTable]
) -> tuple[Line, ...]:
    """Return the rows in order: by network the original, its results, then what was published."""
    lines: list[Line] = []
    shown = [row for table in published for row in table.rows]
    known = {one.network for one in results}
    rows = [
        row
        for row in shown
        if not row.network or any(same_network(row.network, one) for one in known)
    ]
    rows = rows or shown  # of other networks: better than nothing, where it was asked for
    used: set[int] = set()
    for name in dict.fromkeys(one.first.network for one in results):
        mine = [one for one in results if one.first.network == name]
        group = mine[0].network
        here = [
            (place, row)
            for place, row in enumerate(rows)
            if row.network and same_network(row.network, group)
        ]
        lines += _measured(mine, group, [row for _, row in here] if layout.beside else [])
        matched = {id(line.published) for line in lines if line.published is not None}
        used |= {place for place, _ in here}
        lines += _only_published([row for _, row in here if id(row) not in matched], group)
    lines += _only_published([row for place, row in enumerate(rows) if place not in used], "")
    return tuple(lines)


def same_network(one: str, other: str) -> bool:
    """Tell whether two names, such as VGG-16 and vgg16, are of one network."""
    plain, longer = (anchor(name).replace("-", "") for name in (one, other))
    return plain == longer or (longer.startswith(plain) and not longer[len(plain)].isdigit())


def _measured(mine: Sequence[Result], group: str, beside: Sequence[PublishedRow]) -> list[Line]:
    """Return the rows of one network; those that the paper has too carry its figures."""
    lines = []
    dense = any(one.kind == "dense" and one.first.kind == "count" for one in mine)
    if not dense:  # else that row says the same
        lines.append(_original_line(mine, group, beside))
    for one in mine:
        lines.append(
            Line(one.id, one.name, group, result=one, published=_match(one, beside),
                 timings=one.timings())
        )  # fmt: skip
    return lines


def _original_line(mine: Sequence[Result], group: str, beside: Sequence[PublishedRow]) -> Line:
    timings: dict[LatencyKey, Timing] = {}
    for one in mine:
        for key, timing in one.timings().items():
            if timing.before_ms is not None and key not in timings:
                timings[key] = Timing(timing.before_ms, 0.0, None, False)
    found = next((row for row in beside if row.is_original), None)
    return Line(
        f"{anchor(mine[0].first.network)}.original",
        "Original",
        group,
        original=mine[0],
        published=found,
        timings=timings,
    )


def _match(result: Result, rows: Sequence[PublishedRow]) -> PublishedRow | None:
    """Return the paper's row of the same Ghost modules (or of the original), if there is one."""
    settings = result.first.settings
    if result.kind == "dense":
        return next((row for row in rows if row.is_original), None)
    if result.kind != "ghost" or settings.get("cheap", "depthwise") != "depthwise":
        return None
    wish = (settings.get("s", 2), settings.get("d", 3))
    return next((row for row in rows if (row.ratio, row.kernel) == wish), None)


def _only_published(rows: Sequence[PublishedRow], group: str) -> list[Line]:
    return [
        Line(
            f"published.{anchor(row.network or 'all')}.{anchor(row.method)}.{number}",
            f"{row.method}, {row.network}" if row.map is not None else row.method,
            f"{group or row.network}, published {PUBLISHED_MARK}".lstrip(", "),
            published=row,
        )
        for number, row in enumerate(rows)
    ]


def original_top1(result: Result) -> tuple[float, ...]:
    """Return the original's accuracy, once: it is the same for all seeds."""
    values = result.values("original_top1")
    return values if len(set(values)) > 1 else values[:1]


def swept(line: Line, sweep: str) -> float | None:
    """Return the value of the setting that the rows go through; None for the original."""
    value: object = None
    if line.result is not None and line.result.kind == "ghost":
        value = line.result.first.settings.get(sweep, {"s": 2, "d": 3}[sweep])
    elif line.published is not None:
        value = line.published.ratio if sweep == "s" else line.published.kernel
    return float(value) if isinstance(value, int | float) else None
