"""The summary of a conversion as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ghostify.cost.budget import Cost
    from ghostify.graph.rewrite import Conversion

__all__ = ["summary"]


def summary(conversion: Conversion) -> str:
    """Return what was converted, what stayed and why, and the costs, as a Markdown page."""
    lines = [f"# {conversion.plan.model}, ghosted", ""]
    if conversion.before and conversion.after:
        lines += _totals(conversion.before, conversion.after, conversion.input)
    lines += ["## Converted", ""]
    if conversion.layers:
        lines += [
            "| layer | s | d | MACs before | after | ratio (eq. 4) | s·c/(s+c-1) |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {layer.name} | {layer.spec.ratio} | {layer.spec.kernel} | {layer.before.macs:,} "
            f"| {layer.after.macs:,} | {layer.macs_ratio:.3f} | {layer.paper_ratio:.3f} |"
            for layer in conversion.layers
        ]
    else:
        lines += ["| layer | s | d |", "|---|---:|---:|"]
        lines += [f"| {one.name} | {one.ratio} | {one.kernel} |" for one in conversion.replaced]
    lines += ["", "## Kept", "", "| layer | why |", "|---|---|"]
    lines += [f"| {skip.name} | {_cell(skip.reason)} |" for skip in conversion.skipped]
    lines += [
        "",
        "MACs are multiply-adds. The new Ghost modules start from random weights "
        f"(seed {conversion.seed}); everything else keeps what it knew.",
        "",
    ]
    return "\n".join(lines)


def _totals(before: Cost, after: Cost, shapes: tuple[str, ...]) -> list[str]:
    return [
        f"Input {', '.join(shapes)}.",
        "",
        "| | before | after | ratio |",
        "|---|---:|---:|---:|",
        f"| parameters | {before.params:,} | {after.params:,} | "
        f"{before.params / max(after.params, 1):.2f}x |",
        f"| MACs | {before.macs:,} | {after.macs:,} | {before.macs / max(after.macs, 1):.2f}x |",
        "",
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
