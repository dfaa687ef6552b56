"""A suite of small networks and images, and ways to run it to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ghostify.comparing import Compared, compare
from ghostify.runs.record import RunRecord
from tests.searches.searchable import write_all
from tests.train.toys import write_folder

__all__ = ["MODEL", "accuracies", "plain", "run", "write_suite"]

MODEL = "tests.searches.searchable:Net"
FIT = {"block_steps": 2, "joint_steps": 2}


def write_suite(folder: Path, **changes: Any) -> Path:
    """Write network, images and suite; return the suite's file. None leaves a key out."""
    if not (folder / "data").exists():
        weights, data = write_all(folder)
        weights.rename(folder / "net.safetensors")
        write_folder(data, 48, seed=9, split="test")
    suite: dict[str, Any] = {
        "title": "Toy",
        "networks": {"net": {"label": "Net", "model": MODEL, "weights": "net.safetensors"}},
        "data": {"path": "data", "validation": 24, "calibration": 32},
        "recipe": {
            "name": "distil",
            "steps": 6,
            "overrides": {"batch_size": 16, "feature_weight": 0.0},
        },
        "teacher": "original",
        "adapt": {
            "recipe": "finetune",
            "steps": 8,
            "overrides": {"batch_size": 16, "lr": 0.05},
        },
        "tune": {"rates": [0.001, 0.03], "steps": 4},
        "seeds": [0, 1],
        "budgets": ["macs=0.6x"],
        "methods": {
            "dense": {"kind": "dense", "label": "Dense"},
            "l1": {"kind": "prune", "method": "l1", "label": "L1"},
            "random": {"kind": "ghost", "s": 2, "start": "random"},
            "fitted": {"kind": "ghost", "s": 2, "start": "fitted", "train": False, "fit": FIT},
        },
    }
    suite |= changes
    text = yaml.safe_dump({key: one for key, one in suite.items() if one is not None})
    file = folder / "suite.yaml"
    file.write_text(text)
    return file


def run(suite: Path, output: Path, **settings: Any) -> Compared:
    """Run a suite on the CPU."""
    return compare(suite, output, device="cpu", **settings)


def accuracies(records: tuple[RunRecord, ...]) -> dict[str, Any]:
    """Return all that was measured of each run, by its id."""
    return {
        record.id: (
            record.kind, record.method, record.seed, record.lr, record.macs, record.steps,
            record.original_top1, record.start_top1, record.top1, record.top5, record.loss,
            record.best_top1, tuple(tuple(sorted(entry.items())) for entry in record.curve),
        )
        for record in records
    }  # fmt: skip


def plain(method: str) -> dict[str, Any]:
    """Return a suite of one method without tuning and adaptation, for one seed."""
    methods = {
        "dense": {"kind": "dense"},
        "l1": {"kind": "prune", "method": "l1"},
        "random": {"kind": "ghost", "s": 2, "start": "random"},
    }
    return {"methods": {method: methods[method]}, "tune": None, "adapt": None, "seeds": [0]}
