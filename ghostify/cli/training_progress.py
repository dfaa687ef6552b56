"""A progress bar for training on standard error, and a line for each evaluation."""

from __future__ import annotations

import contextlib
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ghostify.cli import interrupt
from ghostify.train.evaluate import Evaluation
from ghostify.train.loop import Progress as Standing

__all__ = ["TrainingBar"]


class TrainingBar:
    """Shows how far a run is, how fast it goes and how well; leaves no trace on a terminal.

    Elsewhere only the lines of the evaluations are printed. Meanwhile, what foreign code
    prints goes to standard error.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, figures="", visible=False)
        self._last: Evaluation | None = None
        self._elsewhere = contextlib.redirect_stdout(sys.stderr)

    def step(self, description: str) -> None:
        """Say what begins now."""
        interrupt.check()
        self._bar.update(self._task, description=description, visible=True, total=1)

    def show(self, now: Standing) -> None:
        """Show where a training run stands."""
        pace = f"{now.images_per_s:,.0f} images/s"
        self._bar.update(
            self._task,
            description=f"epoch {now.epoch:.2f}",
            total=now.steps,
            completed=now.step,
            visible=True,
            figures=f"{pace}  loss {now.loss:.3f}  top-1 {now.top1:.1f} %",
        )
        if now.test is not None and now.test is not self._last:
            self._last = now.test
            if not self._quiet:
                self._console.print(
                    f"[dim]step {now.step:,}, epoch {now.epoch:.2f}: "
                    f"{now.test.top1:.2f} % top-1, loss {now.test.loss:.4f}[/dim]"
                )

    def count(self, done: int, total: int) -> None:
        """Show how many images are evaluated."""
        interrupt.check()
        self._bar.update(self._task, total=total, completed=done, visible=True)

    def __enter__(self) -> TrainingBar:
        self._elsewhere.__enter__()
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._elsewhere.__exit__(kind, error, trace)
