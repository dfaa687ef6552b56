"""Runtimes in an environment of their own: a process there keeps the network and runs it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy
import torch
from torch import Tensor, nn

from ghostify.errors import ExportError, RuntimeFailedError
from ghostify.exporting.executorch import ExecuTorch as ExecuTorchFormat
from ghostify.exporting.foreign import Foreign, ForeignFormat
from ghostify.exporting.litert import LiteRt as LiteRtFormat
from ghostify.runtimes.base import (
    Session,
    check_inputs,
    check_open,
    check_threads,
    inference_copy,
)

__all__ = ["ExecuTorch", "LiteRt"]

_WORKER = Path(__file__).parent / "workers" / "serve.py"


class _ForeignRuntime:
    """A runtime that runs what one of the foreign formats writes."""

    package: str  # whose version counts
    format: ForeignFormat

    @property
    def name(self) -> str:
        return self.format.name

    def missing(self) -> str | None:
        return self.format.missing()

    def version(self) -> str:
        return self.format.versions().get(self.package, "unknown")

    def device(self) -> str:
        return "cpu"

    def prepare(self, model: nn.Module, example: Sequence[Tensor], *, threads: int) -> Session:
        """Write the network in the runtime's format, and let its process load that."""
        check_threads(threads)
        inputs = tuple(one.cpu() for one in check_inputs(example))
        folder = tempfile.TemporaryDirectory(prefix="ghostify-")
        try:
            file = Path(folder.name) / f"model{self.format.suffix}"
            try:
                self.format.write(inference_copy(model).cpu(), inputs, file)
            except ExportError as error:
                raise RuntimeFailedError(f"{self.name} cannot take the network: {error}") from error
            return _Session(self.name, self.format.place, file, inputs, threads, folder)
        except BaseException:
            folder.cleanup()
            raise


class LiteRt(_ForeignRuntime):
    """LiteRT (TensorFlow Lite as it was called) on the CPU, with XNNPACK."""

    package = "ai-edge-litert"
    format = LiteRtFormat()


class ExecuTorch(_ForeignRuntime):
    """ExecuTorch on the CPU, with XNNPACK."""

    package = "executorch"
    format = ExecuTorchFormat()


class _Session:
    """A process that has loaded a file, and the folder that both sides write to."""

    def __init__(
        self,
        name: str,
        place: Foreign,
        file: Path,
        example: tuple[Tensor, ...],
        threads: int,
        folder: tempfile.TemporaryDirectory[str],
    ) -> None:
        self._name = name
        self._folder = folder
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        process = _start(place, self._log, folder.name)
        self._process: subprocess.Popen[str] | None = process
        self._stop = weakref.finalize(self, _stop, process, self._log, folder)
        try:
            self._ask(
                do="load",
                kind=name,
                file=str(file),
                threads=threads,
                inputs=self._save(example),
            )
        except BaseException:
            self.close()
            raise

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        check_open(self._process, self._name)
        names = self._save(inputs)
        answer = self._ask(do="run", inputs=names, folder=self._folder.name)
        return tuple(
            torch.from_numpy(numpy.load(name, allow_pickle=False)) for name in answer["outputs"]
        )

    def time(self, repeats: int) -> float:
        check_open(self._process, self._name)
        return float(self._ask(do="time", repeats=repeats)["seconds"])

    def close(self) -> None:
        self._process = None
        self._stop()

    def _save(self, inputs: Sequence[Tensor]) -> list[str]:
        names = [str(Path(self._folder.name) / f"in{number}.npy") for number in range(len(inputs))]
        for name, tensor in zip(names, inputs, strict=True):
            numpy.save(name, tensor.detach().cpu().contiguous().numpy(), allow_pickle=False)
        return names

    def _ask(self, **request: Any) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise RuntimeFailedError(
                f"the process of {self._name} has ended ({self._last_words(process)}); "
                "measure a smaller network or batch"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            why = (answer["error"].strip().splitlines() or ["no reason given"])[0][:300]
            raise RuntimeFailedError(f"{self._name} cannot run the network ({why.rstrip('.')})")
        return answer

    def _last_words(self, process: subprocess.Popen[str]) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"exit code {process.returncode}" + (f": {lines[-1][:200]}" if lines else "")


def _start(place: Foreign, log: IO[bytes], folder: str) -> subprocess.Popen[str]:
    interpreter = place.interpreter()
    assert interpreter is not None
    environment = dict(os.environ)
    if interpreter != sys.executable:
        for name in ("PYTHONPATH", "PYTHONHOME"):
            environment.pop(name, None)
    return subprocess.Popen(
        [interpreter, str(_WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
        env=environment,
        cwd=folder,
    )


def _stop(
    process: subprocess.Popen[str], log: IO[bytes], folder: tempfile.TemporaryDirectory[str]
) -> None:
    """End a process, which does so by itself when nobody asks any more, and clean up."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()
    folder.cleanup()
