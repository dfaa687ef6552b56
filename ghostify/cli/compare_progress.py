"""A progress bar for comparisons on standard error, and a line for each remark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

from ghostify.cli import interrupt
from ghostify.cli.live import LiveBar, duration

if TYPE_CHECKING:
    from ghostify.comparing import Standing

__all__ = ["ComparisonBar"]

_SHOWN = 4  # tasks that are under way


class ComparisonBar(LiveBar):
    """Shows how many runs are done, what is under way and how long the rest takes.

    On anything but a terminal, a line for each run that is done. Meanwhile, what foreign code
    prints goes to standard error.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            quiet=quiet,
        )
        self._done = -1

    def step(self, description: str) -> None:
        """Say what begins now."""
        interrupt.check()
        self._bar.update(self._task, description=description, visible=True, total=None)

    def show(self, now: Standing) -> None:
        """Show how the comparison stands."""
        left = "" if now.left_s is None else f"  {duration(now.left_s)} left"
        failed = f", {now.failed} failed" if now.failed else ""
        if not self._console.is_terminal and now.done != self._done and now.done:
            self.say(f"{now.done} of {now.of} runs done{failed}{left}")
        self._done = now.done
        running = [
            f"{one.label}" + ("" if one.share is None else f" {100 * one.share:.0f} %")
            for one in now.running
        ]
        more = [f"and {len(running) - _SHOWN} more"] if len(running) > _SHOWN else []
        self._bar.update(
            self._task,
            description="comparing",
            total=now.of,
            completed=now.done,
            visible=True,
            figures=f"{now.done}/{now.of} runs{failed}  "
            + escape("; ".join([*running[:_SHOWN], *more]))
            + left,
        )
