"""A GPU of NVIDIA, by torch: operation by operation, or as one recorded graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
)

__all__ = ["Cuda", "CudaGraphs"]

_WARM_RUNS = 3  # before a graph is recorded: libraries choose their kernels in the first


class Cuda:
    """Eager torch on the GPU, maps stored pixel by pixel; timed by events.

    Numbers are those of the network, under torch's own settings: where these allow it, as
    they do by default, convolutions in float32 round their factors to TF32.
    """

    name = "cuda"
    recorded = False

    def missing(self) -> str | None:
        if torch.cuda.is_available():
            return None
        build = "" if torch.version.cuda else ", and this torch is built without CUDA"
        return (
            f"{self.name} needs a GPU of NVIDIA, and torch sees none{build}; choose another runtime"
        )

    def version(self) -> str:
        return f"{torch.__version__}, CUDA {torch.version.cuda}"

    def device(self) -> str:
        return str(torch.cuda.get_device_name())

    def prepare(self, model: nn.Module, example: Sequence[Tensor], *, threads: int) -> Session:
        """Copy the network to the GPU; ``threads`` has no meaning there."""
        check_threads(threads)
        try:
            ready, inputs = self._ready(model, example)
            return _Session(self.name, ready, inputs, recorded=self.recorded)
        except RuntimeError as error:
            if isinstance(error, RuntimeFailedError):
                raise
            raise RuntimeFailedError(
                f"{self.name} cannot take the network ({sentence(error)})"
            ) from error

    def profile(
        self, model: nn.Module, example: Sequence[Tensor], *, threads: int, runs: int
    ) -> tuple[NodeTime, ...]:
        """Time each module by events; what happens between modules is not seen."""
        check_threads(threads)
        try:
            return self._watched(model, example, runs)
        except torch.cuda.OutOfMemoryError as error:
            raise RuntimeFailedError(
                f"{self.name} cannot take the network ({sentence(error)})"
            ) from error

    def _watched(
        self, model: nn.Module, example: Sequence[Tensor], runs: int
    ) -> tuple[NodeTime, ...]:
        ready, inputs = self._ready(model, example)
        marks: list[tuple[str, str, torch.cuda.Event, torch.cuda.Event]] = []
        for name, module in ready.named_modules():
            if name and not any(True for _ in module.children()):
                _watch(name, module, marks)
        spent: dict[str, float] = {}
        kinds: dict[str, str] = {}
        for run in range(runs + 1):
            marks.clear()
            with torch.inference_mode():
                ready(*inputs)
            torch.cuda.synchronize()
            for name, kind, before, after in marks if run else ():
                spent[name] = spent.get(name, 0.0) + before.elapsed_time(after)
                kinds[name] = kind
        return tuple(NodeTime(name, kinds[name], name, ms / runs) for name, ms in spent.items())

    def _ready(
        self, model: nn.Module, example: Sequence[Tensor]
    ) -> tuple[nn.Module, tuple[Tensor, ...]]:
        ready = inference_copy(model).cuda()
        for tensor in (*ready.parameters(), *ready.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.data.to(memory_format=torch.channels_last)
        return ready, tuple(_lay(one) for one in check_inputs(example))


class CudaGraphs(Cuda):
    """The same kernels, recorded once and replayed without Python in between."""

    name = "cuda-graphs"
    recorded = True


class _Session:
    """A network on the GPU, and the example there."""

    def __init__(
        self, name: str, model: nn.Module, example: tuple[Tensor, ...], *, recorded: bool
    ) -> None:
        self._name = name
        self._model: nn.Module | None = model
        self._example = example
        with torch.inference_mode():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_RUNS):
                    model(*example)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph() if recorded else None
            self._output: object = None
            if self._graph is not None:
                with torch.cuda.graph(self._graph):
                    self._output = model(*example)
        torch.cuda.synchronize()

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        check_open(self._model, self._name)
        assert self._model is not None
        placed = tuple(_lay(one) for one in inputs)
        with torch.inference_mode():
            if self._graph is None:
                return as_outputs(self._model(*placed))
            before = [one.clone() for one in self._example]
            for buffer, one in zip(self._example, placed, strict=True):
                buffer.copy_(one)
            self._graph.replay()
            outputs = as_outputs(self._output)
            for buffer, one in zip(self._example, before, strict=True):
                buffer.copy_(one)
        return outputs

    def time(self, repeats: int) -> float:
        check_open(self._model, self._name)
        once = self._once()
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.inference_mode():
            torch.cuda.synchronize()
            before.record()
            for _ in range(repeats):
                once()
            after.record()
            torch.cuda.synchronize()
        return float(before.elapsed_time(after)) / 1e3

    def close(self) -> None:
        self._model = self._graph = self._output = None

    def _once(self) -> Callable[[], object]:
        model, example, graph = self._model, self._example, self._graph
        assert model is not None
        return graph.replay if graph is not None else lambda: model(*example)


def _lay(tensor: Tensor) -> Tensor:
    placed = tensor.cuda()
    return placed.to(memory_format=torch.channels_last) if placed.dim() == 4 else placed


def _watch(
    name: str,
    module: nn.Module,
    marks: list[tuple[str, str, torch.cuda.Event, torch.cuda.Event]],
) -> None:
    began: list[torch.cuda.Event] = []

    def before(_module: nn.Module, _args: object) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        began.append(event)

    def after(module: nn.Module, _args: object, _output: object) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        marks.append((name, type(module).__name__, began.pop(), event))

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)
