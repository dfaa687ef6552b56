"""Makes what runs begin from: the adapted teacher and every method's start, kept on disk."""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ghostify
from ghostify.data.base import Images
from ghostify.data.batches import (
    calibration_batches,
    calibration_order,
    evaluation_batches,
    training_batches,
)
from ghostify.data.images import open_images
from ghostify.data.preprocess import normalise, preprocess_of
from ghostify.data.subset import Subset
from ghostify.graph.calibrate import FitOptions, calibrate
from ghostify.graph.slices import Slices
from ghostify.models.weights import load_weights
from ghostify.models.zoo import Built, build
from ghostify.train.evaluate import evaluate
from ghostify.train.loop import train
from ghostify.train.recipe import load_recipe
from recovery.pruning import macs_of, pruned, slimmed
from recovery.study import CALIBRATION, CHECKPOINTS, VALIDATION, plan_path

CONVERTED = ("ghost", "mixed")
"""How the methods begin whose networks ``ghostify.convert`` makes."""


class Workshop:
    """Images, networks and starts, as one process sees them.

    Args:
        data: directory with ``cifar10-jpeg`` and ``checkpoints``.
        cache: where starts are kept.
        amp: number format of training; measuring is always done in float32.
    """

    def __init__(self, data: Path, cache: Path, *, device: str, amp: str, compiled: bool) -> None:
        self._data, self._cache = data, cache
        self.device, self.amp, self.compiled = device, amp, compiled
        self.images = open_images(data / "cifar10-jpeg", split="train")
        self.test = open_images(data / "cifar10-jpeg", split="test")
        count = len(self.images)
        self.test_halves = tuple(
            Subset(self.test, range(part, len(self.test), 2)) for part in (0, 1)
        )
        self.fitting = Subset(self.images, range(count - VALIDATION))
        self.validation = Subset(self.images, range(count - VALIDATION, count))
        built = build("resnet20_cifar", seed=0)
        assert built.input_size is not None
        self.preprocess = preprocess_of(built.model, built.origin, built.input_size)
        cache.mkdir(parents=True, exist_ok=True)

    def teacher(self, model: str) -> Built:
        """Return the checkpoint after one epoch on the JPEG training images."""
        built = build(f"{model}_cifar", seed=0)

        def adapt() -> tuple[nn.Module, dict[str, Any]]:
            load_weights(built.model, self._data / CHECKPOINTS[model])
            recipe = load_recipe("finetune", epochs=1)
            under_way = self._cache / "runs" / f"{model}-teacher"
            outcome = train(
                built.model, recipe, self.images, self.preprocess, directory=under_way, seed=0,
                device=self.device, amp=self.amp, compile=self.compiled, should_stop=orphaned,
            )  # fmt: skip
            shutil.rmtree(under_way, ignore_errors=True)
            return outcome.model, {"top1": self.top1(outcome.model, self.test)}

        state, _ = self._kept(f"{model}-teacher", adapt)
        built.model.load_state_dict(state)
        return built

    def teacher_top1(self, model: str) -> float:
        """Return the accuracy of the adapted teacher on the test images."""
        self.teacher(model)
        facts = _facts(self._cache / f"{model}-teacher.safetensors")
        return float(facts["top1"])

    def start(self, method: str, model: str, seed: int) -> tuple[nn.Module, dict[str, Any]]:
        """Return the network that a method begins from, and how it was made."""
        teacher = self.teacher(model)
        made = self._kept(
            f"{model}-{method}-{seed}", lambda: self._make(method, model, teacher, seed)
        )
        state, facts = made
        if method.startswith(CONVERTED):
            network = ghostify.convert(teacher, plan=plan_path(model, method), verify=False).model
            network.load_state_dict(state)
        else:
            network = slimmed(teacher.model, state)
        return network, facts

    def top1(self, model: nn.Module, images: Images) -> float:
        """Return the accuracy in float32, percent."""
        batches = evaluation_batches(images, self.preprocess)
        return evaluate(model, batches, self.preprocess, device=self.device).top1

    def calibration(self, seed: int, count: int = CALIBRATION) -> Iterable[Tensor]:
        """Return unlabelled images, normalised."""
        return calibration_batches(self.images, self.preprocess, count=count, seed=seed)

    def fit(
        self,
        teacher: nn.Module,
        network: nn.Module,
        layers: list[str],
        seed: int,
        *,
        slices: Slices | None = None,
    ) -> float:
        """Fit a Ghost network, or reconstruct a pruned one, in place; return the seconds."""
        options = FitOptions(seed=seed, stream_order="own")  # features stay beside the teacher's
        images = self.calibration(seed)
        teacher, network = teacher.to(self.device), network.to(self.device)
        report = calibrate(teacher, network, layers, images, options=options, slices=slices)
        teacher.cpu()
        network.cpu()
        return report.seconds

    def _make(
        self, method: str, model: str, teacher: Built, seed: int
    ) -> tuple[nn.Module, dict[str, Any]]:
        began = time.monotonic()
        kind, _, how = method.partition("-")
        if kind in CONVERTED:
            plan = plan_path(model, method)
            conversion = ghostify.convert(teacher, plan=plan, seed=seed, verify=False)
            network = conversion.model
            if how != "random":
                layers, slices = list(conversion.plan), conversion.slices
                self.fit(teacher.model, network, layers, seed, slices=slices)
        elif how:
            network, _ = self.start(kind, model, seed)
            self._estimate_norms(network, seed)
            if how == "rec":
                convs = [
                    name
                    for name, module in teacher.model.named_modules()
                    if isinstance(module, nn.Conv2d)
                ]
                self.fit(teacher.model, network, convs, seed)
        else:
            wanted = macs_of(ghostify.convert(teacher, verify=False).model)
            network = pruned(teacher.model, criterion=kind, macs=wanted)
        return network, {"start_seconds": round(time.monotonic() - began, 1)}

    def _estimate_norms(self, network: nn.Module, seed: int) -> None:
        """Estimate the statistics of all batch norms anew, under the training augmentation."""
        some = Subset(self.images, calibration_order(self.images, seed)[:CALIBRATION])
        norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
        moments = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over all batches
        network.to(self.device).train()
        with torch.no_grad():
            for epoch in range(2):
                for pixels, _ in training_batches(
                    some, self.preprocess, batch_size=250, seed=seed, epoch=epoch
                ):
                    network(normalise(pixels.to(self.device), self.preprocess))
        network.eval().cpu()
        for norm, momentum in zip(norms, moments, strict=True):
            norm.momentum = momentum

    def _kept(
        self, name: str, make: Callable[[], tuple[nn.Module, dict[str, Any]]]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a network from the cache, or make it once, whoever asks first."""
        path = self._cache / f"{name}.safetensors"
        with _alone(self._cache / f"{name}.lock"):
            if not path.exists():
                network, facts = make()
                facts |= {"macs": macs_of(network), "params": _params(network)}
                state = {key: value.cpu().contiguous().clone()
                         for key, value in network.state_dict().items()}  # fmt: skip
                aside = path.with_suffix(".part")
                save_file(state, aside, metadata={"facts": json.dumps(facts)})
                aside.replace(path)
        return load_file(path), _facts(path)


def orphaned() -> bool:
    """Tell whether this is a process whose parent has ended, so that nobody waits for it."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _facts(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return dict(json.loads(file.metadata()["facts"]))


def _params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
