"""Capture a network by torch.export, which every format starts from."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ghostify.errors import ExportError

__all__ = [
    "capture",
    "first_line",
    "layer_of",
    "layer_with",
    "quiet",
    "refuse_bfloat16",
    "single_tensors",
]

_NOISY = ("torch.onnx", "torch.export", "torch._export", "torch.fx", "onnxscript", "onnx_ir")
_OPERATOR = re.compile(r"\b(?:torch\.ops\.)?(aten|quantized|prims|torchvision)[.:]+(\w+)")


def capture(
    model: nn.Module,
    example: Sequence[Tensor],
    *,
    dynamic_batch: bool = False,
    largest_batch: int | None = None,
) -> ExportedProgram:
    """Return what a network does in eval mode, as a graph of torch's operators.

    Args:
        example: the arguments of one forward pass.
        dynamic_batch: leave the first axis of all inputs open. It must be the same in all.
        largest_batch: for formats that must know.

    Raises:
        ExportError: the network takes another way with other values, or fixes its batch; it
            names the layer.
    """
    example = tuple(example)
    if any(module.training for module in model.modules()):
        model = copy.deepcopy(model).eval()
    shapes: Any = None
    if dynamic_batch:
        sizes = {tensor.shape[0] if tensor.dim() else 0 for tensor in example}
        if len(sizes) != 1 or 0 in sizes:
            raise ExportError(
                "a dynamic batch needs inputs with a common first axis (got "
                f"{', '.join('x'.join(map(str, tensor.shape)) for tensor in example)}); "
                "fix the batch"
            )
        if sizes == {1}:  # torch.export takes a size of 1 for a constant
            example = tuple(torch.cat([tensor, tensor]) for tensor in example)
        batch = Dim("batch") if largest_batch is None else Dim("batch", max=largest_batch)
        shapes = tuple({0: batch} for _ in example)
    try:
        with quiet():
            program = _export(model, example, shapes)
    except RecursionError:
        raise
    except Exception as error:
        raise _explained(model, example, shapes, error) from error
    return program


def refuse_bfloat16(title: str, model: nn.Module, example: Sequence[Tensor]) -> None:
    """Make sure that a network is of a type that can be compared outside torch.

    Raises:
        ExportError: it is of bfloat16, which numpy does not know.
    """
    if any(tensor.dtype == torch.bfloat16 for tensor in (*example, *model.parameters())):
        raise ExportError(
            f"a bfloat16 network cannot be compared by {title} on a CPU; convert it to float32, or "
            "export it as pt2"
        )


def single_tensors(outputs: Any) -> tuple[Tensor, ...]:
    """Flatten what a network returns, a tensor, tuple, list or dict, into its tensors."""
    if isinstance(outputs, Tensor):
        return (outputs,)
    leaves = torch.utils._pytree.tree_leaves(outputs)
    return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters print, log and warn from the user's terminal."""
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            for name in _NOISY:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def layer_of(node: torch.fx.Node) -> str:
    """Return the dotted name of the module that a node of a captured graph comes from."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()), ("", None))[0] if stack else ""
    return str(path).removeprefix("L['self'].").removeprefix("L['self']")


def layer_with(program: ExportedProgram, text: str) -> tuple[str, str]:
    """Return the operator that an error names, and the first layer that uses it; "" if none.

    The error may name a part that an exporter took the operator apart into: then the one
    whose name has that in it (``aten.special_bessel_j0`` for ``prims.bessel_j0``).
    """
    operators = {
        str(node.target): layer_of(node)
        for node in reversed(program.graph.nodes)
        if node.op == "call_function"
    }
    named = [(found[1], found[2]) for found in _OPERATOR.finditer(text)]
    for space, name in named:
        for operator, layer in operators.items():
            if f"{operator}.".startswith(f"{space}.{name}."):
                return f"{space}.{name}", layer
    for _, name in named:
        for operator, layer in operators.items():
            parts = operator.split(".")
            if len(parts) > 1 and name in parts[1]:
                return ".".join(parts[:2]), layer
    return "", ""


def first_line(error: BaseException) -> str:
    """Return the first line of what the innermost cause of an error says."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300]


def _export(model: nn.Module, example: tuple[Tensor, ...], shapes: Any) -> ExportedProgram:
    with torch.no_grad():
        return torch.export.export(model, example, dynamic_shapes=shapes, strict=False)


def _explained(
    model: nn.Module, example: tuple[Tensor, ...], shapes: Any, error: Exception
) -> ExportError:
    """Say at which layer a capture failed, by doing it again with an eye on the modules."""
    why = first_line(error)
    if shapes is not None:
        try:
            with quiet():
                _export(model, example, None)
        except Exception:
            pass
        else:
            return ExportError(
                f"the network cannot be exported with a dynamic batch ({why}); fix the batch"
            )
    watched = copy.deepcopy(model)
    running: list[str] = []
    deepest: list[str] = []

    def enter(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any) -> None:
            running.append(name)
            deepest[:] = running

        return hook

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        running.pop()
        deepest[:] = running

    for name, module in watched.named_modules():
        module.register_forward_pre_hook(enter(name))
        module.register_forward_hook(leave)
    try:
        with quiet():
            _export(watched, example, None)
    except Exception as again:
        why = first_line(again)
    layer = deepest[-1] if deepest and deepest[-1] else type(model).__name__
    return ExportError(
        f"the network cannot be exported: torch.export cannot trace {layer} ({why}); "
        "rewrite that layer without branches on values, or leave it out"
    )
