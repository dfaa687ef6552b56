"""Runtimes that networks can be measured on, each in an adapter of its own."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ghostify.errors import RuntimeMissingError, RuntimeNotFoundError, nearest

if TYPE_CHECKING:
    from ghostify.runtimes.base import Runtime

__all__ = ["RUNTIMES", "find_runtime", "installed"]

RUNTIMES: dict[str, str] = {
    "torch": "ghostify.runtimes.eager:Eager",
    "torch-channels-last": "ghostify.runtimes.eager:ChannelsLast",
    "torch-compile": "ghostify.runtimes.inductor:Compiled",
    "onnxruntime": "ghostify.runtimes.onnxruntime:OnnxRuntime",
    "openvino": "ghostify.runtimes.openvino:OpenVino",
    "cuda": "ghostify.runtimes.cuda:Cuda",
    "cuda-graphs": "ghostify.runtimes.cuda:CudaGraphs",
    "litert": "ghostify.runtimes.foreign:LiteRt",
    "executorch": "ghostify.runtimes.foreign:ExecuTorch",
}
"""Where the adapter of each runtime is."""


def find_runtime(name: str) -> Runtime:
    """Return a runtime by name, ready to be used.

    Raises:
        RuntimeNotFoundError: no runtime is called that; the message lists those there are.
        RuntimeMissingError: it is known, but its package is not installed.
    """
    runtime = _adapter(name)
    why = runtime.missing()
    if why is not None:
        raise RuntimeMissingError(why)
    return runtime


def installed() -> Mapping[str, bool]:
    """Return the known runtimes, and whether each can be used here."""
    return {name: _adapter(name).missing() is None for name in RUNTIMES}


def _adapter(name: str) -> Runtime:
    if name not in RUNTIMES:
        there = installed()
        usable = ", ".join(one for one, here in there.items() if here)
        others = ", ".join(one for one, here in there.items() if not here)
        raise RuntimeNotFoundError(
            f"no runtime is called {name!r}{nearest(name, RUNTIMES)} (usable here: {usable}"
            + (f"; not installed: {others})" if others else ")")
        )
    module, _, attribute = RUNTIMES[name].partition(":")
    adapter: Runtime = getattr(importlib.import_module(module), attribute)()
    return adapter
