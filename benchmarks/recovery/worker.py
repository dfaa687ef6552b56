"""Does one run in a process of its own."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ghostify.train.loop import train
from ghostify.train.recipe import load_recipe
from recovery.study import Run
from recovery.workshop import Workshop

_shops: dict[Any, Workshop] = {}


@dataclass(frozen=True, slots=True)
class Place:
    """Where runs find their data, and on what they run."""

    data: Path
    cache: Path
    device: str = "cpu"
    amp: str = "bf16"
    compiled: bool = False
    threads: int = 1


def do(run: Run, place: Place) -> dict[str, Any]:
    """Train from the method's start as the run says; return its record."""
    torch.set_num_threads(place.threads)
    if place not in _shops:
        _shops[place] = Workshop(
            place.data, place.cache, device=place.device, amp=place.amp, compiled=place.compiled
        )
    shop = _shops[place]
    network, facts = shop.start(run.method, run.model, run.seed)
    began = time.monotonic()
    if run.steps:
        assert run.lr is not None
        recipe = load_recipe(
            run.recipe, steps=run.steps, lr=run.lr, bn_frozen_steps=-1 if run.held else 0
        )
        outcome = train(
            network,
            recipe,
            shop.fitting if run.kind == "tune" else shop.images,
            shop.preprocess,
            teacher=shop.teacher(run.model).model,
            seed=run.seed,
            device=place.device,
            amp=place.amp,
            compile=place.compiled,
        )
        network = outcome.model
    seconds = time.monotonic() - began
    judged = (
        {"val_top1": shop.top1(network, shop.validation)}
        if run.kind == "tune"
        else {"top1": shop.top1(network, shop.test)}
    )
    return {
        **asdict(run),
        **judged,
        "macs": facts["macs"],
        "params": facts["params"],
        "start_seconds": facts.get("start_seconds"),
        "seconds": round(seconds, 1),
        "teacher_top1": shop.teacher_top1(run.model),
        "device": machine(place.device),
        "amp": place.amp,
        "versions": {
            name: metadata.version(name) for name in ("ghostify", "torch", "torch-pruning")
            if _installed(name)
        },
        "data": {"train": shop.images.digest[:16], "test": shop.test.digest[:16]},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def machine(device: str) -> str:
    """Return what the runs were made on, in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"CPU, one thread ({name})"


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
