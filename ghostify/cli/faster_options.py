"""The options that keep a layer dense where its Ghost module is not faster."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ghostify.cli.options import UsageError

__all__ = ["Batch", "FasterRequest", "Margin", "OnlyFaster", "Table", "Threads", "read_faster"]

OnlyFaster = Annotated[
    str | None,
    typer.Option(
        metavar="RUNTIME",
        help="Keep layers as they are unless their Ghost modules are faster there, such as "
        "onnxruntime.",
    ),
]
Margin = Annotated[
    float, typer.Option(metavar="PERCENT", help="That a Ghost module has to be faster by.")
]
Threads = Annotated[int, typer.Option(metavar="N", min=1, max=4096, help="While timing.")]
Batch = Annotated[int, typer.Option(metavar="N", min=1, max=65536, help="Images while timing.")]
Table = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Latency table to use and to add to, also from another machine. Default: this "
        "machine's own.",
    ),
]

_NEEDS = {"margin": "--margin", "threads": "--threads", "batch": "--batch", "table": "--table"}


@dataclass(frozen=True, slots=True)
class FasterRequest:
    """Where Ghost modules have to be faster, and by how much."""

    runtime: str
    margin: float  # share
    threads: int
    batch: int
    table: Path | None


def read_faster(params: Mapping[str, Any], *, given: Collection[str]) -> FasterRequest | None:
    """Read the options, or return None where nothing is asked for.

    Raises:
        UsageError: a margin that cannot be, or an option that makes no sense without another.
    """
    runtime = params["only_faster"]
    flags = [flag for name, flag in _NEEDS.items() if name in given]
    if runtime is None:
        if flags:
            raise UsageError(f"{flags[0]} goes with --only-faster; give that or leave it out")
        return None
    if not 0 <= params["margin"] < 100:
        raise UsageError(f"--margin is a share from 0 to below 100 (got {params['margin']:g})")
    return FasterRequest(
        runtime=runtime,
        margin=params["margin"] / 100,
        threads=params["threads"],
        batch=params["batch"],
        table=params["table"],
    )
