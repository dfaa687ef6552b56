"""The processes that do the tasks: this one, or several of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from ghostify.comparisons.tasks import Task
from ghostify.errors import GhostifyError
from ghostify.runs.record import RunRecord
from ghostify.threads import given_threads

__all__ = ["Alone", "Crew", "Do", "Ended", "OnSay", "attempt"]

_LOOK_S = 0.2
_LEAVE_S = 30.0  # for a worker to write its checkpoint
_SAY_S = 0.2  # how often a worker tells how far it is


@dataclass(frozen=True, slots=True)
class Ended:
    """How a task has ended: with a record (of a run), or with a reason."""

    task: Task
    record: RunRecord | None = None
    reason: str = ""  # why it failed
    stopped: bool = False  # it was told to end, and goes on the next time
    died: bool = False  # its process was ended by something else


Do = Callable[..., RunRecord | None]
"""As :func:`ghostify.comparisons.work.do`, for a bench that is there already."""

OnSay = Callable[[str, str, float | None], None]
"""Takes the name of a task, what is done and which share."""


def attempt(
    do: Do, task: Task, lr: float | None, say: Callable[[str, float | None], None],
    should_stop: Callable[[], bool],
) -> Ended:  # fmt: skip
    """Do a task, and return how it has ended; no error of a task ends the others."""
    try:
        return Ended(task, do(task, lr=lr, say=say, should_stop=should_stop))
    except KeyboardInterrupt:
        return Ended(task, stopped=True)
    except GhostifyError as error:
        return Ended(task, reason=" ".join(str(error).split()))
    except MemoryError:
        return Ended(task, reason="out of memory; take fewer workers")
    except Exception as error:
        if os.environ.get("GHOSTIFY_TRACEBACK"):
            traceback.print_exception(error)
        line = (str(error).strip().splitlines() or [""])[0]
        if "out of memory" in line:
            return Ended(task, reason=f"out of memory ({line[:120]}); take fewer workers")
        return Ended(
            task,
            reason=f"this is a bug in ghostify ({type(error).__name__}: {line}); run again with "
            "GHOSTIFY_TRACEBACK=1 and report what it prints",
        )


class Alone:
    """Does one task at a time, in this process; the same interface as a :class:`Crew`."""

    def __init__(self, do: Do, should_stop: Callable[[], bool]) -> None:
        self._do, self._should_stop = do, should_stop
        self._given: tuple[Task, float | None] | None = None

    def begin(self, task: Task, lr: float | None) -> bool:
        """Take a task; return whether none was there."""
        if self._given is not None:
            return False
        self._given = task, lr
        return True

    def hear(self, on_say: OnSay) -> list[Ended]:
        """Do the task that was given."""
        assert self._given is not None
        task, lr = self._given
        self._given = None

        def say(what: str, share: float | None) -> None:
            on_say(task.name, what, share)

        return [attempt(self._do, task, lr, say, self._should_stop)]

    def dismiss(self, on_say: OnSay) -> list[Ended]:
        """There is nothing to wait for."""
        return []


class Worker:
    """One process that does a task at a time."""

    def __init__(
        self, prepare: Callable[..., Do], arguments: tuple[Any, ...], threads: int
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        ending, self._ending = context.Pipe(duplex=False)  # closed to let the worker end
        self._process: BaseProcess = context.Process(
            target=_main, args=(theirs, ending, prepare, arguments, threads)
        )
        with given_threads(threads), _deaf():
            self._process.start()
        theirs.close()
        ending.close()
        self.task: Task | None = None

    @property
    def waits_on(self) -> tuple[Any, ...]:
        """What becomes ready when there is something to hear."""
        return self._pipe, self._process.sentinel

    def give(self, task: Task, lr: float | None) -> None:
        """Let it begin a task."""
        self.task = task
        with contextlib.suppress(OSError):  # it has died: hear tells
            self._pipe.send((task, lr))

    def hear(self, on_say: OnSay) -> Ended | None:
        """Take up what it has said; return how its task has ended, if it has."""
        try:
            while self._pipe.poll():
                said = self._pipe.recv()
                if isinstance(said, Ended):
                    self.task = None
                    return said
                if self.task is not None:
                    on_say(self.task.name, *said)
        except (EOFError, OSError):
            pass
        if self._process.is_alive() or self._pipe_ready():
            return None
        task, self.task = self.task, None
        if task is None:
            return None
        code = self._process.exitcode
        return Ended(
            task, died=True,
            reason=f"its process has died (exit code {code}); look at the memory that is left",
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether it can be given a task."""
        return self._process.is_alive()

    def stop(self) -> None:
        """Ask it to end what it does as soon as that can be gone on with."""
        self._ending.close()
        with contextlib.suppress(OSError):
            self._pipe.send(None)

    def leave(self, deadline: float) -> None:
        """Wait until it has ended, and end it if it takes too long."""
        self._process.join(timeout=max(0.0, deadline - time.monotonic()))
        for end in (self._process.terminate, self._process.kill):
            if self._process.is_alive():
                end()
                self._process.join(timeout=5.0)
        self._pipe.close()

    def _pipe_ready(self) -> bool:
        try:
            return self._pipe.poll()
        except (EOFError, OSError):
            return False


class Crew:
    """Several workers; one that dies is replaced.

    Args:
        prepare: a function of a module, called in each worker with ``arguments``; returns what
            does a task.
    """

    def __init__(
        self, count: int, prepare: Callable[..., Do], arguments: tuple[Any, ...], threads: int
    ) -> None:
        self._make = partial(Worker, prepare, arguments, threads)
        self._count = count
        self._workers: list[Worker] = []

    def begin(self, task: Task, lr: float | None) -> bool:
        """Give a task to a worker that is free; return whether there was one."""
        self._workers = [one for one in self._workers if one.alive or one.task is not None]
        free = next((one for one in self._workers if one.task is None), None)
        if free is None and len(self._workers) < self._count:
            free = self._make()
            self._workers.append(free)
        if free is None:
            return False
        free.give(task, lr)
        return True

    def hear(self, on_say: OnSay) -> list[Ended]:
        """Wait a moment; return the tasks that have ended."""
        watched = [part for one in self._workers for part in one.waits_on]
        busy = [one for one in self._workers if one.task is not None]
        if busy:
            wait(watched, timeout=_LOOK_S)
        found = [one.hear(on_say) for one in self._workers]
        return [ended for ended in found if ended is not None]

    def dismiss(self, on_say: OnSay) -> list[Ended]:
        """Let all workers end; return the tasks that they still finished."""
        for one in self._workers:
            one.stop()
        deadline = time.monotonic() + _LEAVE_S
        found: list[Ended] = []
        while time.monotonic() < deadline and any(one.task is not None for one in self._workers):
            found += self.hear(on_say)
        for one in self._workers:
            one.leave(deadline)
        return found


def _main(
    pipe: Connection[Any, Any], ending: Connection[Any, Any], prepare: Callable[..., Do],
    arguments: tuple[Any, ...], threads: int,
) -> None:  # fmt: skip
    """Do what the parent gives; end when it says so, or dies."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stop = threading.Event()
    _watch_parent(ending, stop)
    do: Do | None = None
    while not stop.is_set():
        try:
            given = pipe.recv()
        except (EOFError, OSError):
            return
        if given is None:
            return
        task, lr = given
        if do is None:
            try:
                do = prepare(threads, *arguments)
            except GhostifyError as error:
                pipe.send(Ended(task, reason=str(error)))
                return
        pipe.send(attempt(do, task, lr, _Teller(pipe), stop.is_set))


class _Teller:
    """Tells the parent how far a task is, now and then."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe, self._last, self._what = pipe, 0.0, ""

    def __call__(self, what: str, share: float | None) -> None:
        now = time.monotonic()
        if now - self._last < _SAY_S:
            return
        self._last = now
        with contextlib.suppress(OSError):
            self._pipe.send((what, share))


def _watch_parent(ending: Connection[Any, Any], stop: threading.Event) -> None:
    """Set ``stop`` when the parent says so; end this process at once when the parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a process of its own

    def watch() -> None:
        if parent.sentinel not in wait([ending, parent.sentinel]):
            stop.set()
            wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Keep Ctrl-C from a process that is started in the block, also while it imports.

    It belongs to the parent, which is told as soon as the block is left.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
