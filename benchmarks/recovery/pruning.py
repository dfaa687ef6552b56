"""Structured pruning to a given number of multiply-adds, by the library's own methods."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import ghostify
from ghostify.cost.macs import count
from ghostify.graph.probe import Probe, as_call
from ghostify.graph.slices import Kept, cut

METHODS = {"l1": "l1", "group": "group-norm"}


def macs_of(model: nn.Module) -> int:
    """Return the multiply-adds of one image by torch's own counter."""
    return count(Probe(model, as_call(torch.zeros(1, 3, 32, 32)))).macs


def pruned(model: nn.Module, *, criterion: str, macs: int) -> nn.Module:
    """Prune the maps inside the residual blocks until so many multiply-adds are left, at most.

    "l1": the same share of every layer, by the L1 norm of its filters (Li et al., 2017).
    "group": the L2 norm of everything that goes with a map, ranked over all layers together
    (DepGraph, Fang et al., 2023). The maps of the residual stream stay, so that features can be
    compared.
    """
    example = torch.zeros(1, 3, 32, 32)
    method = METHODS[criterion]
    return ghostify.prune(model, budget=f"macs={macs}", method=method, example=example).model


def slimmed(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Return a copy whose convolutions and batch norms are as narrow as ``state`` says."""
    slices = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            continue
        shape, own = state[f"{name}.weight"].shape, module.weight.shape
        if shape != own:
            reads = tuple(range(shape[1])) if len(shape) > 1 and shape[1] != own[1] else None
            out = tuple(range(shape[0])) if shape[0] != own[0] else None
            slices[name] = Kept(out=out, reads=reads)
    result = cut(model, slices)
    result.load_state_dict(state)
    return result
