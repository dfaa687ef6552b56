"""The images of a run, as one process of several sees them, and what decides the outcome."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn

from ghostify.data.batches import Batches, evaluation_batches, training_batches
from ghostify.data.images import Images
from ghostify.data.preprocess import Preprocess
from ghostify.errors import TrainingError
from ghostify.train.checkpoint import digest
from ghostify.train.device import Engine
from ghostify.train.distributed import World
from ghostify.train.recipe import Recipe

__all__ = ["Supply"]


@dataclass(frozen=True, slots=True)
class Supply:
    """The images of a run, as this process sees them."""

    images: Images
    test: Images | None
    preprocess: Preprocess
    recipe: Recipe
    workers: int
    seed: int
    world: World

    def __post_init__(self) -> None:
        if self.recipe.augment is not None:
            chosen = dataclasses.replace(self.preprocess, augment=self.recipe.augment)
            object.__setattr__(self, "preprocess", chosen)
        size, processes = self.recipe.batch_size, self.world.size
        if size % processes or size // processes < self.recipe.accumulate:
            parts = self.recipe.accumulate
            raise TrainingError(
                f"a batch of {size} cannot be divided among {processes} processes"
                + (f" and {parts} parts each" if parts > 1 else "")
                + f"; choose a batch size that is a multiple of {processes * parts}"
            )
        if len(self.images) < size:
            raise TrainingError(
                f"{self.images.name} has {len(self.images)} images, fewer than one batch of "
                f"{size}; choose a smaller batch size"
            )

    @property
    def per_epoch(self) -> int:
        """How many steps an epoch has."""
        return len(self.images) // self.recipe.batch_size

    def training(self, epoch: int, start: int) -> Batches:
        """Return the rest of an epoch, from batch ``start`` on."""
        return training_batches(
            self.images,
            self.preprocess,
            batch_size=self.recipe.batch_size // self.world.size,
            seed=self.seed,
            epoch=epoch,
            start=start,
            workers=self.workers,
            rank=self.world.rank,
            world=self.world.size,
        )

    def testing(self) -> Batches:
        """Return what accuracy is measured on."""
        assert self.test is not None
        return evaluation_batches(
            self.test,
            self.preprocess,
            workers=self.workers,
            rank=self.world.rank,
            world=self.world.size,
        )

    def settings(
        self, engine: Engine, model: nn.Module, teacher: nn.Module | None
    ) -> dict[str, Any]:
        """What decides the weights, as plain values."""
        recipe = self.recipe.as_json()
        del recipe["name"], recipe["description"]
        return {
            "recipe": recipe,
            "seed": self.seed,
            "data": self.images.digest,
            "test data": self.test and self.test.digest,
            "images": self.preprocess.to_json(),
            "processes": self.world.size,
            "network": digest(model),
            "teacher": None if teacher is None else digest(teacher),
            "amp": engine.amp and str(engine.amp),
            "channels_last": engine.channels_last,
        }
