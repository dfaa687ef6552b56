"""Peak memory of inference and of a training step, ghost against dense.

    python benchmarks/memory.py [--networks resnet50,mobilenet_v2] [--ratios 0,2,4] [--batch 8]

Each figure comes from a process of its own. *Peak* is the largest sum of what torch's CPU
allocator had handed out at one time (weights, gradients and momentum included), followed by
its profiler; *resident* is the growth of the process's largest resident size. Optimised
inference is after ``ghostify.optimize`` for eager torch. Writes reports/latency/memory.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import ghostify
from ghostify.cost.machine import fingerprint
from ghostify.opening import open_model
from ghostify.passes.eager import PackedConv

REPORTS = Path(__file__).parents[1] / "reports" / "latency"
KINDS = ("inference", "optimised inference", "training step")
MIB = 2**20


def measure(network: str, ratio: int, kind: str, batch: int) -> dict[str, float]:
    """Run one case in this process; return mebibytes."""
    torch.set_num_threads(1)
    model = open_model(network).model
    image = torch.randn(batch, 3, 224, 224)
    if ratio:
        model = ghostify.convert(model, ratio=ratio, example=image[:1], verify=False).model
    if kind == "optimised inference":
        # The weights are repacked, so the network that they come from can be let go.
        model = ghostify.optimize(model, example=image[:1], runtime="torch-channels-last")
    held = {id(one): one for one in (*model.parameters(), *model.buffers())}
    weights = sum(one.numel() * one.element_size() for one in held.values())
    packed = [one.packed.weight for one in model.modules() if isinstance(one, PackedConv)]
    weights += sum(4 * one.numel() for one in packed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        if kind == "training step":
            model.train()
            optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
            model(image).logsumexp(1).mean().backward()
            optimiser.step()
        else:
            with torch.inference_mode():
                model.eval()(image)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    events = (one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]")
    total = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return {
        "weights": weights / MIB,
        "peak": (peak + weights) / MIB,
        "resident": (after - before) / 1024,
    }


def render(rows: list[dict[str, Any]], batch: int) -> str:
    """Return the figures as Markdown."""
    machine = fingerprint()
    lines = [
        "# Peak memory, ghost against dense",
        "",
        f"Made by `python benchmarks/memory.py`: float32, batch {batch}, 224x224, one thread; "
        f"{machine}. MiB; *peak* is what torch's allocator had handed out at one time, weights "
        "included; *resident* the growth of the process's resident size. A training step is "
        "forward, backward and SGD with momentum.",
        "",
        "| network | what | s | weights | peak | beside dense | resident |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        dense = next(
            one
            for one in rows
            if (one["network"], one["kind"], one["ratio"]) == (row["network"], row["kind"], 0)
        )
        lines.append(
            f"| {row['network']} | {row['kind']} | {row['ratio'] or 'dense'} "
            f"| {row['weights']:.0f} | {row['peak']:.0f} | {row['peak'] / dense['peak']:.2f}x "
            f"| {row['resident']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", default="resnet50,mobilenet_v2")
    parser.add_argument("--ratios", default="0,2,4", help="0 is the dense network, always needed")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        network, ratio, kind = given.case.split(",")
        print(json.dumps(measure(network, int(ratio), kind, given.batch)))
        return
    rows: list[dict[str, Any]] = []
    for network in given.networks.split(","):
        for kind in KINDS:
            for ratio in map(int, given.ratios.split(",")):
                case = [f"--case={network},{ratio},{kind}", f"--batch={given.batch}"]
                command = [sys.executable, __file__, *case]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                row = json.loads(done.stdout.splitlines()[-1])
                rows.append({"network": network, "kind": kind, "ratio": ratio, **row})
                print(rows[-1], file=sys.stderr)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "memory.json").write_text(json.dumps(rows, indent=1) + "\n")
    (given.out / "memory.md").write_text(render(rows, given.batch))


if __name__ == "__main__":
    main()
