"""Formats whose packages live in an environment of their own: ask its interpreter."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from ghostify.errors import ExportError, RuntimeMissingError
from ghostify.exporting.program import capture, layer_with, quiet, refuse_bfloat16

__all__ = ["WORKERS", "Foreign", "ForeignFormat", "ask"]

WORKERS = Path(__file__).parent / "workers"
"""The programs that the other interpreters run."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A package that may be installed here, or in the environment that a variable names."""

    title: str  # as people write it
    package: str  # as it is imported
    extra: str
    variable: str
    worker: str

    def interpreter(self) -> str | None:
        """Return the path of the Python that has the package, as far as anyone said."""
        named = os.environ.get(self.variable)
        if named:
            return shutil.which(named)
        return sys.executable if importlib.util.find_spec(self.package) is not None else None

    def missing(self) -> str | None:
        """Return None, or the sentence that says what to install or to set."""
        if self.interpreter() is not None:
            return None
        named = os.environ.get(self.variable)
        if named:
            return (
                f"{self.variable} is {named!r}, which is no program; "
                f"name the python of an environment that has {self.title}"
            )
        return (
            f"{self.package} must be installed for this: pip install 'ghostify[{self.extra}]', "
            f"or name the python of an environment that has it by {self.variable}"
        )

    def versions(self) -> dict[str, str]:
        """Return the versions of its packages, where it is installed."""
        with tempfile.TemporaryDirectory(prefix="ghostify-") as folder:
            return dict(ask(self, Path(folder), do="versions")["versions"])

    def convert(
        self,
        model: nn.Module,
        example: Sequence[Tensor],
        file: Path,
        *,
        dynamic_batch: bool,
        largest_batch: int | None,
        metadata: Mapping[str, str],
    ) -> None:
        """Hand a network over as a captured program, and let it be written to ``file``.

        Raises:
            ExportError: it cannot be captured or converted; the message names the layer.
        """
        program = capture(model, example, dynamic_batch=dynamic_batch, largest_batch=largest_batch)
        with tempfile.TemporaryDirectory(prefix="ghostify-") as folder:
            handed = Path(folder) / "model.pt2"
            with quiet():
                torch.export.save(program, handed)
            try:
                ask(
                    self,
                    Path(folder),
                    do="convert",
                    program=str(handed),
                    file=str(file.resolve()),
                    dynamic_batch=dynamic_batch,
                    metadata=dict(metadata),
                )
            except _WorkerError as error:
                operator, layer = layer_with(program, error.told)
                where = f"{operator} of {layer or 'the network'}" if operator else "it"
                raise ExportError(
                    f"the network cannot be written for {self.title}: {where} is not supported "
                    f"there ({error}); keep that layer, or choose another format"
                ) from None

    def run(self, file: Path, inputs: Sequence[Sequence[Tensor]]) -> tuple[tuple[Tensor, ...], ...]:
        """Run a file in a process of its own on each of some inputs.

        Raises:
            ExportError: it cannot be run.
        """
        with tempfile.TemporaryDirectory(prefix="ghostify-") as folder:
            places = []
            for number, tensors in enumerate(inputs):
                places.append(
                    [str(Path(folder) / f"in{number}_{k}.npy") for k in range(len(tensors))]
                )
                for place, tensor in zip(places[-1], tensors, strict=True):
                    numpy.save(place, tensor.contiguous().numpy())
            try:
                answer = ask(
                    self,
                    Path(folder),
                    do="run",
                    file=str(file.resolve()),
                    inputs=places,
                    outputs=folder,
                    threads=torch.get_num_threads(),
                )
            except _WorkerError as error:
                raise ExportError(
                    f"{self.title} cannot run the file that was written ({error}); "
                    "choose another format"
                ) from None
            return tuple(
                tuple(torch.from_numpy(numpy.load(name)) for name in names)
                for names in answer["outputs"]
            )

    def describe(self, file: Path) -> dict[str, str]:
        """Return the metadata of a file."""
        with tempfile.TemporaryDirectory(prefix="ghostify-") as folder:
            answer = ask(self, Path(folder), do="describe", file=str(file.resolve()))
            return dict(answer["metadata"])


class ForeignFormat:
    """A format that is written and run by such a package: its place among the others."""

    name: str
    suffix: str
    place: Foreign
    largest_batch: int | None = None  # of a dynamic batch

    @property
    def passes(self) -> str:
        return self.name

    def missing(self) -> str | None:
        return self.place.missing()

    def versions(self) -> Mapping[str, str]:
        return self.place.versions()

    def write(
        self,
        model: nn.Module,
        example: Sequence[Tensor],
        file: Path,
        *,
        dynamic_batch: bool = False,
        metadata: Mapping[str, str] = {},
    ) -> None:
        refuse_bfloat16(self.place.title, model, example)
        self.place.convert(
            model,
            example,
            file,
            dynamic_batch=dynamic_batch,
            largest_batch=self.largest_batch,
            metadata=metadata,
        )

    def run(self, file: Path, inputs: Sequence[Sequence[Tensor]]) -> tuple[tuple[Tensor, ...], ...]:
        return self.place.run(file, inputs)

    def metadata(self, file: Path) -> Mapping[str, str]:
        return self.place.describe(file)


class _WorkerError(ExportError):
    """The other interpreter could not do it; ``told`` is all that it said."""

    def __init__(self, message: str, told: str = "") -> None:
        super().__init__(message)
        self.told = told


def ask(foreign: Foreign, folder: Path, **request: Any) -> dict[str, Any]:
    """Let the other interpreter do one thing; return its answer.

    Raises:
        ExportError: it could not, or has died.
        RuntimeMissingError: it lacks the package.
    """
    interpreter = foreign.interpreter()
    if interpreter is None:
        raise ExportError(foreign.missing() or "")
    result = folder / "answer.json"
    question = folder / "request.json"
    question.write_text(json.dumps(request | {"result": str(result)}), encoding="utf-8")
    environment = dict(os.environ)
    if interpreter != sys.executable:
        for name in ("PYTHONPATH", "PYTHONHOME"):
            environment.pop(name, None)
    done = subprocess.run(
        [interpreter, str(WORKERS / foreign.worker), str(question)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=environment,
        cwd=folder,
    )
    if not result.is_file():
        raise _WorkerError(_died(foreign, done), done.stderr)
    answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if "error" in answer:
        if "ModuleNotFoundError" in answer["error"]:
            raise RuntimeMissingError(
                f"{interpreter} has no {foreign.package}; install it there, or name another "
                f"python by {foreign.variable}"
            )
        lines = [line.strip() for line in answer["error"].splitlines() if line.strip()]
        raise _WorkerError((lines or ["no reason given"])[0].rstrip(".")[:300], answer["error"])
    return answer


def _died(foreign: Foreign, done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"its process was ended by {signal.Signals(-done.returncode).name}"
    last = [line.strip() for line in done.stderr.splitlines() if line.strip()][-1:]
    return f"its process ended with {done.returncode}: {''.join(last)[:300]}"
