"""Make networks ready to be timed under one set of conditions, after the runtime's own passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

from torch import Tensor, nn

from ghostify.errors import GhostifyError
from ghostify.runtimes import find_runtime
from ghostify.runtimes.base import Runtime, Session, check_threads

__all__ = ["Bench", "Conditions", "Workbench"]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a time depends on beside the network and the machine."""

    runtime: str
    version: str  # of the runtime, and of ghostify, whose passes rewrite networks for it
    threads: int
    batch: int


class Bench(Protocol):
    """Where networks are made ready to be timed."""

    @property
    def conditions(self) -> Conditions:
        """Under which everything here is timed."""
        ...

    def session(self, model: nn.Module, example: Sequence[Tensor], *, draft: bool) -> Session:
        """Make a network ready; ``draft`` asks for the quickest way there, for small pieces."""
        ...


class Workbench:
    """One runtime of :data:`ghostify.runtimes.RUNTIMES`, with its passes.

    Raises:
        RuntimeNotFoundError: no runtime is called that.
        RuntimeMissingError: it is not installed.
        InputError: an impossible number of threads.
    """

    def __init__(self, runtime: str, *, threads: int = 1, batch: int = 1) -> None:
        self._runtime = find_runtime(runtime)
        self._draft = _drafting(runtime)
        self.conditions = Conditions(
            runtime,
            f"{self._runtime.version()}, ghostify {metadata.version('ghostify')}",
            check_threads(threads),
            batch,
        )

    def session(self, model: nn.Module, example: Sequence[Tensor], *, draft: bool) -> Session:
        from ghostify.passes import optimize

        threads = self.conditions.threads
        ready = optimize(model, example, runtime=self.conditions.runtime)
        if draft and self._draft is not None:
            try:
                return self._draft.prepare(ready, example, threads=threads)
            except GhostifyError:
                pass  # the way below takes more networks
        return self._runtime.prepare(ready, example, threads=threads)


def _drafting(name: str) -> Runtime | None:
    """Return the runtime with a quicker way to write ONNX files, if it reads such files."""
    from ghostify.exporting.draft import write_draft

    runtime: Any = find_runtime(name)
    if not hasattr(runtime, "write"):
        return None
    write: Callable[..., None] = write_draft
    runtime.write = write
    adapter: Runtime = runtime
    return adapter
