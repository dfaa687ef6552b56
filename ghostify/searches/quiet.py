"""Keep a C library's remarks out of what a command prints."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

__all__ = ["quiet_output"]


@contextlib.contextmanager
def quiet_output() -> Iterator[None]:
    """Drop what C code prints to standard output meanwhile, whose buffer Python does not see."""
    try:
        library = ctypes.CDLL(None)
        flush = library.fflush
        saved = os.dup(1)
    except (OSError, TypeError, AttributeError):  # no standard output, or another platform
        yield
        return
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        flush(None)
        os.dup2(nowhere, 1)
        yield
    finally:
        flush(None)
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)
