"""Watch a network run, and note every convolution: its shapes, calls and settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghostify.graph.probe import tensors_of
from ghostify.graph.trace import CONVOLUTIONS

__all__ = ["Recorder", "Run"]

_FUNCTIONS: dict[Any, bool] = {  # function -> transposed
    torch.conv1d: False,
    torch.conv2d: False,
    torch.conv3d: False,
    torch.conv_transpose1d: True,
    torch.conv_transpose2d: True,
    torch.conv_transpose3d: True,
}


@dataclass(slots=True)
class Run:
    """What was seen of one convolution."""

    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    pixels: int
    calls: int = 1
    arguments: int = 1
    plain_output: bool = True  # one tensor, as of a convolution
    described: dict[str, Any] | None = None  # of a functional call
    weight: Tensor | None = None  # of a functional call


class Recorder(TorchFunctionMode):
    """Notes each convolution of a model while it runs: modules by hooks, functions by name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._handles: list[Any] = []
        self._path: list[str] = []
        self._inside = 0
        self._weights = {
            name: module._parameters.get("weight")
            for name, module in model.named_modules()
            if isinstance(module, CONVOLUTIONS)
        }
        self.runs: dict[str, Run] = {}
        self.seen: set[nn.Module] = set()
        self.borrowed: set[str] = set()

    def __enter__(self) -> Recorder:
        for name, module in self._model.named_modules():
            hooked = isinstance(module, CONVOLUTIONS)
            self._handles.append(module.register_forward_pre_hook(self._enter(name, hooked)))
            self._handles.append(
                module.register_forward_hook(
                    self._leave(name, hooked), prepend=True, with_kwargs=True, always_call=True
                )
            )
        super().__enter__()  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _enter(self, name: str, hooked: bool) -> Any:
        def enter(_module: nn.Module, _args: Any) -> None:
            self._path.append(name)
            self._inside += hooked

        return enter

    def _leave(self, name: str, hooked: bool) -> Any:
        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._path.pop()
            self._inside -= hooked
            source = args[0] if args else next(iter(kwargs.values()), None)
            outputs = tensors_of(output)
            if hooked and outputs and isinstance(source, Tensor):
                side = len(module.kernel_size)  # type: ignore[arg-type]
                transposed = bool(getattr(module, "transposed", False))
                self._note(name, source, outputs[0], side, transposed)
                self.seen.add(module)
                run = self.runs[name]
                run.arguments = max(run.arguments, len(args) + len(kwargs))
                run.plain_output &= isinstance(output, Tensor)

        return leave

    def _note(
        self,
        name: str,
        source: Tensor,
        output: Tensor,
        side: int,
        transposed: bool,
    ) -> None:
        swept = source if transposed else output
        batch = swept.shape[0] if swept.dim() == side + 2 else 1
        pixels = batch * math.prod(swept.shape[-side:])
        if name in self.runs:
            self.runs[name].calls += 1
            self.runs[name].pixels += pixels
        else:
            sizes = tuple(source.shape[-side:]), tuple(output.shape[-side:])
            self.runs[name] = Run(*sizes, pixels)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in _FUNCTIONS and not self._inside:
            self._note_function(func, args, kwargs or {}, output)
        return output

    def _note_function(self, func: Any, args: Any, kwargs: Any, output: Tensor) -> None:
        values = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        self.borrowed |= {name for name, held in self._weights.items() if held is values["weight"]}
        weight, source = values["weight"], values["input"]
        transposed = _FUNCTIONS[func]
        place = f"{self._path[-1]}." if self._path and self._path[-1] else ""
        stem = f"{place}{func.__name__}"
        name, number = stem, 1
        while name in self.runs:
            number += 1
            name = f"{stem}_{number}"
        side = weight.dim() - 2
        self._note(name, source, output, side, transposed)

        def setting(key: str, place: int) -> Any:
            return kwargs.get(key, args[place] if len(args) > place else 1)

        groups = setting("groups", 6)
        channels = weight.shape[0] if transposed else weight.shape[1] * groups
        self.runs[name].weight = weight
        self.runs[name].described = {
            "in_channels": int(channels),
            "out_channels": int(weight.shape[1] * groups if transposed else weight.shape[0]),
            "kernel": tuple(int(length) for length in weight.shape[2:]),
            "stride": _tuple(setting("stride", 3), side),
            "dilation": _tuple(setting("dilation", 7 if transposed else 5), side),
            "groups": int(groups),
            "bias": values.get("bias") is not None,
            "transposed": transposed,
        }


def _tuple(value: Any, side: int) -> tuple[int, ...]:
    return (value,) * side if isinstance(value, int) else tuple(value)
