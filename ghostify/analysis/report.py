"""Write a redundancy analysis to a directory: tables, a plan, pictures, and a page to read."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from ghostify.analysis.tables import layer_frame, map_frame, pair_frame
from ghostify.analysis.values import LayerRedundancy, MapPair, Redundancy
from ghostify.files import fresh_directory

__all__ = ["page", "write_report"]

_CAPTIONS = {
    "pairs.png": "The maps of one layer; frames of one colour show the most similar pairs (as in "
    "Fig. 1 of the paper), and beside them what the filter makes of the one for the other.",
    "error_by_depth.png": "What the best partners leave over of each layer's maps, by the side d "
    "of the filter.",
    "distribution.png": "How the errors of the single maps are distributed in each layer.",
}


def write_report(
    found: Redundancy, path: str | Path, *, force: bool = False, pictures: bool = True
) -> Path:
    """Write all that was found to the directory ``path``: whole, or not at all.

    ``redundancy.json`` is what ``--json`` prints, ``layers.csv`` has one row for each layer and
    side, ``maps.csv`` one for each map, ``pairs.csv`` the most similar pairs, ``plan.yaml`` the
    suggested settings (for ``ghostify convert --plan``), ``summary.md`` tells it to people, and
    the pictures lie there as PNG and SVG.

    Raises:
        OutputError: the directory exists (and not ``force``), or cannot be written.
    """
    path = Path(path)
    with fresh_directory(path, force=force) as new:
        text = json.dumps(found.as_json(), indent=1)
        (new / "redundancy.json").write_text(text + "\n", encoding="utf-8")
        for name, frame in (
            ("layers.csv", layer_frame(found)),
            ("maps.csv", map_frame(found)),
            ("pairs.csv", pair_frame(found)),
        ):
            frame.to_csv(new / name, index=False, float_format="%.6g", lineterminator="\n")
        plan = yaml.safe_dump(found.plan.as_json(), sort_keys=False)
        (new / "plan.yaml").write_text(plan, encoding="utf-8")
        drawn: tuple[str, ...] = ()
        if pictures:
            from ghostify.analysis.charts import draw_all

            drawn = draw_all(found, new)
        (new / "summary.md").write_text(page(found, drawn), encoding="utf-8")
    return path


def page(found: Redundancy, pictures: tuple[str, ...] = ()) -> str:
    """Return the page as Markdown."""
    lines = [
        f"# How redundant the maps of {found.model} are",
        "",
        f"Every ordered pair of output maps of every convolution, on {found.images:,} images of "
        f"{found.input}; the error of a map is what the best partner leaves over of its variance "
        "(1 - R²) by one linear d x d filter and an offset, solved for in closed form.",
        "",
    ]
    for name in sorted(pictures, key=lambda one: list(_CAPTIONS).index(one)):
        lines += [f"![{_CAPTIONS[name]}]({name})", "", f"*{_CAPTIONS[name]}*", ""]
    lines += _pairs(found)
    lines += _layers(found)
    lines += _end(found)
    return "\n".join(lines).rstrip() + "\n"


def _pairs(found: Redundancy) -> list[str]:
    """Return the table that is laid out as the paper's Table 2."""
    pairs = found.best_pairs()
    if not pairs:
        return []
    sides = " | ".join(f"d = {kernel}" for kernel in found.kernels)
    lines = [
        "## The most similar pairs",
        "",
        "The closest pair of each layer, the ten closest of all. Left over in per cent of the "
        "target's variance; in brackets the mean squared error, in the units of the layer's output "
        "(the paper's Table 2 has that, without telling the units).",
        "",
        f"| layer | pair | {sides} |",
        "|---|---|" + "---|" * len(found.kernels),
    ]
    lines += [
        f"| {pair.layer} | {pair.source} → {pair.target} | {_cells(pair)} |" for pair in pairs
    ]
    return [*lines, ""]


def _cells(pair: MapPair) -> str:
    return " | ".join(
        f"{100 * share:.3g} % ({error:.3g})"
        for share, error in zip(pair.relative, pair.mse, strict=True)
    )


def _layers(found: Redundancy) -> list[str]:
    sides = " | ".join(f"d = {kernel}" for kernel in found.kernels)
    usual = found.kernel
    lines = [
        "## Layer by layer",
        "",
        f"Left over of all maps of a layer together, by d; then, for d = {usual}, the quartiles "
        "over its maps and the share of maps of which less than a tenth and less than a quarter "
        f"is left over. A setting is suggested where its ghosts would miss at most "
        f"{found.tolerance:g} of the layer's output (each map weighted by the batch norm behind).",
        "",
        f"| layer | maps | {sides} | quartiles, d = {usual} | < 0.1 | < 0.25 | suggested |",
        "|---|---|" + "---|" * len(found.kernels) + "---|---|---|---|",
    ]
    for layer in found.layers:
        errors = " | ".join(f"{layer.relative_mse(kernel):.3f}" for kernel in found.kernels)
        quartiles = " / ".join(f"{one:.2f}" for one in layer.quartiles(usual))
        shares = " | ".join(f"{100 * layer.share_below(one, usual):.0f} %" for one in (0.1, 0.25))
        lines.append(
            f"| {layer.name} | {layer.maps} | {errors} | {quartiles} | {shares} | "
            f"{_suggested(layer)} |"
        )
    return [*lines, ""]


def _suggested(layer: LayerRedundancy) -> str:
    advice = layer.suggestion
    if advice.spec is None:
        return f"keep: {advice.reason}"
    return f"{advice.spec}, misses {advice.error:.3f}"


def _end(found: Redundancy) -> list[str]:
    machine = found.provenance.get("machine", {})
    versions = found.provenance.get("versions", {})
    where = ", ".join(f"{name} {version}" for name, version in versions.items())
    on = ", ".join(f"{name} {value}" for name, value in machine.items())
    data = found.data or {}
    lines = ["## How it was measured", ""]
    lines += [f"- {note}" for note in found.notes]
    if found.skipped:
        listed = "; ".join(f"{one.name} ({one.reason})" for one in found.skipped[:12])
        more = len(found.skipped) - 12
        lines.append(f"- not looked at: {listed}" + (f"; and {more} more" if more > 0 else ""))
    if data:
        lines.append(f"- data: {', '.join(f'{key} {value}' for key, value in data.items())}")
    lines.append(f"- seed {found.seed}, {found.seconds:.0f} s; {where}; {on}")
    return lines
