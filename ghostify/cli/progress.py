"""A progress bar on standard error, for work that takes longer than a second."""

from __future__ import annotations

import contextlib
import sys
import threading
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ghostify.cli import interrupt

__all__ = ["Steps"]

_DELAY_S = 1.0


class Steps:
    """Shows which of ``total`` steps is under way; appears after a second, leaves no trace.

    On anything but a terminal it shows nothing. Meanwhile, what foreign code prints goes to
    standard error, so that standard output holds nothing but the result.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total)
        self._lock = threading.Lock()
        self._done = quiet or not console.is_terminal
        self._shown = False
        self._elsewhere = contextlib.redirect_stdout(sys.stderr)
        self._timer = threading.Timer(_DELAY_S, self._show)
        self._timer.daemon = True

    def __call__(self, description: str) -> None:
        """Begin the next step, unless the user has had enough."""
        interrupt.check()
        started = self._bar.tasks[0].description != ""
        self._bar.update(self._task, description=description, advance=int(started))

    def detail(self, done: int, of: int, description: str) -> None:
        """Say how far the present step is."""
        interrupt.check()
        share = f" ({100 * done // of} %)" if of else ""
        self._bar.update(self._task, description=description + share)

    def __enter__(self) -> Steps:
        self._elsewhere.__enter__()
        if not self._done:
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._elsewhere.__exit__(kind, error, trace)
        self._timer.cancel()
        with self._lock:
            self._done = True
            if self._shown:
                self._bar.stop()

    def _show(self) -> None:
        with self._lock:
            if not self._done:
                self._bar.start()
                self._shown = True
