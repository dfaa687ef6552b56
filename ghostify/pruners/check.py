"""Make sure that a pruned network computes what the network does without the removed maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghostify.errors import VerificationError
from ghostify.graph.probe import Call, copy_model, sentence, tensors_of
from ghostify.graph.slices import Slices
from ghostify.nn.ghost import GhostModule

__all__ = ["check_equal_without", "deafened"]

_RELATIVE = 1e-3


def check_equal_without(base: nn.Module, pruned: nn.Module, slices: Slices, call: Call) -> None:
    """Compare a pruned network with its base in which nobody reads the removed maps.

    Both are run in eval mode on the call; only rounding may differ.

    Raises:
        VerificationError: something else than the removed maps is missing, or more.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        wanted = _outputs(deafened(base, slices), call)
        try:
            found = _outputs(copy_model(pruned, hooks=False).eval(), call)
        except Exception as error:
            raise VerificationError(
                f"the pruned network does not run ({sentence(error)}); keep the layers of the "
                "block that torch-pruning does not follow"
            ) from error
    for one, other in zip(found, wanted, strict=True):
        if one.shape != other.shape:
            raise VerificationError(
                "the pruned network gives other shapes than before; keep the layers behind whose "
                "maps its outputs are taken"
            )
        size = float(other.abs().max()) if other.numel() else 0.0
        if not torch.allclose(one, other, rtol=_RELATIVE, atol=_RELATIVE * size):
            raise VerificationError(
                "the pruned network does not compute what the network computes without the "
                "removed maps: something in it mixes maps in a way that torch-pruning does not "
                "see; keep the layers of that block"
            )


def deafened(model: nn.Module, slices: Slices) -> nn.Module:
    """Return a copy in eval mode whose layers do not hear the maps that ``slices`` removes."""
    copied = copy_model(model, hooks=False).eval()
    for name, kept in slices.items():
        if kept.reads is None:
            continue
        module = copied.get_submodule(name)
        layer = module.primary if isinstance(module, GhostModule) else module
        weight: Tensor = layer.weight  # type: ignore[assignment]
        gone = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
        gone[list(kept.reads)] = False
        with torch.no_grad():
            weight[:, gone] = 0
    return copied


def _outputs(model: nn.Module, call: Call) -> list[Tensor]:
    one = call.map(lambda tensor: tensor.detach().clone())
    return [
        tensor.float()
        for tensor in tensors_of(model(*one.args, **one.kwargs))
        if tensor.is_floating_point()
    ]
