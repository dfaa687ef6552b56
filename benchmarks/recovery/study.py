"""What is compared: networks, methods, learning rates, and one run as a value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORDS = HERE / "records.jsonl"
CHECKPOINTS = {
    "resnet20": "checkpoints/resnet20-12fca82f.th",
    "resnet56": "checkpoints/resnet56-4bfd9763.th",
}
MODELS = tuple(CHECKPOINTS)
NAMES = {"resnet20": "ResNet-20", "resnet56": "ResNet-56"}

METHODS = {
    "ghost-random": "Ghost, random start",
    "ghost-fit": "Ghost, fitted, s=2",
    "ghost-plan": "Ghost, fitted, per-layer plan",
    "ghost-tpe": "Ghost, fitted, plan searched by TPE",
    "ghost-search": "Ghost, fitted, searched plan",
    "mixed-quarters": "Ghost and pruning, fitted, searched plan in quarters",
    "mixed-search": "Ghost and pruning, fitted, searched plan in eighths",
    "l1": "L1 pruning",
    "l1-bn": "L1 pruning, BN re-estimated",
    "l1-rec": "L1 pruning, reconstructed",
    "group": "group-norm pruning",
    "group-bn": "group-norm pruning, BN re-estimated",
    "group-rec": "group-norm pruning, reconstructed",
}
"""What each method is called in tables."""

RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
"""The grid of learning rates, one for all methods; searched from the middle outwards."""

PLANS = {
    "ghost-plan": "plan",
    "ghost-tpe": "tpe",
    "ghost-search": "ghosts",
    "mixed-quarters": "quarters",
    "mixed-search": "mixed",
}
"""Methods by a plan, and how its file ends: ``resnet20_plan.yaml``."""

FITTED = ("ghost-fit", *PLANS, "l1-rec", "group-rec")
"""Methods whose statistics are fitted, so that holding batch norm may pay."""

CALIBRATION = 3000  # images, unlabelled, of the training part
VALIDATION = 5000  # the last images of the training part, which tuning does not train on


@dataclass(frozen=True, slots=True)
class Run:
    """One training run from one start.

    A "tune" run trains without the validation images and is judged by them, a "test" run
    trains on all and is judged by the test images. ``held`` batch norms keep their running
    statistics in all steps.
    """

    kind: str  # "tune" or "test"
    model: str
    method: str
    steps: int
    seed: int
    lr: float | None = None  # None without steps
    held: bool = False
    recipe: str = "distil"

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, record: dict[str, Any]) -> Run:
        """Return the run that a record tells of."""
        return cls(**{field.name: record[field.name] for field in dataclasses.fields(cls)})


def plan_path(model: str, method: str = "ghost-plan") -> Path | None:
    """Return the file of the plan that a method goes by, if it does."""
    return HERE / f"{model}_{PLANS[method]}.yaml" if method in PLANS else None
