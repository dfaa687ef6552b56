"""Run a suite in a process that is killed at random moments, until it gets to the end.

Run as a script with a suite, a folder and a number of kills. One process imports everything
and forks each child, so that a child lives for its runs alone; with ``workers`` the real
command is run instead, with so many worker processes, and all of them must die with it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ghostify.runs.store import RunStore
from tests.comparisons.suites import accuracies, run

__all__ = ["massacre"]


def massacre(
    suite: Path, folder: Path, kills: int, *, workers: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Return what is left to say after so many kills, beside an undisturbed run."""
    rng = random.Random(seed)
    undisturbed = folder / "undisturbed"
    run(suite, undisturbed)  # here, so that children need not import anything
    took = _seconds(suite, folder / "timed", workers)
    earliest, latest = (0.2, 0.8) if workers else (0.05, 0.4)  # imports are no fair game
    output, moments = folder / "killed", []
    orphans = 0
    began = time.monotonic()
    while True:
        child = _begin(suite, output, workers=workers)
        if len(moments) < kills:
            time.sleep(rng.uniform(earliest, latest) * took)
            os.kill(child, signal.SIGKILL)
        killed = _wait(child)
        if killed:
            moments.append(len(RunStore(output / "records.jsonl").read().records))
            print(f"kill {len(moments)}: {moments[-1]} runs recorded", file=sys.stderr)  # noqa: T201
            orphans += _orphans(output)
        elif len(moments) < kills:  # it was done before the kill: begin anew
            for file in sorted(output.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
        else:
            break
    expected = RunStore(undisturbed / "records.jsonl").read().records
    stored = RunStore(output / "records.jsonl").read()
    mine, theirs = accuracies(stored.records), accuracies(expected)
    return {
        "kills": len(moments),
        "workers": max(1, workers),
        "recorded_at_kill": moments,
        "runs": len(theirs),
        "lost": len(set(theirs) - set(mine)),
        "doubled": sum("repeats" in remark for remark in stored.remarks),
        "cut_off": sum("cut off" in remark for remark in stored.remarks),
        "different": sum(mine[key] != theirs[key] for key in set(mine) & set(theirs)),
        "orphans": orphans,
        "seconds": round(time.monotonic() - began, 1),
    }


def _begin(suite: Path, output: Path, *, workers: int) -> int:
    if workers:
        command = [
            sys.executable, "-m", "ghostify", "compare", str(suite), "-o", str(output),
            "--workers", str(workers), "--device", "cpu", "--quiet",
        ]  # fmt: skip
        return subprocess.Popen(command).pid
    child = os.fork()
    if not child:
        code = 1
        try:
            result = run(suite, output)
            code = 1 if result.left or result.failed else 0
        finally:
            os._exit(code)
    return child


def _wait(child: int) -> bool:
    """Wait until a process has ended; return whether it was killed."""
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and status:
        sys.exit(f"the comparison has failed ({status})")
    return os.WIFSIGNALED(status)


def _seconds(suite: Path, output: Path, workers: int) -> float:
    began = time.monotonic()
    _wait(_begin(suite, output, workers=workers))
    return time.monotonic() - began


def _orphans(output: Path) -> int:
    """Return how many processes still work for a comparison two seconds after its death."""
    time.sleep(2.0)
    count = 0
    for entry in Path("/proc").iterdir():
        try:
            links = [str(link.readlink()) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        count += str(output / ".workers.lock") in links and entry.name != str(os.getpid())
    return count


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = massacre(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(found))  # noqa: T201
