"""The workers of one command: in this process, or in several of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any

from ghostify.errors import GhostifyError, SearchError
from ghostify.searches.agenda import due, is_done
from ghostify.searches.study.ledger import Ledger
from ghostify.searches.study.record import Record
from ghostify.searches.worker import Search, Worker
from ghostify.threads import given_threads

__all__ = ["Crew", "Member", "Stop", "run_alone", "run_team"]

Stop = Callable[[], bool]
OnLook = Callable[[Sequence[Record]], None]

_LOOK_S = 0.5  # how often the coordinator looks at the study
_IDLE_S = 0.2
_LEAVE_S = 20.0  # for a worker to end its trial after Ctrl-C
_EARLY = 3  # workers in a row that die before they have finished anything
_HEAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Member:
    """Which of a command's workers this one is."""

    number: int
    of: int
    threads: int
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Crew:
    """How workers in processes of their own are made ready.

    ``prepare`` is a function of a module, called in the worker's process with its
    :class:`Member` and ``arguments``; it returns the ledger, the search and the evaluator.
    """

    prepare: Callable[..., tuple[Ledger, Search, Any]]
    arguments: tuple[Any, ...]
    members: tuple[Member, ...]


def run_alone(
    ledger: Ledger,
    search: Search,
    worker: Worker,
    *,
    should_stop: Stop = lambda: False,
    on_look: OnLook | None = None,
) -> bool:
    """Do the work of a search in this process; return whether it is through."""
    healed = 0.0
    while not should_stop():
        if time.monotonic() - healed > _HEAL_S:
            ledger.heal()
            healed = time.monotonic()
        records = ledger.records()
        if on_look is not None:
            on_look(records)
        if is_done(records, search.rungs, search.start):
            return True
        _check_health(records)
        ledger.queue(due(records, search.rungs, search.start, ahead=1), seed=search.seed)
        if not worker.step():
            time.sleep(_IDLE_S)
    return is_done(ledger.records(), search.rungs, search.start)


def run_team(
    ledger: Ledger,
    search: Search,
    crew: Crew,
    *,
    should_stop: Stop = lambda: False,
    on_look: OnLook | None = None,
) -> bool:
    """Let several processes do the work of a search; return whether it is through.

    A worker that dies is replaced. If this process dies, its workers end after their trial.

    Raises:
        SearchError: one worker after the other dies before it has done anything, or could not
            make itself ready.
    """
    ledger.use(search.parameters())
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    told = context.SimpleQueue()
    team: dict[int, BaseProcess] = {}
    ahead = 2 * len(crew.members)
    early, done_before = 0, -1
    try:
        while True:
            ledger.heal()
            records = ledger.records()
            if on_look is not None:
                on_look(records)
            done = is_done(records, search.rungs, search.start)
            if done or should_stop():
                return done
            _check_health(records)
            tickets = due(records, search.rungs, search.start, ahead=ahead)
            ledger.queue(tickets, seed=search.seed)
            for member in crew.members:
                process = team.get(member.number)
                if process is not None and process.is_alive():
                    continue
                if not told.empty():
                    raise SearchError(told.get())
                if process is not None:
                    finished = sum(record.finished for record in records)
                    early = 0 if finished > done_before else early + 1
                    done_before = finished
                    if early >= _EARLY * len(crew.members):
                        raise SearchError(
                            "the workers die again and again before they have scored a plan "
                            f"(exit code {process.exitcode}); try --workers 1, or look at the "
                            "memory that is left"
                        )
                with given_threads(member.threads):
                    team[member.number] = context.Process(
                        target=_main, args=(crew, member, stop, told, os.getpid())
                    )
                    team[member.number].start()
            time.sleep(_LOOK_S)
    finally:
        stop.set()
        _dismiss(list(team.values()))


def _main(crew: Crew, member: Member, stop: Event, told: Any, parent: int) -> None:
    """Work until there is nothing left to do, or the parent says or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when it is time
    signal.signal(signal.SIGTERM, _leave)
    try:
        ledger, search, evaluator = crew.prepare(member, *crew.arguments)
    except GhostifyError as error:
        told.put(str(error))
        return

    def should_stop() -> bool:
        return stop.is_set() or os.getppid() != parent

    worker = Worker(ledger, search, evaluator, should_stop=should_stop)
    with contextlib.suppress(KeyboardInterrupt):
        while not should_stop():
            if not worker.step():
                time.sleep(_IDLE_S)


def _leave(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _dismiss(team: Sequence[BaseProcess]) -> None:
    """Wait for workers to end their trials; then end those that take long."""
    deadline = time.monotonic() + _LEAVE_S
    for process in team:
        process.join(timeout=max(0.0, deadline - time.monotonic()))
    for end in (BaseProcess.terminate, BaseProcess.kill):
        slow = [process for process in team if process.is_alive()]
        for process in slow:
            end(process)
        for process in slow:
            process.join(timeout=5.0)


def _check_health(records: Sequence[Record]) -> None:
    """Give up a search whose every trial fails by an error.

    Raises:
        SearchError: it is so; the last error is told.
    """
    errors = [record for record in records if record.error]
    if len(errors) >= 2 * _EARLY and not any(record.finished for record in records):
        raise SearchError(f"no plan can be scored: {errors[-1].error}")
