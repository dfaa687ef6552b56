"""``ghostify export``: write a network as a file of another runtime, with proof."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from ghostify.cli import render
from ghostify.cli.models import open_requested
from ghostify.cli.options import Request
from ghostify.cli.progress import Steps
from ghostify.exporting.formats import find_format, format_name
from ghostify.exporting.output import check_file
from ghostify.exports import Exported
from ghostify.exports import export as export_model

__all__ = ["run"]


def run(
    request: Request,
    output: Path,
    *,
    format: str | None,
    batch: int,
    dynamic_batch: bool,
    optimize: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Export a network and print how it was proven; return the exit code."""
    name = format_name(output, format)
    check_file(output, force=force)
    find_format(name)
    with Steps(3 + optimize, quiet=quiet or as_json) as step:
        exported = export_model(
            open_requested(request, step),
            output,
            format=name,
            input_size=request.input_size,
            batch=batch,
            dynamic_batch=dynamic_batch,
            optimize=optimize,
            force=force,
            on_step=step,
        )
    if as_json:
        render.print_json(exported.as_json())
    elif not quiet:
        render.page(escape(_summary(exported)))
        render.notes(exported.notes)
    return 0


def _summary(exported: Exported) -> str:
    inputs = ", ".join(exported.differences)
    passes = f"optimised for {exported.passes}" if exported.passes else "not optimised"
    batch = "dynamic batch" if exported.dynamic_batch else "fixed batch"
    files = ", ".join(str(one) for one in exported.files)
    return (
        f"{files}: {exported.format}, {exported.size_bytes / 1e6:.1f} MB, "
        f"input {', '.join(exported.inputs)}, {batch}, {passes}\n"
        f"largest difference from torch {exported.max_difference:.1e} of the largest output "
        f"(allowed {exported.tolerance:.0e}; inputs: {inputs})"
    )
