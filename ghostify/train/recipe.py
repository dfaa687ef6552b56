"""Recipes: how a network is trained, as plain values that YAML files hold by name."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ghostify.errors import RecipeError, nearest
from ghostify.yaml_file import read_yaml

__all__ = ["Recipe", "distillation", "load_recipe", "shipped_recipes"]

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "linear", "step", "constant")

_LONG = 200  # steps from which it pays to let go of fitted batch norms: not 98 yet, but 391


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what training does to the weights, but for data and seed.

    Lengths are in steps (optimiser updates) or epochs; ``steps`` comes first where both are
    there. ``batch_size`` counts the images of one step over all processes, so that a recipe
    means the same on one GPU and on eight. Places in a schedule are fractions of the whole
    training, so that a shortened run keeps its shape.
    """

    name: str = "custom"
    description: str = ""
    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 128
    accumulate: int = 1  # parts in which a batch goes through the network
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_all: bool = True  # also biases and normalisation, as He et al. do
    schedule: str = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)  # of "step", as fractions
    gamma: float = 0.1
    lr_end: float = 0.0  # as a fraction of lr, of "cosine" and "linear"
    warmup: float = 0.0  # fraction of the training
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    augment: str | None = None  # None: what suits the network
    ema: float = 0.0  # decay of the averaged weights, 0 for none
    bn_frozen_steps: int = 0  # first steps on the given running statistics; -1: all steps
    temperature: float = 4.0  # T
    alpha: float = 0.9  # share of the teacher's logits in the loss
    feature_weight: float = 0.0
    features: tuple[str, ...] = ()  # names of layers; empty: the last of each resolution

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise RecipeError(
                f"a recipe has either epochs or steps (got epochs={self.epochs}, "
                f"steps={self.steps}); give one of them"
            )
        for key, rule, holds in (
            ("epochs", "above 0", self.epochs is None or 0 < self.epochs < math.inf),
            ("steps", ">= 1", self.steps is None or self.steps >= 1),
            ("batch_size", ">= 1", self.batch_size >= 1),
            ("accumulate", "from 1 to batch_size", 1 <= self.accumulate <= self.batch_size),
            ("optimizer", f"one of {', '.join(OPTIMIZERS)}", self.optimizer in OPTIMIZERS),
            ("lr", "above 0", 0 < self.lr < math.inf),
            ("momentum", "from 0 to below 1", 0 <= self.momentum < 1),
            ("nesterov", "false without momentum", not self.nesterov or self.momentum > 0),
            ("weight_decay", ">= 0", 0 <= self.weight_decay < math.inf),
            ("schedule", f"one of {', '.join(SCHEDULES)}", self.schedule in SCHEDULES),
            ("milestones", "ascending fractions from 0 to 1", _ascending(self.milestones)),
            ("gamma", "from 0 to 1", 0 <= self.gamma <= 1),
            ("lr_end", "from 0 to 1", 0 <= self.lr_end <= 1),
            ("warmup", "from 0 to below 1", 0 <= self.warmup < 1),
            ("clip_norm", "above 0", self.clip_norm is None or self.clip_norm > 0),
            ("label_smoothing", "from 0 to below 1", 0 <= self.label_smoothing < 1),
            ("mixup", ">= 0", 0 <= self.mixup < math.inf),
            ("cutmix", ">= 0", 0 <= self.cutmix < math.inf),
            ("ema", "from 0 to below 1", 0 <= self.ema < 1),
            ("bn_frozen_steps", ">= -1", self.bn_frozen_steps >= -1),
            ("temperature", "above 0", 0 < self.temperature < math.inf),
            ("alpha", "from 0 to 1", 0 <= self.alpha <= 1),
            ("feature_weight", ">= 0", 0 <= self.feature_weight < math.inf),
        ):
            if not holds:
                raise RecipeError(f"Recipe.{key} must be {rule} (got {getattr(self, key)!r})")

    def total_steps(self, per_epoch: int) -> int:
        """Return the number of steps, for so many in one epoch."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None  # checked when it was made
        return max(1, round(self.epochs * per_epoch))

    def as_json(self) -> dict[str, Any]:
        """Return plain values, all of them."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    def changed(self, **overrides: Any) -> Recipe:
        """Return the recipe with other settings; None stands for no change.

        ``steps`` takes the place of ``epochs``, and the other way round.

        Raises:
            RecipeError: an unknown setting, or an impossible value.
        """
        changes = {key: value for key, value in overrides.items() if value is not None}
        for one, other in (("steps", "epochs"), ("epochs", "steps")):
            if one in changes and other not in changes:
                changes[other] = None
        return Recipe.from_json(self.as_json() | changes, where=self.name)

    @classmethod
    def from_json(cls, value: object, *, where: str = "recipe") -> Recipe:
        """Read a mapping of settings.

        Raises:
            RecipeError: an unknown key, or a value that cannot be.
        """
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where}: a recipe is a mapping such as lr: 0.1")
        types = get_type_hints(cls)
        settings = {}
        for key, given in value.items():
            if key not in types:
                raise RecipeError(
                    f"{where}: {key}: unknown key" + (nearest(str(key), types) or "; remove it")
                )
            settings[key] = _typed(given, types[key], f"{where}: {key}")
        try:
            return cls(**settings)
        except RecipeError as error:
            raise RecipeError(f"{where}: {error}") from None


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with ghostify."""
    return tuple(sorted(file.stem for file in _folder().glob("*.yaml")))


def load_recipe(name: str | Path, **overrides: Any) -> Recipe:
    """Read a recipe by name, or from a YAML file, and change some of its settings.

    Args:
        overrides: as for :meth:`Recipe.changed`.

    Raises:
        RecipeError: no such recipe, or a mistake in it, with the file and the key.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if str(name) not in shipped_recipes():
            raise RecipeError(
                f"no recipe is called {str(name)!r}"
                + (
                    nearest(str(name), shipped_recipes())
                    or f"; there are {', '.join(shipped_recipes())}, or give a YAML file"
                )
            )
        path = _folder() / f"{name}.yaml"
    value = read_yaml(path, kind="recipe", error=RecipeError)
    if not isinstance(value, dict):
        raise RecipeError(f"{path.name}: a recipe is a mapping such as lr: 0.1")
    value.setdefault("name", path.stem)
    return Recipe.from_json(value, where=path.name).changed(**overrides)


def distillation(*, fitted: bool, steps: int) -> str:
    """Return the recipe that a converted network learns from its original by, unless one is named.

    A fitted network holds its batch norms and takes small steps in a short training. In a longer
    one it regains more as any other does (benchmarks/recovery/late_rates).
    """
    return "distil-fitted" if fitted and steps < _LONG else "distil"


def _folder() -> Path:
    return Path(str(resources.files("ghostify.train"))) / "recipes"


def _ascending(places: tuple[float, ...]) -> bool:
    return list(places) == sorted(places) and all(0 <= place <= 1 for place in places)


def _typed(value: Any, wanted: Any, where: str) -> Any:
    """Check a YAML value against the type of its field."""
    options = get_args(wanted) if type(None) in get_args(wanted) else (wanted,)
    if value is None and type(None) in options:
        return None
    kind = next(option for option in options if option is not type(None))
    if get_args(kind):  # tuple[float, ...] or tuple[str, ...]
        inner = get_args(kind)[0]
        if isinstance(value, list | tuple):
            return tuple(_typed(item, inner, where) for item in value)
        raise RecipeError(f"{where}: must be a list (got {value!r})")
    if kind is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML takes 1e-4 for text
    fits = {
        float: isinstance(value, int | float) and not isinstance(value, bool),
        int: isinstance(value, int) and not isinstance(value, bool),
        bool: isinstance(value, bool),
        str: isinstance(value, str),
    }[kind]
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    if not fits:
        raise RecipeError(f"{where}: must be {names[kind]} (got {value!r})")
    return kind(value)
