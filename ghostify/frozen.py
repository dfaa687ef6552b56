"""``ghostify.optimize``: a frozen copy of a network that is fast on one runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostify import passes
from ghostify.errors import InputError
from ghostify.graph.probe import check_model, copy_model, sentence
from ghostify.graph.rewrite import Conversion
from ghostify.models import zoo
from ghostify.opening import open_model
from ghostify.spec import Origin

__all__ = ["optimize"]


def optimize(
    model: nn.Module | str | Path | Conversion,
    *,
    runtime: str = "torch",
    example: Tensor | tuple[Tensor, ...] | None = None,
    input_size: tuple[int, ...] | None = None,
) -> nn.Module:
    """Return an inference-only copy of a network with equal outputs, made for one runtime.

    Batch norms are folded, and the maps of Ghost modules stay in parts until an operation
    mixes their channels. Dense networks gain too. The caller's model is untouched. A network
    that cannot be rewritten comes back as a copy in eval mode, and the list
    ``ghostify_notes`` of the result says why; otherwise it is empty.

    Args:
        model: any ``nn.Module``, a conversion, a name, or the directory of an artefact.
        runtime: where it will run: a name of ``ghostify latency --runtime``.
        example: the arguments of a forward pass. Not needed for networks that carry their
            input size.
        input_size: ``(H, W)`` or ``(C, H, W)`` of the images, in place of ``example``.

    Raises:
        GhostifyError: no such model or runtime, or the network does not take the example.
    """
    passes.check_runtime(runtime)
    network, inputs = _given(model, example, input_size)
    try:
        with torch.no_grad():
            copy_model(network, hooks=False).eval()(*(one.clone() for one in inputs))
    except Exception as error:
        shapes = ", ".join("x".join(map(str, one.shape)) for one in inputs)
        raise InputError(
            f"{type(network).__name__} does not take an input of {shapes} ({sentence(error)}); "
            "give another example or input_size"
        ) from error
    return passes.optimize(network, inputs, runtime=runtime)


def _given(
    model: nn.Module | str | Path | Conversion,
    example: Tensor | tuple[Tensor, ...] | None,
    input_size: tuple[int, ...] | None,
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    if isinstance(model, Conversion):
        model = model.model
    if isinstance(model, str | Path):
        built = open_model(str(model))
    else:
        network = check_model(model)
        name = f"{type(network).__module__}.{type(network).__qualname__}"
        built = zoo.Built(network, Origin("memory", name), zoo.input_size_of(network))
    given: Any = zoo.example_input(built, input_size) if example is None else example
    inputs = (given,) if isinstance(given, Tensor) else tuple(given)
    strange = [type(one).__name__ for one in inputs if not isinstance(one, Tensor)]
    if strange or not inputs:
        raise InputError(
            "a network can be optimised if its arguments are tensors (got "
            f"{'a ' + strange[0] if strange else 'none'}); optimise its backbone"
        )
    if example is not None:
        return built.model, inputs
    weight = next((one for one in built.model.parameters() if one.is_floating_point()), None)
    return built.model, inputs if weight is None else tuple(one.to(weight) for one in inputs)
