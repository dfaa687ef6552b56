"""What labelled images tell about a network's weights: gradients, and sparse training."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.errors import PruneError
from ghostify.graph.probe import sentence
from ghostify.pruners.groups import Graph
from ghostify.pruners.methods import is_batch_norm

__all__ = ["Images", "curvature", "effects", "learn_sparsity"]

Images = Iterable[tuple[Tensor, Tensor]]
"""Batches of images ``(N, C, H, W)``, normalised as the network wants them, and labels ``(N,)``."""

_STEPS = 391  # of sparse training: one epoch of CIFAR-10 in batches of 128
_RATE = 0.01
_SPARSE = 5e-4  # coefficient of the group penalty
_GROWTH = 1e-5  # by which the coefficient of the least maps grows
_EVERY = 10  # steps between growths
_CURVATURE_IMAGES = 256
_NO_IMAGES = "there are no labelled images to rank the maps by; give some"

OnStep = Callable[[int, int], None]


def effects(
    model: nn.Module, images: Images | None, importance: Any, *, on_step: OnStep | None = None
) -> None:
    """Sum the squared first-order effect of removing each map on the loss, batch by batch.

    Raises:
        PruneError: images or labels that the network does not take.
    """
    batches = _listed(images)
    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) or is_batch_norm(module)
    ]
    found = {layer: torch.zeros(len(_weight(layer)), dtype=torch.float64) for layer in layers}
    with torch.enable_grad():
        for done, (inputs, labels) in enumerate(batches):
            model.zero_grad(set_to_none=True)
            _loss(model, inputs, labels).backward()
            for layer, sums in found.items():
                change = torch.zeros_like(sums)
                for value in (_weight(layer), layer._parameters.get("bias")):
                    if value is not None and value.grad is not None:
                        product = (value.detach() * value.grad).double()
                        change += product.view(len(sums), -1).sum(1).cpu()
                sums += change.square()
            if on_step is not None:
                on_step(done + 1, len(batches))
    importance.effects = found


def curvature(
    model: nn.Module, images: Images | None, importance: Any, *, on_step: OnStep | None = None
) -> None:
    """Let torch-pruning sum the squared gradients of single images, up to 256 of them.

    Raises:
        PruneError: images or labels that the network does not take.
    """
    batches = _listed(images)
    single = [
        (inputs[number : number + 1], labels[number : number + 1])
        for inputs, labels in batches
        for number in range(len(labels))
    ][:_CURVATURE_IMAGES]
    importance.zero_grad()
    squares = {one: torch.zeros_like(one) for one in model.parameters() if one.requires_grad}
    with torch.enable_grad():
        for done, (inputs, labels) in enumerate(single):
            model.zero_grad(set_to_none=True)
            _loss(model, inputs, labels).backward()
            for one, square in squares.items():
                if one.grad is not None:
                    square += one.grad.square()
            if on_step is not None:
                on_step(done + 1, len(single))
    for one, square in squares.items():  # where torch-pruning looks for them
        one.grad = square / len(single)


def learn_sparsity(
    graph: Graph,
    images: Images | None,
    *,
    kind: str,
    steps: int | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> None:
    """Train ``graph.model``, in place, with a penalty on what goes with each map.

    Plain SGD with momentum; batches are taken in their order, again and again. The penalties
    are torch-pruning's: ``"group-sparse"`` (DepGraph) and ``"growing-reg"``.

    Raises:
        PruneError: images or labels that the network does not take, or losses not finite.
    """
    import torch_pruning

    steps = _STEPS if steps is None else steps
    model = graph.model
    roots = {writer for group in graph.groups for writer in group.writers}
    others = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name not in roots
    ]
    settings: dict[str, Any] = {
        "importance": torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer=None),
        "ignored_layers": others,
        "global_pruning": True,
    }
    with warnings.catch_warnings(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        stream = _endless(images)
        inputs = next(_endless(images))[0][:1]
        if kind == "group-sparse":
            pruner = torch_pruning.pruner.GroupNormPruner(model, inputs, reg=_SPARSE, **settings)
        else:
            pruner = torch_pruning.pruner.GrowingRegPruner(
                model, inputs, reg=_GROWTH, delta_reg=_GROWTH, **settings
            )
        optimiser = torch.optim.SGD(model.parameters(), lr=_RATE, momentum=0.9)
        model.train()
        for step, (inputs, labels) in enumerate(itertools.islice(stream, steps)):
            optimiser.zero_grad(set_to_none=True)
            loss = _loss(model, inputs, labels)
            if not loss.isfinite():
                raise PruneError(f"the loss of the sparse training is not finite at step {step}")
            loss.backward()
            if kind == "growing-reg" and step % _EVERY == 0:
                pruner.update_reg()
            pruner.regularize(model)
            optimiser.step()
            if on_step is not None:
                on_step(step + 1, steps)
        model.eval()


def _endless(images: Images | None) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        empty = True
        for inputs, labels in images or ():
            if len(labels):
                empty = False
                yield inputs, labels
        if empty:
            raise PruneError(_NO_IMAGES)


def _listed(images: Images | None) -> list[tuple[Tensor, Tensor]]:
    batches = list(images or ())
    if not batches or not any(len(labels) for _, labels in batches):
        raise PruneError(_NO_IMAGES)
    return batches


def _loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    like = next(model.parameters())
    try:
        return functional.cross_entropy(model(inputs.to(like)), labels.to(like.device))
    except Exception as error:
        shape = "x".join(map(str, inputs.shape[1:]))
        raise PruneError(
            f"the network does not take images of {shape} with these labels ({sentence(error)}); "
            "choose a set that suits it"
        ) from error


def _weight(layer: nn.Module) -> Tensor:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight
