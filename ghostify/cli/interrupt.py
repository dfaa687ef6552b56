"""Ctrl-C and SIGTERM: at once during work, after it during imports.

An exception in the middle of an import of torch leaves half a library, and errors that say
nothing of the signal. So a signal that comes then is noted, and acted on when the import is
done; a second one does not wait.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from ghostify.errors import GhostifyError

__all__ = ["StoppedError", "check", "deferred", "exit_code", "ignore", "install"]


class StoppedError(GhostifyError):
    """Work has ended at a signal, in an orderly way; the message says what is left of it."""


class _Signalled(KeyboardInterrupt):
    """What a signal raises.

    CPython notes when a plain KeyboardInterrupt leaves code that was compiled from a string, as
    that of dataclasses is, and in the end kills a ``python -m`` by SIGINT, caught or not.
    """


_received: list[int] = []
_deferring = 0


def install() -> None:
    """Let SIGINT and SIGTERM end this process in an orderly way."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note)
    sys.unraisablehook = lambda _: None  # a signal in a destructor is no news


def ignore() -> None:
    """Let no signal spoil the exit code once the work is done."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def exit_code() -> int | None:
    """Return the exit code of the signal that came, if any: 130 or 143."""
    return 128 + _received[0] if _received else None


def check() -> None:
    """Act on a signal that was noted.

    Raises:
        KeyboardInterrupt: there was one.
    """
    if _received:
        raise _Signalled


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let a first signal wait until the block is done."""
    global _deferring  # signals belong to the process
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1
    check()


def _note(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    if not _deferring or len(_received) > 1:
        raise _Signalled
