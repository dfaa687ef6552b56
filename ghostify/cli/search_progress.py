"""A live display of a search on standard error: best so far, pace, what is left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

from ghostify.cli import interrupt
from ghostify.cli.live import LiveBar, duration

if TYPE_CHECKING:
    from ghostify.searches.outcome import Outcome

__all__ = ["SearchBar"]

_WINDOW = 30  # trials that the pace is taken of


class SearchBar(LiveBar):
    """Shows what begins, then how the search stands; leaves no trace on a terminal.

    Elsewhere only improvements of the best are printed. Meanwhile, what foreign code prints
    goes to standard error.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            quiet=quiet,
        )
        self._best: tuple[str, int] | None = None
        self._seen: list[tuple[float, int]] = []

    def step(self, description: str) -> None:
        """Say what begins now."""
        self._bar.update(
            self._task, description=description, visible=True, total=None, completed=0, figures=""
        )

    def detail(self, done: int, of: int, description: str) -> None:
        """Say how far the present step is."""
        interrupt.check()
        self._bar.update(
            self._task, completed=done, total=of or None, figures=f"{done}/{of} {description}"
        )

    def wait(self, what: str) -> None:
        """Say that the work has to wait."""
        self.say(what)

    def show(self, now: Outcome) -> None:
        """Show how the search stands."""
        from ghostify.searches.agenda import standing_of

        standing = standing_of(now.records, now.rungs)
        pace, left = self._pace(standing.final, standing.planned)
        best = now.best
        figures = [f"{standing.final}/{standing.planned}"]
        if best is not None:
            figures.append(f"best {best.loss:.4f} ({best.rung})")
        tried = [one for one in now.records if one.state in ("complete", "pruned")]
        share = 100 * sum(one.feasible for one in tried) / max(1, len(tried))
        figures.append(f"feasible {share:.0f} % ({standing.repaired} repaired)")
        if pace:
            figures.append(f"{pace:.2f} trials/s" if pace < 10 else f"{pace:.0f} trials/s")
            figures.append(f"{duration(left)} left")
        self._bar.update(
            self._task,
            description="searching",
            total=standing.planned,
            completed=standing.final,
            figures="  ".join(figures),
            visible=True,
        )
        key = None if best is None else (best.rung, best.number)
        if best is not None and key != self._best:
            self._best = key
            if not self._console.is_terminal:
                costs = best.costs.get("macs", 0.0) / (now.original.get("macs") or 1.0)
                self.say(
                    f"trial {best.number} ({best.rung}): {best.measure} "
                    f"{best.loss:.4f} at {costs:.3f}x MACs"
                )

    def _pace(self, done: int, planned: int) -> tuple[float, float]:
        """Return trials a second of late, and the seconds that are left."""
        if not self._seen or self._seen[-1][1] != done:
            self._seen = [*self._seen[-_WINDOW:], (time.monotonic(), done)]
        (began, first), (_, last) = self._seen[0], self._seen[-1]
        pace = (last - first) / max(1e-9, time.monotonic() - began)
        return pace, (planned - done) / pace if pace else 0.0
