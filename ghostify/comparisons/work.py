"""Does one task of a comparison, by the same functions that the commands call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ghostify import timing, training
from ghostify.comparisons.commands import Place, commands
from ghostify.comparisons.folder import Folder
from ghostify.comparisons.inputs import Inputs, Pictures, told
from ghostify.comparisons.jobs import Job, recipe_of
from ghostify.comparisons.starts import Tell, make_start, open_original
from ghostify.comparisons.tasks import Task
from ghostify.errors import DivergedError, RuntimeFailedError
from ghostify.provenance import provenance
from ghostify.runs.record import RunLatency, RunRecord
from ghostify.runs.suite import ORIGINAL, Suite
from ghostify.sources import Teacher
from ghostify.train.device import choose_device
from ghostify.train.evaluate import Evaluation
from ghostify.train.loop import Progress

__all__ = ["Bench", "Say", "do"]

Say = Callable[[str, float | None], None]
"""Takes what is done, and which share of the task, where that is known."""

Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all tasks of a process work with."""

    suite: Suite
    folder: Folder
    inputs: Inputs
    pictures: Pictures | None
    place: Place


def do(
    task: Task,
    bench: Bench,
    *,
    lr: float | None = None,
    say: Say,
    should_stop: Stop = lambda: False,
) -> RunRecord | None:
    """Do a task; return the record of a run, and nothing for what is only made on the way.

    What a task has begun is gone on with when it is done again.

    Args:
        lr: the learning rate of a final run, where tuning has found one.
        should_stop: asked after each step of a training, which then leaves a checkpoint.

    Raises:
        GhostifyError: it cannot be done; the sentence says why.
        KeyboardInterrupt: it was told to end.
    """
    if task.kind == "original":
        _original(task.job, bench, say, should_stop)
        return None
    if task.kind == "start":
        tell = _telling(say, should_stop)
        make_start(
            bench.suite, task.job, bench.folder, bench.pictures, tell, device=bench.place.device
        )
        return None
    if task.kind == "latency":
        _latency(task, bench, _telling(say, should_stop))
        return None
    if task.kind == "count":
        return _record(task.job, bench)
    return _run(task.job, bench, lr, say, should_stop)


def _original(job: Job, bench: Bench, say: Say, should_stop: Stop) -> None:
    """Train the original on the images where the suite says so, and measure it."""
    network, folder, key = bench.suite.network(job.network), bench.folder, job.original
    assert bench.pictures is not None
    adapt = network.adapt
    measured: Evaluation | None = None
    if adapt is not None:
        bare = dataclasses.replace(network, adapt=None)
        trained = training.train(
            open_original(bare, folder, key, bench.pictures, seed=adapt.seed),
            bench.pictures.train,
            recipe=adapt.recipe.load(),
            test=bench.pictures.test,
            seed=adapt.seed,
            output=folder.network("originals", key),
            amp=bench.place.amp,
            on_progress=_progress(say, "training the original"),
            should_stop=should_stop,
            device=bench.place.device,
        )
        measured = trained.evaluation
    elif network.weights is not None or network.pretrained:
        say("measuring the original", None)
        built = open_original(network, folder, key, bench.pictures)
        measured = training.evaluate(built, bench.pictures.test, device=bench.place.device)
    folder.note("originals", key, {"top1": measured and measured.top1})


def _latency(task: Task, bench: Bench, tell: Tell) -> None:
    """Measure the starts of one network in turns with the original, on every runtime."""
    suite, folder = bench.suite, bench.folder
    jobs = [job for job in task.jobs if folder.facts("starts", job.start) is not None]
    if not jobs:
        return
    network = suite.network(task.job.network)
    key = task.job.original
    original = open_original(network, folder, key, bench.pictures, bare=True)
    found: dict[str, list[dict[str, Any]]] = {job.start: [] for job in jobs}
    for wish in suite.latency:
        tell(f"measuring on {wish.runtime}")
        compared = timing.latency(
            original,
            *(folder.network("starts", job.start) for job in jobs),
            runtimes=wish.runtime,
            threads=wish.threads,
            batch=wish.batch,
            rounds=wish.rounds,
            input_size=network.input,
            on_step=tell,
        )
        before, *rows = compared.rows
        for job, row in zip(jobs, rows, strict=True):
            figures = row.latency
            found[job.start].append(
                {
                    "runtime": wish.runtime,
                    "threads": wish.threads,
                    "batch": wish.batch,
                    "median_ms": figures.median_ms,
                    "iqr_ms": figures.iqr_ms,
                    "device": figures.device,
                    "noisy": figures.noisy,
                    "before_ms": before.latency.median_ms,
                }
            )
    for key, latencies in found.items():
        folder.note("latencies", key, {"latencies": latencies})


def _run(
    job: Job, bench: Bench, lr: float | None, say: Say, should_stop: Callable[[], bool]
) -> RunRecord:
    """Train a start, or only measure it, as the run says."""
    suite, folder, pictures = bench.suite, bench.folder, bench.pictures
    assert pictures is not None
    network, method = suite.network(job.network), suite.method(job.method)
    start = folder.network("starts", job.start)
    facts = folder.facts("originals", job.original) or {}
    known = {"original_top1": facts.get("top1")} if job.kind == "test" else {}
    if not method.train:
        say("measuring the start", None)
        device = bench.place.device
        measured = training.evaluate(start, pictures.test, device=device)
        return _record(
            job, bench, start_top1=measured.top1, top1=measured.top1, top5=measured.top5,
            loss=measured.loss, **known,
        )  # fmt: skip
    tuning = job.kind == "tune"
    if tuning:
        assert network.tune is not None
        recipe = recipe_of(network, lr=job.lr, steps=network.tune.steps)
        images, test = pictures.fitting, pictures.validation
        assert images is not None
    else:
        recipe = recipe_of(network, lr=lr)
        images, test = pictures.train, pictures.test
    try:
        trained = training.finetune(
            start,
            images,
            teacher=_teacher(job, bench),
            recipe=recipe,
            test=test,
            seed=job.seed,
            output=folder.run(job.id),
            device=bench.place.device,
            amp=bench.place.amp,
            evaluate_first=not tuning,
            evaluate_every=None if not tuning else recipe.steps,
            on_progress=_progress(say, "training"),
            should_stop=should_stop,
        )
    except DivergedError:
        if not tuning:
            raise
        # A rate that is too large for a method is an answer too: it has lost.
        return _record(
            job,
            bench,
            recipe=recipe.as_json(),
            lr=recipe.lr,
            steps=recipe.steps or 0,
            teacher=method.teacher,
        )
    measured_last = trained.evaluation
    assert measured_last is not None
    curve = tuple(
        {
            "step": entry["step"],
            "epoch": entry["epoch"],
            "top1": entry["test_top1"],
            "top5": entry["test_top5"],
            "loss": entry["test_loss"],
            "lr": entry.get("lr"),
            "train_loss": entry.get("loss"),
        }
        for entry in trained.history
        if "test_top1" in entry
    )
    first = next((entry["top1"] for entry in curve if entry["step"] == 0), None)
    best = max((one for one in curve if one["step"]), key=lambda one: one["top1"])
    return _record(
        job,
        bench,
        start_top1=first,
        top1=measured_last.top1,
        top5=measured_last.top5,
        loss=measured_last.loss,
        best_top1=best["top1"],
        best_epoch=best["epoch"],
        curve=curve,
        recipe=recipe.as_json(),
        lr=recipe.lr,
        steps=trained.steps,
        epochs=trained.history[-1]["epoch"],
        teacher=method.teacher,
        seconds=round(trained.seconds, 3),
        **known,
    )


def _teacher(job: Job, bench: Bench) -> Teacher:
    """Return what a run learns from; a new network has no original that knows anything."""
    network, method = bench.suite.network(job.network), bench.suite.method(job.method)
    if method.teacher is None:
        return None
    if method.start != "scratch":
        return ORIGINAL
    return open_original(network, bench.folder, job.original, bench.pictures)


def _record(job: Job, bench: Bench, **measured: Any) -> RunRecord:
    suite, place = bench.suite, bench.place
    network, method = suite.network(job.network), suite.method(job.method)
    made = bench.folder.facts("starts", job.start)
    if made is None:
        raise RuntimeFailedError(f"what {job.name} begins with is not there; compare again")
    lr = measured.get("lr")
    return RunRecord(
        id=job.id,
        kind=job.kind,
        network=job.network,
        label=network.label,
        model=network.model,
        method=job.method,
        method_label=method.label,
        settings=dict(method.settings),
        budget=job.budget,
        seed=job.seed,
        macs=made["macs"],
        params=made["params"],
        macs_before=made["macs_before"],
        params_before=made["params_before"],
        plan=made["plan"],
        latencies=() if job.kind == "tune" else _latencies(job, bench),
        setup_seconds=made["seconds"],
        command="" if job.kind == "tune" else commands(suite, job, place, lr=lr),
        provenance=_provenance(job, bench),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **measured,
    )


def _latencies(job: Job, bench: Bench) -> tuple[RunLatency, ...]:
    """Return the latencies of a row, which were measured on its first seed's network."""
    measured = bench.folder.facts("latencies", job.first)
    if measured is not None:
        return tuple(RunLatency(**one) for one in measured["latencies"])
    settings = bench.suite.method(job.method).settings
    for record in bench.folder.store.read().records if bench.suite.latency else ():
        row = (record.network, record.method, *([record.budget] if record.budget else []))
        if record.latencies and row == job.row and dict(record.settings) == dict(settings):
            return record.latencies  # of a seed that was run before
    return ()


def _provenance(job: Job, bench: Bench) -> Mapping[str, Any]:
    suite, pictures = bench.suite, bench.pictures
    found: dict[str, Any] = dict(provenance(choose_device(bench.place.device)))
    found["weights"] = (bench.inputs.weights or {}).get(job.network)
    found["amp"] = bench.place.amp
    if pictures is not None and suite.data is not None:
        tuning = job.kind == "tune"
        found["data"] = told(pictures.fitting if tuning and pictures.fitting else pictures.train,
                             suite.data.path)  # fmt: skip
        judged = pictures.validation if tuning and pictures.validation else pictures.test
        found["test"] = told(judged, suite.data.test or suite.data.path)
    return found


def _progress(say: Say, what: str) -> Callable[[Progress], None]:
    def show(now: Progress) -> None:
        say(f"{what}: step {now.step} of {now.steps}", now.step / max(1, now.steps))

    return show


def _telling(say: Say, should_stop: Stop) -> Tell:
    def tell(what: str) -> None:
        if should_stop():
            raise KeyboardInterrupt
        say(what, None)

    return tell
