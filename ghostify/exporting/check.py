"""Prove that a file computes what the network computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ghostify.errors import ExportError
from ghostify.exporting.base import Format
from ghostify.exporting.program import single_tensors
from ghostify.graph.probe import copy_model

__all__ = ["TOLERANCES", "Proof", "difference", "prove", "sample_inputs", "tolerance_for"]

TOLERANCES: Mapping[torch.dtype, float] = {
    torch.float64: 1e-6,
    torch.float32: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}
"""The largest difference by the type of the weights: max |a - b| over max |b|."""

_LARGE = 10.0
_STEADY = 0.1  # of the tolerance: an input where rounding does more says nothing about a file
_SEED = 20
_MORE = 2


@dataclass(frozen=True, slots=True)
class Proof:
    """How far the outputs of a file are from the network's own."""

    differences: Mapping[str, float]  # max |a - b| / max |b| by input, the worst of its outputs
    tolerance: float
    response: float  # how far the outputs are from those on the first input, by the same measure
    notes: tuple[str, ...] = ()

    @property
    def largest(self) -> float:
        """The largest of all differences."""
        return max(self.differences.values())


def prove(
    model: nn.Module,
    written: Format,
    file: Path,
    inputs: Mapping[str, Sequence[Tensor]],
    *,
    tolerance: float,
) -> Proof:
    """Load a file by its own runtime and compare its outputs with the network's.

    Where they differ too much, the network is run in float64: an input on which its own outputs
    are that uncertain says nothing, and is left out with a note.

    Args:
        model: the network in eval mode, as it was before any optimisation, on the CPU.
        inputs: by name, as :func:`sample_inputs` makes them.

    Raises:
        ExportError: the outputs differ by more than the tolerance, or in number or shape.
    """
    expected = [_outputs(model, one) for one in inputs.values()]
    found = written.run(file, list(inputs.values()))
    differences = {
        name: max(_differences(wanted, got, name=name, written=written), default=0.0)
        for name, wanted, got in zip(inputs, expected, found, strict=True)
    }
    notes: tuple[str, ...] = ()
    beyond = {name: one for name, one in differences.items() if not one <= tolerance}
    if beyond:
        _check_repeats(model, inputs, expected, tolerance)
        own = _rounding(model, inputs, expected)
        for name, one in beyond.items():
            if own.get(name, 0.0) <= _STEADY * tolerance:
                raise ExportError(
                    f"the {written.name} file computes something else than the network: on the "
                    f"input {name!r} they differ by {one:.1e} of the largest output, "
                    f"{tolerance:.0e} is allowed; try it without optimisation (--no-optimize), "
                    "or another format"
                )
            del differences[name]
            notes += (
                f"the input {name!r} was left out of the comparison: there, rounding alone moves "
                f"the network's outputs by {own[name]:.1e}",
            )
    if not differences:
        raise ExportError(
            "the network magnifies rounding errors so much that no file can be compared with it; "
            "train it, or export it in float64"
        )
    return Proof(differences, tolerance, _response(expected), notes)


def sample_inputs(
    example: Sequence[Tensor], *, dynamic_batch: bool = False
) -> dict[str, tuple[Tensor, ...]]:
    """Make inputs of the example's shapes: random, zeros, large, and of other batch sizes."""
    generator = torch.Generator().manual_seed(_SEED)

    def random(like: Tensor, batch: int | None = None) -> Tensor:
        shape = like.shape if batch is None else (batch, *like.shape[1:])
        if not like.is_floating_point():
            return like if batch is None else like[:1].expand(shape).clone()
        return torch.randn(shape, generator=generator).to(like.dtype)

    normal = tuple(random(one) for one in example)
    inputs = {
        "normal": normal,
        "zeros": tuple(torch.zeros_like(one) for one in example),
        "large": tuple(_LARGE * one if one.is_floating_point() else one for one in normal),
    }
    if dynamic_batch:
        size = example[0].shape[0]
        for batch in sorted({1, size + _MORE} - {size}):
            inputs[f"batch of {batch}"] = tuple(random(one, batch) for one in example)
    return inputs


def tolerance_for(model: nn.Module, example: Sequence[Tensor]) -> float:
    """Return the tolerance of the coarsest type among weights and inputs."""
    types = {tensor.dtype for tensor in (*model.parameters(), *model.buffers(), *example)}
    return max((TOLERANCES[one] for one in types if one in TOLERANCES), default=1e-4)


def difference(found: Tensor, wanted: Tensor) -> float:
    """Return max |a - b| over max |b| of two tensors of one shape; infinity for a stray NaN.

    Where what is wanted is not finite, the same must have been found. Where all of it is
    zero, the difference itself counts.
    """
    found, wanted = found.detach().double(), wanted.detach().double()
    finite = wanted.isfinite()
    if not torch.equal(finite, found.isfinite()):
        return float("inf")
    if not torch.equal(wanted[~finite].nan_to_num(0.5), found[~finite].nan_to_num(0.5)):
        return float("inf")
    wanted, found = wanted[finite], found[finite]
    if not wanted.numel():
        return 0.0
    scale = float(wanted.abs().max()) or 1.0
    return float((found - wanted).abs().max()) / scale


def _rounding(
    model: nn.Module,
    inputs: Mapping[str, Sequence[Tensor]],
    outputs: Sequence[tuple[Tensor, ...]],
) -> dict[str, float]:
    """Tell by input how far the network's outputs are from those in float64."""
    if not any(one.dtype == torch.float32 for one in model.parameters()):
        return {}
    exact = copy_model(model).double()
    found = {}
    for (name, given), output in zip(inputs.items(), outputs, strict=True):
        doubled = [one.double() if one.is_floating_point() else one for one in given]
        wanted = _outputs(exact, doubled)
        found[name] = max(difference(a, b) for a, b in zip(output, wanted, strict=True))
    return found


def _check_repeats(
    model: nn.Module,
    inputs: Mapping[str, Sequence[Tensor]],
    expected: Sequence[tuple[Tensor, ...]],
    tolerance: float,
) -> None:
    """Make sure that a network gives the same outputs again.

    Raises:
        ExportError: it does not.
    """
    again = _outputs(model, next(iter(inputs.values())))
    if any(difference(a, b) > tolerance for a, b in zip(again, expected[0], strict=True)):
        raise ExportError(
            "the network gives other outputs each time that it runs, so no file can be "
            "compared with it; take what is random out of its eval mode"
        )


def _response(outputs: Sequence[tuple[Tensor, ...]]) -> float:
    first = outputs[0]
    return max(
        (
            difference(one, other)
            for others in outputs[1:]
            for one, other in zip(others, first, strict=True)
            if one.shape == other.shape
        ),
        default=float("inf"),
    )


def _differences(
    wanted: tuple[Tensor, ...], got: tuple[Tensor, ...], *, name: str, written: Format
) -> list[float]:
    shapes = [tuple(one.shape) for one in wanted]
    if [tuple(one.shape) for one in got] != shapes:
        raise ExportError(
            f"the {written.name} file gives outputs of {_list(got)} on the input {name!r}, the "
            f"network of {_list(wanted)}; try it with a fixed batch, or another format"
        )
    return [difference(a, b) for a, b in zip(got, wanted, strict=True)]


def _list(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join("x".join(map(str, tensor.shape)) or "no axis" for tensor in tensors)


def _outputs(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return tuple(one.detach() for one in single_tensors(model(*inputs)))
