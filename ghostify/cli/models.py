"""Build the network that a command asks for."""

from __future__ import annotations

from ghostify.cli import interrupt
from ghostify.cli.options import Request
from ghostify.models.weights import load_weights
from ghostify.models.zoo import Built
from ghostify.opening import Step, open_model

__all__ = ["open_requested"]


def open_requested(request: Request, step: Step) -> Built:
    """Build the network by name, with its arguments and weights.

    Raises:
        GhostifyError: no such model, or weights that do not fit.
    """
    step(f"building {request.model}")
    with interrupt.deferred():  # it imports torchvision or timm
        built = open_model(
            request.model,
            args=request.model_args,
            pretrained=request.pretrained,
            seed=request.seed,
        )
    if request.weights is not None:
        load_weights(built.model, request.weights, name=request.model)
    return built
