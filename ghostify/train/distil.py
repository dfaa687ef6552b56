"""Losses of distillation: the teacher's logits, and its features stage by stage."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from ghostify.errors import TrainingError, nearest
from ghostify.train.network import modes_kept

__all__ = ["Taps", "feature_loss", "logits_loss", "stages"]

_TINY = 1e-12


def logits_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened logits ``(N, classes)``, times T squared.

    Source: Hinton et al. (2015), sec. 2; T squared keeps the size of the gradient.
    """
    told = functional.log_softmax(teacher.float() / temperature, dim=1)
    said = functional.log_softmax(student.float() / temperature, dim=1)
    return functional.kl_div(said, told, reduction="batchmean", log_target=True) * temperature**2


def feature_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Sum over stages of the squared error relative to the teacher's mean square.

    Raises:
        TrainingError: a stage was not run.
    """
    losses = []
    for name, wanted in teacher.items():
        if name not in student:
            raise TrainingError(f"{name} does not run during training; leave it out of features")
        wanted = wanted.float()
        error = functional.mse_loss(student[name].float(), wanted)
        losses.append(error / wanted.square().mean().clamp_min(_TINY))
    return torch.stack(losses).sum()


class Taps:
    """Listens to what some layers of a network give, until it is closed."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.seen: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        for name in names:
            self._handles.append(
                model.get_submodule(name).register_forward_hook(self._listener(name))
            )

    def take(self) -> dict[str, Tensor]:
        """Return what was heard since the last time, by layer."""
        seen = dict(self.seen)
        self.seen.clear()
        return seen

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self.seen.clear()

    def _listener(self, name: str) -> Any:
        def listen(_module: nn.Module, _args: Any, output: Tensor) -> None:
            self.seen[name] = output

        return listen


def stages(
    student: nn.Module,
    teacher: nn.Module,
    image: Tensor,
    wanted: Sequence[str] = (),
    *,
    unlike: Collection[str] = (),
) -> tuple[str, ...]:
    """Return the layers whose maps a teacher can show to a student.

    By default the last layer at each resolution (above 1x1) that both networks have by the
    same name and with maps of the same shape ``(N, C, H, W)``; none, if there is no such layer.

    Args:
        image: a batch to run both with.
        wanted: names to take in place of that choice.
        unlike: layers whose maps stand in another order in the student, as a fit leaves them
            inside blocks; they are not compared.

    Raises:
        TrainingError: a wanted layer is not there or differs.
    """
    ours, theirs = _shapes(student, image), _shapes(teacher, image)
    for name in wanted:
        for shapes, whose in ((ours, "student"), (theirs, "teacher")):
            if name not in shapes:
                raise TrainingError(
                    f"the {whose} has no layer {name!r} that gives a tensor"
                    + (nearest(name, shapes) or "; choose other features")
                )
        if name in unlike:
            raise TrainingError(
                f"the fit has changed the order of {name}'s maps; choose the end of a block"
            )
        if ours[name] != theirs[name]:
            raise TrainingError(
                f"{name} gives {_times(ours[name])} in the student and {_times(theirs[name])} "
                "in the teacher; choose other features"
            )
    if wanted:
        return tuple(wanted)
    last: dict[tuple[int, ...], str] = {}
    for name, shape in ours.items():
        if name in unlike:
            continue
        if len(shape) == 4 and max(shape[2:]) > 1 and theirs.get(name) == shape:
            last[shape[2:]] = name
    order = list(ours)
    return tuple(sorted(last.values(), key=order.index))


def _shapes(model: nn.Module, image: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the shape that each layer gives, in the order in which they end."""
    shapes: dict[str, tuple[int, ...]] = {}
    handles = []

    def listener(name: str) -> Any:
        def listen(_module: nn.Module, _args: Any, output: object) -> None:
            if isinstance(output, Tensor):
                shapes.pop(name, None)  # of several calls, the last counts
                shapes[name] = tuple(output.shape)

        return listen

    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_hook(listener(name)))
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
