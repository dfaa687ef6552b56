"""Batches that are ready when a GPU wants them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["feed"]

Batches = Iterator[tuple[Tensor, Tensor]]

_AHEAD = 4


def feed(batches: Batches, device: torch.device) -> Batches:
    """Yield the same batches; for a GPU, made ahead by a thread, in page-locked memory.

    A GPU is then given the next steps while it still works. On a CPU a thread would only
    take time from the step itself.
    """
    return batches if device.type != "cuda" else _ahead(batches)


def _ahead(batches: Batches) -> Batches:
    ready: queue.Queue[tuple[Tensor, Tensor] | BaseException | None] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def put(item: tuple[Tensor, Tensor] | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for images, labels in batches:
                put((images.pin_memory(), labels.pin_memory()))
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # it is raised where the batch is wanted
            put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
