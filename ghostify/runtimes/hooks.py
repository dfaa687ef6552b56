"""Time the modules of a network one by one while it runs in eager torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn

from ghostify.runtimes.base import NodeTime

__all__ = ["time_modules"]


def time_modules(model: nn.Module, example: Sequence[Tensor], runs: int) -> tuple[NodeTime, ...]:
    """Run a network and time what it calls, in the order of the first calls.

    A traced network is timed node by node, any other by its innermost modules; what happens
    between these is one entry without a layer.
    """

    def once() -> list[_Entry]:
        if isinstance(model, fx.GraphModule):
            return _timed_graph(model, example)
        return _timed_tree(model, example)

    once()
    spent: dict[str, list[float]] = {}
    operators: dict[str, tuple[str, str | None]] = {}
    for _ in range(runs):
        sums: dict[str, float] = {}  # a module may be called more than once
        for name, operator, layer, seconds in once():
            sums[name] = sums.get(name, 0.0) + seconds
            operators[name] = (operator, layer)
        for name, seconds in sums.items():
            spent.setdefault(name, []).append(1e3 * seconds)
    return tuple(
        NodeTime(name, *operators[name], statistics.median(times)) for name, times in spent.items()
    )


_Entry = tuple[str, str, str | None, float]  # name, operator, layer, seconds


def _timed_tree(model: nn.Module, example: Sequence[Tensor]) -> list[_Entry]:
    entries: list[_Entry] = []
    handles = []
    began: list[float] = []

    def before(_module: nn.Module, _args: Any) -> None:
        began.append(time.perf_counter())

    def after(name: str) -> Any:
        def hook(module: nn.Module, _args: Any, _output: Any) -> None:
            seconds = time.perf_counter() - began.pop()
            entries.append((name, type(module).__name__, name, seconds))

        return hook

    for name, module in model.named_modules():
        if name and not any(True for _ in module.children()):
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after(name)))
    try:
        start = time.perf_counter()
        model(*example)
        whole = time.perf_counter() - start
    finally:
        for handle in handles:
            handle.remove()
    rest = max(whole - sum(seconds for *_, seconds in entries), 0.0)
    return [*entries, ("between modules", "", None, rest)]


def _timed_graph(model: fx.GraphModule, example: Sequence[Tensor]) -> list[_Entry]:
    interpreter = _Interpreter(model)
    interpreter.run(*example)
    return interpreter.entries


class _Interpreter(fx.Interpreter):
    """Runs a graph node by node and notes how long each takes."""

    def __init__(self, model: fx.GraphModule) -> None:
        super().__init__(model)
        self.entries: list[_Entry] = []

    def run_node(self, n: fx.Node) -> Any:
        began = time.perf_counter()
        result = super().run_node(n)
        seconds = time.perf_counter() - began
        if n.op in ("call_module", "call_function", "call_method"):
            operator = str(getattr(n.target, "__name__", n.target))
            if n.op == "call_module":
                operator = type(self.fetch_attr(str(n.target))).__name__
            self.entries.append((n.name, operator, _layer(n), seconds))
        return result


def _layer(node: fx.Node) -> str | None:
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return None
    path = next(reversed(stack.values()))[0]
    return str(path) or None
