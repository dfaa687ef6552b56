"""Train in a child process that is killed at random moments, until it gets to the end.

Run as a script with a folder and a number of kills. One process imports everything and forks
each child, so that a child lives for its training alone.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from ghostify.train.checkpoint import digest
from ghostify.train.loop import train
from tests.train.toys import PREPROCESS, Synthetic, recipe, toy

STEPS = 40
SETTINGS = {"optimizer": "adamw", "lr": 3e-3, "ema": 0.9, "mixup": 0.2, "feature_weight": 1.0}


def work(folder: Path | None, *, slowly: bool = True) -> str:
    """Train to the end; return the digest of the result."""
    outcome = train(
        toy(),
        recipe(steps=STEPS, **SETTINGS),
        Synthetic(100),
        PREPROCESS,
        test=Synthetic(20, seed=1),
        teacher=toy(1),
        directory=folder,
        seed=5,
        device="cpu",
        checkpoint_every=1 if slowly else 7,
        should_stop=lambda: bool(slowly and time.sleep(0.004)),
    )
    return digest(outcome.model)


def main(folder: Path, kills: int) -> None:
    torch.set_num_threads(1)
    generator = random.Random(0)
    killed = 0
    while True:
        child = os.fork()
        if not child:
            found = work(folder / "run")
            (folder / "digest").write_text(found)
            os._exit(0)
        if killed < kills:
            time.sleep(generator.uniform(0.02, 0.4))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        elif status:
            sys.exit(1)
        elif killed < kills:  # it was done before the kill: begin anew
            for file in (folder / "run").iterdir():
                file.unlink()
        else:
            break
    child = os.fork()
    if not child:
        (folder / "undisturbed").write_text(work(None, slowly=False))
        os._exit(0)
    os.waitpid(child, 0)
    print(killed, (folder / "digest").read_text(), (folder / "undisturbed").read_text())  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
