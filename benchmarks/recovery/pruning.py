"""Structured pruning by torch-pruning to a given number of multiply-adds."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ghostify.cost.macs import count
from ghostify.graph.probe import Probe, as_call
from ghostify.models.resnet import BasicBlock

TOLERANCE = 0.01


def macs_of(model: nn.Module) -> int:
    """Return the multiply-adds of one image by torch's own counter."""
    return count(Probe(model, as_call(torch.zeros(1, 3, 32, 32)))).macs


def pruned(model: nn.Module, *, criterion: str, macs: int) -> nn.Module:
    """Prune the maps inside the residual blocks until so many multiply-adds are left.

    "l1": the same share of every layer, by the L1 norm of its filters (Li et al., 2017).
    "group": the L2 norm of everything that goes with a map, ranked over all layers together
    (DepGraph, Fang et al., 2023). The maps of the residual stream stay: the zero-padded
    shortcuts tie them, and features can be compared.

    Raises:
        ValueError: no ratio comes within 1 %.
    """
    lowest, highest = 0.0, 1.0
    best: tuple[float, nn.Module] | None = None
    for _ in range(24):
        ratio = (lowest + highest) / 2
        tried = _pruned_by(model, criterion, ratio)
        found = macs_of(tried)
        miss = abs(found / macs - 1)
        if best is None or miss < best[0]:
            best = miss, tried
        if found == macs:
            break
        lowest, highest = (ratio, highest) if found > macs else (lowest, ratio)
    assert best is not None
    if best[0] > TOLERANCE:
        raise ValueError(f"{criterion} pruning comes no closer than {best[0]:.1%} to {macs} MACs")
    return best[1]


def slimmed(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Return a copy whose convolutions and batch norms are as narrow as ``state`` says."""
    result = copy.deepcopy(model)
    for name, module in list(result.named_modules()):
        if not isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            continue
        shape = state[f"{name}.weight"].shape
        if shape == module.weight.shape:
            continue
        if isinstance(module, nn.BatchNorm2d):
            thin: nn.Module = nn.BatchNorm2d(shape[0], eps=module.eps, momentum=module.momentum)
        else:
            thin = nn.Conv2d(
                shape[1], shape[0], module.kernel_size, stride=module.stride,
                padding=module.padding, bias=module.bias is not None,
            )  # fmt: skip
        parent, _, leaf = name.rpartition(".")
        setattr(result.get_submodule(parent), leaf, thin)
    result.load_state_dict(state)
    return result


def _pruned_by(model: nn.Module, criterion: str, ratio: float) -> nn.Module:
    import torch_pruning

    copied = copy.deepcopy(model).eval()
    inner = {block.conv1 for block in copied.modules() if isinstance(block, BasicBlock)}
    others = [
        module
        for module in copied.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module not in inner
    ]
    score = torch_pruning.importance.GroupMagnitudeImportance
    pruner = torch_pruning.pruner.BasePruner(
        copied,
        torch.zeros(1, 3, 32, 32),
        importance=(
            score(p=1, group_reduction="first", normalizer=None)
            if criterion == "l1"
            else score(p=2, group_reduction="mean", normalizer="mean")
        ),
        global_pruning=criterion == "group",
        pruning_ratio=ratio,
        ignored_layers=others,
    )
    pruner.step()
    return copied
