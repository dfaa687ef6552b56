"""Run records as a pandas frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ghostify.runs.record import RunRecord

if TYPE_CHECKING:
    import pandas

__all__ = ["frame"]

_NUMBERS = tuple(  # may be missing in all rows, and still are numbers
    field.name for field in dataclasses.fields(RunRecord) if field.type == "float | None"
)
_LAST = ("settings", "plan", "curve", "recipe", "provenance")  # columns of objects


def frame(records: Iterable[RunRecord]) -> pandas.DataFrame:
    """Return one row for each record, with its id as the index.

    The columns are the fields of :class:`~ghostify.runs.record.RunRecord`, ``macs_ratio`` and
    ``params_ratio``, and for each measured runtime ``ms@RUNTIME`` and ``before_ms@RUNTIME``,
    with threads and batch behind the name where they are not 1: ``ms@openvino,t4,b8``.
    """
    import pandas

    rows = [_row(record) for record in records]
    plain = [field.name for field in dataclasses.fields(RunRecord) if field.name != "latencies"]
    columns = [name for name in plain if name not in _LAST] + ["macs_ratio", "params_ratio"]
    measured = sorted({key for row in rows for key in row if "@" in key})
    found = pandas.DataFrame(rows, columns=[*columns, *measured, *_LAST])
    found = found.astype(dict.fromkeys([*_NUMBERS, *measured], "float64"))
    return found.set_index("id")


def _row(record: RunRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        field.name: getattr(record, field.name)
        for field in dataclasses.fields(record)
        if field.name != "latencies"
    }
    row |= {"macs_ratio": record.macs_ratio, "params_ratio": record.params_ratio}
    for latency in record.latencies:
        threads = f",t{latency.threads}" if latency.threads != 1 else ""
        batch = f",b{latency.batch}" if latency.batch != 1 else ""
        name = f"{latency.runtime}{threads}{batch}"
        row[f"ms@{name}"] = latency.median_ms
        if latency.before_ms is not None:
            row[f"before_ms@{name}"] = latency.before_ms
    return row
