"""``ghostify convert``: replace convolutions by Ghost modules, check the result, save it."""

from __future__ import annotations

from pathlib import Path

from ghostify.api import convert as convert_model
from ghostify.api import inspect as inspect_model
from ghostify.artefact import save
from ghostify.cli import render
from ghostify.cli.inspect import show
from ghostify.cli.models import open_requested
from ghostify.cli.options import Request
from ghostify.cli.progress import Steps
from ghostify.errors import RuleError
from ghostify.files import check_output
from ghostify.graph.rewrite import Conversion
from ghostify.rules import explain_nothing

__all__ = ["run"]


def run(
    request: Request,
    *,
    output: Path | None,
    verify: bool,
    dry_run: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Convert a network, print what was done, and write the artefact; return the exit code."""
    if output is not None:
        check_output(output, force=force)
    if dry_run:
        return _dry_run(request, as_json=as_json, quiet=quiet)
    with Steps(4 + verify + (output is not None), quiet=quiet or as_json) as step:
        built = open_requested(request, step)
        conversion = convert_model(
            built,
            rules=request.rules,
            plan=request.plan,
            input_size=request.input_size,
            seed=request.seed,
            verify=verify,
            on_step=step,
        )
        if output is not None:
            step(f"writing {output}")
            save(conversion, output, force=force)
    assert conversion.before is not None
    assert conversion.after is not None
    if as_json:
        value = render.as_json(
            model=request.model,
            before=conversion.before,
            after=conversion.after,
            layers=conversion.layers,
            skipped=conversion.skipped,
        )
        render.print_json(value | {"artefact": None if output is None else str(output)})
    elif not quiet:
        _show(conversion, output, verified=verify)
    return 0


def _dry_run(request: Request, *, as_json: bool, quiet: bool) -> int:
    with Steps(3, quiet=quiet or as_json) as step:
        found = inspect_model(
            open_requested(request, step),
            rules=request.rules,
            plan=request.plan,
            input_size=request.input_size,
            seed=request.seed,
            on_step=step,
        )
    if not found.layers and request.plan is None:
        raise RuleError(
            f"nothing would be converted in {found.name}: {explain_nothing(found.skipped)}"
        )
    if as_json:
        value = render.as_json(
            model=request.model,
            before=found.before,
            after=found.after,
            layers=found.layers,
            skipped=found.skipped,
        )
        render.print_json(value | {"artefact": None})
    elif not quiet:
        show(found)
        render.notes(["dry run: nothing was built or written"])
    return 0


def _show(conversion: Conversion, output: Path | None, *, verified: bool) -> None:
    assert conversion.before is not None
    assert conversion.after is not None
    render.page(
        render.layer_table(conversion.sites, conversion.layers, conversion.skipped),
        f"\n{conversion.plan.model}, input {', '.join(conversion.input)}",
        render.totals_table(
            conversion.before,
            conversion.after,
            replaced=len(conversion.layers),
            kept=len(conversion.skipped),
        ),
    )
    done = "verified: shapes, finite values, a gradient for every new parameter"
    notes = [*conversion.notes, done if verified else "not verified"]
    notes.append("the Ghost modules start from random weights: train the network before use")
    notes.append("nothing was written; -o DIR keeps it" if output is None else f"wrote {output}")
    render.notes(notes)
