"""``ghostify inspect``: what would be converted, what not and why."""

from __future__ import annotations

from ghostify.api import Inspection
from ghostify.api import inspect as inspect_model
from ghostify.cli import render
from ghostify.cli.models import open_requested
from ghostify.cli.options import Request
from ghostify.cli.progress import Steps
from ghostify.cost.macs import SecondOpinion

__all__ = ["run", "show"]


def run(request: Request, *, thop: bool, as_json: bool, quiet: bool) -> int:
    """Inspect a network and print what was found; return the exit code."""
    with Steps(4, quiet=quiet or as_json) as step:
        built = open_requested(request, step)
        found = inspect_model(
            built,
            rules=request.rules,
            plan=request.plan,
            input_size=request.input_size,
            seed=request.seed,
            opinion=thop,
            on_step=step,
        )
    if as_json:
        render.print_json(
            render.as_json(
                model=request.model,
                before=found.before,
                after=found.after,
                layers=found.layers,
                skipped=found.skipped,
            )
        )
    elif not quiet:
        show(found)
    return 0


def show(found: Inspection) -> None:
    """Print the tables of an inspection."""
    render.page(
        render.layer_table(found.sites, found.layers, found.skipped),
        f"\n{found.name}, input {', '.join(found.input)}",
        render.totals_table(
            found.before, found.after, replaced=len(found.layers), kept=len(found.skipped)
        ),
    )
    render.notes((*found.notes, *_opinion(found.opinion)))


def _opinion(opinion: SecondOpinion | str | None) -> tuple[str, ...]:
    if opinion is None:
        return ()
    if isinstance(opinion, str):
        return (f"no second opinion on the MACs: {opinion}",)
    return (
        f"thop counts {render.amount(opinion.total)}: it agrees on {len(opinion.layers)} plain "
        "convolutions, adds normalisation and pooling, and leaves out subclasses, attention "
        "and functional calls",
    )
