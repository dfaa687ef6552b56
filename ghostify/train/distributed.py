"""Several processes that train one network, as torchrun starts them."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from ghostify.train.device import choose_device

__all__ = ["World", "joined", "this_world"]


@dataclass(frozen=True, slots=True)
class World:
    """How many processes there are, and which this is."""

    rank: int = 0
    size: int = 1
    control: Any = None  # the group over which processes agree, on the CPU

    @property
    def leads(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Add up a CPU tensor over all processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values, group=self.control)
        return values

    def any(self, flag: bool) -> bool:
        """Tell every process whether one of them says so."""
        return bool(self.sum(torch.tensor([float(flag)])).item()) if self.size > 1 else flag

    def wait(self) -> None:
        """Let no process go on before all are here."""
        if self.size > 1:
            dist.barrier(group=self.control)


def this_world() -> World:
    """Return the processes that work together now; one, where no group has been made."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return World()
    control = None
    if dist.get_backend() != "gloo":
        control = dist.new_group(backend="gloo")
    return World(dist.get_rank(), dist.get_world_size(), control)


@contextlib.contextmanager
def joined(device: str | torch.device = "auto") -> Iterator[World]:
    """Join the processes that torchrun has started, if it has; leave them after the block."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield this_world()
        return
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        world = this_world()
        yield world
        world.wait()  # nobody leaves while others still talk to it
    finally:
        gc.collect()  # what holds the group in cycles would end its threads as Python itself ends
        dist.destroy_process_group()
