"""OpenVINO on the CPU, in float32, from an ONNX file that is written for the purpose."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import ExportError, RuntimeFailedError
from ghostify.exporting.onnx import write_onnx
from ghostify.exporting.packages import missing
from ghostify.graph.probe import sentence
from ghostify.runtimes.base import (
    NodeTime,
    Session,
    check_inputs,
    check_open,
    check_threads,
    inference_copy,
)
from ghostify.runtimes.nodes import NodeMap, read_nodes

__all__ = ["OpenVino"]


class OpenVino:
    """OpenVINO's CPU plug-in, one request at a time.

    By itself it computes in bfloat16 where the processor can, which is another network;
    here it is told not to.
    """

    name = "openvino"
    write = staticmethod(write_onnx)  # another writer may be set, as for quick drafts

    def missing(self) -> str | None:
        return missing("onnx", "onnxscript", "openvino", extra="openvino")

    def version(self) -> str:
        import openvino

        return str(openvino.__version__).partition("-")[0]

    def device(self) -> str:
        return "cpu"

    def prepare(self, model: nn.Module, example: Sequence[Tensor], *, threads: int) -> Session:
        """Write the network as ONNX to a temporary file and compile that."""
        compiled, inputs, _ = self._compile(model, example, threads)
        return _Session(compiled, inputs)

    def profile(
        self, model: nn.Module, example: Sequence[Tensor], *, threads: int, runs: int
    ) -> tuple[NodeTime, ...]:
        """Let OpenVINO's own counters time each node."""
        compiled, inputs, nodes = self._compile(model, example, threads, profile=True)
        assert nodes is not None
        request = compiled.create_infer_request()
        feed = _arrays(inputs)
        spent: dict[str, list[float]] = {}
        operators: dict[str, str] = {}
        for _ in range(runs):
            request.infer(feed, share_inputs=True)
            for info in request.profiling_info:
                if info.status == info.Status.EXECUTED:
                    ms = info.real_time.total_seconds() * 1e3
                    spent.setdefault(info.node_name, []).append(ms)
                    operators[info.node_name] = info.node_type
        found = []
        for name, times in spent.items():
            middle = statistics.median(times[1:] or times)
            found.append(
                NodeTime(name, operators[name], nodes.layer(name, operators[name]), middle)
            )
        return tuple(found)

    def _compile(
        self,
        model: nn.Module,
        example: Sequence[Tensor],
        threads: int,
        *,
        profile: bool = False,
    ) -> tuple[Any, tuple[Tensor, ...], NodeMap | None]:
        import openvino

        check_threads(threads)
        inputs = tuple(one.cpu() for one in check_inputs(example))
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "PERF_COUNT": profile,
        }
        with tempfile.TemporaryDirectory(prefix="ghostify-") as folder:
            file = Path(folder) / "model.onnx"
            try:
                self.write(inference_copy(model).cpu(), inputs, file)
                core = openvino.Core()
                compiled = core.compile_model(core.read_model(str(file)), "CPU", settings)
            except ExportError as error:
                raise RuntimeFailedError(f"{self.name} cannot take the network: {error}") from error
            except RuntimeError as error:
                raise RuntimeFailedError(
                    f"{self.name} cannot take the network ({sentence(error)})"
                ) from error
            return compiled, inputs, read_nodes(file) if profile else None


class _Session:
    """A compiled network with one request, and the example as arrays."""

    def __init__(self, compiled: Any, example: tuple[Tensor, ...]) -> None:
        self._request: Any = compiled.create_infer_request()
        self._outputs = len(compiled.outputs)
        self._example = _arrays(example)
        self._run(self._example)

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        check_open(self._request, OpenVino.name)
        self._run(_arrays(inputs))
        return tuple(
            torch.from_numpy(self._request.get_output_tensor(number).data.copy())
            for number in range(self._outputs)
        )

    def time(self, repeats: int) -> float:
        check_open(self._request, OpenVino.name)
        infer, example = self._request.infer, self._example
        began = time.perf_counter()
        for _ in range(repeats):
            infer(example, share_inputs=True, share_outputs=True)
        return time.perf_counter() - began

    def close(self) -> None:
        self._request = None

    def _run(self, arrays: list[Any]) -> None:
        try:
            self._request.infer(arrays, share_inputs=True)
        except Exception as error:
            raise RuntimeFailedError(
                f"{OpenVino.name} cannot run the network ({sentence(error)})"
            ) from error


def _arrays(inputs: Sequence[Tensor]) -> list[Any]:
    return [one.detach().cpu().contiguous().numpy() for one in inputs]
