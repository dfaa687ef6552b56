"""Does one run in a process of its own."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ghostify.train.distil import stages
from ghostify.train.loop import train
from ghostify.train.recipe import load_recipe
from recovery.memory import Remembering
from recovery.study import Run
from recovery.workshop import Workshop, orphaned

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
    memory: Path | None = None  # where the teacher's outputs are kept, if they are


def do(run: Run, place: Place) -> dict[str, Any]:
    """Train from the method's start as the run says; return its record.

    A run that was broken off goes on from its last checkpoint, in ``place.cache``. A process
    whose parent is gone writes one and ends.
    """
    try:
        return _record(run, place)
    except KeyboardInterrupt:
        if orphaned():
            os._exit(1)  # the pool would have it wait for work
        raise


def _record(run: Run, place: Place) -> dict[str, Any]:
    torch.set_num_threads(place.threads)
    if place not in _shops:
        _shops[place] = Workshop(
            place.data, place.cache, device=place.device, amp=place.amp, compiled=place.compiled
        )
    shop = _shops[place]
    network, facts = shop.start(run.method, run.model, run.seed)
    seconds = 0.0
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
            teacher=_teacher(shop, run, place),
            directory=_directory(run, place),
            seed=run.seed,
            device=place.device,
            amp=place.amp,
            compile=place.compiled,
            should_stop=orphaned,
        )
        network, seconds = outcome.model, outcome.seconds
    return {
        **asdict(run),
        **_judged(run, network, shop),
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


def _judged(run: Run, network: nn.Module, shop: Workshop) -> dict[str, Any]:
    if run.kind == "tune":
        return {"val_top1": shop.top1(network, shop.validation)}
    # Also by halves: what is chosen by one half can be judged by the other.
    halves = [shop.top1(network, half) for half in shop.test_halves]
    return {"top1": round(sum(halves) / 2, 4), "top1_halves": halves}


def _teacher(shop: Workshop, run: Run, place: Place) -> nn.Module:
    teacher = shop.teacher(run.model).model.eval()
    if place.memory is None:
        return teacher
    image = torch.zeros(1, shop.preprocess.channels, *shop.preprocess.size)
    return Remembering(teacher, stages(teacher, teacher, image), place.memory)


def forget(run: Run, place: Place) -> None:
    """Remove the checkpoint of a run whose record is kept."""
    shutil.rmtree(_directory(run, place), ignore_errors=True)


def _directory(run: Run, place: Place) -> Path:
    return place.cache / "runs" / "-".join(str(value) for value in run.as_json().values())


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
