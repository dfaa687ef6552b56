"""The order in memory in which a network's maps are quickest to compute."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["laid_out", "takes_channels_last"]


def laid_out(model: nn.Module, images: Sequence[Tensor]) -> list[Tensor]:
    """Return batches ``(N, C, H, W)`` in the layout in which the network runs fastest.

    On processors that is channels_last, which the maps then keep throughout; on other devices,
    and where the network's code does not allow for it, the layout that they have.
    """
    batches = list(images)
    on_cpu = all(batch.device.type == "cpu" for batch in batches)
    if not on_cpu or not takes_channels_last(model, batches[0][:2]):
        return batches
    return [batch.contiguous(memory_format=torch.channels_last) for batch in batches]


def takes_channels_last(model: nn.Module, example: Tensor) -> bool:
    """Return whether a network, as it is, gives the same for images in channels_last.

    Not so where its code views maps as something of another shape.
    """
    try:
        with torch.no_grad():
            expected = model(example.clone())
            found = model(example.clone().contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    except Exception:  # whatever a network's code may raise
        return False
    return True
