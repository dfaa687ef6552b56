"""``ghostify latency``: networks side by side on real runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from ghostify.cli import render
from ghostify.cli.progress import Steps
from ghostify.timing import Comparison, Timed
from ghostify.timing import latency as measure_latency

__all__ = ["run", "table"]


def run(
    models: Sequence[str],
    *,
    runtimes: Sequence[str],
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> int:
    """Measure networks and print the figures; return the exit code."""
    total = len(models) + len(runtimes) * (len(models) + 1)
    with Steps(total, quiet=quiet or as_json) as step:
        now = ""

        def begin(what: str) -> None:
            nonlocal now
            now = what
            step(what)

        found = measure_latency(
            *models,
            runtimes=runtimes,
            on_step=begin,
            on_round=lambda done, of: step.detail(done, of, now),
            **settings,
        )
    if as_json:
        render.print_json([row.as_json() for row in found.rows])
    elif not quiet:
        render.page(table(found.rows), "\n" + escape(circumstances(found)))
        render.notes(found.notes)
    return 0


def table(rows: Sequence[Timed]) -> Table:
    """One row per network and runtime."""
    drawn = Table(header_style="bold", pad_edge=False, box=None)
    drawn.add_column("model", overflow="fold", min_width=8)
    drawn.add_column("runtime", no_wrap=True)
    for title in ("median", "IQR", "speed-up", "MACs", "fewer"):
        drawn.add_column(title, justify="right", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    before = ""
    for row in rows:
        figures = row.latency
        if before and figures.runtime != before:
            drawn.add_row()
        before = figures.runtime
        drawn.add_row(
            escape(row.model),
            figures.runtime,
            milliseconds(figures.median_ms),
            f"± {milliseconds(figures.iqr_ms)}",
            f"{row.speedup:.2f}x",
            "" if row.macs is None else render.amount(row.macs),
            "" if row.macs_ratio is None else f"{row.macs_ratio:.2f}x",
            "[yellow]noisy[/yellow]" if figures.noisy else "",
        )
    return drawn


def circumstances(found: Comparison) -> str:
    """Say in one line what was measured on."""
    figures = found.rows[0].latency
    threads = f"{figures.threads} thread{'s' if figures.threads > 1 else ''}"
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return f"{found.machine}; {threads}, input {'; '.join(found.inputs)}; {versions}"


def milliseconds(value: float) -> str:
    """Write a time with three or four figures: ``49.52 ms``."""
    digits = 1 if value >= 100 else 2 if value >= 10 else 3
    return f"{value:.{digits}f} ms"
