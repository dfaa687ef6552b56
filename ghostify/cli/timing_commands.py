"""The verbs that measure networks on real runtimes: ``latency`` and ``profile``."""

from __future__ import annotations

from typing import Annotated

import typer

from ghostify.cli import interrupt
from ghostify.cli.common_options import Json, Model, ModelArg, Pretrained, Quiet, Seed
from ghostify.cli.options import UsageError, parse_input_size, parse_model_args

__all__ = ["app"]

app = typer.Typer()

Models = Annotated[
    list[str],
    typer.Argument(
        help="Names or directories of artefacts; speed-ups are over the first.",
        metavar="MODEL...",
        show_default=False,
    ),
]
Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        metavar="NAME,NAME...",
        help="torch (the default), torch-channels-last, torch-compile, onnxruntime, openvino, "
        "cuda, cuda-graphs, litert, executorch.",
    ),
]
OneRuntime = Annotated[
    str, typer.Option("--runtime", metavar="NAME", help="torch, onnxruntime, openvino ...")
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="That compute one inference.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Images at once.")]
InputSize = Annotated[
    str | None, typer.Option(metavar="N|HxW|CxHxW", help="Default: the model's own.")
]
Optimize = Annotated[
    bool,
    typer.Option(help="Prepare the networks for the runtime by ghostify.optimize first."),
]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Values that the median is taken of.")]


@app.command()
def latency(
    models: Models,
    runtime: Runtimes = None,
    threads: Threads = 1,
    batch: Batch = 1,
    input_size: InputSize = None,
    rounds: Rounds = 25,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds", help="End each runtime's rounds after so long, but not before 5."
        ),
    ] = None,
    optimize: Optimize = True,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Measure networks side by side, in turns, on one runtime after the other."""
    runtimes = _names(runtime or ["torch"])
    size = parse_input_size(input_size)
    arguments = parse_model_args(model_arg or ())
    if seconds is not None and not 0 < seconds < float("inf"):
        raise UsageError(f"--seconds is a number above 0 (got {seconds:g})")
    with interrupt.deferred():
        from ghostify.cli.latency import run

    return run(
        models,
        runtimes=runtimes,
        threads=threads,
        batch=batch,
        input_size=size,
        rounds=rounds,
        seconds=seconds,
        optimize=optimize,
        pretrained=pretrained,
        model_args=arguments,
        seed=seed,
        as_json=json,
        quiet=quiet,
    )


@app.command()
def profile(
    model: Model,
    runtime: OneRuntime = "torch",
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="original|none|MODEL",
            help="Show its times by layer too: what the artefact was made from, or another.",
        ),
    ] = "original",
    threads: Threads = 1,
    batch: Batch = 1,
    input_size: InputSize = None,
    runs: Annotated[
        int, typer.Option("--runs", min=1, help="That the times of the layers are averaged over.")
    ] = 20,
    optimize: Optimize = True,
    pretrained: Pretrained = False,
    model_arg: ModelArg = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Show where a network's time goes, layer by layer."""
    size = parse_input_size(input_size)
    arguments = parse_model_args(model_arg or ())
    with interrupt.deferred():
        from ghostify.cli.profile import run

    return run(
        model,
        runtime=runtime,
        against=None if against == "none" else against,
        threads=threads,
        batch=batch,
        input_size=size,
        runs=runs,
        optimize=optimize,
        pretrained=pretrained,
        model_args=arguments,
        seed=seed,
        as_json=json,
        quiet=quiet,
    )


def _names(texts: list[str]) -> list[str]:
    """Split ``a,b``; each name once.

    Raises:
        UsageError: there is none.
    """
    names = [name.strip() for text in texts for name in text.split(",")]
    found = list(dict.fromkeys(name for name in names if name))
    if not found:
        raise UsageError("--runtime names no runtime; write, for example, --runtime torch")
    return found
