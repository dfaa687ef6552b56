"""One comparison while it runs: gives tasks to workers, and keeps what they give back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ghostify.comparisons.crew import Alone, Crew, Ended
from ghostify.comparisons.folder import Folder
from ghostify.comparisons.jobs import Job
from ghostify.comparisons.tasks import Task, best_rate, next_task, tasks_of
from ghostify.errors import SuiteError
from ghostify.runs.record import RunRecord
from ghostify.runs.suite import Suite

__all__ = ["Run", "Running", "Standing"]

_TRIES = 2  # of a task whose process dies


@dataclass(frozen=True, slots=True)
class Running:
    """A task that is under way."""

    label: str
    what: str = ""
    share: float | None = None  # that is done of it


@dataclass(frozen=True, slots=True)
class Standing:
    """How a comparison stands, for displays; runs are counted, not what is made on the way."""

    done: int
    of: int
    failed: int
    running: tuple[Running, ...]
    left_s: float | None  # None: nobody knows yet


class Run:
    """One comparison while it runs."""

    def __init__(
        self,
        suite: Suite,
        jobs: Sequence[Job],
        folder: Folder,
        records: dict[str, RunRecord],
        note: Callable[[str], None],
        on_look: Callable[[Standing], None] | None,
    ) -> None:
        self._jobs, self._folder, self._note, self._on_look = jobs, folder, note, on_look
        self._suite, self.records = suite, records
        self._tasks = tasks_of(suite, jobs, records, folder)
        self.labels = {task.name: task.label for task in self._tasks}
        self.failed: dict[str, str] = {}
        self._done: set[str] = set()
        self._running: dict[str, tuple[Task, Running]] = {}
        self._deaths: dict[str, int] = {}
        self._since: dict[str, float] = {}  # when tasks were begun
        self._spent: dict[tuple[str, bool], float] = {}  # seconds, and steps of what is done
        self._steps: dict[tuple[str, bool], float] = {}

    def go(
        self, crew: Alone | Crew, deadline: float | None, should_stop: Callable[[], bool]
    ) -> None:
        """Do all that can be done."""
        while True:
            while not should_stop() and (deadline is None or time.monotonic() < deadline):
                task = next_task(self._tasks, self._done, self.failed, self._running)
                if task is None:
                    break
                try:
                    lr = self._rate(task)
                except SuiteError as error:
                    self.end(Ended(task, reason=str(error)))
                    continue
                if not crew.begin(task, lr):
                    break
                self._running[task.name] = task, Running(task.label)
                self._since[task.name] = time.monotonic()
            self._look()
            if not self._running or should_stop():
                return
            for ended in crew.hear(self.say):
                self.end(ended)

    def _rate(self, task: Task) -> float | None:
        """Return the learning rate of a final run, where tuning was to find one."""
        trains = self._suite.method(task.job.method).train
        if task.kind != "test" or not trains:
            return None
        return best_rate(task.job, self._jobs, self.records)

    def say(self, name: str, what: str, share: float | None) -> None:
        """Take note of how far a task is."""
        if name in self._running:
            task, _ = self._running[name]
            self._running[name] = task, Running(task.label, what, share)
            self._look()

    def end(self, ended: Ended) -> None:
        """Keep what a task has given, before anything else is begun."""
        task = ended.task
        self._running.pop(task.name, None)
        if ended.stopped:
            return
        if ended.reason:
            self._deaths[task.name] = self._deaths.get(task.name, 0) + ended.died
            if ended.died and self._deaths[task.name] < _TRIES:
                return
            self.failed[task.name] = ended.reason
            self._note(f"{task.label}: {ended.reason}")
            return
        if ended.record is not None:
            self._folder.store.append(ended.record)
            self.records[ended.record.id] = ended.record
            self._folder.forget_run(ended.record.id)
        self._done.add(task.name)
        _add(self._spent, _pace(task), time.monotonic() - self._since[task.name])
        _add(self._steps, _pace(task), task.steps)

    def _look(self) -> None:
        if self._on_look is None:
            return
        self._on_look(
            Standing(
                done=sum(job.id in self.records for job in self._jobs),
                of=len(self._jobs),
                failed=len(self.failed),
                running=tuple(running for _, running in self._running.values()),
                left_s=self._left(),
            )
        )

    def _left(self) -> float | None:
        """Return the seconds that are left at the pace so far, of each network and kind of work."""
        spent, done = dict(self._spent), dict(self._steps)
        now = time.monotonic()
        for task, one in self._running.values():
            if one.share:
                _add(spent, _pace(task), now - self._since[task.name])
                _add(done, _pace(task), one.share * task.steps)
        left = 0.0
        for task in self._tasks:
            if task.name in self._done or task.name in self.failed:
                continue
            network, trains = _pace(task)
            alike = [key for key in done if key[1] == trains]
            keys = [key for key in alike if key[0] == network] or alike
            steps = sum(done[key] for key in keys)
            if not steps:
                return None
            share = self._running[task.name][1].share if task.name in self._running else 0.0
            rest = task.steps * (1.0 - (share or 0.0))
            left += rest * sum(spent[key] for key in keys) / steps
        return left / max(1, len(self._running))


def _pace(task: Task) -> tuple[str, bool]:
    """Return what tasks have in common that are about equally fast: network, and training."""
    return task.job.network, task.kind in ("tune", "test")


def _add(sums: dict[tuple[str, bool], float], key: tuple[str, bool], value: float) -> None:
    sums[key] = sums.get(key, 0.0) + value
