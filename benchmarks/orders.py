"""What the order of maps in a residual stream costs: a fitted ResNet-50 on real runtimes.

One network converted at s = 2, d = 3, in four forms: unfitted (every layer gives its maps in
their natural order), fitted with one order for each stream, fitted with an order for each layer,
and with random orders in the streams. All are timed in turns with the original, after the
runtime's own passes, on one thread with a batch of one:

    python benchmarks/orders.py                          # all that is not in orders.json yet
    python benchmarks/orders.py --runtimes onnxruntime --again

Weights are random, batch norms have random statistics, and the fit sees random images: that
changes no time, since only the orders matter, and which are drawn hardly does. Writes
reports/latency/orders.json after every runtime, and orders.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from ladder import randomised, write
from torch import fx, nn

import ghostify
from ghostify.cost.latency import measure
from ghostify.cost.machine import fingerprint
from ghostify.graph.fit_options import FitOptions, StreamOrder
from ghostify.models import zoo
from ghostify.nn.ghost import GhostModule
from ghostify.passes import optimize
from ghostify.runtimes import find_runtime

REPORTS = Path(__file__).parents[1] / "reports" / "latency"
NETWORK = "torchvision:resnet50"
LABELS = {
    "original": "original",
    "unfitted": "s = 2, natural order",
    "common": "s = 2, fitted, one order for each stream",
    "own": "s = 2, fitted, an order for each layer",
    "random": "s = 2, random orders in the streams",
}
JOINS = (torch.cat, torch.index_select, torch.narrow)


def variants(images: torch.Tensor) -> Iterator[tuple[str, nn.Module]]:
    """Make the network in its forms, one by one."""
    for label in LABELS:
        built = zoo.build(NETWORK)
        randomised(built.model)
        if label == "original":
            yield label, built.model
        elif label in ("common", "own"):
            order: StreamOrder = "common" if label == "common" else "own"
            options = FitOptions(
                rounds=0, iterations=1, block_steps=0, joint_steps=0, positions=4096,
                stream_order=order,
            )  # fmt: skip
            conversion = ghostify.convert(built, calibration=[images], fit=options, verify=False)
            yield label, conversion.model.eval()
        else:
            model = ghostify.convert(built, verify=False).model.eval()
            if label == "random":
                shuffle_streams(model)
            yield label, model


def shuffle_streams(model: nn.Module) -> None:
    """Give every layer that writes to a residual stream an order of its own."""
    generator = torch.Generator().manual_seed(0)
    for name, module in model.named_modules():
        if isinstance(module, GhostModule) and ("conv3" in name or "downsample" in name):
            module.reorder(torch.randperm(module.out_channels, generator=generator))


def joins_of(model: nn.Module) -> int:
    """Return how many operations of an optimised network only put maps together or in order."""
    if not isinstance(model, fx.GraphModule):
        return 0
    return sum(node.target in JOINS for node in model.graph.nodes)


def compare(runtime: str, models: dict[str, nn.Module], rounds: int, tries: int) -> dict[str, Any]:
    """Time all forms on one runtime, in turns."""
    adapter = find_runtime(runtime)
    example = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    sessions, joins, differences = {}, {}, {}
    for label, model in models.items():
        print(f"  preparing {label}", file=sys.stderr)
        fast = optimize(model, (example,), runtime=runtime)
        joins[label] = joins_of(fast)
        sessions[label] = adapter.prepare(fast, (example,), threads=1)
        with torch.no_grad():
            wanted = model(example)
        (found,) = sessions[label].run(example)
        differences[label] = float((found - wanted).abs().max() / wanted.abs().max())
        assert differences[label] < 1e-3, (label, differences[label])
    samples = measure(sessions, rounds=rounds, tries=tries)
    for session in sessions.values():
        session.close()
    return {
        "runtime": runtime,
        "version": adapter.version(),
        "machine": fingerprint().as_json(),
        "variants": {
            label: {
                "ms": [round(one, 4) for one in found.ms],
                "median_ms": found.median_ms,
                "iqr_ms": found.iqr_ms,
                "noisy": found.noisy,
                "joins": joins[label],
                "difference": differences[label],
            }
            for label, found in samples.items()
        },
    }


def render(runs: list[dict[str, Any]]) -> str:
    """Return the comparison as Markdown."""
    lines = [
        "# What the order of maps in a residual stream costs",
        "",
        "Made by `python benchmarks/orders.py`: ResNet-50 at s = 2, d = 3, after the runtime's own",
        "passes; float32, one thread, batch 1, 224x224; medians of rounds in which all forms take",
        "turns. *Joins* are the operations left in the optimised network that only put maps",
        "together, in another order, or apart. Random weights and images: only the orders matter.",
    ]
    for run in runs:
        machine, found = run["machine"], run["variants"]
        first = found["original"]["median_ms"]
        lines += [
            "",
            f"## {run['runtime']} {run['version']}",
            "",
            f"{machine['cpu']}, {machine['os']}, Python {machine['python']}, "
            f"torch {machine['torch']}, {len(found['original']['ms'])} rounds",
            "",
            "| network | median ms | IQR ms | speed-up | joins |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {LABELS[label]}{' (noisy)' if one['noisy'] else ''} | {one['median_ms']:.2f} "
            f"| {one['iqr_ms']:.2f} | {first / one['median_ms']:.2f}x | {one['joins']} |"
            for label, one in found.items()
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runtimes", default="onnxruntime,openvino,torch-channels-last")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tries", type=int, default=2)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = given.out / "orders.json"
    runs: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    wanted = given.runtimes.split(",")
    if not given.again:
        wanted = [name for name in wanted if name not in {run["runtime"] for run in runs}]
    if not wanted:
        return
    generator = torch.Generator().manual_seed(1)
    models = dict(variants(torch.randn(given.images, 3, 224, 224, generator=generator)))
    given.out.mkdir(parents=True, exist_ok=True)
    for runtime in wanted:
        print(runtime, file=sys.stderr)
        run = compare(runtime, models, given.rounds, given.tries)
        runs = [one for one in runs if one["runtime"] != runtime] + [run]
        write(file, json.dumps(runs, indent=1) + "\n")
        write(given.out / "orders.md", render(runs))
        print(render([run]).partition("##")[2])


if __name__ == "__main__":
    main()
