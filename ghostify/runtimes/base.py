"""What every runtime can do: make a network ready, run it, time it, and let it go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ghostify.errors import InputError, RuntimeFailedError
from ghostify.graph.probe import copy_model, tensors_of

__all__ = [
    "NodeTime",
    "Profiler",
    "Runtime",
    "Session",
    "as_outputs",
    "check_inputs",
    "check_open",
    "check_threads",
    "inference_copy",
    "is_packed",
    "pinned_threads",
]


class Session(Protocol):
    """One network, made ready on one runtime with an example input."""

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for inputs of the example's shapes; all on the CPU."""
        ...

    def time(self, repeats: int) -> float:
        """Return the seconds that ``repeats`` runs on the example take, one after another."""
        ...

    def close(self) -> None:
        """Let go of everything; a closed session refuses to run. Closing twice is no error."""
        ...


class Runtime(Protocol):
    """Something that runs networks, such as ONNX Runtime.

    An adapter imports its package inside these methods only.
    """

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...

    def missing(self) -> str | None:
        """Return None, or the sentence that says what to install."""
        ...

    def version(self) -> str:
        """Return the version of the package that does the work."""
        ...

    def device(self) -> str:
        """Return what it runs on: ``cpu``, or the name of a GPU."""
        ...

    def prepare(self, model: nn.Module, example: Sequence[Tensor], *, threads: int) -> Session:
        """Make a network ready, in eval mode; the caller's network is not touched.

        Raises:
            RuntimeFailedError: the runtime cannot take this network.
        """
        ...


@dataclass(frozen=True, slots=True)
class NodeTime:
    """How long one operation of a prepared network takes."""

    name: str  # the runtime's own name for it
    operator: str  # such as Conv
    layer: str | None  # the module that it comes from, where that is known
    ms: float  # per run of the network


@runtime_checkable
class Profiler(Protocol):
    """A runtime that can tell how long each operation takes."""

    def profile(
        self, model: nn.Module, example: Sequence[Tensor], *, threads: int, runs: int
    ) -> tuple[NodeTime, ...]:
        """Run a network ``runs`` times; return its operations in the order of the network.

        Raises:
            RuntimeFailedError: the runtime cannot take this network.
        """
        ...


@contextlib.contextmanager
def pinned_threads(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    if before == threads:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def inference_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a network that is in eval mode and asks for no gradient.

    Weights that :func:`ghostify.optimize` has packed for the processor cannot be copied;
    nothing can change them either, so such a network is returned as it is.
    """
    if is_packed(model) and not model.training:
        return model
    copied = copy_model(model, hooks=False).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    return copied


def is_packed(model: nn.Module) -> bool:
    """Return whether a network holds weights in a form that only its operators can read."""
    return any(
        isinstance(value, Tensor) and value.is_mkldnn
        for module in model.modules()
        for value in vars(module).values()
    )


def as_outputs(value: object) -> tuple[Tensor, ...]:
    """Return the tensors that a network gave, on the CPU and with storage of their own.

    Raises:
        RuntimeFailedError: there is none.
    """
    found = tuple(tensor.detach().cpu().contiguous().clone() for tensor in tensors_of(value))
    if not found:
        raise RuntimeFailedError(
            f"the network gives no tensor (got {type(value).__name__}); measure one that does"
        )
    return found


def check_inputs(example: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Make sure that an example is made of tensors.

    Raises:
        InputError: it is not.
    """
    strange = [type(one).__name__ for one in example if not isinstance(one, Tensor)]
    if strange or not len(example):
        what = f"a {strange[0]}" if strange else "nothing"
        raise InputError(
            f"runtimes take networks whose arguments are tensors (got {what}); wrap the network"
        )
    return tuple(tensor.detach() for tensor in example)


def check_threads(threads: int) -> int:
    """Make sure that a number of threads is one.

    Raises:
        InputError: it is not.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads is a whole number from 1 on (got {threads!r})")
    return threads


def check_open(is_open: object, runtime: str) -> None:
    """Make sure that a session is not closed yet.

    Raises:
        RuntimeFailedError: it is.
    """
    if is_open is None or is_open is False:
        raise RuntimeFailedError(f"this session of {runtime} is closed; prepare the network again")
