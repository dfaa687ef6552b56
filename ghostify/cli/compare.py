"""``ghostify compare``: run what a suite asks for, and say what came of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ghostify import comparing
from ghostify.cli import interrupt, render
from ghostify.cli.compare_progress import ComparisonBar
from ghostify.cli.live import duration
from ghostify.comparing import Compared

__all__ = ["plan", "run"]

_FAILED = 1


def run(
    suite: Path, output: Path, *, settings: Mapping[str, Any], as_json: bool, quiet: bool
) -> int:
    """Run the suite; return the exit code, which tells whether a run has failed.

    A first Ctrl-C lets the trainings that are under way write their checkpoints.
    """
    began = time.monotonic()
    with interrupt.deferred(), ComparisonBar(quiet=quiet or as_json) as bar:
        result = comparing.compare(
            suite,
            output,
            on_step=bar.step,
            on_look=bar.show,
            on_note=bar.say,
            should_stop=lambda: interrupt.exit_code() is not None,
            **settings,
        )
        if interrupt.exit_code() is not None and result.stopped:
            raise interrupt.StoppedError(
                f"interrupted with {result.done} runs recorded; the same command goes on from there"
            )
    if as_json:
        render.print_json(_as_json(result))
    elif not quiet:
        _show(result, time.monotonic() - began)
    return _FAILED if result.failed else 0


def plan(suite: Path, output: Path, *, only: str | None, as_json: bool, quiet: bool) -> int:
    """List the runs of a suite and how far each is; return the exit code."""
    planned = comparing.agenda(suite, output, only=only)
    counts = Counter(one.state for one in planned)
    if as_json:
        runs = [
            {"id": one.job.id, "name": one.job.name, "kind": one.job.kind, "state": one.state}
            for one in planned
        ]
        render.print_json({"runs": runs, "records": str(output / "records.jsonl")})
        return 0
    if quiet:
        return 0
    width = max(len(one.job.name) for one in planned)
    for one in planned:
        render.page(f"{one.job.name:<{width}}  {one.job.kind:<5}  {one.state}")
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    render.notes([f"{len(planned)} runs: {told}", "dry run: nothing was run or written"])
    return 0


def _show(result: Compared, seconds: float) -> None:
    notes = [f"{result.done} runs recorded in {result.store}, {duration(seconds)}"]
    if result.failed:
        notes.append(f"failed: {'; '.join(sorted(result.failed))}")
    if result.left:
        notes.append(f"{result.left} runs are left; the same command goes on")
    if result.done and not result.left and not result.failed:
        notes.append(f"ghostify report {result.path} -o DIR makes tables and figures of them")
    render.notes(notes)


def _as_json(result: Compared) -> dict[str, Any]:
    return {
        "done": result.done,
        "left": result.left,
        "failed": [{"name": name, "reason": why} for name, why in result.failed.items()],
        "remarks": list(result.remarks),
        "records": str(result.store),
    }
