"""How much accuracy Ghost networks and pruned networks regain, at equal multiply-adds.

    python benchmarks/recovery.py --models resnet20 --steps 0,98,391 --seeds 0,1,2 --workers 2
    python benchmarks/recovery.py --report

Starts from CIFAR-10 checkpoints that are first adapted to the JPEG images for one epoch. That
network is converted or pruned, and is then the teacher. All methods get the same recipe (the
recipe "distil"), the same learning-rate grid, tuned for each method on the last 5,000 training
images, and the same 3,000 unlabelled images where they calibrate. Runs that are recorded in
``benchmarks/recovery/records.jsonl`` are not done again; ended at any moment, the same command
goes on, also within a run. ``--report`` draws ``benchmarks/recovery/README.md`` and the figure.
Needs the extra ``bench``; the per-layer plans come from ``benchmarks/recovery/plans.py``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from recovery.records import append, read
from recovery.schedule import Tuning, needed
from recovery.study import METHODS, MODELS, RECORDS, Run, plan_path
from recovery.worker import Place, do, forget


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], epilog="methods: " + ", ".join(METHODS)
    )
    parser.add_argument("--models", default="resnet20,resnet56")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--steps", default="0,98,391,1955")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("build/recovery"))
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--recipe", default="distil")
    parser.add_argument("--tune-steps", type=int, default=98)
    parser.add_argument("--rates-of", choices=MODELS, help="take the rates tuned on this network")
    parser.add_argument(
        "--rates",
        help="run at each of these in place of tuning, such as 1e-3,2e-3,1e-3held (batch norms "
        "held); give --records of their own, and --report rates for their table",
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", default="bf16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--teacher-memory",
        type=Path,
        help="keep here what the teacher tells of each batch, for all methods of a seed, "
        "15 MB a step; without --compile, and best with --amp none",
    )
    parser.add_argument("--minutes", type=float, help="start no run after so many minutes")
    parser.add_argument("--report", nargs="?", const="steps", choices=("steps", "rates"))
    options = parser.parse_args()
    if options.report == "rates":
        from recovery.rates_report import report_rates

        report_rates(options.records)
        return
    if options.report:
        from recovery.report import report

        report(options.records)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    goals = [
        Run("test", model, method, steps, seed, lr=lr, held=held, recipe=options.recipe)
        for model in _listed(options.models, MODELS)
        for seed in map(int, options.seeds.split(","))
        for steps in map(int, options.steps.split(","))
        for method in _listed(options.methods, METHODS)
        for lr, held in _rates(options.rates)
    ]
    tuning = Tuning(steps=options.tune_steps, borrow=options.rates_of)
    place = Place(
        options.data,
        options.cache,
        options.device,
        options.amp,
        compiled=options.compile,
        memory=options.teacher_memory,
    )
    work(goals, tuning, place, options.records, workers=options.workers, minutes=options.minutes)


def work(
    goals: list[Run],
    tuning: Tuning,
    place: Place,
    path: Path,
    *,
    workers: int,
    minutes: float | None,
) -> None:
    """Do what the goals need, the first of them first, in several processes."""
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    running: dict[Future[dict[str, Any]], Run] = {}
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        while True:
            late = minutes is not None and time.monotonic() - began > 60 * minutes
            while len(running) < workers and not late:
                run = _next(goals, read(path), tuning, list(running.values()))
                if run is None:
                    break
                running[pool.submit(do, run, place)] = run
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                run = running.pop(future)
                record = future.result()
                append(path, record)
                forget(run, place)
                shown = record.get("top1", record.get("val_top1"))
                rate = f" lr {run.lr:g}{' held' if run.held else ''}" if run.lr else ""
                print(
                    f"{run.kind} {run.model} {run.method} {run.steps} steps seed {run.seed}{rate}:"
                    f" {shown:.2f} ({record['seconds']:.0f} s)",
                    flush=True,
                )


def _next(
    goals: list[Run], records: list[dict[str, Any]], tuning: Tuning, running: list[Run]
) -> Run | None:
    """Return the first run that nobody does, whose start nobody is making."""
    busy = {(run.model, run.method.partition("-")[0], run.seed) for run in running}
    second: Run | None = None
    for goal in goals:
        plan = plan_path(goal.model, goal.method)
        if plan is not None and not plan.exists():
            continue
        for run in needed(goal, records, tuning):
            if run in running:
                continue
            if (run.model, run.method.partition("-")[0], run.seed) not in busy:
                return run
            second = second or run
    return second


def _rates(text: str | None) -> list[tuple[float | None, bool]]:
    """Return rates and whether batch norms are held; None where the rate is to be tuned."""
    if text is None:
        return [(None, False)]
    return [(float(one.removesuffix("held")), one.endswith("held")) for one in text.split(",")]


def _listed(text: str, known: Any) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise SystemExit(f"there is no {name!r}; choose from {', '.join(known)}")
    return names


if __name__ == "__main__":
    main()
