"""Export a network to the file of another runtime, with proof that it computes the same."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import ExportError, InputError
from ghostify.exporting.base import Format
from ghostify.exporting.check import Proof, prove, sample_inputs, tolerance_for
from ghostify.exporting.exported import Exported
from ghostify.exporting.formats import find_format, format_name
from ghostify.exporting.output import check_file, fresh_files
from ghostify.graph.probe import copy_model
from ghostify.graph.rewrite import Conversion
from ghostify.models import zoo
from ghostify.models.zoo import Built
from ghostify.nn.ghost import GhostModule
from ghostify.opening import Step, open_model
from ghostify.passes import optimize as optimize_model
from ghostify.plan import Plan
from ghostify.spec import Origin

__all__ = ["Exported", "export"]

_WEAK = 10  # times the tolerance: outputs that differ by less say little about a file


def export(
    model: nn.Module | str | Path | Built | Conversion,
    file: str | Path,
    *,
    format: str | None = None,
    example: Tensor | Sequence[Tensor] | None = None,
    input_size: tuple[int, ...] | None = None,
    batch: int = 1,
    dynamic_batch: bool = False,
    optimize: bool = True,
    tolerance: float | None = None,
    force: bool = False,
    on_step: Step | None = None,
) -> Exported:
    """Write a network in eval mode to a file of another runtime, and prove it.

    The file is loaded anew by its own runtime and its outputs are compared with those of the
    network as it stands in torch, on random, zero and large inputs and, where the batch is
    dynamic, other batch sizes. If they differ, nothing is written. The network itself stays
    untouched.

    Args:
        model: any ``nn.Module``, a conversion, a name, or the directory of an artefact.
        file: where to write; what stands there is replaced only with ``force``.
        format: ``onnx``, ``pt2``, ``openvino``, ``litert`` or ``executorch``. Default: by the
            ending of ``file`` (.onnx, .pt2, .xml, .tflite, .pte).
        example: the arguments of a forward pass. Not needed for networks that carry their
            input size.
        input_size: ``(H, W)`` or ``(C, H, W)`` of the images, in place of ``example``.
        batch: images at once, where ``example`` is not given.
        dynamic_batch: leave the number of images open.
        optimize: rewrite the graph for the format's runtime first (:func:`ghostify.optimize`).
        tolerance: of the comparison, in place of the type's own (float32: 1e-4).

    Raises:
        GhostifyError: whatever is wrong, in one sentence; ExportError if the network cannot
            be written, with the operator and the layer, or if the file computes something else.
    """
    step = on_step or _ignore
    file = Path(file)
    name = format_name(file, format)
    check_file(file, force=force)
    written = find_format(name)
    built = _built(model, step)
    inputs = _example(built, example, input_size, batch)
    network = copy_model(built.model, hooks=False).eval().cpu().requires_grad_(False)
    _check_runs(network, inputs, built)
    notes = built.notes(sized=example is not None or input_size is not None)
    candidates: list[tuple[nn.Module, str | None]] = [(network, None)]
    if optimize:
        step("optimising")
        optimized = optimize_model(network, inputs, runtime=written.passes)
        told = tuple(getattr(optimized, "ghostify_notes", ()))
        notes += told
        if not told:
            candidates.insert(0, (optimized, written.passes))
    allowed = tolerance_for(network, inputs) if tolerance is None else tolerance
    with fresh_files(file, force=force) as aside:
        step(f"writing {name}")
        passes, told = _write(
            candidates, written, inputs, aside, built, dynamic_batch=dynamic_batch
        )
        step("comparing")
        proof = prove(
            network,
            written,
            aside,
            sample_inputs(inputs, dynamic_batch=dynamic_batch),
            tolerance=allowed,
        )
        told += proof.notes
        if proof.response < _WEAK * proof.tolerance:
            told += (
                "the network answers nearly the same to every input, so the comparison says "
                "little; export it when it is trained",
            )
        names = sorted(one.name for one in aside.parent.iterdir())
        size = sum(one.stat().st_size for one in aside.parent.iterdir())
    return _exported(
        file, written, names, size, inputs, dynamic_batch, passes, proof, (*notes, *told)
    )


def _write(
    candidates: Sequence[tuple[nn.Module, str | None]],
    written: Format,
    inputs: tuple[Tensor, ...],
    file: Path,
    built: Built,
    *,
    dynamic_batch: bool,
) -> tuple[str | None, tuple[str, ...]]:
    """Write the first of some forms of a network that can be written; tell what was left."""
    told: tuple[str, ...] = ()
    for network, passes in candidates[:-1]:
        try:
            _write_one(network, passes, written, inputs, file, built, dynamic_batch)
        except ExportError as error:
            told = (f"not optimised for {passes}, since {error}",)
            for left in file.parent.iterdir():
                left.unlink()
        else:
            return passes, told
    network, passes = candidates[-1]
    _write_one(network, passes, written, inputs, file, built, dynamic_batch)
    return passes, told


def _write_one(
    network: nn.Module,
    passes: str | None,
    written: Format,
    inputs: tuple[Tensor, ...],
    file: Path,
    built: Built,
    dynamic_batch: bool,
) -> None:
    entries = _metadata(built, written, inputs, passes, dynamic_batch=dynamic_batch)
    written.write(network, inputs, file, dynamic_batch=dynamic_batch, metadata=entries)


def _exported(
    file: Path,
    written: Format,
    names: Sequence[str],
    size: int,
    inputs: tuple[Tensor, ...],
    dynamic_batch: bool,
    passes: str | None,
    proof: Proof,
    notes: tuple[str, ...],
) -> Exported:
    return Exported(
        file=file,
        format=written.name,
        files=tuple(file.parent / name for name in names),
        size_bytes=size,
        inputs=_shapes(inputs),
        dynamic_batch=dynamic_batch,
        passes=passes,
        differences=proof.differences,
        tolerance=proof.tolerance,
        versions=written.versions(),
        notes=notes,
    )


def _built(model: nn.Module | str | Path | Built | Conversion, step: Step) -> Built:
    if isinstance(model, Built):
        return model
    if isinstance(model, Conversion):
        size = zoo.input_size_of(model.model)
        if len(model.input) == 1 and model.input[0].count("x") == 3:
            size = tuple(int(side) for side in model.input[0].split("x")[1:])
        return Built(model.model, model.origin, size, ghosted=model.plan)
    if isinstance(model, nn.Module):
        name = f"{type(model).__module__}.{type(model).__qualname__}"
        return Built(model, Origin("memory", name), zoo.input_size_of(model))
    step(f"building {model}")
    return open_model(str(model))


def _example(
    built: Built,
    example: Tensor | Sequence[Tensor] | None,
    input_size: tuple[int, ...] | None,
    batch: int,
) -> tuple[Tensor, ...]:
    """Return the arguments of a forward pass on the CPU, of the network's own type.

    Raises:
        InputError: they are no tensors, or unknown.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch is a whole number from 1 on (got {batch!r})")
    given = zoo.example_input(built, input_size) if example is None else example
    tensors = (given,) if isinstance(given, Tensor) else tuple(given)
    strange = [type(one).__name__ for one in tensors if not isinstance(one, Tensor)]
    if strange or not tensors:
        raise InputError(
            "files hold networks whose arguments are tensors (got "
            f"{'a ' + strange[0] if strange else 'none'}); export the backbone, or wrap the network"
        )
    tensors = tuple(tensor.detach().cpu() for tensor in tensors)
    if example is not None:
        return tensors
    weight = next((one for one in built.model.parameters() if one.is_floating_point()), None)
    dtype = torch.float32 if weight is None else weight.dtype
    return tuple(one.expand(batch, *one.shape[1:]).clone().to(dtype) for one in tensors)


def _check_runs(network: nn.Module, inputs: tuple[Tensor, ...], built: Built) -> None:
    """Make sure that the network takes the example.

    Raises:
        InputError: it does not.
    """
    from ghostify.graph.probe import sentence

    try:
        with torch.no_grad():
            network(*inputs)
    except Exception as error:
        raise InputError(
            f"{built.origin.name} does not take an input of {', '.join(_shapes(inputs))} "
            f"({sentence(error)}); give another --input-size"
        ) from error


def _metadata(
    built: Built,
    written: Format,
    inputs: tuple[Tensor, ...],
    passes: str | None,
    *,
    dynamic_batch: bool,
) -> dict[str, str]:
    """Return what the file shall know of itself, as text by names that every format allows."""
    origin = built.origin
    versions = {
        "ghostify": packages.version("ghostify"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    values: dict[str, Any] = {
        "ghostify_model": {
            "source": origin.source,
            "name": origin.name,
            "args": dict(origin.args),
        },
        "ghostify_plan": _plan(built).as_json(),
        "ghostify_versions": versions | dict(written.versions()),
        "ghostify_inputs": list(_shapes(inputs)),
        "ghostify_dynamic_batch": dynamic_batch,
        "ghostify_passes": passes,
    }
    return {
        key: json.dumps(value, separators=(",", ":"), default=str) for key, value in values.items()
    }


def _plan(built: Built) -> Plan:
    if built.ghosted is not None:
        return built.ghosted
    layers = {
        name: module.spec
        for name, module in built.model.named_modules()
        if isinstance(module, GhostModule)
    }
    return Plan(layers, model=built.origin.name)


def _shapes(inputs: tuple[Tensor, ...]) -> tuple[str, ...]:
    return tuple("x".join(map(str, one.shape)) for one in inputs)


def _ignore(_step: str) -> None:
    return None
