"""A progress bar for training on standard error, and a line for each evaluation."""

from __future__ import annotations

from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ghostify.cli import interrupt
from ghostify.cli.live import LiveBar
from ghostify.train.evaluate import Evaluation
from ghostify.train.loop import Progress as Standing

__all__ = ["TrainingBar"]


class TrainingBar(LiveBar):
    """Shows how far a run is, how fast it goes and how well; leaves no trace on a terminal.

    Elsewhere only the lines of the evaluations are printed. Meanwhile, what foreign code
    prints goes to standard error.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            quiet=quiet,
        )
        self._last: Evaluation | None = None

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
            self.say(
                f"step {now.step:,}, epoch {now.epoch:.2f}: "
                f"{now.test.top1:.2f} % top-1, loss {now.test.loss:.4f}"
            )

    def count(self, done: int, total: int) -> None:
        """Show how many images are evaluated."""
        interrupt.check()
        self._bar.update(self._task, total=total, completed=done, visible=True)
