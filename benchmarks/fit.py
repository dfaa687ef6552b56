"""What a converted network is worth before any training, and which part of the fit does it.

    python benchmarks/fit.py --networks resnet20,resnet56 --variants full --seeds 0-9
    python benchmarks/fit.py --networks resnet20 --variants all
    python benchmarks/fit.py --report

CIFAR ResNets from trained checkpoints, every convolution but the first converted at s = 2,
d = 3 (other d where said), calibrated without labels on exact CIFAR-10 training images, tested
on exact test images and on 3,000 of the JPEG test set (another domain: the networks have never
seen JPEG). Each layer has an order of maps of its own, unless the variant says that those of one
stream share one. Records are appended to ``benchmarks/fit/records.jsonl`` and are not made twice;
``--report`` writes ``benchmarks/fit/README.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "fit"
RECORDS = HERE / "records.jsonl"
CHECKPOINTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {
        "what": "the default: algebra, block and joint steps, one order of maps for each stream",
        "options": {"stream_order": "common"},
    },
    "common": {
        "what": "the same with earlier code (so all below): 64 images a step, 200 joint steps",
        "options": {"stream_order": "common"},
    },
    "full": {"what": "with an order for each layer (so all below)"},
    "full-again": {"what": "the same with the code of the second line"},
    "random": {"what": "random start", "calibrate": None},
    "start": {
        "what": "chosen maps and closed-form ghosts only",
        "options": {"rounds": 0, "block_steps": 0, "joint_steps": 0},
    },
    "algebra": {"what": "algebra, 1 round", "options": {"block_steps": 0, "joint_steps": 0}},
    "algebra-4": {
        "what": "algebra, 4 rounds",
        "options": {"rounds": 4, "block_steps": 0, "joint_steps": 0},
    },
    "blocks": {"what": "algebra and block steps", "options": {"joint_steps": 0}},
    "joint": {"what": "algebra and joint steps", "options": {"block_steps": 0}},
    "long": {
        "what": "algebra, 200 block steps, 600 joint steps",
        "options": {"block_steps": 200, "joint_steps": 600},
    },
    "d1": {"what": "all steps with d = 1", "kernel": 1},
    "d5": {"what": "all steps with d = 5", "kernel": 5},
    "images-256": {"what": "all steps on 256 images", "images": 256},
    "synthetic-algebra": {
        "what": "no images: algebra on synthetic ones",
        "calibrate": "synthetic",
        "options": {"block_steps": 0, "joint_steps": 0},
    },
    "synthetic": {"what": "no images: all steps on synthetic ones", "calibrate": "synthetic"},
    "common-algebra": {
        "what": "algebra, 1 round, one order of maps for each stream",
        "options": {"stream_order": "common", "block_steps": 0, "joint_steps": 0},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default="resnet20,resnet56")
    parser.add_argument("--variants", default="full")
    parser.add_argument("--seeds", default="0", help="a list, or 0-9")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    HERE.mkdir(exist_ok=True)
    if options.report:
        (HERE / "README.md").write_text(report(read()), encoding="utf-8")
        return
    variants = list(VARIANTS) if options.variants == "all" else options.variants.split(",")
    done = {(one["network"], one["variant"], one["seed"]) for one in read()}
    for seed in seeds(options.seeds):
        for network in options.networks.split(","):
            for variant in variants:
                if (network, variant, seed) not in done:
                    record = measure(network, variant, seed, options.data)
                    with RECORDS.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(record) + "\n")
                    print(network, variant, seed, record["top1"], record["jpeg_top1"], flush=True)


def seeds(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(s) for s in text.split(",")]


def measure(network: str, variant: str, seed: int, data: Path) -> dict[str, Any]:
    import torch

    import ghostify
    from ghostify.data.batches import calibration_batches, evaluation_batches
    from ghostify.data.images import open_images
    from ghostify.data.preprocess import preprocess_of
    from ghostify.graph.calibrate import FitOptions
    from ghostify.models import zoo
    from ghostify.models.weights import load_weights
    from ghostify.train.evaluate import evaluate

    settings = VARIANTS[variant]
    built = zoo.build(f"{network}_cifar")
    load_weights(built.model, data / "checkpoints" / CHECKPOINTS[network])
    preprocess = preprocess_of(built.model, built.origin, (3, 32, 32))
    calibration: Any = settings.get("calibrate", "images")
    if calibration == "images":
        source = open_images(data / "cifar10-subset", split="train")
        wanted = settings.get("images", 2048)
        calibration = calibration_batches(source, preprocess, count=wanted, seed=seed)
    began, cpu = time.monotonic(), time.process_time()
    conversion = ghostify.convert(
        built,
        kernel=settings.get("kernel", 3),
        seed=seed,
        calibration=calibration,
        fit=FitOptions(seed=seed, **{"stream_order": "own", **settings.get("options", {})}),
        verify=False,
    )
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    found = {}
    for name, path in (("", "cifar10-subset"), ("jpeg_", "cifar10-jpeg")):
        images = open_images(data / path, split="test")
        batches = list(evaluation_batches(images, preprocess, batch_size=500))[:6]
        result = evaluate(conversion.model, batches, preprocess, device="cpu")
        found[f"{name}top1"], found[f"{name}images"] = result.top1, result.images
    fit = conversion.history[-1] if conversion.history else {}
    assert conversion.before
    assert conversion.after
    return {
        "network": network,
        "variant": variant,
        "seed": seed,
        **found,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "macs": conversion.after.macs,
        "macs_ratio": conversion.after.macs / conversion.before.macs,
        "errors": [layer["error"] for layer in fit.get("layers", [])],
        "versions": {name: metadata.version(name) for name in ("ghostify", "torch")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
    }


def read() -> list[dict[str, Any]]:
    if not RECORDS.is_file():
        return []
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines()]


def report(records: list[dict[str, Any]]) -> str:
    lines = [
        "# What a fit is worth before any training",
        "",
        "Measured; see `benchmarks/fit.py` for the set-up. Top-1 in percent on 500 exact CIFAR-10",
        "test images (one image is 0.2 points) and on 3,000 of the JPEG test set. The originals:",
        "ResNet-20 92.2 exact, ResNet-56 92.6. CPU seconds are of one thread, on a machine that",
        "did other work too. No labels, no training.",
        "",
        "| network | variant | seeds | exact | JPEG | CPU s | peak MiB | MACs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network in CHECKPOINTS:
        for variant, settings in VARIANTS.items():
            group = [r for r in records if (r["network"], r["variant"]) == (network, variant)]
            if not group:
                continue
            spread = [_spread([one[key] for one in group]) for key in ("top1", "jpeg_top1")]
            cpu = statistics.median(one["cpu_seconds"] for one in group)
            peak = max(one["peak_mib"] for one in group)
            lines.append(
                f"| {network} | {settings['what']} | {len(group)} | {spread[0]} | {spread[1]} | "
                f"{cpu:.0f} | {peak} | {group[0]['macs_ratio']:.3f}x |"
            )
    if not records:
        return "\n".join([*lines, "", "No run is recorded.", ""])
    notes = HERE / "notes.md"
    if notes.is_file():
        lines += ["", notes.read_text(encoding="utf-8").rstrip()]
    some = records[-1]
    lines += ["", f"Versions {some['versions']}, {some['machine']}, {some['threads']} thread.", ""]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
