"""The training loop: one for training from scratch, fine-tuning and distillation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ghostify.data.images import Images, check_labels
from ghostify.data.preprocess import Preprocess
from ghostify.errors import TrainingError
from ghostify.train.checkpoint import RunDirectory, clear, read_checkpoint
from ghostify.train.clock import Clock
from ghostify.train.device import Engine, choose_engine, laid_out_for
from ghostify.train.distributed import World, this_world
from ghostify.train.evaluate import Evaluation, tally
from ghostify.train.feed import feed
from ghostify.train.learner import Learner
from ghostify.train.log import Log
from ghostify.train.optim import learning_rate
from ghostify.train.recipe import Recipe
from ghostify.train.supply import Supply

__all__ = ["Outcome", "Progress", "settings_of", "train"]

_LOG_STEPS = 50
_AGREE_STEPS = 10  # how often processes ask each other whether to stop
_SAVE_S = 120.0
_SAVE_EPOCH_S = 1.0  # epochs may be shorter than it takes to write a checkpoint


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, for displays; loss and accuracy are the last that are known."""

    step: int
    steps: int
    epoch: float
    loss: float
    top1: float  # on the training images, percent
    images_per_s: float
    test: Evaluation | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trained network.

    ``history`` has one entry for each evaluation and each epoch: step, epoch, lr, loss and top1
    on the training images since the last row of the log, and test_loss, test_top1, test_top5
    where accuracy was measured.
    """

    model: nn.Module
    evaluation: Evaluation | None
    history: tuple[dict[str, Any], ...]
    steps: int
    seconds: float
    notes: tuple[str, ...] = ()  # remarks on the images and the teacher


def train(
    model: nn.Module,
    recipe: Recipe,
    images: Images,
    preprocess: Preprocess,
    *,
    test: Images | None = None,
    teacher: nn.Module | None = None,
    unlike: Collection[str] = (),
    directory: Path | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    amp: str | None = "auto",
    channels_last: bool | None = None,
    compile: bool = False,
    workers: int = 0,
    checkpoint_every: int | None = None,
    evaluate_every: int | None = None,
    evaluate_first: bool = False,
    anew: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    watch: Callable[[int, nn.Module], None] | None = None,
) -> Outcome:
    """Train a copy of a network; neither it nor the teacher is changed.

    On a CPU the same arguments give the same weights bit for bit, also if the run was
    interrupted in between and goes on from its checkpoint.

    Args:
        test: labelled images to measure accuracy on after each epoch and at the end.
        teacher: shows logits and features as the recipe says; None: labels alone.
        unlike: layers whose maps stand in another order than the teacher's.
        directory: where checkpoints, ``log.csv`` and event files go; a run that was begun
            there goes on. None: nothing is written.
        checkpoint_every: steps; None: after each epoch, and every two minutes.
        evaluate_every: steps; None: after each epoch.
        evaluate_first: measure accuracy also before the first step.
        anew: remove a run that is there; files of others may stay.
        on_progress: called a few times a second at most.
        should_stop: asked after each step; if so, a checkpoint is written and the run ends.
        watch: called after each step with its number and the network as it would be given back,
            which it may run but not change; what it raises ends the run.

    Raises:
        TrainingError: network, teacher, images and recipe do not fit each other, or the loss
            is no longer finite.
        DataError: labels that the network has no class for, too many images that are broken.
        OutputError: the directory cannot be written; the last checkpoint stays valid.
        KeyboardInterrupt: ``should_stop`` said so.
    """
    engine = choose_engine(device, amp=amp, channels_last=channels_last, compile=compile)
    engine = laid_out_for(engine, channels_last, model, teacher, preprocess)
    world = this_world()
    gpus = [engine.device] if engine.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), engine.tuned():
        run = _Run(
            Supply(images, test, preprocess, recipe, workers, seed, world),
            model,
            teacher,
            unlike,
            engine,
            _Habits(
                checkpoint_every,
                evaluate_every,
                evaluate_first,
                on_progress,
                should_stop,
                watch,
                anew,
            ),
        )
        try:
            run.open(directory)
            return run.go()
        finally:
            run.close()


def settings_of(
    model: nn.Module,
    recipe: Recipe,
    images: Images,
    preprocess: Preprocess,
    *,
    test: Images | None = None,
    teacher: nn.Module | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    amp: str | None = "auto",
    channels_last: bool | None = None,
) -> dict[str, Any]:
    """Return what decides the weights of a run with these arguments, as plain values."""
    engine = choose_engine(device, amp=amp, channels_last=channels_last)
    engine = laid_out_for(engine, channels_last, model, teacher, preprocess)
    data = Supply(images, test, preprocess, recipe, 0, seed, this_world())
    return data.settings(engine, model, teacher)


@dataclass(frozen=True, slots=True)
class _Habits:
    """What a run does beside training; none of it changes the weights."""

    checkpoint_every: int | None
    evaluate_every: int | None
    evaluate_first: bool
    on_progress: Callable[[Progress], None] | None
    should_stop: Callable[[], bool] | None
    watch: Callable[[int, nn.Module], None] | None
    anew: bool


class _Run:
    """One run: where it stands, and what happens between the steps."""

    def __init__(
        self,
        data: Supply,
        model: nn.Module,
        teacher: nn.Module | None,
        unlike: Collection[str],
        engine: Engine,
        habits: _Habits,
    ) -> None:
        self._data, self._engine, self._habits, self._world = data, engine, habits, data.world
        self._per_epoch = data.per_epoch
        self._steps = data.recipe.total_steps(data.per_epoch)
        self._learner = Learner(
            model,
            data.recipe,
            data.preprocess,
            engine,
            steps=self._steps,
            seed=data.seed,
            world=data.world,
            teacher=teacher,
            unlike=unlike,
        )
        if self._learner.needs_labels:
            check_labels(data.images, self._learner.classes)
        if data.test is not None:
            check_labels(data.test, self._learner.classes)
        self._networks = model, teacher
        self._saves = False
        self._notes: dict[str, tuple[str, ...]] = {}
        self._directory: RunDirectory | None = None
        self._log: Log | None = None
        self._step = 0
        self._history: list[dict[str, Any]] = []
        self._evaluation: Evaluation | None = None
        self._clock = Clock()
        self._shown: tuple[float, float] = (0.0, 0.0)
        self._saved_at = time.monotonic()

    def open(self, path: Path | None) -> None:
        """Take up the state of a run in this directory, if there is one."""
        if path is None:
            return
        self._saves = True
        if self._world.leads:
            if self._habits.anew:
                clear(path)
            settings = self._data.settings(self._engine, *self._networks)
            self._directory = RunDirectory(path, settings, shared=self._habits.anew)
        self._world.wait()
        state = read_checkpoint(path)
        if state is not None:
            self._learner.load_state(state["learner"])
            self._step = state["step"]
            self._clock = Clock(state["seconds"])
            self._history = json.loads(state["history"])
            self._evaluation = state["evaluation"] and Evaluation(**state["evaluation"])
        self._world.wait()
        if self._world.leads:
            self._log = Log(path, state and state["log"])

    def close(self) -> None:
        """Let go of the directory and of the networks."""
        self._learner.close()
        if self._log is not None:
            self._log.close()
        if self._directory is not None:
            self._directory.close()

    def go(self) -> Outcome:
        """Train to the end."""
        if not self._step and self._habits.evaluate_first and self._data.test is not None:
            self._evaluate()
            self._record(measured=True, keep=True)
            self._show(True)
        while self._step < self._steps:
            self._epoch()
        return Outcome(
            model=self._given_back(),
            evaluation=self._evaluation,
            history=tuple(self._history),
            steps=self._step,
            seconds=self._clock.seconds,
            notes=(
                *self._learner.notes,
                *(f"{part} images: {note}" for part, told in self._notes.items() for note in told),
            ),
        )

    def _given_back(self) -> nn.Module:
        """Return the trained network, with the modes and on the device of the given one."""
        given, result = self._networks[0], self._learner.result
        for mine, its in zip(given.modules(), result.modules(), strict=True):
            its.training = mine.training
        home = next(given.parameters()).device
        return result.to(home)

    def _epoch(self) -> None:
        """Train to the end of the epoch, or of the run."""
        epoch, start = divmod(self._step, self._per_epoch)
        end = min((epoch + 1) * self._per_epoch, self._steps)
        first = self._step
        source = self._data.training(epoch, start)
        batches = feed(iter(source), self._engine.device)
        try:
            self._clock.start()
            for images, labels in batches:
                self._learner.step(self._step, images, labels)
                self._step += 1
                self._clock.count(len(labels) * self._world.size)
                self._after_step()
                if self._step == end:
                    break
        finally:
            self._clock.stop()
            close = getattr(batches, "close", None)
            if close is not None:
                close()
        self._notes["training"] = source.notes
        if self._step == first:
            raise TrainingError(f"{self._data.images.name} gives no batch; check the images")

    def _after_step(self) -> None:
        habits, step = self._habits, self._step
        whole = step % self._per_epoch == 0
        last = step == self._steps
        every = habits.evaluate_every
        measured = last or (whole if every is None else step % every == 0)
        if self._world.size == 1 and self._engine.device.type == "cpu":
            self._shown = self._learner.means(self._world)  # a GPU would have to be waited for
        if measured or whole or step % _LOG_STEPS == 0:
            self._shown = self._learner.means(self._world)
            measured = measured and self._data.test is not None
            if measured:
                self._clock.stop()
                self._evaluate()
                self._clock.start()
            self._record(measured=measured, keep=measured or whole or last)
        self._show(last)
        if habits.watch is not None:
            self._clock.stop()
            habits.watch(step, self._learner.result)
            self._learner.training_again()
            self._clock.start()
        stop = self._asked_to_stop()
        if self._directory is not None and (stop or last or self._checkpoint_due(whole)):
            self._checkpoint()
        if stop and not last:
            kept = "the same command goes on from there" if self._saves else "nothing was written"
            raise KeyboardInterrupt(f"interrupted after step {step} of {self._steps}; {kept}")

    def _asked_to_stop(self) -> bool:
        ask = self._habits.should_stop
        if self._world.size == 1:
            return ask is not None and ask()
        if self._step % _AGREE_STEPS:
            return False
        return self._world.any(ask is not None and ask())

    def _evaluate(self) -> None:
        assert self._data.test is not None
        batches = self._data.testing()
        sums = tally(self._learner.result, batches, self._data.preprocess, self._engine)
        self._notes["test"] = batches.notes
        self._evaluation = Evaluation.of(self._world.sum(sums))
        self._learner.training_again()

    def _record(self, *, measured: bool, keep: bool) -> None:
        """Write a row of the log, and begin new means.

        Args:
            measured: accuracy was measured after this very step.
            keep: the row belongs to the history too.
        """
        row: dict[str, Any] = {"step": self._step, "epoch": self._step / self._per_epoch}
        if self._step:
            row["lr"] = learning_rate(self._data.recipe, self._step - 1, self._steps)
            row["loss"], row["top1"] = self._shown
        if measured and self._evaluation is not None:
            found = self._evaluation
            row |= {"test_loss": found.loss, "test_top1": found.top1, "test_top5": found.top5}
        if keep:
            self._history.append(dict(row))
        if self._log is not None:
            self._log.row(row | ({"images_per_s": self._clock.pace} if self._step else {}))
        self._learner.forget()
        self._clock.forget()

    def _checkpoint_due(self, whole: bool) -> bool:
        every = self._habits.checkpoint_every
        if every is not None:
            return whole or self._step % every == 0
        since = time.monotonic() - self._saved_at
        return since > (_SAVE_EPOCH_S if whole else _SAVE_S)

    def _checkpoint(self) -> None:
        assert self._directory is not None
        assert self._log is not None
        self._clock.stop()
        self._learner.means(World())  # nothing that is not finite is ever saved
        self._directory.write(
            {
                "learner": self._learner.state(),
                "step": self._step,
                "seconds": self._clock.seconds,
                "history": json.dumps(self._history),
                "evaluation": self._evaluation and self._evaluation.as_json(),
                "log": self._log.flush(),
            }
        )
        self._saved_at = time.monotonic()
        self._clock.start()

    def _show(self, last: bool) -> None:
        if self._habits.on_progress is None or not self._clock.due(last):
            return
        self._habits.on_progress(
            Progress(
                step=self._step,
                steps=self._steps,
                epoch=self._step / self._per_epoch,
                loss=self._shown[0],
                top1=self._shown[1],
                images_per_s=self._clock.pace,
                test=self._evaluation,
            )
        )
