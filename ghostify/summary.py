"""The summary of a conversion as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ghostify.spec import LayerSpec, PruneSpec

if TYPE_CHECKING:
    from ghostify.cost.budget import Cost
    from ghostify.graph.rewrite import Conversion

__all__ = ["ONLY_FASTER", "closing", "renewed", "summary"]

ONLY_FASTER = "only-faster"
"""Kind of an entry in the history that tells which layers stay dense since that is faster."""

_CLOSING = "MACs are multiply-adds."


def summary(conversion: Conversion) -> str:
    """Return what was converted, what stayed and why, and the costs, as a Markdown page."""
    cut_down = _cut_down(conversion)
    ghosted = bool(conversion.replaced) or not cut_down
    lines = [f"# {conversion.plan.model}, {'ghosted' if ghosted else 'pruned'}", ""]
    if conversion.before and conversion.after:
        lines += _totals(conversion.before, conversion.after, conversion.input)
    if cut_down:
        lines += ["## Pruned", "", "| layer | maps before | kept |", "|---|---:|---:|"]
        lines += [f"| {name} | {maps} | {left} |" for name, maps, left in cut_down]
        lines += [""]
    lines += ["## Converted", ""] if ghosted else []
    if conversion.layers:
        lines += [
            "| layer | s | d | MACs before | after | ratio (eq. 4) | s·c/(s+c-1) |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {layer.name} | {_setting(layer.spec)} | {layer.before.macs:,} "
            f"| {layer.after.macs:,} | {layer.macs_ratio:.3f} | {layer.paper_ratio:.3f} |"
            for layer in conversion.layers
        ]
    elif ghosted:
        lines += ["| layer | s | d |", "|---|---:|---:|"]
        lines += [f"| {one.name} | {one.ratio} | {one.kernel} |" for one in conversion.replaced]
    lines += ["", "## Kept", "", "| layer | why |", "|---|---|"]
    lines += [f"| {skip.name} | {_cell(skip.reason)} |" for skip in conversion.skipped]
    return "\n".join([*lines, "", closing(conversion.history, seed=conversion.seed)])


def _cut_down(conversion: Conversion) -> list[tuple[str, int, int]]:
    """Return the convolutions that have lost maps, with the maps before and after."""
    return [
        (site.name, site.out_channels, len(kept.out))
        for site in conversion.sites
        if (kept := conversion.slices.get(site.name)) is not None and kept.out is not None
    ]


def closing(history: Sequence[Mapping[str, Any]], *, seed: int | None) -> str:
    """Return the end of the page: how layers were chosen, and where the weights come from."""
    chosen = [_told(entry) for entry in history if entry.get("kind") == ONLY_FASTER]
    done = [_told(entry) for entry in history if entry.get("kind") != ONLY_FASTER]
    if done:
        rest = ["What was done to the weights:", "", *done]
    else:
        rest = [
            f"The new Ghost modules start from random weights (seed {seed}); everything else keeps "
            "what it knew."
        ]
    if chosen:
        return "\n".join([f"{_CLOSING} How the layers were chosen:", "", *chosen, "", *rest, ""])
    return "\n".join([f"{_CLOSING} {rest[0]}", *rest[1:], ""])


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


def _setting(spec: LayerSpec) -> str:
    """Return s, and to what m was rounded up, and d; or the share of the maps that went."""
    if isinstance(spec, PruneSpec):
        return f"pruned {spec.ratio:g} | "
    rounded = "" if spec.round_to == 1 else f" (m to {spec.round_to})"
    sides = "+".join(map(str, spec.kernels))
    cheap = "" if spec.cheap == "depthwise" else f" ({spec.cheap})"
    return f"{spec.ratio}{rounded} | {sides}{cheap}"


def _told(entry: Mapping[str, Any]) -> str:
    return f"- {_cell(str(entry.get('what') or entry.get('kind')))}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
