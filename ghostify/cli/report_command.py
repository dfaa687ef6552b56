"""The verb ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ghostify.cli import interrupt
from ghostify.cli.common_options import Json, Quiet

__all__ = ["app"]

app = typer.Typer()


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUNS...",
            help="Directories that ghostify compare wrote; several are joined.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory to write the report to."),
    ] = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            "--layout",
            metavar="NAME",
            help="plain, or table3 to table8 as in the paper; repeatable. Default: the suite's.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="METHOD",
            help="That others are tested against. Default: the suite's, else the dense network.",
        ),
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            "--published",
            metavar="TABLE,...",
            help="The paper's tables to show beside, or none. Default: the suite's.",
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", help="Default: the suite's.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Set the runs of comparisons as tables with intervals, figures, and a page to read.

    Without -o nothing is written.
    """
    names = None if published is None else [one.strip() for one in published.split(",")]
    with interrupt.deferred():
        from ghostify.cli.report import run

    return run(
        runs,
        output,
        layout=None if layout is None else ",".join(layout),
        reference=reference,
        published=None if names is None else [one for one in names if one and one != "none"],
        title=title,
        force=force,
        as_json=json,
        quiet=quiet,
    )
