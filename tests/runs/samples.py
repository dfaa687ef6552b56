"""Records and suites to test with."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from ghostify.runs.record import RunLatency, RunRecord, identify

__all__ = ["BASE", "record", "suite"]

BASE = RunRecord(
    id="0" * 16,
    kind="test",
    network="r20",
    label="ResNet-20",
    model="resnet20_cifar",
    method="l1",
    method_label="L1",
    settings={"kind": "prune", "method": "l1"},
    budget="macs=0.5x",
    seed=0,
    macs=20_000_000,
    params=140_000,
    macs_before=40_000_000,
    params_before=280_000,
    plan={"kept": {"layer1.0.conv1": 8}},
    latencies=(RunLatency("onnxruntime", 1, 1, 1.25, 0.1, before_ms=2.0),),
    top1=84.25,
    curve=({"step": 391, "epoch": 1.0, "top1": 84.25},),
    recipe={"name": "distil", "lr": 0.002},
    lr=0.001,
    steps=391,
    command="ghostify prune resnet20_cifar",
    provenance={"versions": {"torch": "2.13"}},
    created="2026-11-22T22:00:00Z",
)


def record(**changes: Any) -> RunRecord:
    """Return a record that differs from BASE, with an id of its own."""
    return dataclasses.replace(BASE, **{"id": identify({"changes": repr(changes)}), **changes})


_SUITE = {
    "title": "Small",
    "networks": {"r20": {"model": "resnet20_cifar"}},
    "data": {"path": "images", "validation": 100},
    "recipe": {"name": "distil", "steps": 5},
    "budgets": ["macs=0.5x"],
    "methods": {
        "dense": {"kind": "dense"},
        "l1": {"kind": "prune", "method": "l1"},
        "ghost": {"kind": "ghost", "s": 2, "d": 3, "start": "fitted"},
    },
}


def suite(changes: dict[str, Any] | None = None, *, without: tuple[str, ...] = ()) -> Any:
    """Return a suite as YAML holds it, with other values at dotted paths."""
    value: dict[str, Any] = copy.deepcopy(_SUITE)
    for key in without:
        del value[key]
    for path, new in (changes or {}).items():
        *above, last = path.split("/")
        inner = value
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = new
    return value
