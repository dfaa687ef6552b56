"""Export twelve ghosted networks to every format; compare each file with the eager network.

``python benchmarks/export_parity.py [--formats onnx,pt2,...] [--networks resnet18,...] [--again]``

Weights are random (seed 0), the statistics of batch norms too, so that folding them matters. For
every pair it notes down the largest difference that the export itself found (random, zero and
large inputs), the size, the seconds, and the difference in a second process that has only the
format's runtime and the stored outputs. What is done is kept in ``reports/latency/export.json``
and not done again. LiteRT and ExecuTorch need GHOSTIFY_LITERT_PYTHON and
GHOSTIFY_EXECUTORCH_PYTHON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch
from torch import nn

import ghostify
from ghostify.errors import GhostifyError
from ghostify.exporting.formats import FORMATS, find_format

NETWORKS = (
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:vgg16_bn",
    "torchvision:mobilenet_v2",
    "torchvision:mobilenet_v3_large",
    "torchvision:efficientnet_b0",
    "torchvision:densenet121",
    "torchvision:regnet_y_400mf",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:mnasnet1_0",
    "torchvision:convnext_tiny",
    "timm:ghostnet_100",
)
REPORT = Path(__file__).parents[1] / "reports" / "latency"
ROUND_TRIP = Path(__file__).with_name("export_roundtrip.py")
PYTHONS = {"litert": "GHOSTIFY_LITERT_PYTHON", "executorch": "GHOSTIFY_EXECUTORCH_PYTHON"}
LIMIT = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--no-optimize", action="store_true")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = given.report / "export.json"
    report = read(file)
    asked = [name if ":" in name else _full(name) for name in given.networks.split(",")]
    for name in asked:
        model = None
        for form in given.formats.split(","):
            known = [one for one in report["records"] if _key(one) == (name, form)]
            if known and not given.again and "error" not in known[0]:
                continue
            model = model or ghosted(name, given.size)
            record = measure(model, name, form, given.size, optimize=not given.no_optimize)
            print(json.dumps(record), flush=True)
            report = read(file)  # another process may have worked on other pairs meanwhile
            report["records"] = [one for one in report["records"] if _key(one) != (name, form)]
            report["records"].append(record)
            report["machine"] = _machine()
            report["size"] = given.size
            write(report, given.report)
    write(read(file), given.report)


def read(file: Path) -> dict:
    """Return what has been measured so far."""
    return json.loads(file.read_text()) if file.is_file() else {"records": []}


def ghosted(name: str, size: int) -> nn.Module:
    """Build a network with random weights, ghost it by the defaults, and wake it up.

    Freshly made networks answer much the same to everything. So batch norms get random
    weights and the statistics of random images, and what scales a branch is not left near zero.
    """
    model = ghostify.convert(name, input_size=(size, size), verify=False, seed=0).model.eval()
    generator = torch.Generator().manual_seed(1)
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("layer_scale"):
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
        for norm in norms:
            norm.weight.copy_(0.5 + torch.rand(norm.weight.shape, generator=generator))
            norm.bias.copy_(0.3 * torch.randn(norm.bias.shape, generator=generator))
            norm.momentum = None  # the plain mean of what comes
            norm.reset_running_stats()
            norm.train()
        model(torch.randn(4, 3, size, size, generator=generator))
    return model.eval()


def measure(model: nn.Module, name: str, form: str, size: int, *, optimize: bool) -> dict:
    record = {"network": name, "format": form}
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{FORMATS[form][0]}"
        began = time.perf_counter()
        try:
            made = ghostify.export(model, file, format=form, example=image, optimize=optimize)
        except GhostifyError as error:
            return record | {"error": str(error)}
        record |= {
            "seconds": round(time.perf_counter() - began, 1),
            "difference": made.max_difference,
            "differences": dict(made.differences),
            "response": response(model, image),
            "size_bytes": made.size_bytes,
            "passes": made.passes,
            "versions": dict(made.versions),
            "metadata": sorted(find_format(form).metadata(file)),
        }
        if made.notes:
            record["notes"] = list(made.notes)
        with torch.no_grad():
            output = model(image)
        numpy.save(Path(folder) / "input.npy", image.numpy())
        numpy.save(Path(folder) / "output.npy", output.numpy())
        python = os.environ.get(PYTHONS.get(form, "")) or sys.executable
        done = subprocess.run(
            [python, str(ROUND_TRIP), form, str(file), "input.npy", "output.npy"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            record["round_trip"] = json.loads(done.stdout.splitlines()[-1])["difference"]
        except (IndexError, ValueError):
            record["error"] = "in a fresh process: " + "".join(done.stderr.splitlines()[-1:])
    return record


def response(model: nn.Module, image: torch.Tensor) -> float:
    """Tell how much of the output depends on the input: |f(x) - f(0)| over |f(x)|, largest."""
    with torch.no_grad():
        output, blank = model(image), model(torch.zeros_like(image))
    return round(float((output - blank).abs().max() / output.abs().max()), 3)


def write(report: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    order = {
        (name, form): k
        for k, (name, form) in enumerate((name, form) for name in NETWORKS for form in FORMATS)
    }
    report["records"].sort(key=lambda one: order.get(_key(one), len(order)))
    for name, text in (
        ("export.json", json.dumps(report, indent=1) + "\n"),
        ("export.md", page(report)),
    ):
        aside = folder / f".{name}"
        aside.write_text(text, encoding="utf-8")
        aside.replace(folder / name)


def page(report: dict) -> str:
    """Write the record as a page of tables."""
    records = {_key(one): one for one in report["records"]}
    names = list(dict.fromkeys(name for name, _ in records))
    forms = [form for form in FORMATS if any(_key(one)[1] == form for one in report["records"])]
    waiting = [
        f"{name.partition(':')[2]} as {form}"
        for name in NETWORKS
        for form in FORMATS
        if (name, form) not in records
    ]
    fine = [one for one in report["records"] if "error" not in one]
    worst = max((max(one["difference"], one["round_trip"]) for one in fine), default=0.0)
    size = report.get("size")
    lines = [
        "# Exported files beside the eager network",
        "",
        f"{len(names)} networks, ghosted (s = 2, d = 3, the defaults of `ghostify convert`),",
        f"random weights, batch norm statistics of random images, float32, batch 1, {size} pixels;",
        "`python benchmarks/export_parity.py`.",
        "",
        f"{len(fine)} of {len(records)} pairs written and proven; the largest difference of all",
        f"is {worst:.1e} of the largest output (at most {LIMIT:.0e} is allowed). *Response* is how",
        "much of the output comes from the input, |f(x) - f(0)| over |f(x)|.",
        "",
        *([f"Not run yet: {', '.join(waiting)}.", ""] if waiting else []),
        f"Machine: {report.get('machine')}. Seconds are for optimising, writing and comparing;",
        "other work was going on.",
        "",
    ]
    for form in forms:
        versions = next((one["versions"] for one in fine if one["format"] == form), {})
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        lines += [
            f"## {form}" + (f" ({listed})" if listed else ""),
            "",
            "| network | largest difference | fresh process | response | passes | MB | seconds |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in names:
            one = records.get((name, form))
            if one is None:
                continue
            short = name.partition(":")[2]
            if "error" in one:
                lines.append(f"| {short} | not written: {one['error']} | | | | | |")
                continue
            cells = (
                short,
                f"{one['difference']:.1e} ({_worst(one)})",
                f"{one['round_trip']:.1e}",
                f"{one['response']:.2f}",
                one["passes"] or "none",
                f"{one['size_bytes'] / 1e6:.1f}",
                f"{one['seconds']:.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    remarks = [
        f"- {one['network'].partition(':')[2]}, {one['format']}: {note}"
        for one in fine
        for note in one.get("notes", ())
    ]
    if remarks:
        lines += ["## Remarks", "", *remarks, ""]
    return "\n".join(lines)


def _worst(one: dict) -> str:
    return max(one["differences"], key=one["differences"].get)


def _key(record: dict) -> tuple[str, str]:
    return record["network"], record["format"]


def _full(name: str) -> str:
    return next((full for full in NETWORKS if full.endswith(f":{name}")), name)


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = named[0].partition(":")[2].strip() if named else cpu
    return (
        f"{cpu}, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
