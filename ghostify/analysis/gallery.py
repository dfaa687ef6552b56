"""The maps that layers of a network make of one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ghostify.errors import InputError

__all__ = ["maps_of"]


def maps_of(
    model: nn.Module, layers: Mapping[str, str], image: Tensor
) -> dict[str, npt.NDArray[np.float32]]:
    """Run a network, which is in eval mode, on an image and return what layers give.

    Args:
        layers: the names of the modules, by what they are called in the answer.
        image: ``(C, H, W)``, normalised.

    Returns:
        ``(n, H, W)`` for each layer, of its first call.

    Raises:
        InputError: a layer does not run, or gives no maps.
    """
    seen: dict[str, Tensor] = {}

    def watch(key: str) -> Any:
        def take(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                seen.setdefault(key, output[0].detach().float().cpu().clone())

        return take

    handles = [
        model.get_submodule(name).register_forward_hook(watch(key)) for key, name in layers.items()
    ]
    try:
        with torch.no_grad():
            model(image[None])
    finally:
        for handle in handles:
            handle.remove()
    for key, name in layers.items():
        if key not in seen:
            raise InputError(f"{name} gives no maps (C, H, W) on this image; choose another layer")
    return {key: maps.numpy() for key, maps in seen.items()}
