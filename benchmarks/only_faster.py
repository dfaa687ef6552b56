"""``convert --only-faster`` over twelve networks: is any of them slower than its original?

    python benchmarks/only_faster.py

Original and result run after the runtime's own passes, in turns. Each network's result is
written as soon as it is there, so an interrupted run goes on where it was; ``--again``
measures anew.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import ghostify
from ghostify.cost.machine import fingerprint
from ghostify.cost.macs import count_params
from ghostify.models import zoo
from ghostify.only_faster import FasterOptions

REPORTS = Path(__file__).parents[1] / "reports" / "latency"
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
    "timm:ghostnet_100",
    "torchvision:mnasnet1_0",
    "torchvision:convnext_tiny",
)
RUNTIMES = ("onnxruntime",)


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    file = REPORTS / "only_faster.json"
    REPORTS.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    if file.is_file():
        results = json.loads(file.read_text())["results"]
    if options.again:  # the other networks stay
        asked = {(name, runtime) for name in options.networks for runtime in options.runtimes}
        results = [one for one in results if (one["network"], one["runtime"]) not in asked]
    for runtime in options.runtimes:
        for network in options.networks:
            if any((one["network"], one["runtime"]) == (network, runtime) for one in results):
                continue
            began = time.monotonic()
            result = _converted(network, runtime, options)
            result["seconds"] = round(time.monotonic() - began, 1)
            results.append(result)
            order = {name: place for place, name in enumerate(NETWORKS)}
            results.sort(key=lambda one: (one["runtime"], order.get(one["network"], len(order))))
            report = {"machine": fingerprint().as_json(), "results": results}
            aside = file.with_suffix(".new")
            aside.write_text(json.dumps(report, indent=1) + "\n")
            aside.replace(file)
            (REPORTS / "only_faster.md").write_text(_page(report))
            print(
                f"{network} on {runtime}: {result['what']} ({result['seconds']:.0f} s)", flush=True
            )
            gc.collect()
    print(f"wrote {REPORTS / 'only_faster.md'}")


def _converted(network: str, runtime: str, options: Any) -> dict[str, Any]:
    built = zoo.build(network)
    conversion = ghostify.convert(
        built,
        verify=False,
        only_faster=FasterOptions(
            runtime,
            margin=options.margin,
            threads=options.threads,
            batch=options.batch,
            table=options.table,
            rounds=options.rounds,
        ),
        on_fit=_Told(),
    )
    told = conversion.history[0]
    assert conversion.before is not None
    assert conversion.after is not None
    everything = len(told["kept"]) + len(told["gave_up"])
    whole = [trial for trial in told["trials"] if trial["layers"] == everything]
    return {
        "network": network,
        "runtime": runtime,
        "version": told["version"],
        "threads": told["threads"],
        "batch": told["batch"],
        "original_ms": told["original_ms"] or told["trials"][0]["original_ms"],
        "ms": told["ms"],
        "speedup": told["speedup"],
        "noise": told["noise"],
        "ghosts": len(told["kept"]),
        "of": everything,
        "macs_before": conversion.before.macs,
        "macs_after": conversion.after.macs,
        "params_before": count_params(built.model),
        "params_after": conversion.after.params,
        "all_ghosts_speedup": (
            round(whole[0]["original_ms"] / whole[0]["ms"], 4) if whole else None
        ),
        "trials": told["trials"],
        "gave_up": told["gave_up"],
        "what": told["what"],
        "notes": list(conversion.notes),
    }


class _Told:
    """Prints how far it is, now and then."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, done: int, of: int, what: str) -> None:
        if time.monotonic() - self._last > 15:
            self._last = time.monotonic()
            print(f"  {done}/{of} {what}", flush=True)


def _page(report: dict[str, Any]) -> str:
    machine = report["machine"]
    first = report["results"][0]
    lines = [
        "# Only where it is faster",
        "",
        f"`ghostify convert NETWORK --s 2 --only-faster RUNTIME`. {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['os']}, torch {machine['torch']}; {first['threads']} "
        f"thread, batch {first['batch']}. Original and result after the runtime's own passes, in "
        'turns; ± is half the 95 % interval of the median ratio. "All ghosts" is the speed-up '
        "with every layer converted that can be.",
        "",
        "| network | runtime | original ms | result ms | speed-up | all ghosts | Ghost modules "
        "| MACs kept | parameters kept |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in report["results"]:
        noise = f" ± {one['noise'] * one['speedup']:.3f}" if one["noise"] is not None else ""
        whole = one["all_ghosts_speedup"]
        lines.append(
            f"| {one['network']} | {one['runtime']} {one['version'].partition(',')[0]} "
            f"| {one['original_ms']:.2f} | {one['ms'] or one['original_ms']:.2f} "
            f"| {one['speedup']:.2f}x{noise} | {f'{whole:.2f}x' if whole else '-'} "
            f"| {one['ghosts']} of {one['of']} "
            f"| {100 * one['macs_after'] / one['macs_before']:.1f} % "
            f"| {100 * one['params_after'] / one['params_before']:.1f} % |"
        )
    return "\n".join([*lines, ""])


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--margin", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--table", type=Path, help="default: this machine's own")
    parser.add_argument("--again", action="store_true", help="measure what is there already too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
