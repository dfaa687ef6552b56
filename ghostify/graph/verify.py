"""Run a converted network, and make sure that it still is one."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghostify.errors import VerificationError
from ghostify.graph.probe import (
    Call,
    Probe,
    Shapes,
    copy_model,
    sentence,
    shapes_of,
    tensors_of,
)
from ghostify.nn.ghost import GhostModule

__all__ = ["Verification", "verify"]

_ATTEMPTS = 4

_SIDES = (64, 96, 128)
"""Sides of the images for the numeric check, tried before the example's own."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked; ``notes`` tell what could not be."""

    modes: tuple[str, ...]
    shapes: Shapes  # of the outputs in eval mode, on the example
    input: str  # shape of the input on which values and gradients were checked
    notes: tuple[str, ...] = ()


def verify(original: Probe, converted: Probe) -> Verification:
    """Check that a converted network gives the original's shapes, finite values and gradients.

    Output shapes in eval mode are compared on the probes' example. The rest is computed for
    real, in a scratch copy, on a pair of images that is as small as the network takes: in
    train mode, and in eval mode with the batch statistics of that pair (statistics of other
    weights say nothing about new ones). Each parameter of each new module must get a
    gradient that is finite and not all zero in one of the passes; since a few maps may all
    be negative in front of a ReLU by chance, layers without one are tried with other weights,
    and those whose convolution gets none in the original either are only noted.

    Raises:
        VerificationError: naming the output or parameter that fails.
    """
    name = original.name
    for probe in (original, converted):
        if False not in probe.shapes:
            probe.run()
    wanted = original.shapes[False]
    _compare(converted.shapes[False], wanted, "eval", name)
    failure = VerificationError(f"the converted {name} could not be run")
    for call, train_shapes, notes in _inputs(original):
        try:
            with _few_threads(call), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                dead = _without_gradient(converted, call, train_shapes)
                if dead:
                    notes += _excuse(original, call, dead)
        except VerificationError as error:
            failure = error  # batch statistics of very small maps may be at fault: try larger ones
            continue
        modes = ("eval",) if train_shapes is None else ("eval", "train")
        return Verification(modes, wanted, call.describe(), notes)
    raise failure


def _without_gradient(converted: Probe, call: Call, train_shapes: Shapes | None) -> dict[str, str]:
    """Compute values and gradients; return new parameters without one, with their layers.

    ``train_shapes`` None leaves train mode out.
    """
    name, scratch = converted.name, _prepare(converted)
    layers = {
        f"{layer}.{parameter_name}": (layer, parameter)
        for layer, module in scratch.named_modules()
        if isinstance(module, GhostModule)
        for parameter_name, parameter in module.named_parameters()
    }
    watched = {key: parameter.requires_grad_() for key, (_, parameter) in layers.items()}
    alive: set[str] = set()
    if train_shapes is not None:
        found, alive = _one_pass(scratch.train(), call, watched, "train", name)
        _compare(found, train_shapes, "train", name)
    dead: dict[str, str] = {}
    for attempt in range(_ATTEMPTS):
        _, more = _one_pass(scratch.eval(), call, watched, "eval", name)
        alive |= more
        dead = {key: layer for key, (layer, _) in layers.items() if key not in alive}
        if not dead:
            break
        _stir(scratch, set(dead.values()), attempt)
    return dead


def _excuse(original: Probe, call: Call, dead: dict[str, str]) -> tuple[str, ...]:
    """Let layers do without a gradient that got none in the original either, and note them.

    Raises:
        VerificationError: naming a parameter whose layer did get one.
    """
    name, scratch = original.name, _prepare(original)
    watched = {
        layer: scratch.get_submodule(layer)._parameters["weight"] for layer in set(dead.values())
    }
    weights = {layer: one.requires_grad_() for layer, one in watched.items() if one is not None}
    _, alive = _one_pass(scratch.eval(), call, weights, "eval", name)
    blamed = [key for key, layer in dead.items() if layer in alive]
    if blamed:
        others = f" (nor do {len(blamed) - 1} more)" if len(blamed) > 1 else ""
        raise VerificationError(
            f"{blamed[0]} of the converted {name} gets no gradient{others}; keep its layer"
        )
    layers = sorted(set(dead.values()))
    shown = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
    return (f"no gradient reaches {shown}, as in the original",)


def _compare(found: Shapes, wanted: Shapes, mode: str, name: str) -> None:
    if found != wanted:
        raise VerificationError(
            f"the converted {name} gives outputs of shape {_listed(found)} in {mode} mode, the "
            f"original {_listed(wanted)}; keep the layer that changes them"
        )


def _inputs(original: Probe) -> Iterator[tuple[Call, Shapes | None, tuple[str, ...]]]:
    """Yield the inputs that the original takes in train mode, small ones first.

    With each come its output shapes in that mode, and notes. If it takes none, the example
    itself is yielded, with None for shapes and the reason among the notes.
    """
    example, failure, found = original.call, "", False
    try:
        for call in _candidates(example):
            original.feed(call)
            try:
                if original.fake:
                    original.execute()
                original.run(training=True)
            except Exception as error:  # whatever it is, this size does not do
                failure = str(error)
                continue
            found = True
            yield call, original.shapes[True], ()
    finally:
        original.feed(example)
    if not found:
        note = f"train mode was not checked, the original itself fails in it: {failure}"
        yield example, None, (note,)


def _candidates(example: Call) -> Iterator[Call]:
    """Yield pairs of random images from small to the example's size, then the example."""
    image = example.image
    if image is None:
        yield example
        return
    generator = torch.Generator().manual_seed(0)
    sides = [side for side in _SIDES if 2 * side < min(image.shape[-2:])]
    for size in [(side, side) for side in sides] + [tuple(image.shape[-2:])]:
        pair = torch.randn(2, image.shape[1], *size, generator=generator)
        yield Call((pair.to(image),), {})
    if image.shape[0] > 2:
        yield example  # of a network that wants its batch whole


@contextlib.contextmanager
def _few_threads(call: Call) -> Iterator[None]:
    """Compute small images on one thread.

    More gain nothing there, and where another process holds a core, their waiting for each
    other after every operation makes the check tens of times slower.
    """
    threads = torch.get_num_threads()
    image = call.image
    if image is not None and max(image.shape[-2:]) <= _SIDES[-1]:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _prepare(probe: Probe) -> nn.Module:
    """Return a scratch copy fit for the check, in which nothing asks for a gradient yet."""
    scratch = copy_model(probe.source, hooks=probe.hooks)
    generator = torch.Generator().manual_seed(0)
    for module in scratch.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.momentum = 1.0
    for parameter in scratch.parameters():
        parameter.requires_grad_(False)
        # Behind a gain of zero, as fresh residual branches have, nothing gets a gradient.
        if parameter.is_floating_point() and not parameter.any():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return scratch


def _stir(model: nn.Module, layers: set[str], attempt: int) -> None:
    """Give other weights to the modules without a gradient: first negated, then new ones."""
    for name, module in model.named_modules():
        if isinstance(module, GhostModule) and name in layers:
            with torch.no_grad():
                if attempt % 2 == 0:
                    for parameter in module.primary.parameters():
                        parameter.neg_()
                else:
                    generator = torch.Generator(device=module.weight.device)
                    module.reset_parameters(generator.manual_seed(attempt))


def _one_pass(
    model: nn.Module, call: Call, watched: Mapping[str, Tensor], mode: str, name: str
) -> tuple[Shapes, set[str]]:
    """Run forward and backward; return the output shapes and who got a gradient."""
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the network's own affairs
            output = model(*call.args, **call.kwargs)
            outputs = [tensor for tensor in tensors_of(output) if tensor.is_floating_point()]
            generator = torch.Generator().manual_seed(0)
            directions = [torch.randn(tensor.shape, generator=generator) for tensor in outputs]
            loss = sum(
                (tensor.float() * direction.to(tensor.device)).sum()
                for tensor, direction in zip(outputs, directions, strict=True)
            )
            parameters = list(watched.values())
            gradients = (
                torch.autograd.grad(loss, parameters, allow_unused=True)
                if parameters and isinstance(loss, Tensor) and loss.requires_grad
                else (None,) * len(parameters)
            )
    except Exception as error:
        raise VerificationError(
            f"the converted {name} fails in {mode} mode ({sentence(error)})"
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in outputs):
        raise VerificationError(
            f"the converted {name} gives values that are not finite in {mode} mode; "
            "check the weights that it was given"
        )
    alive = set()
    for parameter, gradient in zip(watched, gradients, strict=True):
        if gradient is None:
            continue
        if not bool(torch.isfinite(gradient).all()):
            raise VerificationError(
                f"the gradient of {parameter} in the converted {name} is not finite in {mode} "
                "mode; check the weights that it was given"
            )
        if bool(gradient.any()):
            alive.add(parameter)
    return shapes_of(output), alive


def _listed(shapes: Shapes) -> str:
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)
