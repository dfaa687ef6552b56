"""Comparisons that nobody ran: records with known figures, and the suite that asks for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ghostify.runs.record import RunLatency, RunRecord
from ghostify.runs.store import RunStore

DENSE = {"kind": "dense", "label": "Dense"}
L1 = {"kind": "prune", "method": "l1", "label": "L1"}
GHOST = {"kind": "ghost", "s": 2, "d": 3, "start": "fitted", "label": "Ghost s=2, fitted"}
RANDOM = {"kind": "ghost", "s": 2, "d": 3, "start": "random", "label": "Ghost s=2, random"}

METHODS: dict[str, dict[str, Any]] = {
    "dense": DENSE, "l1": L1, "ghost-fitted": GHOST, "ghost-random": RANDOM,
}  # fmt: skip

PROVENANCE = {
    "versions": {"ghostify": "0.1.0", "torch": "2.13.0"},
    "machine": {"system": "Linux x86_64", "device": "cpu", "cores": 2, "threads": 1},
    "data": {"name": "cifar10", "images": 50000, "digest": "0123456789abcdef"},
    "test": {"name": "cifar10", "images": 10000, "digest": "fedcba9876543210"},
}
RECIPE = {"name": "distil", "optimizer": "adamw", "batch_size": 128, "schedule": "cosine",
          "alpha": 0.9, "temperature": 4.0}  # fmt: skip


def record(
    method: str = "ghost-fitted",
    *,
    seed: int = 0,
    top1: float | None = 90.0,
    settings: Mapping[str, Any] | None = None,
    **changes: Any,
) -> RunRecord:
    """Return a finished run of ResNet-20; ``changes`` are fields of it."""
    asked = dict(METHODS[method] if settings is None else settings)
    budget = "macs=0.52x" if asked["kind"] == "prune" else None
    values: dict[str, Any] = {
        "id": "",
        "kind": "test",
        "network": "resnet20",
        "label": "ResNet-20",
        "model": "resnet20_cifar",
        "method": method,
        "method_label": asked.get("label", method),
        "settings": asked,
        "budget": budget,
        "seed": seed,
        "macs": 40_810_000 if asked["kind"] == "dense" else 21_200_000,
        "params": 272_474 if asked["kind"] == "dense" else 145_000,
        "macs_before": 40_810_000,
        "params_before": 272_474,
        "original_top1": 92.2,
        "start_top1": None if top1 is None else top1 - 5,
        "top1": top1,
        "best_top1": None if top1 is None else top1 + 0.1,
        "best_epoch": 1.0,
        "recipe": RECIPE,
        "lr": 0.001,
        "steps": 391,
        "epochs": 1.0,
        "teacher": "original",
        "seconds": 100.0,
        "command": f"ghostify finetune starts/{method} --seed {seed} -o out/",
        "provenance": PROVENANCE,
        "created": f"2026-11-22T10:00:0{seed % 10}+00:00",
    } | changes
    if not values["id"]:
        parts = (values[name] for name in ("network", "method", "kind", "seed", "lr", "budget"))
        values["id"] = "-".join(map(str, parts))
    return RunRecord(**values)


def tried(method: str, rates: Mapping[float, float]) -> list[RunRecord]:
    """Return the tuning of a method: accuracy on validation images by learning rate."""
    held = {"name": "cifar10", "images": 5000, "digest": "aa"}
    return [
        record(method, kind="tune", lr=lr, top1=top1, steps=98, original_top1=None,
               provenance=PROVENANCE | {"test": held})
        for lr, top1 in rates.items()
    ]  # fmt: skip


def counted(method: str, *, macs: int, params: int, ms: float | None = None,
            **changes: Any) -> RunRecord:  # fmt: skip
    """Return a run of VGG-16 of which only the costs were taken."""
    latencies = () if ms is None else (
        RunLatency("onnxruntime", 1, 1, ms, 0.1, before_ms=10.0),
    )  # fmt: skip
    return record(
        method, top1=None, kind="count", network="vgg16", label="VGG-16", model="vgg16_cifar",
        macs=macs, params=params, macs_before=313_463_808, params_before=14_990_922, steps=0,
        original_top1=None, best_top1=None, best_epoch=None, recipe={}, lr=None, teacher=None,
        latencies=latencies, **changes,
    )  # fmt: skip


def comparison() -> list[RunRecord]:
    """Return four methods on ResNet-20 by three seeds, with tuning."""
    accuracies = {
        "dense": (92.3, 92.5, 92.4),
        "l1": (88.0, 88.4, 88.1),
        "ghost-fitted": (90.1, 90.3, 90.5),
        "ghost-random": (85.0, 86.1, 83.7),
    }
    found = [
        record(method, seed=seed, top1=top1)
        for method, values in accuracies.items()
        for seed, top1 in enumerate(values)
    ]
    for method in accuracies:
        found += tried(method, {0.0005: 80.0, 0.001: 81.0, 0.002: 80.5})
    return found


def write_runs(
    folder: Path, records: Iterable[RunRecord], *, suite: Mapping[str, Any] | None = None
) -> Path:
    """Write a comparison's directory."""
    folder.mkdir(parents=True, exist_ok=True)
    store = RunStore(folder / "records.jsonl")
    for one in records:
        store.append(one)
    if suite is not None:
        (folder / "suite.yaml").write_text(yaml.safe_dump(dict(suite), sort_keys=False))
    return folder


def suite_of(
    methods: Sequence[str] = tuple(METHODS), *, seeds: Sequence[int] = (0, 1, 2), **more: Any
) -> dict[str, Any]:
    """Return the suite that :func:`comparison` answers."""
    return {
        "title": "ResNet-20 at half the cost",
        "networks": {"resnet20": {"label": "ResNet-20", "model": "resnet20_cifar"}},
        "data": {"path": "cifar10", "validation": 5000, "calibration": 3000},
        "recipe": {"name": "distil", "steps": 391},
        "teacher": "original",
        "tune": {"rates": [0.0005, 0.001, 0.002], "steps": 98},
        "seeds": list(seeds),
        "budgets": ["macs=0.52x"],
        "methods": {name: METHODS[name] for name in methods},
    } | more


def changed(one: RunRecord, **changes: Any) -> RunRecord:
    """Return a record with other values."""
    return dataclasses.replace(one, **changes)
