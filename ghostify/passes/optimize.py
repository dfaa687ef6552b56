"""Freeze a network for one runtime: the same function in fewer and better operations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from ghostify.errors import SpecError, nearest
from ghostify.graph.probe import copy_model, sentence
from ghostify.passes.eager import settle
from ghostify.passes.fold import fold_affines, lower_affines, tidy
from ghostify.passes.settings import PASSES, Passes
from ghostify.passes.spread import spread
from ghostify.passes.trace import split_norms, traced

__all__ = ["apply_passes", "check_runtime", "optimize"]

_log = logging.getLogger(__name__)

_TOLERANCE = 1e-4  # largest difference of float32 outputs, relative to the largest output
_SHORT_TOLERANCE = 3e-2  # of float16 and bfloat16


def optimize(model: nn.Module, example: Sequence[Tensor], *, runtime: str = "torch") -> nn.Module:
    """Return a frozen, inference-only copy of ``model`` with equal outputs.

    Batch norms are folded; the maps of Ghost modules travel in parts that are joined only
    where an operation mixes channels. Which passes are applied depends on the runtime
    (:data:`ghostify.passes.settings.PASSES`). The outputs on ``example`` are compared with
    the model's own. Where the network cannot be traced, or where they differ, the result is a
    copy in eval mode with nothing changed; its ``ghostify_notes`` (a list of sentences)
    says why.

    Args:
        example: positional arguments of ``forward``, on the model's device.

    Raises:
        SpecError: no such runtime.
    """
    check_runtime(runtime)
    return apply_passes(model, example, PASSES[runtime])


def check_runtime(runtime: str) -> None:
    """Make sure that a runtime has passes.

    Raises:
        SpecError: it has none; the message lists those that have.
    """
    if runtime not in PASSES:
        known = ", ".join(sorted(PASSES))
        raise SpecError(
            f"no passes are known for the runtime {runtime!r}{nearest(runtime, PASSES)}; "
            f"there are {known}"
        )


def apply_passes(model: nn.Module, example: Sequence[Tensor], passes: Passes) -> nn.Module:
    """Freeze a copy of ``model`` by the given passes; see :func:`optimize`."""
    plain = _frozen(copy_model(model, hooks=False))
    try:
        expected = _run(plain, example)
        optimized = _rewritten(split_norms(_frozen(copy_model(plain))), example, passes)
        problem = _difference(expected, _run(optimized, example))
    except Exception as error:
        _log.debug("not optimised", exc_info=True)
        problem = f"{type(error).__name__}: {sentence(error)}"
    if problem:
        return _with_notes(plain, [f"left as it is, since it cannot be optimised ({problem})"])
    return _with_notes(optimized, [])


def _rewritten(model: nn.Module, example: Sequence[Tensor], passes: Passes) -> nn.Module:
    graph = traced(model, example)
    builder = spread(model, graph, passes)
    tidy(builder)
    if passes.fold:
        fold_affines(builder)
    lower_affines(builder, passes.affine)
    builder.graph.lint()
    made = fx.GraphModule(builder.held, builder.graph, type(model).__name__)
    return _frozen(settle(made, example, passes))


def _frozen(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def _with_notes(model: nn.Module, notes: list[str]) -> nn.Module:
    model.ghostify_notes = notes  # type: ignore[assignment]
    return model


def _run(model: nn.Module, example: Sequence[Tensor]) -> Any:
    with torch.no_grad():
        return model(*tree_map_only(Tensor, torch.clone, tuple(example)))


def _difference(expected: Any, found: Any) -> str:
    """Return how two outputs differ, or an empty string."""
    wanted, made = tree_leaves(expected), tree_leaves(found)
    if len(wanted) != len(made):
        return "it gives another number of outputs"
    for one, two in zip(wanted, made, strict=True):
        if not isinstance(one, Tensor):
            continue
        if not isinstance(two, Tensor) or one.shape != two.shape:
            return "it gives outputs of another shape"
        if not one.is_floating_point():
            if not torch.equal(one, two):
                return "its whole-number outputs differ"
            continue
        usual = one.isfinite()
        if not torch.equal(one[~usual].nan_to_num(), two[~usual].nan_to_num()):
            return "its outputs are infinite elsewhere"
        if not usual.any():
            continue
        wide, found = one[usual].double(), two[usual].double()
        scale = max(float(wide.abs().max()), 1e-30)
        worst = float((wide - found).abs().max()) / scale
        if not worst <= (_TOLERANCE if torch.finfo(one.dtype).bits >= 32 else _SHORT_TOLERANCE):
            return f"its outputs differ by {worst:.1e} relative to the largest"
    return ""
