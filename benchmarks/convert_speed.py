"""How long a conversion takes, beside a bare script and beside torch-pruning.

Three comparisons, each interleaved in this one run, medians of ``--rounds`` rounds:

1. ``ghostify convert resnet50 --s 2 -o out/`` against a script that imports torch and
   torchvision, builds resnet50 and writes its weights as safetensors (new processes);
2. ``ghostify --help`` against ``python -c pass`` (new processes);
3. converting resnet50 in memory, verification off, against pruning it once to half its
   maps by torch-pruning's magnitude pruner (one process, models built beforehand).

Run ``python benchmarks/convert_speed.py``; the table goes to benchmarks/convert_speed.md.
Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path

BARE = """
import sys, torch
if sys.argv[2] == "repair":
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import torchvision
from safetensors.torch import save_file
save_file(torchvision.models.resnet50().state_dict(), sys.argv[1] + "/model.safetensors")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("-o", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            compare("`ghostify convert resnet50 --s 2 -o out/`", convert_process(folder),
                    "bare script: build, write", bare_process(folder), options.rounds),
            compare("`ghostify --help`", process(["-m", "ghostify", "--help"]),
                    "`python -c pass`", process(["-c", "pass"]), options.rounds),
            compare("`ghostify.convert(resnet50, verify=False)`", convert_in_memory(),
                    "torch-pruning, one prune", prune_in_memory(), options.rounds),
        ]  # fmt: skip
    options.o.write_text(page(rows, options.rounds), encoding="utf-8")
    print(options.o.read_text())


def compare(
    ours: str, run: Callable[[], float], theirs: str, peer: Callable[[], float], rounds: int
) -> tuple[str, list[float], str, list[float]]:
    """Time both by turns, after a warm-up of each."""
    run(), peer()
    pairs = [(run(), peer()) for _ in range(rounds)]
    print(f"{ours}: {[f'{a:.2f}/{b:.2f}' for a, b in pairs]}", flush=True)
    return ours, [pair[0] for pair in pairs], theirs, [pair[1] for pair in pairs]


def process(arguments: list[str]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    return run


def convert_process(folder: str) -> Callable[[], float]:
    out = Path(folder) / "out"
    script = shutil.which("ghostify", path=str(Path(sys.executable).parent))
    if script is None:
        raise SystemExit("ghostify is not installed beside this Python; pip install . first")

    def run() -> float:
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        command = [script, "convert", "resnet50", "--s", "2", "-o", str(out)]
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start

    return run


def bare_process(folder: str) -> Callable[[], float]:
    plain = subprocess.run([sys.executable, "-c", BARE, folder, "as is"], capture_output=True)
    return process(["-c", BARE, folder, "repair" if plain.returncode else "as is"])


def convert_in_memory() -> Callable[[], float]:
    import torch

    import ghostify
    from ghostify.models.zoo import build

    model = build("resnet50", seed=0).model
    example = torch.randn(1, 3, 224, 224)

    def run() -> float:
        start = time.perf_counter()
        ghostify.convert(model, example=example, verify=False)
        return time.perf_counter() - start

    return run


def prune_in_memory() -> Callable[[], float]:
    import torch
    import torch_pruning

    from ghostify.models.zoo import build

    model = build("resnet50", seed=0).model
    example = torch.randn(1, 3, 224, 224)

    def run() -> float:
        start = time.perf_counter()
        pruned = copy.deepcopy(model)  # as a conversion, leave the caller's model alone
        pruner = torch_pruning.pruner.MagnitudePruner(
            pruned,
            example,
            importance=torch_pruning.importance.MagnitudeImportance(p=1),
            pruning_ratio=0.5,
            ignored_layers=[pruned.fc],
        )
        pruner.step()
        return time.perf_counter() - start

    return run


def page(rows: list[tuple[str, list[float], str, list[float]]], rounds: int) -> str:
    versions = ", ".join(
        f"{name} {metadata.version(name)}"
        for name in ("ghostify", "torch", "torchvision", "torch-pruning", "typer")
    )
    lines = [
        "# How long a conversion takes",
        "",
        f"Measured {date.today()}, medians of {rounds} interleaved rounds (interquartile range); "
        f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}. "
        "Seed 0, random weights and images. Written by `python benchmarks/convert_speed.py`.",
        "",
        "| | seconds | beside it | seconds | ratio | difference |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for ours, mine, theirs, others in rows:
        one, other = statistics.median(mine), statistics.median(others)
        lines.append(
            f"| {ours} | {one:.3f} ({spread(mine):.3f}) | {theirs} | {other:.3f} "
            f"({spread(others):.3f}) | {one / other:.2f}x | {one - other:+.3f} s |"
        )
    return "\n".join(lines) + "\n"


def spread(times: list[float]) -> float:
    low, _, high = statistics.quantiles(times, n=4)
    return high - low


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
