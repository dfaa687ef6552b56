"""A scratch copy of a network that can be run without touching the caller's, or computing."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import dis
import functools
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ghostify.errors import GhostifyError, InputError, ModelError, VerificationError

__all__ = [
    "Call",
    "Probe",
    "Shapes",
    "as_call",
    "check_model",
    "copy_model",
    "sentence",
    "shapes_of",
    "tensors_of",
    "unhooked",
]

_log = logging.getLogger(__name__)

Shapes = tuple[tuple[int, ...], ...]

_LONG = 120  # characters of a foreign error message, beyond which only its first sentence is shown


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one forward pass."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def image(self) -> Tensor | None:
        """The only argument, if it is one batch ``(N, C, H, W)`` of real numbers."""
        if self.kwargs or len(self.args) != 1 or not isinstance(self.args[0], Tensor):
            return None
        only = self.args[0]
        return only if only.dim() == 4 and only.is_floating_point() else None

    def map(self, change: Any) -> Call:
        """Return the call with ``change`` applied to every tensor in it."""
        from torch.utils._pytree import tree_map_only

        return Call(*tree_map_only(Tensor, change, (self.args, self.kwargs)))

    def describe(self) -> str:
        """Return the shapes, such as ``1x3x224x224``."""
        shapes = ["x".join(map(str, tensor.shape)) for tensor in tensors_of(tuple(self))]
        return ", ".join(shapes) or "no tensor"

    def __iter__(self) -> Iterator[Any]:
        yield self.args
        yield self.kwargs


def as_call(example: object, *, device: torch.device | None = None) -> Call:
    """Turn an example input into the arguments of a forward pass.

    A tuple holds positional arguments, a dict named ones; anything else (a tensor, or the
    list of images that a detector takes) is the only argument.

    Raises:
        InputError: the example holds no tensor.
    """
    if isinstance(example, tuple):
        call = Call(example, {})
    elif isinstance(example, Mapping):
        call = Call((), dict(example))
    else:
        call = Call((example,), {})
    tensors = tensors_of(tuple(call))
    if any(tensor.is_meta for tensor in tensors):
        raise InputError("the example has no values (device meta); make it on a device")
    if not tensors:
        raise InputError(
            "the example holds no tensor; pass a tensor, a tuple of arguments or a dict of "
            f"named ones (got {type(example).__name__})"
        )
    return call if device is None else call.map(lambda tensor: tensor.to(device))


def tensors_of(value: object) -> list[Tensor]:
    """Collect the tensors of nested tuples, lists, dicts and dataclasses, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_of(item)]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_of(item)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return [tensor for one in fields for tensor in tensors_of(getattr(value, one.name))]
    return []


def check_model(model: object) -> nn.Module:
    """Make sure that an object is a model whose convolutions can be replaced.

    Raises:
        ModelError: with what to pass instead.
    """
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise ModelError(f"{model.__name__} is a class; pass an instance of it")
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"a model must be a torch.nn.Module (got {type(model).__name__}); "
            "pass the network itself"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError("TorchScript modules cannot be converted; pass the eager model")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ModelError(f"convert before wrapping: pass model.module of {type(model).__name__}")
    if hasattr(model, "_orig_mod"):
        raise ModelError("convert before torch.compile: pass the original model")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError(
            f"{type(model).__name__} has no values; build it on a device that is not meta"
        )
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise ModelError(
            f"{type(model).__name__} has lazy layers without weights; run it once on an example"
        )
    return model


def copy_model(
    model: nn.Module, memo: dict[int, Any] | None = None, *, hooks: bool = True
) -> nn.Module:
    """Deep-copy a model of any class, with ``memo`` standing in for parts of it.

    Tensors that a module computed from its parameters, which ``copy.deepcopy`` refuses, are
    copied as plain values; the module computes them anew.

    Args:
        hooks: whether the caller's hooks go along (torch's own, such as weight_norm's, do).

    Raises:
        ModelError: the model holds something that cannot be copied.
    """
    memo = {} if memo is None else memo
    for tensor in _computed_tensors(model):
        memo.setdefault(id(tensor), tensor.detach().clone())
    try:
        copied = copy.deepcopy(model, memo)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be copied ({sentence(error)}); remove what "
            "copy.deepcopy refuses, such as open files"
        ) from error
    if not isinstance(copied, nn.Module):
        raise ModelError(f"copying {type(model).__name__} gives no module")
    return copied if hooks else _without_hooks(copied)


def _computed_tensors(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                yield value


def sentence(error: BaseException) -> str:
    """Return the first line of an error's message, or its class where it has none."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if len(text) > _LONG:
        text = text.partition(". ")[0]
    return (text if len(text) <= 2 * _LONG else text[: 2 * _LONG] + "...").rstrip(".")


def shapes_of(output: object) -> Shapes:
    """Return the shapes of the tensors in a network's output, in order."""
    return tuple(tuple(tensor.shape) for tensor in tensors_of(output))


class Probe:
    """A throw-away copy of a model with an example input.

    The copy is made of fake tensors, which have shapes but no values, so that running it
    computes and allocates nothing. Where a model depends on values, the copy is real.
    The caller's hooks that only watch are left off unless the model does not run without
    them, since what they keep would fill with fake tensors. Where a ``converted`` network
    does not run, its input is not to blame.
    """

    def __init__(
        self, model: nn.Module, call: Call, *, name: str = "", converted: bool = False
    ) -> None:
        self.converted = converted
        self.name = name or type(model).__name__
        self.source = model
        self.call = call
        self.shapes: dict[bool, Shapes] = {}  # of the outputs, by mode, once it has run in it
        hooked = any(True for _ in _hooks_of_caller(model))
        self._ways = [(True, False), (True, True), (False, True)]  # (fake, hooks)
        if not hooked:
            self._ways = [(True, False), (False, False)]
        self._mode: Any = None
        self.hooks = False
        self._begin()

    @property
    def fake(self) -> bool:
        """Whether running the copy computes nothing."""
        return self._mode is not None

    def run(self, *, training: bool = False) -> Any:
        """Run the copy once and return its output.

        Where fake tensors do not do, the copy is replaced by a real one.

        Raises:
            InputError: the model does not accept the example.
            VerificationError: a converted model does not run.
        """
        while True:
            try:
                return self.execute(training=training)
            except Exception as error:
                if not self._ways:
                    raise self._explain(error) from error
                _log.debug("%s, fake %s: %s", self.name, self.fake, sentence(error))
            self._begin()

    def execute(self, *, training: bool = False) -> Any:
        """Run the copy once on the example, and let errors through."""
        self.model.train(training)
        with self.context(), torch.no_grad(), _silent_fake_tensors():
            args, kwargs = self._inputs
            output = self.model(*args, **kwargs)
        self.shapes[training] = shapes_of(output)
        return output

    def feed(self, call: Call) -> None:
        """Take another example input from now on."""
        self.call = call
        self._inputs = call.map(self._mode.from_tensor if self._mode is not None else torch.clone)
        self.shapes = {}

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the copy's tensors live."""
        return self._mode if self._mode is not None else contextlib.nullcontext()

    def _begin(self) -> None:
        """Make the copy in the next of the ways that are left."""
        fake, self.hooks = self._ways.pop(0)
        self._mode = None
        if not fake:
            self.model = _frozen(copy_model(self.source, hooks=self.hooks))
        else:
            try:
                self.model = self._fake_copy()
            except Exception as error:
                _log.debug("%s cannot be made of fake tensors: %s", self.name, sentence(error))
                return self._begin()
        return self.feed(self.call)

    def _fake_copy(self) -> nn.Module:
        from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

        mode = FakeTensorMode(allow_non_fake_inputs=True)
        memo = {
            id(tensor): mode.from_tensor(tensor.detach())
            for tensor in _computed_tensors(self.source)
        }
        with FakeCopyMode(mode):
            model = copy_model(self.source, memo, hooks=self.hooks)
        self._mode = mode
        return _frozen(model)

    def _explain(self, error: Exception) -> GhostifyError:
        if self.converted:
            return VerificationError(
                f"the converted {self.name} does not run ({sentence(error)}); "
                "keep the layer that its code looks into"
            )
        return InputError(
            f"{self.name} cannot run on an input of shape {self.call.describe()} "
            f"({sentence(error)}); give the input that it was made for"
        )


@contextlib.contextmanager
def _silent_fake_tensors() -> Iterator[None]:
    """Keep torch from logging the traceback of an error that is handled here."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _hooks_of_caller(model: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    """Yield each hook that may be left off.

    Torch's own compute weights, and a hook that returns something may change what flows on.
    """
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for number, hook in hooks.items():
                home = getattr(hook, "__module__", None) or type(hook).__module__
                if not str(home).startswith("torch.") and _returns_nothing(hook):
                    yield module, number


def _returns_nothing(hook: Any) -> bool:
    """Read from a function's bytecode that it only ever returns None."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    code = getattr(getattr(hook, "__func__", hook), "__code__", None)
    if code is None:
        return False
    before = None
    for step in dis.get_instructions(code):
        if step.opname == "RETURN_CONST" and step.argval is not None:
            return False
        if step.opname == "RETURN_VALUE" and not (
            before is not None and before.opname == "LOAD_CONST" and before.argval is None
        ):
            return False
        before = step
    return True


def _without_hooks(model: nn.Module) -> nn.Module:
    for module, number in list(_hooks_of_caller(model)):
        for hooks in (
            module._forward_pre_hooks,
            module._forward_pre_hooks_with_kwargs,
            module._forward_hooks,
            module._forward_hooks_with_kwargs,
            module._forward_hooks_always_called,
        ):
            hooks.pop(number, None)
    return model


@contextlib.contextmanager
def unhooked(model: nn.Module) -> Iterator[None]:
    """Leave off the caller's hooks that only watch, for the time."""
    kinds = (
        "_forward_pre_hooks",
        "_forward_pre_hooks_with_kwargs",
        "_forward_hooks",
        "_forward_hooks_with_kwargs",
        "_forward_hooks_always_called",
    )
    saved = [
        (hooks, dict(hooks))
        for module in model.modules()
        for hooks in (getattr(module, kind) for kind in kinds)
        if hooks
    ]
    _without_hooks(model)
    try:
        yield
    finally:
        for hooks, before in saved:
            hooks.clear()
            hooks.update(before)


def _frozen(model: nn.Module) -> nn.Module:
    """Let nothing ask for a gradient: a run without one can trip over it."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model
