"""What training asks of a network: logits, finite weights, batch norm that can be held."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import TrainingError

__all__ = ["check_weights", "classes_of", "logits_of", "modes_kept", "set_training"]

_BatchNorm = nn.modules.batchnorm._BatchNorm


def logits_of(output: Any) -> Tensor:
    """Return the ``(N, classes)`` logits of what a network gives, without auxiliary heads.

    Raises:
        TrainingError: there are none.
    """
    found = output
    if isinstance(found, Mapping):
        found = found.get("logits", found.get("out"))
    elif not isinstance(found, Tensor):
        found = getattr(found, "logits", found)
        if isinstance(found, tuple | list) and found:
            found = found[0]
    if not isinstance(found, Tensor) or found.dim() != 2:
        what = f"a tensor of {found.dim()} dimensions" if isinstance(found, Tensor) else "no tensor"
        raise TrainingError(
            f"only classifiers can be trained: the network gives {what}, not logits (N, classes)"
        )
    return found


def classes_of(model: nn.Module, image: Tensor, *, what: str = "the network") -> int:
    """Return how many classes a network tells apart, by running it once on ``image``.

    Raises:
        TrainingError: it does not take the image, or is no classifier.
    """
    with modes_kept(model), torch.no_grad():
        model.eval()
        try:
            output = model(image)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            line = (str(error).strip().splitlines() or [""])[0]
            raise TrainingError(
                f"{what} does not take images of {'x'.join(map(str, image.shape[1:]))} "
                f"({line[:120]}); give the size of its input"
            ) from error
    return logits_of(output).shape[1]


def check_weights(model: nn.Module, *, what: str = "the network") -> None:
    """Make sure that training starts from finite numbers.

    Raises:
        TrainingError: a tensor holds NaN or infinity, and which.
    """
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point():
            bad = int((~torch.isfinite(value)).sum())
            if bad:
                raise TrainingError(
                    f"{what} has {bad} values in {name} that are NaN or infinite, so it cannot "
                    "be trained; convert or load it again"
                )


def set_training(model: nn.Module, *, frozen_norms: bool) -> None:
    """Put a network into training mode; batch norms may stay on their running statistics."""
    model.train()
    if frozen_norms:
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                module.eval()


@contextlib.contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Give every module its mode back after the block."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
