"""The verb ``search``: a search itself, and what is done with one that was run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ghostify.cli import interrupt
from ghostify.cli.common_options import Json, Model, ModelArg, Pretrained, Quiet, Seed, Weights
from ghostify.cli.data_options import (
    Crop,
    Data,
    Interpolation,
    Mean,
    Resize,
    Split,
    Std,
    read_data_request,
)
from ghostify.cli.options import UsageError, parse_input_size, parse_model_args
from ghostify.cli.training_options import Device

__all__ = ["app"]

_SEARCH = " search"  # the command of a search itself, which no one can type


class _SearchGroup(TyperGroup):
    """Takes ``ghostify search MODEL ...`` for a search, unless MODEL is a command's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [_SEARCH, *(args or ["--help"])]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] == _SEARCH:
            return "", self.commands[_SEARCH], args[1:]
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_SearchGroup)

Run = Annotated[
    Path, typer.Argument(help="Directory of a search.", metavar="RUN", show_default=False)
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help="postgresql://..., mysql://..., grpc://host:port, a file .db or .journal. "
        "Default: SQLite in the directory of the run.",
    ),
]


@app.callback()
def _group() -> None:
    """Search the best plan under a hard budget; also: search show, rerun, dashboard."""


@app.command(_SEARCH, hidden=True, epilog="Also: ghostify search show|rerun|dashboard RUN")
def run_(
    context: typer.Context,
    model: Model,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="LIMITS",
            help="What no plan may exceed: macs=0.5x,params=15M,size=20MB,latency=12ms@openvino.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory of the run.", show_default=False),
    ] = None,
    data: Data = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            metavar="NAME|FILE.yaml",
            help="What may be chosen. Default: derived from the network.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Plans to try.  [default: 100]")
    ] = None,
    climb: Annotated[
        str | None,
        typer.Option(
            "--climb",
            metavar="free=N,distil=KxSTEPS,train=K@RECIPE",
            help="Train the best further: by distillation, then by a recipe. A space of arguments "
            "takes train=NxSTEPS@RECIPE.",
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler",
            metavar="NAME",
            help="guided, tpe, gp, nsga2, nsga3, cmaes, random, brute. Default: guided; tpe with "
            "--pareto, and for arguments.",
        ),
    ] = None,
    pruner: Annotated[
        str,
        typer.Option(
            "--pruner", metavar="NAME", help="Ends poor trainings: median, halving, none."
        ),
    ] = "median",
    pareto: Annotated[
        str | None,
        typer.Option(
            "--pareto",
            metavar="A,B",
            help="Weigh objectives: score, top1, divergence, macs, params, size, latency@...",
        ),
    ] = None,
    warm_start: Annotated[
        list[Path] | None,
        typer.Option(
            "--warm-start", metavar="RUN|PLAN", help="Begin with what is known. Repeatable."
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(help="Begin with the exact optimum of single layers' losses."),
    ] = True,
    storage: Storage = None,
    study: Annotated[
        str | None,
        typer.Option("--study", metavar="NAME", help="In the storage. Default: the model's name."),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=1024, help="Processes that try plans.")
    ] = 1,
    device: Device = "auto",
    table: Annotated[
        Path | None,
        typer.Option("--table", help="Latency table to read and extend. Default: the machine's."),
    ] = None,
    calibration_images: Annotated[
        int | None,
        typer.Option("--calibration-images", metavar="N", min=1, help="That layers are fitted to."),
    ] = None,
    held_back: Annotated[
        int | None,
        typer.Option("--held-back", metavar="N", min=1, help="Images that plans are judged by."),
    ] = None,
    split: Split = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="N|HxW|CxHxW", help="Default: the model's own.")
    ] = None,
    readers: Annotated[
        int, typer.Option("--readers", min=0, max=1024, help="Processes that decode images.")
    ] = 0,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Search the plan that stays nearest to the original under a budget that it must hold.

    The same command goes on with a search that was left, and joins in from another machine.
    """
    if budget is None:
        raise UsageError("a search needs a budget; give it by --budget macs=0.5x")
    if output is None:
        raise UsageError("a search needs a directory; give it by -o DIR")
    if weights is not None and pretrained:
        raise UsageError("--weights and --pretrained exclude each other; leave one out")
    images = read_data_request(context.params)
    settings: dict[str, Any] = {
        "data": data,
        "budget": budget,
        "output": output,
        "weights": weights,
        "pretrained": pretrained,
        "model_args": parse_model_args(model_arg or ()),
        "split": split,
        "images": images.overrides,
        "input_size": parse_input_size(input_size),
        "calibration": calibration_images,
        "held_back": held_back,
        "space": space,
        "trials": trials,
        "climb": climb,
        "sampler": sampler,
        "pruner": pruner,
        "pareto": None if pareto is None else [one.strip() for one in pareto.split(",")],
        "warm": warm_start or (),
        "exact": exact,
        "storage": storage,
        "study": study,
        "workers": workers,
        "readers": readers,
        "device": device,
        "table": table,
        "seed": seed,
    }
    with interrupt.deferred():
        from ghostify.cli.search import run

    return run(model, settings, as_json=json, quiet=quiet)


@app.command()
def show(
    run: Run,
    storage: Storage = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Show how a search stands, and its best plan."""
    with interrupt.deferred():
        from ghostify.cli.search_results import show_run

    return show_run(run, storage=storage, as_json=json, quiet=quiet)


@app.command()
def rerun(
    run: Run,
    trial: Annotated[
        int | None, typer.Option("--trial", min=0, help="Its number.", show_default=False)
    ] = None,
    storage: Storage = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Evaluate one trial again; its score must come out the same."""
    if trial is None:
        raise UsageError("which trial? give its number by --trial N")
    with interrupt.deferred():
        from ghostify.cli.search_results import rerun_trial

    return rerun_trial(run, trial, storage=storage, as_json=json, quiet=quiet)


@app.command()
def dashboard(
    run: Run,
    storage: Storage = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8080,
) -> int:
    """Open optuna-dashboard on a search, until Ctrl-C."""
    with interrupt.deferred():
        from ghostify.cli.search_results import open_dashboard

    return open_dashboard(run, storage=storage, host=host, port=port)
