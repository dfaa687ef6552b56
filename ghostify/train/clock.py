"""How long a run has trained, and how fast it goes."""

from __future__ import annotations

import time

__all__ = ["Clock"]

_SHOW_S = 0.2


class Clock:
    """Counts the time of training alone, without evaluations and checkpoints."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._whole = seconds
        self._since: float | None = None  # when it was last started
        self._images = 0
        self._from = seconds  # where the present pace began
        self._last = 0.0
        self._shown_at = 0.0

    @property
    def seconds(self) -> float:
        """Of training, so far."""
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return self._whole + running

    @property
    def pace(self) -> float:
        """Images per second since the last :meth:`forget`, or right after it, before it."""
        if not self._images:
            return self._last
        return self._images / max(self.seconds - self._from, 1e-9)

    def start(self) -> None:
        """Go on counting."""
        if self._since is None:
            self._since = time.monotonic()

    def stop(self) -> None:
        """Let what follows not count."""
        self._whole, self._since = self.seconds, None

    def count(self, images: int) -> None:
        """Add images to the pace."""
        self._images += images

    def forget(self) -> None:
        """Begin a new pace."""
        self._last = self.pace
        self._images, self._from = 0, self.seconds

    def due(self, always: bool) -> bool:
        """Tell whether a display may be renewed."""
        now = time.monotonic()
        if not always and now - self._shown_at < _SHOW_S:
            return False
        self._shown_at = now
        return True
