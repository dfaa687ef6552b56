"""torch itself, operation by operation, in either memory layout."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from ghostify.errors import RuntimeFailedError
from ghostify.graph.probe import sentence
from ghostify.runtimes.base import (
    NodeTime,
    Session,
    as_outputs,
    check_inputs,
    check_open,
    check_threads,
    inference_copy,
    is_packed,
    pinned_threads,
)
from ghostify.runtimes.hooks import time_modules

__all__ = ["ChannelsLast", "Eager", "EagerSession"]


class Eager:
    """Eager torch on the CPU, maps stored channel by channel (NCHW)."""

    name = "torch"
    layout = torch.contiguous_format

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return str(torch.__version__)

    def device(self) -> str:
        return "cpu"

    def prepare(self, model: nn.Module, example: Sequence[Tensor], *, threads: int) -> Session:
        """Copy the network, in this layout."""
        ready, inputs = self._ready(model, example)
        return EagerSession(self.name, ready, inputs, self._lay, check_threads(threads))

    def profile(
        self, model: nn.Module, example: Sequence[Tensor], *, threads: int, runs: int
    ) -> tuple[NodeTime, ...]:
        """Time each module that has no modules below, and what is left between them."""
        ready, inputs = self._ready(model, example)
        with pinned_threads(check_threads(threads)), torch.inference_mode():
            return time_modules(ready, inputs, runs)

    def _ready(
        self, model: nn.Module, example: Sequence[Tensor]
    ) -> tuple[nn.Module, tuple[Tensor, ...]]:
        inputs = tuple(self._lay(one.cpu()) for one in check_inputs(example))
        ready = inference_copy(model)
        if is_packed(ready):
            return ready, inputs
        ready = ready.cpu()
        for tensor in (*ready.parameters(), *ready.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.data.to(memory_format=self.layout)
        return ready, inputs

    def _lay(self, tensor: Tensor) -> Tensor:
        return tensor.to(memory_format=self.layout) if tensor.dim() == 4 else tensor


class ChannelsLast(Eager):
    """Eager torch on the CPU, maps stored pixel by pixel (NHWC)."""

    name = "torch-channels-last"
    layout = torch.channels_last


class EagerSession:
    """A copy of a network and an example for it."""

    def __init__(
        self,
        name: str,
        call: Callable[..., object],
        example: tuple[Tensor, ...],
        lay: Callable[[Tensor], Tensor],
        threads: int,
        *,
        no_grad: Callable[[], AbstractContextManager[object]] = torch.inference_mode,
    ) -> None:
        self._name = name
        self._call: Callable[..., object] | None = call
        self._example = example
        self._lay = lay
        self._threads = threads
        self._no_grad = no_grad
        self._once(*example)

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return as_outputs(self._once(*(self._lay(one) for one in inputs)))

    def time(self, repeats: int) -> float:
        check_open(self._call, self._name)
        call, example = self._call, self._example
        assert call is not None
        with pinned_threads(self._threads), self._no_grad():
            began = time.perf_counter()
            for _ in range(repeats):
                call(*example)
            return time.perf_counter() - began

    def close(self) -> None:
        self._call = None

    def _once(self, *inputs: Tensor) -> object:
        check_open(self._call, self._name)
        assert self._call is not None
        try:
            with pinned_threads(self._threads), self._no_grad():
                return self._call(*inputs)
        except Exception as error:
            raise RuntimeFailedError(
                f"{self._name} cannot run the network ({sentence(error)})"
            ) from error
