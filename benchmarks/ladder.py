"""What each pass of ``ghostify.optimize`` gives, network by network and runtime by runtime.

All variants of one network on one runtime are timed in turns in one run, on one thread with a
batch of one, and the outputs of each are compared with those of the network in torch:

    python benchmarks/ladder.py                       # all that is not in ladder.json yet
    python benchmarks/ladder.py --networks resnet50 --ratios 2 --runtimes onnxruntime --again

Writes reports/latency/ladder.json (raw rounds) after every runtime, and ladder.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn

import ghostify
from ghostify.cost.latency import measure
from ghostify.cost.machine import fingerprint
from ghostify.opening import open_model
from ghostify.passes.optimize import apply_passes
from ghostify.passes.settings import PASSES, Passes
from ghostify.runtimes import find_runtime

REPORTS = Path(__file__).parents[1] / "reports" / "latency"
NONE = Passes(norms=False, maps=False, streams=False, readers=False)
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}


def rungs(runtime: str) -> dict[str, Passes]:
    """Return the passes of each rung of the ladder, from few to all."""
    affine = PASSES[runtime].affine
    packed = PASSES[runtime].eager
    steps = {
        "norms folded into the parts": dataclasses.replace(NONE, norms=True),
        "+ activations, poolings": dataclasses.replace(NONE, norms=True, maps=True),
        "+ sums of streams": Passes(readers=False),
        "+ convolutions read the parts": Passes(),
        "expanded: one depthwise convolution": dataclasses.replace(NONE, expand=2),
    }
    ladder = {
        label: dataclasses.replace(one, affine="addcmul" if packed else affine)
        for label, one in steps.items()
    }
    if packed:
        ladder |= {
            f"{label}, oneDNN": dataclasses.replace(one, eager=True, channels_last=True)
            for label, one in ladder.items()
        }
    return ladder | {"the runtime's own passes": PASSES[runtime]}


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics that make a difference."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
                (module.weight, 0.5, 1.0),
                (module.bias, -0.2, 0.2),
            ):
                drawn = torch.rand(tensor.shape, generator=generator) * (high - low) + low
                tensor.data.copy_(drawn)
    return model.eval()


def share_linear(model: nn.Module, other: nn.Module) -> None:
    """Let linear layers use the same memory as their equals, which are half a gigabyte in VGG."""
    weights = [one.weight for one in other.modules() if type(one) is nn.Linear]
    for module in model.modules():
        if type(module) is nn.Linear:
            for weight in weights:
                if torch.equal(module.weight, weight):
                    module.weight = weight


def climb(name: str, ratios: list[int], runtime: str, rounds: int, tries: int) -> dict[str, Any]:
    """Measure one network's ladder on one runtime."""
    adapter = find_runtime(runtime)
    example = (torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)),)
    dense = open_model(name).model
    ghosts = {ratio: ghostify.convert(dense, ratio=ratio, example=example[0]) for ratio in ratios}
    cost = next(iter(ghosts.values())).before
    assert cost is not None
    macs = {"original": cost.macs}
    randomised(dense)
    variants: dict[str, tuple[nn.Module, Passes | None]] = {
        "original": (dense, None),
        "original, optimised": (dense, PASSES[runtime]),
    }
    for ratio, conversion in ghosts.items():
        model = randomised(conversion.model)
        assert conversion.after is not None
        macs[f"s={ratio}"] = conversion.after.macs
        variants[f"s={ratio}: plain"] = model, None
        for label, passes in rungs(runtime).items():
            variants[f"s={ratio}: {label}"] = model, passes
    sessions, differences = {}, {}
    wanted: dict[str, torch.Tensor] = {}
    for label, (made, passes) in variants.items():
        model = made if passes is None else apply_passes(made, example, passes)
        share_linear(model, dense)
        for note in getattr(model, "ghostify_notes", ()):
            raise SystemExit(f"{name}, {label}: {note}")
        print(f"  preparing {label}", file=sys.stderr)
        sessions[label] = adapter.prepare(model, example, threads=1)
        family = label.split(":")[0].split(",")[0]
        if family not in wanted:
            with torch.no_grad():
                wanted[family] = model(*example)
        (found,) = sessions[label].run(*example)
        scale = wanted[family].abs().max()
        differences[label] = float((found - wanted[family]).abs().max() / scale)
        assert differences[label] < 1e-4, (label, differences[label])
    samples = measure(sessions, rounds=rounds, tries=tries)
    for session in sessions.values():
        session.close()
    return {
        "network": name,
        "runtime": runtime,
        "version": adapter.version(),
        "machine": fingerprint().as_json(),
        "macs": macs,
        "variants": {
            label: {
                "ms": [round(one, 4) for one in found.ms],
                "median_ms": found.median_ms,
                "iqr_ms": found.iqr_ms,
                "noisy": found.noisy,
                "difference": differences[label],
            }
            for label, found in samples.items()
        },
    }


def render(runs: list[dict[str, Any]]) -> str:
    """Return the ladder as Markdown."""
    lines = [
        "# What each pass gives",
        "",
        "Made by `python benchmarks/ladder.py`: float32, one thread, batch 1, 224x224; medians",
        "of rounds in which all variants of a table take turns. *Speed-up* is over the original",
        "as it is, *same treatment* over the original after the runtime's own passes, *of ideal*",
        "the latter's share of the MACs ratio. *Difference* is the largest one of the outputs",
        "from those of torch, relative to the largest output.",
    ]
    for run in runs:
        variants, macs = run["variants"], run["macs"]
        first = variants["original"]["median_ms"]
        treated = variants["original, optimised"]["median_ms"]
        machine = run["machine"]
        lines += [
            "",
            f"## {run['network']}, {run['runtime']} {run['version']}",
            "",
            f"{machine['cpu']}, {machine['os']}, Python {machine['python']}, "
            f"torch {machine['torch']}, {len(variants['original']['ms'])} rounds",
            "",
            "| variant | median ms | IQR ms | speed-up | same treatment | of ideal | difference |",
            "|---|---|---|---|---|---|---|",
        ]
        for label, one in variants.items():
            median = one["median_ms"]
            family = label.split(":")[0].split(",")[0]
            ideal = macs["original"] / macs[family]
            share = f"{treated / median / ideal:.2f}" if family != "original" else ""
            lines.append(
                f"| {label}{' (noisy)' if one['noisy'] else ''} | {median:.2f} "
                f"| {one['iqr_ms']:.2f} | {first / median:.2f}x | {treated / median:.2f}x "
                f"| {share} | {one['difference']:.0e} |"
            )
    return "\n".join(lines) + "\n"


def write(file: Path, text: str) -> None:
    """Write a whole file or nothing."""
    aside = file.with_suffix(".new")
    aside.write_text(text)
    aside.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", default="resnet50,vgg16_bn")
    parser.add_argument("--ratios", default="2,4")
    parser.add_argument("--runtimes", default="onnxruntime,openvino,torch-channels-last")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tries", type=int, default=2)
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = given.out / "ladder.json"
    runs: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    ratios = [int(one) for one in given.ratios.split(",")]
    for name in given.networks.split(","):
        for runtime in given.runtimes.split(","):
            there = [one for one in runs if (one["network"], one["runtime"]) == (name, runtime)]
            if there and not given.again:
                continue
            print(f"{name} on {runtime}", file=sys.stderr)
            run = climb(name, ratios, runtime, given.rounds, given.tries)
            run["versions"] = {"torch": metadata.version("torch")} | {
                package: metadata.version(package)
                for one, package in PACKAGES.items()
                if one == runtime
            }
            runs = [one for one in runs if one not in there] + [run]
            given.out.mkdir(parents=True, exist_ok=True)
            write(file, json.dumps(runs, indent=1) + "\n")
            write(given.out / "ladder.md", render(runs))
            print(render([run]).partition("##")[2])


if __name__ == "__main__":
    main()
