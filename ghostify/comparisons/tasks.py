"""The work behind the runs: what there is to do, in which order, and what needs what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ghostify.comparisons.folder import Folder
from ghostify.comparisons.jobs import Job, recipe_of
from ghostify.errors import SuiteError
from ghostify.runs.record import RunRecord
from ghostify.runs.suite import Suite

__all__ = ["ALONE", "Task", "best_rate", "best_tuned", "next_task", "tasks_of"]

ALONE = "latency"
"""The kind of task that nothing else may run beside."""

_MADE = 100  # steps of training that making a network counts as, for displays


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work for one process.

    ``job`` is the run itself, or one of those that wait for what the task makes.
    """

    name: str
    kind: str  # "original", "start", "latency", "tune", "test" or "count"
    job: Job
    jobs: tuple[Job, ...] = ()  # of "latency": one for each network that is measured
    needs: tuple[str, ...] = ()  # tasks that must have succeeded
    after: tuple[str, ...] = ()  # tasks that must have ended, well or not
    steps: int = 0  # how much work it is about, in steps of training

    @property
    def label(self) -> str:
        """What people are shown."""
        row = "/".join(self.job.row)
        return {
            "original": f"{self.job.network}: original",
            "start": f"{row}/seed={self.job.seed}: start",
            "latency": f"{self.job.network}: latency",
        }.get(self.kind, self.job.name)


def tasks_of(
    suite: Suite, jobs: Sequence[Job], recorded: Collection[str], folder: Folder
) -> tuple[Task, ...]:
    """Return what is left to do for these runs, the first first.

    Originals come before starts, these before the measuring of latencies, which needs the
    machine for itself, and that before all training. Of the final runs, every row's first seed
    comes before the second seeds, whose starts are made only then: so a comparison that is left
    early has whole tables of fewer seeds.
    """
    left = [job for job in jobs if job.id not in recorded]
    originals = _originals(suite, left, folder)
    starts = _starts(suite, left, folder, {task.name for task in originals})
    made = {task.name for task in (*originals, *starts)}
    early = {f"start {job.start if job.kind == 'tune' else job.first}" for job in left}
    first = [task for task in starts if task.name in early]
    latencies = _latencies(suite, left, folder, tuple(task.name for task in first))
    measured = tuple(task.name for task in latencies)
    later = {task.name: replace(task, after=measured) for task in starts if task not in first}
    runs: list[Task] = []
    for job in _ordered(suite, left):
        start = later.pop(f"start {job.start}", None)
        needs = (*_made(job, made), *_tuning(job, left))
        run = Task(job.id, job.kind, job, needs=needs, after=measured, steps=_steps(suite, job))
        runs += [run] if start is None else [start, run]
    return (*originals, *first, *latencies, *runs)


def next_task(
    tasks: Iterable[Task], done: Collection[str], failed: Collection[str], running: Collection[str]
) -> Task | None:
    """Return what may be begun now, or None if nothing may until something ends.

    Args:
        done, failed, running: names of tasks.
    """
    ended = {*done, *failed}
    for task in tasks:
        if task.name in ended or task.name in running:
            continue
        if not set(task.needs) <= set(done) or not set(task.after) <= ended:
            continue
        if task.kind == ALONE and running:
            return None
        return task
    return None


def best_tuned(records: Iterable[RunRecord], tunings: Collection[str]) -> RunRecord | None:
    """Return the best of some tuning runs: by accuracy, then by loss, then the smallest rate."""
    tuned = [record for record in records if record.id in tunings and record.top1 is not None]
    return max(
        tuned,
        key=lambda one: (one.top1 or 0.0, -(one.loss or 0.0), -(one.lr or 0.0)),
        default=None,
    )


def best_rate(job: Job, jobs: Iterable[Job], records: Mapping[str, RunRecord]) -> float | None:
    """Return the rate that tuning has found for a final run, or None if there is no tuning.

    Raises:
        SuiteError: training has diverged by every rate.
    """
    tunings = [one.id for one in jobs if one.kind == "tune" and one.row == job.row]
    best = best_tuned(records.values(), tunings)
    if tunings and best is None:
        raise SuiteError("training has diverged by every rate of the grid; give smaller ones")
    return None if best is None else best.lr


def _originals(suite: Suite, jobs: Sequence[Job], folder: Folder) -> list[Task]:
    if suite.data is None:
        return []
    first = {job.original: job for job in reversed(jobs)}
    return [
        Task(f"original {key}", "original", job, steps=_MADE)
        for key, job in sorted(first.items(), key=lambda item: jobs.index(item[1]))
        if not _measured(suite, job, folder)
    ]


def _measured(suite: Suite, job: Job, folder: Folder) -> bool:
    adapted = suite.network(job.network).adapt is not None
    ready = folder.has if adapted else folder.facts
    return bool(ready("originals", job.original))


def _starts(suite: Suite, jobs: Sequence[Job], folder: Folder, made: Collection[str]) -> list[Task]:
    first = {job.start: job for job in reversed(jobs)}
    found = []
    for key, job in sorted(first.items(), key=lambda item: jobs.index(item[1])):
        if folder.has("starts", key):
            continue
        adapted = suite.network(job.network).adapt is not None
        needs = tuple(name for name in (f"original {job.original}",) if adapted and name in made)
        found.append(Task(f"start {key}", "start", job, needs=needs, steps=_MADE))
    return found


def _latencies(
    suite: Suite, jobs: Sequence[Job], folder: Folder, starts: tuple[str, ...]
) -> list[Task]:
    """Return one task for each network: every method's first seed, in turns with the original."""
    found = []
    for network in suite.networks if suite.latency else ():
        rows = {
            job.first: job
            for job in reversed(jobs)
            if job.network == network.name and job.kind != "tune" and job.start == job.first
        }
        unknown = [job for key, job in rows.items() if folder.facts("latencies", key) is None]
        if not unknown:
            continue
        found.append(
            Task(
                f"latency {network.name}",
                "latency",
                unknown[0],
                jobs=tuple(unknown),
                after=starts,
                steps=_MADE,
            )
        )
    return found


def _made(job: Job, made: Collection[str]) -> tuple[str, ...]:
    names = (f"original {job.original}", f"start {job.start}")
    return tuple(name for name in names if name in made)


def _tuning(job: Job, left: Sequence[Job]) -> tuple[str, ...]:
    if job.kind != "test":
        return ()
    return tuple(one.id for one in left if one.kind == "tune" and one.row == job.row)


def _steps(suite: Suite, job: Job) -> int:
    network, method = suite.network(job.network), suite.method(job.method)
    if job.kind == "count" or not method.train:
        return 10
    if job.kind == "tune":
        assert network.tune is not None
        return network.tune.steps
    recipe = recipe_of(network)
    return recipe.steps or round(400 * (recipe.epochs or 1))


def _ordered(suite: Suite, jobs: Sequence[Job]) -> list[Job]:
    """Return tuning first, then the final runs by how early their seed stands in the suite."""

    def turn(job: Job) -> int:
        seeds = suite.network(job.network).seeds
        return -1 if job.kind == "tune" else seeds.index(job.seed)

    return sorted(jobs, key=turn)
