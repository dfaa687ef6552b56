"""The order in memory in which a network's maps are quickest to compute."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["channels_last_breaks_gradients", "laid_out", "takes_channels_last"]

_BLOCK = 16  # maps that oneDNN works on at once, at most (AVX-512; 8 with AVX2)


def laid_out(images: Sequence[Tensor], model: nn.Module, *, trained: nn.Module) -> list[Tensor]:
    """Return batches ``(N, C, H, W)`` in the layout in which a network runs fastest.

    On processors that is channels_last, which the maps then keep throughout; on other devices,
    and where the network's code does not allow for it, the layout that they have.

    Args:
        trained: a like network that is to have gradients, too.
    """
    batches = list(images)
    some = batches[0][:2]
    if (
        any(batch.device.type != "cpu" for batch in batches)
        or not takes_channels_last(model, some)
        or channels_last_breaks_gradients(trained, some)
    ):
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


def channels_last_breaks_gradients(model: nn.Module, example: Tensor) -> bool:
    """Return whether a backward pass in channels_last on a processor may write past its memory.

    oneDNN does so for the weights of 1x1 convolutions with a stride that read fewer maps than it
    takes at once, and then crashes, hangs or gives wrong gradients (its issue 6035). The usual
    layout is safe.
    """
    seen = _Convolutions()
    with torch.no_grad(), seen, contextlib.suppress(Exception):
        model(example.clone())
    return seen.endangered


class _Convolutions(TorchDispatchMode):
    """Looks at every convolution that is run, however it is called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.endangered = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.convolution.default:
            weight, stride = args[1], args[3]
            reads, kernel = weight.shape[1], weight.shape[2:]
            if reads < _BLOCK and set(kernel) == {1} and max(stride) > 1:
                self.endangered = True
        return func(*args, **(kwargs or {}))
