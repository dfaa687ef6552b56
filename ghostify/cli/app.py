"""The command line's options, and the one place that turns errors into exit codes."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from ghostify.cheap import CHEAP_COSTS
from ghostify.cli import (
    analysis_commands,
    compare_command,
    export_command,
    interrupt,
    prune_command,
    report_command,
    runs_command,
    search_command,
    timing_commands,
    training_commands,
)
from ghostify.cli.common_options import Json, Model, ModelArg, Pretrained, Quiet, Seed, Weights
from ghostify.cli.data_options import Crop, Interpolation, Mean, Resize, Split, Std, Workers
from ghostify.cli.faster_options import (
    Batch,
    Margin,
    OnlyFaster,
    Table,
    Threads,
    read_faster,
)
from ghostify.cli.fit_options import (
    BlockSteps,
    Calibrate,
    CalibrationImages,
    JointSteps,
    KeepOriginal,
    StreamOrder,
    read_fit_request,
)
from ghostify.cli.options import Request, UsageError, read_request
from ghostify.errors import GhostifyError

__all__ = ["app", "main"]

OK, EXPECTED, USAGE, BUG, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes."""

app = typer.Typer(
    help="Turn the convolutions of any CNN into Ghost modules (GhostNet, CVPR 2020).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Ratio = Annotated[int, typer.Option("--s", "--ratio", help="Output maps per intrinsic map.")]
Kernel = Annotated[
    str,
    typer.Option(
        "--d", "--kernel", metavar="D", help="Side of the cheap filters, odd; 1+3+5 mixes several."
    ),
]
Cheap = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What makes the ghosts: " + ", ".join(CHEAP_COSTS) + "; see the README.",
    ),
]
RoundTo = Annotated[
    int,
    typer.Option(
        metavar="R", help="Round the intrinsic maps up to a multiple, such as 16: faster."
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Leave these layers alone, such as 'head.*'. Repeatable."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATTERN=sS,dD", help="For some, 'stage4.*=s3,d5,blur'. Repeatable."
    ),
]
All = Annotated[bool, typer.Option("--all", help="Convert the first convolution too.")]
PlanFile = Annotated[
    Path | None,
    typer.Option("--plan", help="Explicit settings by layer: YAML, JSON, or an artefact's."),
]
InputSize = Annotated[
    str | None, typer.Option(metavar="N|HxW|CxHxW", help="Default: the model's own.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ghostify {metadata.version('ghostify')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def convert(
    context: typer.Context,
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory to write the converted network to."),
    ] = None,
    s: Ratio = 2,
    d: Kernel = "3",
    cheap: Cheap = "depthwise",
    round_to: RoundTo = 1,
    keep: Keep = None,
    set_: Set = None,
    all_: All = False,
    plan: PlanFile = None,
    input_size: InputSize = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    seed: Seed = 0,
    calibrate: Calibrate = None,
    calibration_images: CalibrationImages = None,
    block_steps: BlockSteps = None,
    joint_steps: JointSteps = None,
    stream_order: StreamOrder = None,
    split: Split = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    workers: Workers = 0,
    original: KeepOriginal = True,
    only_faster: OnlyFaster = None,
    margin: Margin = 2.0,
    threads: Threads = 1,
    batch: Batch = 1,
    table: Table = None,
    verify: Annotated[
        bool, typer.Option(help="Run the result: shapes, finite values, gradients.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing artefact.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Replace a network's convolutions by Ghost modules, and fit them to what these did.

    Without -o nothing is written.
    """
    request, given = _request(context), _given(context)
    fit = read_fit_request(context.params, given=given)
    faster = read_faster(context.params, given=given)
    with interrupt.deferred():
        from ghostify.cli.convert import run

    return run(
        request,
        fit=fit,
        faster=faster,
        keep_original=original,
        output=output,
        verify=verify,
        dry_run=dry_run,
        force=force,
        as_json=json,
        quiet=quiet,
    )


@app.command()
def inspect(
    context: typer.Context,
    model: Model,
    s: Ratio = 2,
    d: Kernel = "3",
    cheap: Cheap = "depthwise",
    round_to: RoundTo = 1,
    keep: Keep = None,
    set_: Set = None,
    all_: All = False,
    plan: PlanFile = None,
    input_size: InputSize = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    seed: Seed = 0,
    thop: Annotated[bool, typer.Option(help="Let thop count too, as a second opinion.")] = True,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """List a network's convolutions: what would be converted, what not and why."""
    with interrupt.deferred():
        from ghostify.cli.inspect import run

    return run(_request(context), thop=thop, as_json=json, quiet=quiet)


app.add_typer(timing_commands.app)
app.add_typer(training_commands.app)
app.add_typer(export_command.app)
app.add_typer(search_command.app, name="search")
app.add_typer(prune_command.app)
app.add_typer(compare_command.app)
app.add_typer(runs_command.app, name="runs")
app.add_typer(report_command.app)
app.add_typer(analysis_commands.app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every error becomes one line."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # else it reports each of its retries
    try:
        _prepare_streams()
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.append(here)  # package.module:factory from where the user stands
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
        sys.stdout.flush()
        interrupt.check()
    except BaseException as error:  # the one place where errors become exit codes
        return _exit_code(error)
    return int(code or OK)


def _prepare_streams() -> None:
    """Write somewhere even if a stream is closed, and something for what it cannot encode."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _request(context: typer.Context) -> Request:
    return read_request(context.params, given=_given(context))


def _given(context: typer.Context) -> set[str]:
    """Return the names of the options that the user typed."""
    return {
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }


def _exit_code(error: BaseException) -> int:
    """Print what went wrong in one line, and return the exit code for it."""
    signalled = interrupt.exit_code()
    if signalled or isinstance(error, KeyboardInterrupt | typer.Abort):
        told = str(error) if isinstance(error, interrupt.StoppedError) else ""
        return _fail(told or "interrupted; nothing half-written is left", signalled or INTERRUPTED)
    if isinstance(error, GhostifyError):
        return _fail(str(error), USAGE if isinstance(error, UsageError) else EXPECTED)
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        error = error.__context__  # as the option parser ends when the reader has gone
    if isinstance(error, BrokenPipeError):  # the reader has gone, as with head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) and error.code else EXPECTED
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return _fail("this directory no longer exists; go to another one", EXPECTED)
    if isinstance(error, MemoryError):
        return _fail("out of memory; choose a smaller network or input", EXPECTED)
    if isinstance(error, OSError):
        return _fail(f"{error.strerror or error}; check the disk and the permissions", EXPECTED)
    if hasattr(error, "format_message"):  # the option parser's own errors
        message = " ".join(error.format_message().split()).rstrip(".")
        return _fail(f"{message}; see ghostify --help", USAGE) if message else USAGE
    if os.environ.get("GHOSTIFY_TRACEBACK"):
        traceback.print_exception(error)
    line = (str(error).strip().splitlines() or [""])[0]
    return _fail(
        f"this is a bug in ghostify ({type(error).__name__}: {line}); run again with "
        "GHOSTIFY_TRACEBACK=1 and report what it prints",
        BUG,
    )


def _fail(message: str, code: int) -> int:
    if os.environ.get("RANK", "0") == "0" or code == BUG:  # of torchrun's processes, one speaks
        print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return code
