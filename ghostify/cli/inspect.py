"""``ghostify inspect``: what would be converted, what not and why."""

from __future__ import annotations

from ghostify.cli import render
from ghostify.cli.models import open_requested
from ghostify.cli.options import Request
from ghostify.cli.progress import Steps
from ghostify.cost.macs import SecondOpinion
from ghostify.looking import Inspection
from ghostify.looking import inspect as inspect_model

__all__ = ["look", "run", "show"]


def run(request: Request, *, thop: bool, as_json: bool, quiet: bool) -> int:
    """Inspect a network and print what was found; return the exit code."""
    found = look(request, opinion=thop, quiet=quiet or as_json)
    if as_json:
        render.print_json(render.as_json(request.model, found))
    elif not quiet:
        show(found)
    return 0


def look(request: Request, *, opinion: bool, quiet: bool) -> Inspection:
    """Inspect the network that a command asks for, with a progress bar."""
    with Steps(2 + opinion, quiet=quiet) as step:
        return inspect_model(
            open_requested(request, step),
            rules=request.rules,
            plan=request.plan,
            input_size=request.input_size,
            seed=request.seed,
            opinion=opinion,
            on_step=step,
        )


def show(found: Inspection) -> None:
    """Print the tables of an inspection."""
    render.overview(found.name, found)
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
