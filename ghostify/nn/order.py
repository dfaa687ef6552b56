"""Maps in another order, in the memory format that they have."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["in_order"]


def in_order(maps: Tensor, order: Tensor) -> Tensor:
    """Return map ``order[k]`` of each image as map k: ``maps.index_select(-3, order)``.

    That gives the usual layout whatever it was given, and all that comes next converts it back.
    Here maps in channels_last ``(N, C, H, W)`` stay so, except where torch traces or transforms.
    """
    if _is_channels_last(maps):
        images, _, height, width = maps.shape
        rows = maps.permute(0, 2, 3, 1).flatten(0, 2)  # a view
        picked = rows.index_select(1, order).view(images, height, width, len(order))
        return picked.permute(0, 3, 1, 2)
    return maps.index_select(-3, order)


def _is_channels_last(maps: Tensor) -> bool:
    if torch.compiler.is_compiling() or torch._C._is_tracing() or type(maps) is not Tensor:
        return False
    if torch._C._are_functorch_transforms_active() or maps.dim() != 4:
        return False
    return maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
