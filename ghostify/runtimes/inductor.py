"""torch.compile with the inductor back end, weights frozen into the compiled code."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import RuntimeFailedError
from ghostify.graph.probe import sentence
from ghostify.runtimes.base import (
    Session,
    check_inputs,
    check_threads,
    inference_copy,
    pinned_threads,
)
from ghostify.runtimes.eager import EagerSession

__all__ = ["Compiled", "fresh_function"]


class Compiled:
    """Compiled torch on the CPU; the compiler chooses the memory layout of each map."""

    name = "torch-compile"

    def missing(self) -> str | None:
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) or shutil.which("clang++"):
            return None
        return f"{self.name} needs a C++ compiler and {compiler} is not there; install g++"

    def version(self) -> str:
        return str(torch.__version__)

    def device(self) -> str:
        return "cpu"

    def prepare(self, model: nn.Module, example: Sequence[Tensor], *, threads: int) -> Session:
        """Compile a copy of the network for inputs of exactly these shapes."""
        check_threads(threads)
        inputs = tuple(one.cpu() for one in check_inputs(example))
        ready = inference_copy(model).cpu()
        call = compiled(ready, inputs, threads=threads, name=self.name)
        return EagerSession(self.name, call, inputs, _as_it_is, threads, no_grad=torch.no_grad)


def compiled(
    model: nn.Module, inputs: tuple[Tensor, ...], *, threads: int, name: str, **options: Any
) -> Callable[..., object]:
    """Compile a network and run it twice, so that nothing is left to be compiled.

    Raises:
        RuntimeFailedError: it cannot be compiled.
    """
    from torch import _inductor

    try:
        with pinned_threads(threads), torch.no_grad(), _silence():
            function: Callable[..., object] = torch.compile(
                fresh_function(model), dynamic=False, **options
            )
            with _inductor.config.patch(freezing=True):
                function(*inputs)
                function(*inputs)
    except Exception as error:
        raise RuntimeFailedError(f"{name} cannot take the network ({sentence(error)})") from error
    return function


def fresh_function(model: nn.Module) -> Callable[..., object]:
    """Return a function that calls a network and has code of its own.

    Compiled code is kept with the code that was compiled, for at most eight variants: after
    eight networks of one class torch would give up, and say so only in its log.
    """

    def call(*inputs: Tensor) -> object:
        return model(*inputs)

    code = call.__code__.replace(co_name=f"call_{id(model)}")
    return types.FunctionType(code, globals(), code.co_name, None, call.__closure__)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the compiler's remarks from the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch._inductor", "torch._dynamo")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
