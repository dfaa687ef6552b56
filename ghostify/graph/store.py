"""Keep a stream of activations, in memory up to a limit and in an unlinked file beyond it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ghostify.errors import OutputError

__all__ = ["Store"]


class Store:
    """Lends tensors room: at most ``limit_bytes`` in memory, the rest in a temporary directory.

    A file is removed as soon as it is mapped, so nothing is left behind however the run ends.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.peak_bytes = 0
        self._held = 0
        self._sizes: dict[int, int] = {}  # of the tensors in memory

    def keep(self, value: Any) -> Any:
        """Return ``value`` with every tensor where there is room for it."""
        return tree_map_only(Tensor, self._keep, value)

    def release(self, value: Any) -> None:
        """Give back the room of what :meth:`keep` returned."""
        tree_map_only(Tensor, self._release, value)

    def _keep(self, tensor: Tensor) -> Tensor:
        size = tensor.numel() * tensor.element_size()
        if self._held + size > self.limit_bytes and size and tensor.device.type == "cpu":
            return self._spilled(tensor, size)
        self._held += size
        self.peak_bytes = max(self.peak_bytes, self._held)
        self._sizes[id(tensor)] = size
        return tensor

    def _spilled(self, tensor: Tensor, size: int) -> Tensor:
        with tempfile.NamedTemporaryFile(prefix="ghostify-", delete=False) as file:
            try:
                _reserve(file.fileno(), size)
                mapped = torch.from_file(
                    file.name, shared=True, size=tensor.numel(), dtype=tensor.dtype
                )
            finally:
                Path(file.name).unlink()
        # with the strides of a copy in memory, by which convolutions choose their arithmetic
        strides = torch.empty_like(tensor, device="meta").stride()
        return mapped.as_strided(tensor.shape, strides).copy_(tensor)

    def _release(self, tensor: Tensor) -> Tensor:
        self._held -= self._sizes.pop(id(tensor), 0)
        return tensor


def _reserve(file: int, size: int) -> None:
    """Take the room on the disk now: to write to a mapped file without any ends the process.

    Raises:
        OutputError: there is no such room.
    """
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            os.truncate(file, size)
    except OSError as error:
        raise OutputError(
            f"no room for {size} bytes of activations in {tempfile.gettempdir()} "
            f"({error.strerror}); set TMPDIR to a larger disk, or take fewer images"
        ) from error
