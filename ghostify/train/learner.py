"""A network that learns: one optimiser step, and all state that a step changes."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from ghostify.data.preprocess import Preprocess, normalise
from ghostify.errors import DivergedError, TrainingError
from ghostify.graph.probe import copy_model
from ghostify.models.torchvision_import import require
from ghostify.train.device import Engine
from ghostify.train.distil import Taps, feature_loss, logits_loss, stages
from ghostify.train.distributed import World
from ghostify.train.network import check_weights, classes_of, logits_of, modes_kept, set_training
from ghostify.train.optim import build_optimizer, learning_rate
from ghostify.train.recipe import Recipe

__all__ = ["Learner"]

_UNLIKE = "student and teacher have no layer of the same name and shape"


class Learner:
    """Student, teacher, optimiser and averages.

    The caller's networks stay untouched: both are copied. All random numbers of a step
    (dropout, mixup) come from the seed and the step's number, so nothing of a generator
    needs to be saved.

    Raises:
        TrainingError: weights that are not finite, networks that do not fit each other.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        preprocess: Preprocess,
        engine: Engine,
        *,
        steps: int,
        seed: int,
        world: World,
        teacher: nn.Module | None = None,
        unlike: Collection[str] = (),
    ) -> None:
        self._unlike = unlike
        self.recipe, self.engine, self.steps = recipe, engine, steps
        self._preprocess, self._seed, self._world = preprocess, seed, world
        check_weights(model)
        self.model = self._placed(model)
        image = torch.zeros(2, preprocess.channels, *preprocess.size, device=engine.device)
        self.classes = classes_of(self.model, image)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise TrainingError("no parameter of the network learns; set requires_grad on some")
        self.features: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.teacher = None if teacher is None else self._checked_teacher(teacher, image)
        self.optimizer = build_optimizer(self.model, recipe)
        self.scaler = torch.amp.GradScaler(engine.device.type, enabled=engine.amp is torch.float16)
        self.ema = AveragedModel(self.model, use_buffers=True) if recipe.ema else None
        self.sums = torch.zeros(3, dtype=torch.float64, device=engine.device)
        self._taps: list[Taps] = []
        if self.teacher is not None and self.features:
            self._taps = [Taps(one, self.features) for one in (self.model, self.teacher)]
        self._mix = _mixing(recipe, self.classes)
        self._frozen: bool | None = None
        self._runner: Any = self.model
        if world.size > 1:
            ids = [engine.device.index] if engine.device.type == "cuda" else None
            self._runner = nn.parallel.DistributedDataParallel(
                self.model, device_ids=ids, find_unused_parameters=self._some_idle(image)
            )
        self._teach: Any = self.teacher
        if engine.compile:
            self._runner = torch.compile(self._runner)
            if self.teacher is not None:
                self._teach = torch.compile(self.teacher)

    @property
    def result(self) -> nn.Module:
        """The network that training is for: the averaged one, where there is one."""
        return self.model if self.ema is None else self.ema.module

    def step(self, number: int, images: Tensor, labels: Tensor) -> None:
        """Update the weights once.

        Args:
            number: of the step, from 0.
            images: uint8, ``(N, C, H, W)``, of this process.
            labels: ``(N,)``.
        """
        recipe, engine = self.recipe, self.engine
        self._hold_norms(number)
        torch.manual_seed(self._step_seed(number))
        labels = labels.to(engine.device, non_blocking=True)
        inputs = normalise(images.to(engine.device, non_blocking=True), self._preprocess)
        inputs = inputs.contiguous(memory_format=engine.memory_format)
        targets = labels
        if self._mix is not None:
            inputs, targets = self._mix(inputs, labels)
        rate = learning_rate(recipe, number, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = min(recipe.accumulate, len(labels))
        for part, (some, wanted, known) in enumerate(
            zip(inputs.chunk(parts), targets.chunk(parts), labels.chunk(parts), strict=True)
        ):
            waiting = self._world.size > 1 and part < parts - 1
            with self._runner.no_sync() if waiting else contextlib.nullcontext():
                loss, logits = self._loss(some, wanted)
                share = len(known) / len(labels)
                self.scaler.scale(loss * share if parts > 1 else loss).backward()
            with torch.no_grad():
                right = (logits.argmax(dim=1) == known).sum()
                self.sums[0] += loss.detach() * len(known)
                self.sums[1] += right
                self.sums[2] += len(known)
        if recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            # Early steps count for more, so that a short run does not end where it began.
            decay = min(recipe.ema, (1 + number) / (10 + number))
            self.ema.multi_avg_fn = _averaging(decay)
            self.ema.update_parameters(self.model)

    def means(self, world: World) -> tuple[float, float]:
        """Return loss and accuracy (percent) since the last :meth:`forget`; waits for the device.

        Args:
            world: over whose processes to average.

        Raises:
            DivergedError: the loss is not finite.
        """
        loss, right, count = world.sum(self.sums.cpu()).tolist()
        if not count:
            return 0.0, 0.0
        if not math.isfinite(loss):
            raise DivergedError(
                "the loss is no longer a finite number: training has diverged; take a smaller "
                f"learning rate (it is {self.recipe.lr:g}), a warm-up, or clip_norm"
            )
        return loss / count, 100 * right / count

    def forget(self) -> None:
        """Begin new means."""
        self.sums.zero_()

    def state(self) -> dict[str, Any]:
        """Return everything that a step changes: tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "sums": self.sums,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.sums.copy_(state["sums"])

    def close(self) -> None:
        """Take the hooks off the networks."""
        for taps in self._taps:
            taps.close()

    def _loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        with self.engine.autocast():
            logits = logits_of(self._runner(inputs)).float()
        hard = (
            functional.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
            if self.needs_labels
            else None
        )
        if self.teacher is None:
            assert hard is not None  # without a teacher the labels are all there is
            return hard, logits
        with torch.no_grad(), self.engine.autocast():
            told = logits_of(self._teach(inputs))
        terms = [] if hard is None else [hard * (1 - recipe.alpha)]
        if recipe.alpha:
            terms.append(recipe.alpha * logits_loss(logits, told, temperature=recipe.temperature))
        if self._taps:
            said, shown = (taps.take() for taps in self._taps)
            terms.append(recipe.feature_weight * feature_loss(said, shown))
        return torch.stack(terms).sum(), logits

    @property
    def needs_labels(self) -> bool:
        """Whether labels have a part in the loss."""
        return self.teacher is None or self.recipe.alpha < 1

    def _placed(self, model: nn.Module) -> nn.Module:
        copied = copy_model(model).to(self.engine.device)
        return copied.to(memory_format=self.engine.memory_format)  # type: ignore[call-overload, no-any-return]

    def _some_idle(self, image: Tensor) -> bool:
        """Tell whether some parameters have no part in the logits, such as auxiliary heads."""
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        with modes_kept(self.model):
            total = logits_of(self.model.eval()(image)).sum()
        grads = torch.autograd.grad(total, learning, allow_unused=True)
        return any(grad is None for grad in grads)

    def _checked_teacher(self, teacher: nn.Module, image: Tensor) -> nn.Module:
        check_weights(teacher, what="the teacher")
        placed = self._placed(teacher).requires_grad_(False).eval()
        classes = classes_of(placed, image, what="the teacher")
        if classes != self.classes:
            raise TrainingError(
                f"the teacher tells {classes} classes apart, the network {self.classes}; take a "
                "teacher with the same classes"
            )
        if self.recipe.feature_weight:
            self.features = stages(
                self.model, placed, image, self.recipe.features, unlike=self._unlike
            )
            if not self.features and not self.recipe.alpha:
                raise TrainingError(
                    f"{_UNLIKE} to compare, and the recipe leaves the teacher's logits out; name "
                    "some with features, or set alpha above 0"
                )
            if not self.features:
                self.notes = (f"{_UNLIKE}, so only its logits are learnt from",)
        return placed

    def _hold_norms(self, number: int) -> None:
        limit = self.recipe.bn_frozen_steps
        frozen = limit < 0 or number < limit
        if frozen != self._frozen:
            set_training(self.model, frozen_norms=frozen)
            self._frozen = frozen

    def training_again(self) -> None:
        """Put the network back into training mode after something else has run it."""
        self._frozen = None

    def _step_seed(self, number: int) -> int:
        text = f"{self._seed}:{number}:{self._world.rank}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")


def _averaging(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return what moves averages: floating-point state slowly, whole numbers at once."""

    @torch.no_grad()
    def move(averages: Any, values: Any, _count: Any) -> None:
        if torch.is_floating_point(averages[0]):
            torch._foreach_lerp_(averages, values, 1 - decay)
        else:
            torch._foreach_copy_(averages, values)

    return move


def _mixing(recipe: Recipe, classes: int) -> Callable[[Tensor, Tensor], Any] | None:
    """Return torchvision's mixup, cutmix, or a fair choice between them."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    transforms = require("torchvision.transforms.v2", wanted="mixup")
    kinds = []
    if recipe.mixup:
        kinds.append(transforms.MixUp(alpha=recipe.mixup, num_classes=classes))
    if recipe.cutmix:
        kinds.append(transforms.CutMix(alpha=recipe.cutmix, num_classes=classes))
    mix: Callable[[Tensor, Tensor], Any] = kinds[0]
    return mix if len(kinds) == 1 else transforms.RandomChoice(kinds)
