"""The summary of a conversion as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ghostify.cost.budget import Cost
    from ghostify.graph.rewrite import Conversion

__all__ = ["closing", "renewed", "summary"]

_CLOSING = "MACs are multiply-adds."


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
    return "\n".join([*lines, "", closing(conversion.history, seed=conversion.seed)])


def closing(history: Sequence[Mapping[str, Any]], *, seed: int | None) -> str:
    """Return the end of the page: where the weights come from."""
    if not history:
        return (
            f"{_CLOSING} The new Ghost modules start from random weights "
            f"(seed {seed}); everything else keeps what it knew.\n"
        )
    done = [f"- {_cell(str(entry.get('what') or entry.get('kind')))}" for entry in history]
    return "\n".join([f"{_CLOSING} What was done to the weights:", "", *done, ""])


def renewed(page: str, history: Sequence[Mapping[str, Any]], *, seed: int | None) -> str:
    """Return a page with another end, after more was done to the weights."""
    return page.partition(_CLOSING)[0] + closing(history, seed=seed)


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
