"""``ghostify runs``: the records of a comparison as tables, and as JSON for machines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from ghostify.cli import render
from ghostify.runs.query import (
    Difference,
    differences,
    find_run,
    layers_of,
    read_runs,
    short_ids,
    sort_runs,
    where,
)
from ghostify.runs.record import RunRecord

__all__ = ["diff", "ls", "show"]

_LONG = ("settings", "plan", "latencies", "curve", "recipe", "provenance")  # shown apart


def ls(
    directory: Path, *, sort: str | None, reverse: bool, wishes: Mapping[str, str], as_json: bool
) -> int:
    """Print one line for each run; return the exit code."""
    stored = read_runs(directory)
    render.notes(stored.remarks)
    short = short_ids(stored.records)
    found: Sequence[RunRecord] = where(stored.records, wishes)
    if sort is not None:
        found = sort_runs(found, sort, reverse=reverse)
    if as_json:
        render.print_json([_summary(record) for record in found])
        return 0
    table = _table("id", "kind", "network", "method", "budget", right="seed MACs params ms start "
                   "top-1 steps rate minutes")  # fmt: skip
    for record in found:
        median = record.latencies[0].median_ms if record.latencies else None
        table.add_row(
            short[record.id],
            record.kind,
            escape(record.label),
            escape(record.method_label),
            escape(record.budget or ""),
            str(record.seed),
            render.amount(record.macs),
            render.amount(record.params),
            _number(median, ".2f"),
            _number(record.start_top1, ".2f"),
            _number(record.top1, ".2f"),
            str(record.steps),
            _number(record.lr, "g"),
            f"{(record.seconds + record.setup_seconds) / 60:.1f}",
        )
    counts = f"{len(found)} of {len(stored.records)} runs" if wishes else f"{len(found)} runs"
    render.page(table, f"\n{counts} in {escape(str(directory))}")
    return 0


def show(directory: Path, run_id: str, *, as_json: bool) -> int:
    """Print one run in full; return the exit code."""
    stored = read_runs(directory)
    render.notes(stored.remarks)
    record = find_run(stored.records, run_id)
    if as_json:
        render.print_json(record.as_json())
        return 0
    fields = _table("field", "value")
    for name, value in record.as_json().items():
        if name not in (*_LONG, "format", "command") and value not in (None, ""):
            text = f"{value:,}" if isinstance(value, int) else _text(value)
            fields.add_row(name, escape(text))
    for latency in record.latencies:
        place = f"{latency.runtime}, threads {latency.threads}, batch {latency.batch}"
        before = "" if latency.before_ms is None else f", the original {latency.before_ms:.3f} ms"
        spread = f"{latency.median_ms:.3f} ms (IQR {latency.iqr_ms:.3f})"
        fields.add_row(f"latency on {place}", f"{spread}{before}")
    parts: list[RenderableType] = [fields]
    for title, values in (
        ("settings", record.settings),
        ("recipe", record.recipe),
        ("plan", layers_of(record.plan)),
        ("provenance", record.provenance),
    ):
        if values:
            parts += ["", _pairs(title, values)]
    if record.curve:
        parts += ["", _curve(record.curve)]
    if record.command:
        parts += ["", "to make it alone:", escape(record.command)]
    render.page(Group(*parts))
    return 0


def diff(directory: Path, one: str, two: str, *, as_json: bool) -> int:
    """Print in what two runs differ; return the exit code."""
    stored = read_runs(directory)
    render.notes(stored.remarks)
    first, second = find_run(stored.records, one), find_run(stored.records, two)
    found = differences(first, second)
    if as_json:
        render.print_json(
            {
                "one": first.id,
                "two": second.id,
                "differences": [dataclasses.asdict(difference) for difference in found],
            }
        )
        return 0
    if not found:
        render.page(f"{first.id} and {second.id} differ in nothing")
        return 0
    table = _table("", "", first.id, second.id, right="difference")
    last = ""
    for difference in found:
        part = difference.part if difference.part != last else ""
        last = difference.part
        table.add_row(
            part,
            escape(difference.name),
            escape(_text(difference.one)),
            escape(_text(difference.two)),
            _change(difference),
        )
    render.page(table)
    return 0


def _summary(record: RunRecord) -> dict[str, Any]:
    plain = record.as_json()
    kept = {key: value for key, value in plain.items() if key not in _LONG or key == "latencies"}
    return kept | {"macs_ratio": record.macs_ratio, "params_ratio": record.params_ratio}


def _table(*titles: str, right: str = "") -> Table:
    table = Table(header_style="bold", pad_edge=False, box=None)
    for title in titles:
        table.add_column(title, overflow="fold")
    for title in right.split():
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _pairs(title: str, values: Mapping[str, Any]) -> Table:
    table = _table(title, "")
    for key, value in values.items():
        table.add_row(escape(str(key)), escape(_text(value)))
    return table


def _curve(points: Sequence[Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for point in points for name in point))
    table = _table(right=" ".join(names))
    for point in points:
        table.add_row(*(_number(point.get(name), "g") for name in names))
    return table


def _change(difference: Difference) -> str:
    one, two = difference.one, difference.two
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in (one, two)
    )
    if difference.part != "figures" or not numbers:
        return ""
    share = f" ({(two - one) / one:+.1%})" if one and abs(one) > 100 else ""
    return f"{two - one:+,.6g}{share}" if isinstance(two - one, float) else f"{two - one:+,}{share}"


def _number(value: Any, form: str) -> str:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return format(value, form) if plain else "" if value is None else str(value)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return (
        json.dumps(value)
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
