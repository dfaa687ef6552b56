"""``ghostify convert``: replace convolutions by Ghost modules, check the result, save it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from ghostify.artefact import save
from ghostify.cli import render
from ghostify.cli.calibration import read_calibration, sized, with_images
from ghostify.cli.faster_options import FasterRequest
from ghostify.cli.fit_options import FitRequest
from ghostify.cli.inspect import look, show
from ghostify.cli.models import open_requested
from ghostify.cli.options import Request
from ghostify.cli.progress import Steps
from ghostify.converting import convert as convert_model
from ghostify.files import check_output
from ghostify.graph.rewrite import Conversion
from ghostify.looking import refuse_nothing
from ghostify.models.zoo import Built
from ghostify.only_faster import FasterOptions
from ghostify.summary import ONLY_FASTER

__all__ = ["run"]


def run(
    request: Request,
    *,
    fit: FitRequest | None = None,
    faster: FasterRequest | None = None,
    keep_original: bool = True,
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
        return _dry_run(request, faster, as_json=as_json, quiet=quiet)
    total = 3 + 2 * verify + (output is not None) + 2 * (fit is not None) + (faster is not None)
    with Steps(total, quiet=quiet or as_json) as step:
        built = open_requested(request, step)
        calibration = None
        if fit is not None:
            step("reading images")
            built = sized(built, fit.data, request)
            calibration = read_calibration(fit, built, request)
        conversion = convert_model(
            built,
            rules=request.rules,
            plan=request.plan,
            input_size=request.input_size,
            seed=request.seed,
            verify=verify,
            calibration=None if calibration is None else calibration.images,
            calibration_data=None if calibration is None else calibration.data,
            fit=None if calibration is None else calibration.options,
            only_faster=None if faster is None else FasterOptions(**asdict(faster)),
            on_step=step,
            on_fit=step.detail,
        )
        if calibration is not None:
            conversion = with_images(conversion, calibration)
        conversion = _with_original(conversion, built, request, wanted=keep_original)
        if output is not None:
            step(f"writing {output}")
            save(conversion, output, force=force)
    if as_json:
        artefact = None if output is None else str(output)
        found = render.as_json(request.model, conversion)
        if calibration is not None:
            fits = [one for one in conversion.history if one.get("kind") == "fit"]
            found["fit"] = fits[-1] if fits else None
        if faster is not None:
            found["only_faster"] = conversion.history[0]
        render.print_json(found | {"artefact": artefact})
    elif not quiet:
        _show(conversion, output, verified=verify)
    return 0


def _with_original(
    conversion: Conversion, built: Built, request: Request, *, wanted: bool
) -> Conversion:
    """Let the artefact hold the original's weights where they were trained."""
    if not wanted:
        return replace(conversion, original=None)
    if conversion.original is None and request.trained and built.ghosted is None:
        return replace(conversion, original=built.model.state_dict())
    return conversion


def _dry_run(request: Request, faster: FasterRequest | None, *, as_json: bool, quiet: bool) -> int:
    found = look(request, opinion=False, quiet=quiet or as_json)
    if request.plan is None:
        refuse_nothing(found)
    if as_json:
        render.print_json(render.as_json(request.model, found) | {"artefact": None})
    elif not quiet:
        show(found)
        render.notes(["dry run: nothing was converted or written"])
        if faster is not None:
            render.notes([f"what is faster on {faster.runtime} is measured only in earnest"])
    return 0


def _show(conversion: Conversion, output: Path | None, *, verified: bool) -> None:
    render.overview(conversion.plan.model, conversion)
    done = "verified: shapes, finite values, a gradient for every new parameter"
    notes = [*conversion.notes, done if verified else "not verified"]
    fitted = any(entry.get("kind") != ONLY_FASTER for entry in conversion.history)
    if conversion.replaced and not fitted:
        notes.append(
            "the Ghost modules start from random weights: train the network before use, or fit "
            "them to trained ones by --calibrate"
        )
    notes.append("nothing was written; -o DIR keeps it" if output is None else f"wrote {output}")
    render.notes(notes)
