"""Draw conversions as tables for people and as JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from ghostify.cost.budget import Cost
from ghostify.cost.closed_form import LayerCost
from ghostify.rules import Skipped
from ghostify.spec import ConvSite, GhostSpec, PruneSpec

if TYPE_CHECKING:
    from ghostify.graph.rewrite import Conversion
    from ghostify.looking import Inspection

__all__ = ["as_json", "layer_table", "notes", "overview", "page", "print_json", "totals_table"]

_PLAIN_WIDTH = 150
_WIDE = 120


def page(*parts: RenderableType) -> None:
    """Print tables and text to standard output; wide, and without padding, if no terminal."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(*parts, sep="\n")
        return
    plain = Console(highlight=False, width=_PLAIN_WIDTH)
    with plain.capture() as text:
        plain.print(*parts, sep="\n")
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in text.get().splitlines())


def layer_table(
    sites: Sequence[ConvSite], layers: Iterable[LayerCost], skipped: Iterable[Skipped]
) -> Table:
    """One row per convolution in execution order: what it is and what becomes of it.

    On a narrow terminal some columns are left out.
    """
    there = Console()
    wide = not there.is_terminal or there.width >= _WIDE
    table = Table(header_style="bold", pad_edge=False, box=None)
    table.add_column("layer", overflow="fold", min_width=16)
    table.add_column("maps", justify="right", no_wrap=True)
    if wide:
        table.add_column("kernel", no_wrap=True)
        table.add_column("output", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    if wide:
        for title in ("ghost", "after", "ratio", "s·c/(s+c-1)"):
            table.add_column(title, justify="left" if title == "ghost" else "right", no_wrap=True)
        table.add_column("kept because", overflow="fold")
    else:
        table.add_column("becomes", overflow="fold")
    converted = {layer.name: layer for layer in layers}
    reasons = {skip.name: skip.reason for skip in skipped}
    for site in sites:
        layer = converted.get(site.name)
        cells = [escape(site.name), f"{site.in_channels} → {site.out_channels}"]
        if wide:
            calls = f" ({site.calls} calls)" if site.calls > 1 else ""
            cells += [_kernel(site), _times(site.out_size) + calls]
        cells.append(amount(site.macs))
        if layer is None:
            reason = escape(reasons.get(site.name, site.reason))
            table.add_row(*cells, *[""] * (4 * wide), reason, style="dim")
            continue
        ghost, after = f"[green]{layer.spec}[/green]", amount(layer.after.macs)
        ratio = f"{layer.macs_ratio:.2f}x"
        if wide:
            table.add_row(*cells, ghost, after, ratio, f"{layer.paper_ratio:.2f}x", "")
        else:
            table.add_row(*cells, f"{ghost} {after} {ratio}")
    return table


def totals_table(before: Cost, after: Cost, *, replaced: int, kept: int, pruned: int = 0) -> Table:
    """Parameters and multiply-adds of the whole network, before and after."""
    table = Table(header_style="bold", pad_edge=False, box=None)
    for title in ("", "before", "after", "ratio"):
        table.add_column(title, justify="right" if title else "left")
    for title, old, new in (
        ("parameters", before.params, after.params),
        ("MACs", before.macs, after.macs),
    ):
        table.add_row(title, amount(old), amount(new), f"{old / max(new, 1):.2f}x")
    if after.copied:
        table.add_row("numbers reordered", "", amount(after.copied), "")
    counts = (("Ghost", replaced - pruned), ("pruned", pruned), ("kept", kept))
    parts = [
        f"{count} {what}"
        for what, count in counts
        if count or what == "kept" or (what == "Ghost" and not pruned)
    ]
    table.add_row("convolutions", str(replaced + kept), ", ".join(parts), "")
    return table


def amount(number: int) -> str:
    """Write a count in thousands, millions or billions, with four figures: ``4.089 G``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            scaled = number / size
            digits = 3 if scaled < 10 else 2 if scaled < 100 else 1
            return f"{scaled:.{digits}f} {unit}"
    return str(number)


def notes(lines: Iterable[str]) -> None:
    """Print remarks to standard error."""
    there = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in lines:
        there.print(f"[dim]note: {escape(line)}[/dim]")


def overview(name: str, found: Inspection | Conversion) -> None:
    """Print the layers and the totals of an inspection or a conversion."""
    before, after = _costs(found)
    page(
        layer_table(found.sites, found.layers, found.skipped),
        f"\n{name}, input {', '.join(found.input)}",
        totals_table(
            before,
            after,
            replaced=len(found.layers),
            kept=len(found.skipped),
            pruned=sum(isinstance(layer.spec, PruneSpec) for layer in found.layers),
        ),
    )


def pruned_page(found: Conversion) -> None:
    """Print the layers that have lost maps, and the totals."""
    before, after = _costs(found)
    table = Table(header_style="bold", pad_edge=False, box=None)
    for title in ("layer", "maps", "kept"):
        table.add_column(title, justify="left" if title == "layer" else "right")
    rows = 0
    for site in found.sites:
        kept = found.slices.get(site.name)
        if kept is not None and kept.out is not None:
            table.add_row(escape(site.name), str(site.out_channels), str(len(kept.out)))
            rows += 1
    page(
        table,
        f"\n{found.plan.model}, input {', '.join(found.input)}",
        totals_table(before, after, replaced=rows, kept=len(found.sites) - rows, pruned=rows),
    )


def as_json(model: str, found: Inspection | Conversion) -> dict[str, Any]:
    """Return what both verbs print for machines."""
    before, after = _costs(found)
    pruned = [
        {"name": layer.name, "prune": layer.spec.ratio}
        for layer in found.layers
        if isinstance(layer.spec, PruneSpec)
    ]
    return {
        "model": model,
        "before": before.as_json(),
        "after": after.as_json(),
        "replaced": [
            {
                "name": layer.name,
                "ratio": layer.spec.ratio,
                "kernel": list(layer.spec.mixed) or layer.spec.kernel,
            }
            | ({"cheap": layer.spec.cheap} if layer.spec.cheap != "depthwise" else {})
            | ({"round_to": layer.spec.round_to} if layer.spec.round_to != 1 else {})
            for layer in found.layers
            if isinstance(layer.spec, GhostSpec)
        ],
        "skipped": [{"name": skip.name, "reason": skip.reason} for skip in found.skipped],
    } | ({"pruned": pruned} if pruned else {})


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print one JSON value to standard output, and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _costs(found: Inspection | Conversion) -> tuple[Cost, Cost]:
    if found.before is None or found.after is None:
        raise ValueError("only a conversion that was costed can be shown")
    return found.before, found.after


def _kernel(site: ConvSite) -> str:
    parts = [_times(site.kernel)]
    if any(step != 1 for step in site.stride):
        parts.append(f"/{_short(site.stride)}")
    if any(step != 1 for step in site.dilation):
        parts.append(f"dil {_short(site.dilation)}")
    if site.groups > 1:
        parts.append(f"g{site.groups}")
    return " ".join(parts)


def _short(steps: tuple[int, ...]) -> str:
    return str(steps[0]) if len(set(steps)) == 1 else _times(steps)


def _times(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))
