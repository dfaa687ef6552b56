"""The verb ``compare`` and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ghostify.cli import interrupt
from ghostify.cli.common_options import Json, Quiet
from ghostify.cli.options import UsageError
from ghostify.cli.training_options import Amp, Device

__all__ = ["app"]

app = typer.Typer()


@app.command()
def compare(
    suite: Annotated[
        Path,
        typer.Argument(
            metavar="SUITE.yaml", help="Networks, methods, data and recipe.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Directory of the comparison: its records, and what unfinished runs need.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=1024, help="Processes that run side by side.")
    ] = 1,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="PATTERN",
            help="Some runs: a network, a method, or a pattern such as 'resnet20/l1/*'.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", metavar="M", help="Begin nothing after so long."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and how far they are; do nothing.")
    ] = False,
    device: Device = "auto",
    amp: Amp = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Run every method of a suite under one recipe, and record each run.

    The same command goes on where it was left: what is recorded is never done again, and
    trainings go on from their checkpoints. After a change of the suite only what it concerns
    is done anew. ghostify report makes tables and figures of the records.
    """
    if output is None:
        raise UsageError("a comparison needs a directory; give it by -o DIR")
    if minutes is not None and not minutes > 0:
        raise UsageError(f"--minutes takes a number above 0 (got {minutes:g})")
    with interrupt.deferred():
        from ghostify.cli.compare import plan, run

    if dry_run:
        return plan(suite, output, only=only, as_json=json, quiet=quiet)
    return run(
        suite,
        output,
        settings={
            "workers": workers, "only": only, "minutes": minutes, "device": device, "amp": amp,
        },
        as_json=json,
        quiet=quiet,
    )  # fmt: skip
