"""``ghostify redundancy``: how well the feature maps of a network follow from each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ghostify.analysis.measure import redundancy
from ghostify.analysis.report import write_report
from ghostify.analysis.values import LayerRedundancy, Redundancy
from ghostify.cli import render
from ghostify.cli.data_options import DataRequest
from ghostify.cli.progress import Steps
from ghostify.data.batches import calibration_batches
from ghostify.data.images import has_split, open_images
from ghostify.files import check_output
from ghostify.sources import open_source, preprocess_for, settled
from ghostify.train.device import choose_device

__all__ = ["run", "table"]

_SMALL, _FEW, _MANY = 64, 64, 256
_BATCH = 64


def run(
    model: str,
    data: DataRequest,
    *,
    output: Path | None,
    count: int | None,
    device: str,
    weights: Path | None,
    pretrained: bool,
    model_args: Mapping[str, Any],
    seed: int,
    force: bool,
    as_json: bool,
    quiet: bool,
    settings: Mapping[str, Any],
) -> int:
    """Measure, print the table, and write the report; return the exit code."""
    if output is not None:
        check_output(output, force=force)
    path = data.require()
    where = choose_device(device)
    with Steps(3 + (output is not None), quiet=quiet or as_json) as step:
        source = open_source(model, step, weights, pretrained, model_args, seed)
        step("reading images")
        split = data.split or ("train" if has_split(path, "train") else None)
        images = open_images(path, split=split)
        preprocess = preprocess_for(settled(source, images, data.overrides), data.overrides)
        batches = calibration_batches(
            images,
            preprocess,
            count=count or (_MANY if max(preprocess.size) <= _SMALL else _FEW),
            seed=seed,
            batch_size=_BATCH,
            workers=data.workers,
        )
        source.model.to(where)
        step("comparing maps")
        found = redundancy(
            source,
            batches,
            seed=seed,
            data={"name": images.name, "images": len(images), "digest": images.digest},
            on_progress=step.detail,
            **settings,
        )
        if output is not None:
            step(f"writing {output}")
            write_report(found, output, force=force)
    if as_json:
        report = None if output is None else str(output)
        render.print_json(found.as_json() | {"report": report})
    elif not quiet:
        render.page(table(found), "\n" + escape(_totals(found)))
        wrote = "nothing was written; -o DIR keeps it" if output is None else f"wrote {output}"
        render.notes([*batches.notes, *found.notes, *_left_out(found), wrote])
    return 0


def table(found: Redundancy) -> Table:
    """One row per convolution, in the order of the network."""
    drawn = Table(header_style="bold", pad_edge=False, box=None)
    drawn.add_column("layer", overflow="fold", min_width=16)
    for title in ("maps", "output"):
        drawn.add_column(title, justify="right", no_wrap=True)
    for kernel in found.kernels:
        drawn.add_column(f"d={kernel}", justify="right", no_wrap=True)
    drawn.add_column(f"quartiles, d={found.kernel}", justify="right", no_wrap=True)
    drawn.add_column("<0.1", justify="right", no_wrap=True)
    drawn.add_column("closest pair", justify="right", no_wrap=True)
    drawn.add_column("suggested", overflow="fold")
    for layer in found.layers:
        drawn.add_row(*_cells(found, layer))
    return drawn


def _cells(found: Redundancy, layer: LayerRedundancy) -> list[str]:
    usual = found.kernel
    advice = layer.suggestion
    pair = layer.pairs[0] if layer.pairs else None
    return [
        escape(layer.name),
        str(layer.maps),
        "x".join(map(str, layer.site.out_size)),
        *(f"{layer.relative_mse(kernel):.3f}" for kernel in found.kernels),
        " ".join(f"{one:.2f}" for one in layer.quartiles(usual)),
        f"{100 * layer.share_below(0.1, usual):.0f} %",
        ""
        if pair is None
        else f"{pair.source} → {pair.target} {pair.relative[found.kernels.index(usual)]:.3f}",
        f"[green]{advice.spec}[/green] {advice.error:.3f}"
        if advice.spec is not None
        else f"[dim]{escape(advice.reason)}[/dim]",
    ]


def _totals(found: Redundancy) -> str:
    return (
        f"{found.model}, {found.images:,} images of {found.input}: what its best partner leaves "
        "over of a map's variance, by one linear d x d filter; all maps of a layer together, then "
        f"the quartiles over single maps. {len(found.plan)} of {len(found.layers)} layers stay "
        f"within a tolerance of {found.tolerance:g}"
    )


def _left_out(found: Redundancy) -> list[str]:
    asked = [one for one in found.skipped if one.reason != "not asked for"]
    if not asked:
        return []
    first = asked[0]
    return [f"{len(asked)} convolutions were left out, the first {first.name}: {first.reason}"]
