"""The Python interface: run everything that a suite asks for, and go on where it was left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ghostify.comparisons.commands import Place
from ghostify.comparisons.crew import Alone, Crew, Do
from ghostify.comparisons.folder import Folder
from ghostify.comparisons.inputs import read_inputs
from ghostify.comparisons.jobs import Job, chosen, jobs_of
from ghostify.comparisons.run import Run, Running, Standing
from ghostify.comparisons.tasks import Task, best_tuned
from ghostify.comparisons.work import Bench, do
from ghostify.errors import SuiteError
from ghostify.runs.record import RunRecord
from ghostify.runs.suite import Suite
from ghostify.runs.suite_file import load_suite
from ghostify.runtimes import find_runtime
from ghostify.threads import cores
from ghostify.train.device import choose_engine

__all__ = ["Compared", "Planned", "Running", "Standing", "agenda", "compare"]

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Compared:
    """What there is of a comparison when it ends, or is left."""

    path: Path  # of the directory
    records: tuple[RunRecord, ...]  # of the suite's runs
    done: int
    left: int  # runs without a record that have not failed
    failed: Mapping[str, str] = field(default_factory=dict)  # reason by what has failed
    remarks: tuple[str, ...] = ()
    stopped: bool = False  # it was told to end

    @property
    def store(self) -> Path:
        """The file of the records."""
        return Folder(self.path).store.path


@dataclass(frozen=True, slots=True)
class Planned:
    """A run of a suite, and whether it is "done", "begun" or "waiting"."""

    job: Job
    state: str


def compare(
    suite: Suite | str | Path,
    output: str | Path,
    *,
    workers: int = 1,
    only: str | None = None,
    minutes: float | None = None,
    device: str = "auto",
    amp: str = "auto",
    on_step: Step | None = None,
    on_look: Callable[[Standing], None] | None = None,
    on_note: Step | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Compared:
    """Run every method of a suite under its one recipe; the same call goes on where it was left.

    Each run that is done has a record in ``output``; it is never done twice, whatever dies in
    between. A run whose wish was changed in the suite is done anew, all others stand. A run
    that fails does not keep the others from going on.

    Args:
        suite: a suite, or the YAML file of one.
        output: directory of the comparison.
        workers: processes that work side by side; on a GPU they share it.
        only: a pattern for the names of runs, such as ``"resnet20/l1/*"``, or the name of a
            network or a method.
        minutes: nothing is begun after so long; what is under way is done to its end.
        device, amp: as for :func:`ghostify.train`.
        on_step: called with what begins, until the runs do.
        on_look: called often with how it stands.
        on_note: called with remarks on the way, such as what has failed.
        should_stop: asked often; what is under way then leaves a checkpoint.

    Raises:
        GhostifyError: a mistake in the suite, something that it names is missing, or the
            directory cannot be used, in one sentence.
    """
    step, note = on_step or _ignore, on_note or _ignore
    if workers < 1:
        raise SuiteError(f"a comparison takes one worker at least (got {workers})")
    if minutes is not None and not minutes > 0:
        raise SuiteError(f"a comparison takes more than 0 minutes (got {minutes:g})")
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    choose_engine(device, amp=amp)
    for wish in suite.latency:
        find_runtime(wish.runtime)
    folder = Folder(Path(output))
    folder.check()
    step("reading images")
    inputs, pictures = read_inputs(suite)
    known = jobs_of(suite, inputs)
    jobs = chosen(known, only)
    with folder.alone(should_stop):
        stored = folder.store.read()
        remarks = [*stored.remarks, *_old(stored.records, known)]
        for remark in remarks:
            note(remark)
        if suite.text:
            folder.keep_suite(suite.text)
        records = {record.id: record for record in stored.records}
        folder.tidy(records)
        place = Place(device, amp)
        run = Run(suite, jobs, folder, records, note, on_look)
        crew: Alone | Crew
        if workers == 1:
            bench = Bench(suite, folder, inputs, pictures, place)
            crew = Alone(lambda task, **how: do(task, bench, **how), should_stop)
        else:
            crew = Crew(workers, _prepare, (suite, folder.path, place), _threads(workers))
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        try:
            run.go(crew, deadline, should_stop)
        finally:
            for ended in crew.dismiss(run.say):
                run.end(ended)
        left = [job for job in known if job.id not in run.records]
        folder.tidy(run.records, all_done=not left)
    edges = _edges(suite, jobs, run.records)
    for remark in edges:
        note(remark)
    done = [run.records[job.id] for job in jobs if job.id in run.records]
    return Compared(
        path=folder.path,
        records=tuple(done),
        done=len(done),
        left=len(jobs) - len(done) - sum(job.id in run.failed for job in jobs),
        failed={run.labels[task]: reason for task, reason in run.failed.items()},
        remarks=(*remarks, *edges),
        stopped=should_stop() and len(done) < len(jobs),
    )


def agenda(
    suite: Suite | str | Path, output: str | Path, *, only: str | None = None
) -> tuple[Planned, ...]:
    """Return the runs of a suite and how far they are; nothing is written.

    Raises:
        GhostifyError: as :func:`compare`.
    """
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    folder = Folder(Path(output))
    folder.check()
    recorded = {record.id for record in folder.store.read().records}
    inputs, _ = read_inputs(suite)
    return tuple(
        Planned(job, _state(job, recorded, folder)) for job in chosen(jobs_of(suite, inputs), only)
    )


def _prepare(threads: int, suite: Suite, path: Path, place: Place) -> Do:
    """Make one of several workers ready, in its own process."""
    torch.set_num_threads(threads)
    folder = Folder(path)
    sign = folder.worker()
    inputs, pictures = read_inputs(suite)
    bench = Bench(suite, folder, inputs, pictures, place)

    def work(task: Task, **how: object) -> RunRecord | None:
        assert not sign.closed  # open as long as this worker can write
        return do(task, bench, **how)  # type: ignore[arg-type]

    return work


def _threads(workers: int) -> int:
    """Return how many threads each worker takes."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, cores() // workers)
    return min(share, int(wish)) if wish.isdigit() and int(wish) else share


def _state(job: Job, recorded: set[str], folder: Folder) -> str:
    if job.id in recorded:
        return "done"
    return "begun" if folder.run(job.id).is_dir() else "waiting"


def _old(records: Sequence[RunRecord], jobs: Sequence[Job]) -> list[str]:
    """Say how many records belong to nothing that the suite asks for."""
    ids = {job.id for job in jobs}
    old = [record for record in records if record.id not in ids]
    if not old:
        return []
    rows = sorted({f"{record.network}/{record.method}" for record in old})
    listed = ", ".join(rows[:3]) + (", ..." if len(rows) > 3 else "")
    return [
        f"{len(old)} records are of runs that the suite no longer asks for ({listed}); they are "
        "kept, and not reported"
    ]


def _edges(suite: Suite, jobs: Sequence[Job], records: Mapping[str, RunRecord]) -> list[str]:
    """Say where the best learning rate lies at an end of the grid."""
    found = []
    for row in dict.fromkeys(job.row for job in jobs if job.kind == "tune"):
        ids = [job.id for job in jobs if job.kind == "tune" and job.row == row]
        tune = suite.network(row[0]).tune
        best = best_tuned(records.values(), ids)
        whole = all(one in records for one in ids)
        if not whole or best is None or best.lr is None or tune is None or len(tune.rates) < 3:
            continue
        ends = {min(tune.rates): "smaller", max(tune.rates): "larger"}
        if best.lr in ends:
            found.append(
                f"{'/'.join(row)}: the best rate, {best.lr:g}, is an end of the grid; a "
                f"{ends[best.lr]} one might be better"
            )
    return found


def _ignore(_what: str) -> None:
    return None
