"""``ghostify finetune`` and ``ghostify train``: train a network, and keep the result."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ghostify import training
from ghostify.cli import interrupt, render
from ghostify.cli.training_options import TrainingRequest
from ghostify.cli.training_progress import TrainingBar
from ghostify.train.evaluate import Evaluation
from ghostify.training import Trained

__all__ = ["run"]


def run(request: TrainingRequest, *, kind: str, as_json: bool, quiet: bool) -> int:
    """Train, print what came of it, and write the artefact; return the exit code.

    A first Ctrl-C waits for the step to end and the checkpoint to be written.
    """
    settings = dict(request.settings)
    teacher, recipe = settings.pop("teacher"), settings.pop("recipe")
    function: Callable[..., Trained] = training.train
    if kind == "finetune":
        function = training.finetune
        settings["evaluate_first"] = True
    if recipe is not None:
        settings["recipe"] = recipe
    leads = os.environ.get("RANK", "0") == "0"
    try:
        with interrupt.deferred(), TrainingBar(quiet=quiet or as_json or not leads) as bar:
            result = function(
                request.model,
                request.data.require(),
                teacher=teacher,
                on_step=bar.step,
                on_progress=bar.show,
                should_stop=lambda: interrupt.exit_code() is not None,
                **settings,
            )
    except KeyboardInterrupt as error:
        if not str(error):
            raise
        raise interrupt.StoppedError(str(error)) from None  # the option parser loses the message
    if leads and as_json:
        render.print_json(_as_json(request.model, result))
    elif leads and not quiet:
        _show(result)
    return 0


def _show(result: Trained) -> None:
    before = _before(result)
    if result.evaluation is not None:
        measured = result.evaluation
        was = "" if before is None else f" (before: {before['test_top1']:.2f} %)"
        render.page(
            f"top-1 {measured.top1:.2f} %{was}, top-5 {measured.top5:.2f} %, "
            f"loss {measured.loss:.4f}, on {measured.images:,} images"
        )
    notes = [f"{result.steps:,} steps in {_duration(result.seconds)}", *result.notes]
    if result.path is None:
        notes.append("nothing was written; -o DIR keeps it")
    elif not result.finished_before:
        notes.append(f"wrote {result.path}")
    render.notes(notes)


def _as_json(model: str, result: Trained) -> dict[str, Any]:
    measured: Evaluation | None = result.evaluation
    return {
        "model": model,
        "evaluation": measured and measured.as_json(),
        "history": list(result.history),
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "artefact": None if result.path is None else str(result.path),
    }


def _before(result: Trained) -> Any:
    return next((entry for entry in result.history if entry["step"] == 0), None)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
