"""``ghostify search MODEL``: search the best plan under a budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ghostify import searching
from ghostify.cli import interrupt, render
from ghostify.cli.search_progress import SearchBar
from ghostify.cli.search_results import print_outcome

__all__ = ["run"]


def run(model: str, settings: Mapping[str, Any], *, as_json: bool, quiet: bool) -> int:
    """Search, print what was found, and return the exit code.

    A first Ctrl-C lets short trials end, queues long ones again, and writes the results.
    """
    began = time.monotonic()
    with interrupt.deferred(), SearchBar(quiet=quiet or as_json) as bar:
        found = searching.search(
            model,
            on_step=bar.step,
            on_progress=bar.detail,
            on_look=bar.show,
            on_wait=bar.wait,
            should_stop=lambda: interrupt.exit_code() is not None,
            **settings,
        )
        if interrupt.exit_code() is not None and not found.outcome.finished:
            done = sum(record.finished for record in found.outcome.records)
            raise interrupt.StoppedError(
                f"interrupted after {done} trials; {found.path} holds the best so far, and the "
                "same command goes on"
            )
    if as_json:
        render.print_json(found.outcome.as_json())
    elif not quiet:
        print_outcome(found.outcome)
        took = f"{(time.monotonic() - began) / 60:.1f} minutes"
        use = f"ghostify convert {model} --plan {found.path}/best.yaml applies the best plan"
        if found.arguments is not None:
            both = {**settings["model_args"], **found.arguments}
            given = " ".join(f"--model-arg {key}={one}" for key, one in both.items())
            use = f"ghostify train {model} {given} trains the best network"
        render.notes([*found.notes, took, f"wrote {found.path}; {use}"])
    return 0
