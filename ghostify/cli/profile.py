"""``ghostify profile``: where a network's time goes, layer by layer."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from ghostify.cli import render
from ghostify.cli.latency import milliseconds
from ghostify.cli.progress import Steps
from ghostify.profiling import Profile
from ghostify.profiling import profile as profile_model

__all__ = ["run", "table"]

_BAR = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"


def run(model: str, *, as_json: bool, quiet: bool, **settings: Any) -> int:
    """Profile a network and print the table; return the exit code."""
    with Steps(7, quiet=quiet or as_json) as step:
        found = profile_model(model, on_step=step, **settings)
    if as_json:
        render.print_json(found.as_json())
    elif not quiet:
        render.page(table(found), "\n" + escape(totals(found)), escape(_circumstances(found)))
        render.notes(found.notes)
    return 0


def table(found: Profile) -> Table:
    """One row per layer, in the order of the network."""
    compared = found.original is not None
    drawn = Table(header_style="bold", pad_edge=False, box=None)
    drawn.add_column("layer", overflow="fold", min_width=16)
    drawn.add_column("", no_wrap=True)
    if compared:
        drawn.add_column("before", justify="right", no_wrap=True)
    drawn.add_column("time", justify="right", no_wrap=True)
    drawn.add_column("share", justify="right", no_wrap=True)
    drawn.add_column("", no_wrap=True, min_width=_BAR)
    drawn.add_column("operations", overflow="fold")
    total = found.profiled_ms
    widest = max((layer.ms for layer in found.layers), default=0.0)
    for layer in found.layers:
        name = escape(layer.name) if layer.name is not None else "[dim](no layer)[/dim]"
        cells = [name, "[green]ghost[/green]" if layer.kind else ""]
        if compared:
            cells.append(_time(layer.original_ms or 0.0))
        share = layer.ms / total if total else 0.0
        cells += [_time(layer.ms), f"{100 * share:.1f} %", _bar(layer.ms / (widest or 1.0))]
        drawn.add_row(*cells, escape(", ".join(layer.operators)))
    return drawn


def totals(found: Profile) -> str:
    """Compare the sum of the layers with what the network takes unwatched."""
    figures = found.latency
    text = (
        f"{found.model}: {milliseconds(found.profiled_ms)} in the layers; unwatched "
        f"{milliseconds(figures.median_ms)} ± {milliseconds(figures.iqr_ms)}"
    )
    if found.original is not None:
        before = found.original.median_ms
        text += (
            f"; before the conversion {milliseconds(before)}, so it is "
            f"{before / figures.median_ms:.2f}x as fast"
        )
    return text + (" (noisy)" if figures.noisy else "")


def _circumstances(found: Profile) -> str:
    figures = found.latency
    threads = f"{figures.threads} thread{'s' if figures.threads > 1 else ''}"
    return f"{found.machine}; {threads}, input {found.input}; {figures.runtime} {found.version}"


def _time(ms: float) -> str:
    return f"{ms:.3f} ms" if ms else ""


def _bar(part: float) -> str:
    """Draw a bar in eighths of a character."""
    eighths = round(part * _BAR * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
