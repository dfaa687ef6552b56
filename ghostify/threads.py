"""Cores and threads: how many this process may use, and how many it gives to others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["cores", "given_threads"]

_NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def given_threads(count: int) -> Iterator[None]:
    """Give a process that is started in the block so many threads."""
    before = {name: os.environ.get(name) for name in _NAMES}
    os.environ.update(dict.fromkeys(_NAMES, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
