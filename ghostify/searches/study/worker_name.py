"""Who works on a trial, told so that others on the machine see whether it is still there."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["is_gone", "this_process"]


def this_process() -> dict[str, Any]:
    """Return this process as plain values."""
    pid = os.getpid()
    return {"host": platform.node(), "system": _system(), "pid": pid, "began": _began(str(pid))}


def is_gone(worker: Mapping[str, Any]) -> bool:
    """Return whether a process has surely ended: it ran here, and is not there any more."""
    if not worker or worker.get("system") != _system() or not _system():
        return False
    return _began(str(worker.get("pid"))) != worker.get("began")


def _system() -> str:
    """Return what process numbers are unique in: this boot, and this container."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def _began(pid: str) -> str | None:
    """Return when a process began, in ticks of the clock; None if it has ended."""
    with contextlib.suppress(OSError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    return None
