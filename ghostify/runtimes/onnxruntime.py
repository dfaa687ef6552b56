"""ONNX Runtime on the CPU, from an ONNX file that is written for the purpose."""

from __future__ import annotations

import json
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

__all__ = ["OnnxRuntime"]

_ERRORS_ONLY = 3


class OnnxRuntime:
    """ONNX Runtime's CPU provider, with all of its graph optimisations."""

    name = "onnxruntime"
    write = staticmethod(write_onnx)  # another writer may be set, as for quick drafts

    def missing(self) -> str | None:
        return missing("onnx", "onnxscript", "onnxruntime", extra="onnx")

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def device(self) -> str:
        return "cpu"

    def prepare(self, model: nn.Module, example: Sequence[Tensor], *, threads: int) -> Session:
        """Write the network as ONNX to a temporary file and load that."""
        check_threads(threads)
        inputs = tuple(one.cpu() for one in check_inputs(example))
        with tempfile.TemporaryDirectory(prefix="ghostify-") as folder:
            file = Path(folder) / "model.onnx"
            self._write(model, inputs, file)
            return _Session(_load(file, threads), inputs)

    def profile(
        self, model: nn.Module, example: Sequence[Tensor], *, threads: int, runs: int
    ) -> tuple[NodeTime, ...]:
        """Let ONNX Runtime's own profiler time each node."""
        check_threads(threads)
        inputs = tuple(one.cpu() for one in check_inputs(example))
        with tempfile.TemporaryDirectory(prefix="ghostify-") as folder:
            file = Path(folder) / "model.onnx"
            self._write(model, inputs, file)
            session = _load(file, threads, profile=Path(folder) / "profile")
            feed = _feed(session, inputs)
            for _ in range(runs):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            return _times(events, read_nodes(file))

    def _write(self, model: nn.Module, inputs: tuple[Tensor, ...], file: Path) -> None:
        try:
            self.write(inference_copy(model).cpu(), inputs, file)
        except ExportError as error:
            raise RuntimeFailedError(f"{self.name} cannot take the network: {error}") from error


class _Session:
    """A loaded network, and the example as arrays."""

    def __init__(self, session: Any, example: tuple[Tensor, ...]) -> None:
        self._session: Any = session
        self._feed = _feed(session, example)
        self._run(self._feed)

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        check_open(self._session, OnnxRuntime.name)
        outputs = self._run(_feed(self._session, inputs))
        return tuple(torch.from_numpy(output.copy()) for output in outputs)

    def time(self, repeats: int) -> float:
        check_open(self._session, OnnxRuntime.name)
        run, feed = self._session.run, self._feed
        began = time.perf_counter()
        for _ in range(repeats):
            run(None, feed)
        return time.perf_counter() - began

    def close(self) -> None:
        self._session = None

    def _run(self, feed: dict[str, Any]) -> list[Any]:
        try:
            outputs: list[Any] = self._session.run(None, feed)
        except Exception as error:
            raise RuntimeFailedError(
                f"{OnnxRuntime.name} cannot run the network ({sentence(error)})"
            ) from error
        return outputs


def _load(file: Path, threads: int, *, profile: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    # idle threads of one session must not take the cores from the next one
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise RuntimeFailedError(
            f"{OnnxRuntime.name} cannot take the network ({sentence(error)})"
        ) from error


def _feed(session: Any, inputs: Sequence[Tensor]) -> dict[str, Any]:
    names = [one.name for one in session.get_inputs()]
    arrays = [one.detach().cpu().contiguous().numpy() for one in inputs]
    return dict(zip(names, arrays, strict=True))


def _times(events: list[dict[str, Any]], nodes: NodeMap) -> tuple[NodeTime, ...]:
    """Return the median time of each node over the runs; the first run is left out."""
    spent: dict[str, list[float]] = {}
    operators: dict[str, str] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        name = event["name"].removesuffix("_kernel_time")
        spent.setdefault(name, []).append(event["dur"] / 1e3)
        operators[name] = event["args"].get("op_name", "")
    found = []
    for name, times in spent.items():
        middle = statistics.median(times[1:] or times)
        found.append(NodeTime(name, operators[name], nodes.layer(name, operators[name]), middle))
    return tuple(found)
