"""Records of a comparison that never ran, for figures and pages."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from ghostify.runs.record import RunLatency, RunRecord, identify

METHODS: dict[str, tuple[str, dict[str, Any], float, float]] = {
    # name: label, settings, accuracy before training, after it
    "dense": ("Dense", {"kind": "dense"}, 0.0, 0.6),
    "l1": ("L1", {"kind": "prune", "method": "l1"}, -31.0, -2.6),
    "fpgm": ("FPGM", {"kind": "prune", "method": "fpgm"}, -38.0, -2.8),
    "bn-scale": ("BN scale", {"kind": "prune", "method": "bn-scale"}, -45.0, -3.3),
    "taylor": ("Taylor", {"kind": "prune", "method": "taylor"}, -27.0, -2.5),
    "group-norm": ("Group norm", {"kind": "prune", "method": "group-norm"}, -30.0, -2.4),
    "ghost-random": ("Ghost s=2, random start", {"kind": "ghost", "s": 2}, -76.0, -7.5),
    "ghost-fitted": ("Ghost s=2, fitted", {"kind": "ghost", "s": 2}, -7.2, -3.1),
    "ghost-distil": ("Ghost s=2, fitted, distilled", {"kind": "ghost", "s": 2}, -7.2, -2.2),
    "searched": ("Searched plan", {"kind": "plan"}, -6.1, -1.6),
}
ORDER = ("resnet20", "resnet56", *METHODS)
NETWORKS = {"resnet20": ("ResNet-20", 3, 40_810_000, 272_000, 86.0),
            "resnet56": ("ResNet-56", 9, 125_490_000, 853_000, 88.4)}  # fmt: skip


def layers_of(blocks: int) -> dict[str, tuple[int, int]]:
    """Return output and input maps of the convolutions of a CIFAR ResNet."""
    layers = {"conv1": (16, 3)}
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(blocks):
            narrow = width // 2 if stage > 1 and block == 0 else width
            layers[f"layer{stage}.{block}.conv1"] = (width, narrow)
            layers[f"layer{stage}.{block}.conv2"] = (width, width)
    return layers


def record(**changes: Any) -> RunRecord:
    """Return a record of almost nothing, with changes."""
    plain: dict[str, Any] = {
        "kind": "test", "network": "net", "label": "Net", "model": "net", "method": "a",
        "method_label": "A", "settings": {"kind": "ghost"}, "budget": None, "seed": 0,
        "macs": 50_000_000, "params": 1000, "macs_before": 100_000_000, "params_before": 2000,
        "steps": 10, "top1": 80.0,
    }  # fmt: skip
    plain |= changes
    wish = [plain[key] for key in ("kind", "network", "method", "budget", "seed")]
    return RunRecord(id=identify({"wish": wish}), **plain)


def comparison(
    seeds: Mapping[str, int] | None = None, methods: tuple[str, ...] = tuple(METHODS)
) -> list[RunRecord]:
    """Return the records of the CIFAR ResNets under ten methods."""
    chance = random.Random(7)
    made = []
    for network, count in (seeds or {"resnet20": 3, "resnet56": 3}).items():
        label, blocks, macs, params, top1 = NETWORKS[network]
        layers = layers_of(blocks)
        for name in methods:
            method, settings, before, after = METHODS[name]
            share = 1.0 if name == "dense" else 0.52 + chance.uniform(-0.008, 0.008)
            for seed in range(count):
                end = top1 + after + chance.gauss(0, 0.28)
                start = top1 + before + (chance.gauss(0, 0.6) if before else 0)
                steps = [98, 196, 293, 391]
                curve = [
                    {"step": step, "epoch": step / 391,
                     "top1": end - (end - start) * 0.35 ** (i + 1) * (i < 3) - (3 - i) * 0.4}
                    for i, step in enumerate(steps)
                ]  # fmt: skip
                made.append(
                    record(
                        network=network, label=label, model=f"{network}_cifar", method=name,
                        method_label=method, settings=settings, seed=seed,
                        budget=None if settings["kind"] in ("dense", "ghost") else "macs=0.52x",
                        macs=int(macs * share), params=int(params * share), macs_before=macs,
                        params_before=params, original_top1=top1, start_top1=start, top1=end,
                        top5=99.1, best_top1=end + 0.1, best_epoch=1.0, steps=391, curve=curve,
                        plan=plan_of(settings["kind"], layers, chance),
                        latencies=[latency(share, macs, chance)], seconds=104.0, lr=0.001,
                        command=f"ghostify finetune {network} --seed {seed}",
                    )
                )  # fmt: skip
    return made


def latency(share: float, macs: int, chance: random.Random) -> RunLatency:
    whole = macs / 40_810_000 * 0.62
    return RunLatency(
        "onnxruntime", 1, 1, whole * (0.25 + 0.75 * share + chance.uniform(0, 0.12)), 0.01,
        before_ms=whole,
    )  # fmt: skip


def plan_of(
    kind: str, layers: Mapping[str, tuple[int, int]], chance: random.Random
) -> dict[str, Any] | None:
    if kind == "dense":
        return None
    if kind == "prune":
        return {"kept": {
            name: int(maps * chance.uniform(0.3, 0.9)) if name.endswith("conv1") else maps
            for name, (maps, _) in layers.items()
        }}  # fmt: skip
    settings = {}
    for name in list(layers)[1:]:
        ratio = 2 if kind == "ghost" else chance.choice((1, 2, 2, 3, 4))
        if ratio > 1:
            settings[name] = {"ratio": ratio, "kernel": 3 if chance.random() < 0.9 else 5}
    convs = {name: [*shape, 3, 3] for name, shape in layers.items()}
    return {"model": "", "layers": settings, "convs": convs}
