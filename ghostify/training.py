"""The Python interface: train, fine-tune and evaluate networks, and keep the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ghostify import converting
from ghostify.artefact import load, save, save_trained
from ghostify.data.batches import evaluation_batches
from ghostify.data.images import Images, open_images
from ghostify.data.preprocess import Preprocess
from ghostify.errors import OutputError
from ghostify.files import MANIFEST, check_output
from ghostify.manifest import parse_manifest
from ghostify.models.zoo import Built
from ghostify.plan import Plan
from ghostify.provenance import provenance
from ghostify.sources import (
    Model,
    Source,
    Teacher,
    held_back_images,
    open_source,
    open_teacher,
    preprocess_for,
    settled,
)
from ghostify.train import loop
from ghostify.train.checkpoint import RunDirectory, finish, is_free, is_run
from ghostify.train.device import choose_device
from ghostify.train.distributed import joined
from ghostify.train.evaluate import Evaluation
from ghostify.train.evaluate import evaluate as measure
from ghostify.train.loop import Outcome
from ghostify.train.recipe import Recipe, distillation, load_recipe

__all__ = ["Trained", "evaluate", "finetune", "train"]

Step = Callable[[str], None]

WITHOUT_TEACHER, FROM_SCRATCH = "finetune", "cifar-resnet"
"""The recipes that are taken where none is named and there is nothing to distil."""

_UNMEASURED = "the data have no test part, so accuracy was not measured; --test gives one"


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network, how it was trained, and where it was written."""

    model: nn.Module
    evaluation: Evaluation | None
    history: tuple[Mapping[str, Any], ...]  # an entry for each evaluation
    steps: int
    seconds: float
    path: Path | None
    notes: tuple[str, ...] = ()
    finished_before: bool = False  # nothing was left to do


def finetune(
    model: Model,
    data: str | Path | Images,
    *,
    teacher: Teacher = "original",
    recipe: Recipe | str | Path | None = None,
    **settings: Any,
) -> Trained:
    """Train a converted network further, from the weights that it has.

    Args:
        data: a data set as in :func:`ghostify.data.images.open_images`; labels may be absent
            if the recipe's alpha is 1.
        teacher: the network to learn from: "original" for what the artefact was converted
            from, any other name or artefact, a network, or None for labels alone.
        recipe: a recipe, its name, or a YAML file. Without: "distil-fitted" for less than 200
            steps of a network that was fitted, else "distil", or without a teacher "finetune".
        settings: as for :func:`train`.

    Raises:
        GhostifyError: whatever does not fit, in one sentence.
    """
    if recipe is None and teacher is None:
        recipe = WITHOUT_TEACHER
    return _train("finetune", model, data, teacher=teacher, recipe=recipe, **settings)


def train(
    model: Model,
    data: str | Path | Images,
    *,
    recipe: Recipe | str | Path = FROM_SCRATCH,
    teacher: Teacher = None,
    **settings: Any,
) -> Trained:
    """Train a network by a recipe.

    The network itself stays untouched. On a CPU the same arguments give the same weights bit
    for bit, even if the run is killed and called again.

    Args:
        output: directory for checkpoints, ``log.csv`` and event files, which in the end is an
            artefact; a run that was begun there goes on. Without it nothing is written.
        force: remove the run or artefact that is there, and begin anew.
        epochs, steps, batch_size: in place of the recipe's.
        overrides: any other fields of :class:`~ghostify.train.recipe.Recipe`.
        test: images to measure accuracy on, in place of the data set's own test part.
        images: fields of :class:`~ghostify.data.preprocess.Preprocess` in place of the
            network's own, such as ``{"resize": 256}``.
        weights, pretrained, model_args: of a network that goes by name, as for the verbs.
        teacher_weights: a checkpoint for a teacher that goes by name.
        seed: of the order of the images, their augmentation, dropout and mixup.
        device, amp, channels_last, compile, workers, checkpoint_every, evaluate_every,
        evaluate_first, on_progress, should_stop: as for :func:`ghostify.train.loop.train`.
        on_step: called with what begins now.

    Raises:
        GhostifyError: whatever does not fit, in one sentence.
    """
    return _train("train", model, data, teacher=teacher, recipe=recipe, **settings)


def evaluate(
    model: Model,
    data: str | Path | Images,
    *,
    split: str | None = "test",
    images: Mapping[str, Any] | None = None,
    batch_size: int = 256,
    workers: int = 0,
    device: str | torch.device = "auto",
    amp: str | None = None,
    channels_last: bool | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_batch: Callable[[int, int], None] | None = None,
    on_step: Step | None = None,
    on_note: Step | None = None,
) -> Evaluation:
    """Measure accuracy and loss of a network on labelled images.

    Args:
        split: which part of the data set, where it has parts.
        images: as for :func:`train`.
        on_batch: called with the number of images done so far, and of all.
        on_note: called with each remark on the images.

    Raises:
        GhostifyError: whatever does not fit, in one sentence.
    """
    step = on_step or _ignore
    source = open_source(model, step, weights, pretrained, model_args, seed)
    step("reading images")
    found = data if isinstance(data, Images) else open_images(data, split=split)
    source = settled(source, found, images)
    preprocess = preprocess_for(source, images)
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done += number
        if on_batch is not None:
            on_batch(done, len(found))

    batches = evaluation_batches(found, preprocess, batch_size=batch_size, workers=workers)
    step("evaluating")
    measured = measure(
        source.model,
        batches,
        preprocess,
        device=device,
        amp=amp,
        channels_last=channels_last,
        on_batch=count,
    )
    notes = [*batches.notes, *source.built.notes()]
    unknown = source.path is None and isinstance(model, str | Path) and not pretrained
    if unknown and weights is None and source.built.origin.source != "factory":
        notes.append("the network has random weights; --weights or --pretrained give it others")
    for note in notes:
        (on_note or _ignore)(note)
    return measured


def _train(
    kind: str,
    model: Model,
    data: str | Path | Images,
    *,
    recipe: Recipe | str | Path | None,
    teacher: Teacher,
    teacher_weights: str | Path | None = None,
    output: str | Path | None = None,
    force: bool = False,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    test: str | Path | Images | None = None,
    images: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    amp: str | None = "auto",
    channels_last: bool | None = None,
    on_step: Step | None = None,
    **habits: Any,
) -> Trained:
    step = on_step or _ignore
    changes = {"epochs": epochs, "steps": steps, "batch_size": batch_size, **(overrides or {})}
    changes["augment"] = (images or {}).get("augment", changes.get("augment"))
    chosen = _recipe(recipe, changes)
    directory = None if output is None else Path(output)
    with joined(device) as world:
        if directory is not None and world.leads:
            _prepare(directory, model, force=force)
        world.wait()
        source = open_source(model, step, weights, pretrained, model_args, seed)
        shown = open_teacher(teacher, teacher_weights, source, step)
        step("reading images")
        pictures = data if isinstance(data, Images) else open_images(data, split="train")
        held_back = held_back_images(test, data)
        if recipe is None:
            steps = chosen.total_steps(len(pictures) // chosen.batch_size)
            chosen = _recipe(distillation(fitted=source.fitted, steps=steps), changes)
        source = settled(source, pictures, images)
        preprocess = preprocess_for(source, images)
        if chosen.augment is not None:
            preprocess = dataclasses.replace(preprocess, augment=chosen.augment)
        deciding: dict[str, Any] = {
            "test": held_back,
            "teacher": shown,
            "seed": seed,
            "device": device,
            "amp": amp,
            "channels_last": channels_last,
        }
        if directory is not None and not force and (directory / MANIFEST).is_file():
            settings = loop.settings_of(source.model, chosen, pictures, preprocess, **deciding)
            if world.leads:
                RunDirectory(directory, settings).close()
                finish(directory)
            return _finished(directory, source)
        step("training")
        outcome = loop.train(
            source.model,
            chosen,
            pictures,
            preprocess,
            directory=directory,
            unlike=source.unlike(teacher, teacher_weights),
            anew=force,
            **deciding,
            **habits,
        )
        if directory is not None and world.leads:
            step(f"writing {directory}")
            entry = _entry(kind, chosen, outcome, pictures, held_back, seed, world.size, device)
            entry["teacher"] = None if shown is None else _name_of(teacher)
            _save(source, outcome.model, directory, entry, preprocess)
            finish(directory)
        world.wait()
    return Trained(
        model=outcome.model,
        evaluation=outcome.evaluation,
        history=outcome.history,
        steps=outcome.steps,
        seconds=outcome.seconds,
        path=directory,
        notes=(
            *outcome.notes,
            *source.built.notes(),
            *(() if held_back else (_UNMEASURED,)),
        ),
    )


def _recipe(recipe: Recipe | str | Path | None, changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some settings changed; None stands for the usual distillation."""
    if not isinstance(recipe, Recipe):
        recipe = load_recipe("distil" if recipe is None else recipe)
    return recipe.changed(**changes)


def _ignore(_step: str) -> None:
    return None


def _prepare(directory: Path, model: Model, *, force: bool) -> None:
    """Make sure, before any work, that a run can be in this directory."""
    given = isinstance(model, str | Path) and Path(model).is_dir() and directory.exists()
    if given and directory.samefile(str(model)):
        raise OutputError(
            f"{directory} is the network that is to be trained; choose another directory"
        )
    if force or not (is_run(directory) or is_free(directory)):
        check_output(directory, force=force)


def _finished(directory: Path, source: Source) -> Trained:
    """Return what a run has given that was finished before."""
    manifest = parse_manifest(directory / MANIFEST)
    base = source.model if manifest.origin.source == "memory" and not manifest.plan else None
    entry = manifest.history[-1] if manifest.history else {}
    measured = entry.get("evaluation")
    return Trained(
        model=load(directory, base=base),
        evaluation=measured and Evaluation(**measured),
        history=tuple(entry.get("curve", ())),
        steps=entry.get("steps", 0),
        seconds=entry.get("seconds", 0.0),
        path=directory,
        notes=(f"this run is finished already; its result is in {directory}",),
        finished_before=True,
    )


def _save(
    source: Source,
    model: nn.Module,
    directory: Path,
    entry: Mapping[str, Any],
    preprocess: Preprocess,
) -> None:
    images = preprocess.to_json()
    if source.path is not None:
        save_trained(source.path, model, directory, entry=entry, images=images, force=True)
        return
    conversion = source.conversion
    if conversion is None:
        example = torch.zeros(1, preprocess.channels, *preprocess.size)
        conversion = converting.convert(
            source.built, plan=Plan.empty(), example=example, verify=False
        )
    history = (*conversion.history, entry)
    saved = dataclasses.replace(conversion, model=model, images=images, history=history)
    save(saved, directory, force=True)


def _entry(
    kind: str,
    recipe: Recipe,
    outcome: Outcome,
    images: Images,
    test: Images | None,
    seed: int,
    processes: int,
    device: str | torch.device,
) -> dict[str, Any]:
    """Return what the manifest says about a training: settings, figures, provenance."""
    measured = outcome.evaluation
    result = f": {measured.top1:.2f} % top-1 on {measured.images:,} images" if measured else ""
    return {
        "kind": kind,
        "what": f"{kind}: recipe {recipe.name}, {outcome.steps:,} steps of {recipe.batch_size} "
        f"images, seed {seed}{result}",
        "recipe": recipe.as_json(),
        "seed": seed,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 3),
        "evaluation": measured and measured.as_json(),
        "curve": list(outcome.history),
        "data": {"images": len(images), "digest": images.digest},
        "test": test and {"images": len(test), "digest": test.digest},
        "processes": processes,
        **provenance(choose_device(device)),
    }


def _name_of(teacher: Teacher) -> str:
    if isinstance(teacher, Built):
        return str(teacher.origin)
    return type(teacher).__qualname__ if isinstance(teacher, nn.Module) else str(teacher)
