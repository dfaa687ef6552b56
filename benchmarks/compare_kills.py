"""Kill a comparison with SIGKILL at random moments, 20 times, and look at what it leaves.

    python benchmarks/compare_kills.py

A small suite (a network of four convolutions, adapted, tuned and trained by four methods) is run
once undisturbed. Then it is run, killed at a random moment and begun again until it has been
killed often enough and gets to its end: 14 of 20 kills hit a process that does all by itself, the
others the command with two worker processes, which must die with it. All accuracies,
losses and curves of both are compared. Figures go to ``benchmarks/compare/kills.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from tests.comparisons.kills import massacre
from tests.comparisons.suites import write_suite

OUTPUT = Path(__file__).parent / "compare" / "kills.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    some = 3 * options.kills // 10
    for workers, kills in ((0, options.kills - some), (2, some)):
        with tempfile.TemporaryDirectory() as folder:
            suite = write_suite(Path(folder) / "suite")
            found.append(massacre(suite, Path(folder), kills, workers=workers, seed=options.seed))
        print(json.dumps(found[-1]), flush=True)
        OUTPUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(Path(__file__).parent.parent)  # where the network of the suite is found
    main()
