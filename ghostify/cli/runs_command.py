"""The verbs ``runs ls``, ``runs show`` and ``runs diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ghostify.cli import interrupt
from ghostify.cli.common_options import Json
from ghostify.cli.options import UsageError

__all__ = ["app"]

app = typer.Typer(
    help="Look at the records of a comparison: list, show, diff.", no_args_is_help=True
)

Directory = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="What ghostify compare wrote, or a records.jsonl.", show_default=False
    ),
]
RunId = Annotated[
    str,
    typer.Argument(metavar="ID", help="Of a run; its first digits do.", show_default=False),
]


@app.command()
def ls(
    directory: Directory,
    sort: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Such as top1, macs, seconds. Default: as they ended."),
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The largest first.")] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE", help="Only these, such as method=l1. Repeatable."),
    ] = None,
    json: Json = False,
) -> int:
    """List the runs of a comparison."""
    if reverse and sort is None:
        raise UsageError("--reverse goes with --sort FIELD; give both")
    wishes = _wishes(where or ())
    with interrupt.deferred():
        from ghostify.cli.runs import ls as run

    return run(directory, sort=sort, reverse=reverse, wishes=wishes, as_json=json)


@app.command()
def show(directory: Directory, run_id: RunId, json: Json = False) -> int:
    """Show one run in full: settings, costs, accuracy per epoch, provenance and command."""
    with interrupt.deferred():
        from ghostify.cli.runs import show as run

    return run(directory, run_id, as_json=json)


@app.command()
def diff(
    directory: Directory,
    one: RunId,
    two: RunId,
    json: Json = False,
) -> int:
    """Tell in what two runs differ: settings, layers of their plans, figures, machines."""
    with interrupt.deferred():
        from ghostify.cli.runs import diff as run

    return run(directory, one, two, as_json=json)


def _wishes(texts: list[str] | tuple[()]) -> dict[str, str]:
    wishes = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"--where is written FIELD=VALUE, such as method=l1 (got {text!r})")
        wishes[key] = value
    return wishes
