"""Where and in which number format a network runs."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ghostify.data.preprocess import Preprocess
from ghostify.errors import TrainingError
from ghostify.graph.layout import channels_last_breaks_gradients, takes_channels_last
from ghostify.train.network import modes_kept

__all__ = ["AMP", "Engine", "choose_device", "choose_engine", "laid_out_for"]

_log = logging.getLogger(__name__)

AMP = ("auto", "none", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Engine:
    """Device, number format and memory layout of a run."""

    device: torch.device
    amp: torch.dtype | None = None
    channels_last: bool = False
    compile: bool = False

    @property
    def memory_format(self) -> Any:
        """The layout of image batches and filters."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which a forward pass runs."""
        if self.amp is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.amp)

    @contextlib.contextmanager
    def tuned(self) -> Iterator[None]:
        """Let cuDNN look for the quickest kernels during the block."""
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = self.device.type == "cuda"
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """Return a device that is there; of several GPUs, the one of this process.

    Raises:
        TrainingError: no such device on this machine.
    """
    if str(name) == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise TrainingError(f"no device is called {str(name)!r}; take auto, cpu or cuda") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise TrainingError(f"the device {device} is not there; take cpu")
        if device.index is None:
            index = int(os.environ.get("LOCAL_RANK", torch.cuda.current_device()))
            device = torch.device("cuda", index)
        if device.index >= torch.cuda.device_count():
            raise TrainingError(
                f"the device {device} is not there: this machine has "
                f"{torch.cuda.device_count()}; start fewer processes or choose another"
            )
        return device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise TrainingError(f"the device {device} is not there; take cpu") from None
    return device


def choose_engine(
    device: str | torch.device = "auto",
    *,
    amp: str | None = "auto",
    channels_last: bool | None = None,
    compile: bool = False,
) -> Engine:
    """Choose what is quickest on a device without losing accuracy, where nothing is asked for.

    Raises:
        TrainingError: no such device or format.
    """
    chosen = choose_device(device)
    if amp not in (*AMP, None):
        raise TrainingError(f"amp must be one of {', '.join(AMP)} (got {amp!r})")
    on_gpu = chosen.type == "cuda"
    if amp == "auto":
        amp = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "none"
    if amp == "bf16" and chosen.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        _log.warning(
            "this processor has no bf16 instructions and emulates them, some twenty times as slow "
            "as float32; leave --amp out"
        )
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(amp or "none")
    return Engine(
        chosen,
        amp=dtype,
        channels_last=on_gpu if channels_last is None else channels_last,
        compile=compile,
    )


def laid_out_for(
    engine: Engine,
    wish: bool | None,
    model: nn.Module,
    teacher: nn.Module | None,
    preprocess: Preprocess,
) -> Engine:
    """Choose channels_last for float32 on a processor, where the networks allow for it.

    On a processor without bf16 a training step then takes three fifths of the time. A ``wish``
    for either layout stands.

    Raises:
        TrainingError: channels_last is wished for, and training in it would crash.
    """
    if engine.device.type != "cpu" or wish is False or (wish is None and engine.amp is not None):
        return engine
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, preprocess.channels, *preprocess.size, generator=generator)
    with modes_kept(model):
        endangered = channels_last_breaks_gradients(model.eval(), image)
    if wish and endangered:
        raise TrainingError(
            "in channels_last a processor cannot train 1x1 convolutions with a stride that read "
            "fewer than 16 maps; leave --channels-last out"
        )
    if wish or endangered:
        return engine
    for network in filter(None, (model, teacher)):
        with modes_kept(network):
            if not takes_channels_last(network.eval(), image):
                return engine
    return replace(engine, channels_last=True)
