"""What the bars on standard error share: they leave no trace on a terminal, and none elsewhere."""

from __future__ import annotations

import contextlib
import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.text import Text

__all__ = ["LiveBar", "duration"]


class LiveBar:
    """One task, shown while the block runs; what foreign code prints goes to standard error."""

    def __init__(self, *columns: ProgressColumn, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._bar = Progress(
            *columns,
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, figures="", visible=False)
        self._elsewhere = contextlib.redirect_stdout(sys.stderr)

    def say(self, line: str) -> None:
        """Print a line that stays, unless nothing is to be printed."""
        if not self._quiet:
            self._console.print(Text(line, style="dim"))

    def __enter__(self) -> Self:
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


def duration(seconds: float) -> str:
    """Return ``2 h 5 min``, ``3 min 20 s`` or ``12 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
