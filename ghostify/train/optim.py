"""The optimiser of a recipe, and its learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ghostify.train.recipe import Recipe

__all__ = ["build_optimizer", "learning_rate"]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of update number ``step``, counted from 0, of ``steps``.

    It depends on nothing else, so a schedule has no state to save.
    """
    warmup = min(round(recipe.warmup * steps), steps - 1)
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    return recipe.lr * _SCHEDULES[recipe.schedule](
        recipe, step / steps, (step - warmup) / (steps - warmup)
    )


def _cosine(recipe: Recipe, _whole: float, rest: float) -> float:
    return recipe.lr_end + (1 - recipe.lr_end) * (1 + math.cos(math.pi * rest)) / 2


def _linear(recipe: Recipe, _whole: float, rest: float) -> float:
    return recipe.lr_end + (1 - recipe.lr_end) * (1 - rest)


def _step(recipe: Recipe, whole: float, _rest: float) -> float:
    return recipe.gamma ** sum(whole >= place for place in recipe.milestones)


def _constant(_recipe: Recipe, _whole: float, _rest: float) -> float:
    return 1.0


_SCHEDULES: dict[str, Callable[[Recipe, float, float], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "step": _step,
    "constant": _constant,
}


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the optimiser over everything that learns, in the order of the network."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": learning}]
    if not recipe.decay_all:
        groups = [
            {"params": [parameter for parameter in learning if parameter.dim() > 1]},
            {"params": [parameter for parameter in learning if parameter.dim() <= 1]},
        ]
        groups[1]["weight_decay"] = 0.0
        groups = [group for group in groups if group["params"]]
    fused = {parameter.device.type for parameter in learning} <= {"cpu", "cuda"}
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": fused}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, **common)
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.nesterov, **common)
