"""A report written by hand, with names that must be escaped."""

from __future__ import annotations

import base64

from ghostify.reports.values import (
    EMPTY,
    PUBLISHED_MARK,
    Cell,
    Column,
    Command,
    Figure,
    Footnote,
    Report,
    Row,
    Table,
)

WICKED = '<script>window.wicked = 1</script> & "quoted" 100 %'
"""The name of a method."""

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20" width="40" height="20" '
    'role="img"><title>a line</title><text x="2" y="9" style="fill: currentColor">a &lt;b&gt;'
    "</text></svg>\n"
)

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg"
    "=="
)

COLUMNS = (
    Column("method", "Method", numeric=False),
    Column("macs", "MACs, M", better="lower", title_long="multiply-adds of one image"),
    Column("top1", "Top-1, %", better="higher", marks=("a",)),
    Column("top1-published", f"Top-1, % {PUBLISHED_MARK}", source="published"),
)


def row(name: str, macs: float, top1: float | None, **changes: object) -> Row:
    """Return a row; its accuracy is shown with an interval."""
    accuracy = EMPTY if top1 is None else Cell(f"{top1:.2f} ± 0.40", top1, 0.4)
    cells = (Cell(name), Cell(f"{macs:,.0f}", macs), accuracy, EMPTY)
    kept: dict[str, object] = {"id": f"net.{name}", "cells": cells, "group": "Net-20"}
    return Row(**(kept | changes))  # type: ignore[arg-type]


def report(**changes: object) -> Report:
    """Return a report with one table, one figure and everything else once."""
    table = Table(
        "methods",
        "Methods <side by side>",
        COLUMNS,
        (
            row("Dense", 1200.0, 92.5, reference=True),
            row(WICKED, 99.0, 100.0, pareto=True),
            row("Ghost 10", 310.0, None),
            row("Ghost 9", 300.5, 9.75),
            row(f"Theirs {PUBLISHED_MARK}", 63.0, 92.0, group="Net-20, published",
                source="published"),
            row("Others", 125.0, 93.0, group="Net-20, published", source="published"),
        ),
        (Footnote("a", "After the last epoch & no other."), Footnote("◆", "On the front.")),
        "Mean ± half of the interval, <n> = 3.",
    )  # fmt: skip
    parts: dict[str, object] = {
        "title": "Nets & <others>",
        "summary": ("Ghost 9 is best.", "By <b>much</b>."),
        "methods": ("One recipe for all.",),
        "tables": (table,),
        "figures": (Figure("lines", "Lines", "A caption <i>here</i>.", SVG, PNG),),
        "commands": (
            Command(f"net.{WICKED}", "Wicked, seed 0", "ghostify finetune 'a b' --seed 0 && <x>"),
            Command(f"net.{WICKED}", "Wicked, seed 1", "ghostify finetune 'a b' --seed 1"),
            Command("net.Dense", "Dense, seed 0", "ghostify finetune dense"),
        ),
        "provenance": {"machine": {"cores": 2, "name": "<cpu>"}, "seeds": [0, 1], "gpu": None},
        "remarks": ("line 17 is <cut> off and was left out",),
        "files": ("records.jsonl", "tables/a b.csv"),
    }
    return Report(**(parts | changes))  # type: ignore[arg-type]
