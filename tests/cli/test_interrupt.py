"""Signals: what the process says of them when it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MODULE = """
import os, signal, sys
from ghostify.cli import interrupt

interrupt.install()
try:
    exec("os.kill(os.getpid(), signal.SIGINT)\\nfor _ in range(10_000): pass")
except KeyboardInterrupt:
    sys.exit(interrupt.exit_code())
"""


def test_a_signal_within_code_from_a_string_gives_the_exit_code(tmp_path: Path) -> None:
    """CPython ends a ``python -m`` by SIGINT then, although the interrupt was caught."""
    (tmp_path / "interrupted.py").write_text(MODULE)

    ended = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path)

    assert ended.returncode == 130
