"""``ghostify evaluate``: accuracy and loss of a network on labelled images."""

from __future__ import annotations

from ghostify import training
from ghostify.cli import interrupt, render
from ghostify.cli.data_options import DataRequest
from ghostify.cli.training_options import ModelRequest
from ghostify.cli.training_progress import TrainingBar

__all__ = ["run"]


def run(request: ModelRequest, data: DataRequest, *, seed: int, as_json: bool, quiet: bool) -> int:
    """Evaluate a network and print the figures; return the exit code."""
    path = data.require()
    notes: list[str] = []
    with TrainingBar(quiet=quiet or as_json) as bar:
        with interrupt.deferred():  # imports on the way
            bar.step(f"building {request.model}")
        measured = training.evaluate(
            request.model,
            path,
            split=data.split or "test",
            images=data.overrides,
            batch_size=data.batch_size or 256,
            workers=data.workers,
            seed=seed,
            on_batch=bar.count,
            on_step=bar.step,
            on_note=notes.append,
            **request.settings,
        )
    if as_json:
        render.print_json(measured.as_json())
    elif not quiet:
        render.page(
            f"top-1 {measured.top1:.2f} %, top-5 {measured.top5:.2f} %, loss {measured.loss:.4f}, "
            f"on {measured.images:,} images"
        )
        render.notes(notes)
    return 0
