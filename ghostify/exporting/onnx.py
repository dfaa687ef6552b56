"""ONNX: one file with its weights inside, whose nodes bear the names of the layers."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import ExportError
from ghostify.exporting.packages import missing, require
from ghostify.exporting.program import capture, first_line, layer_with, quiet, refuse_bfloat16

__all__ = ["LAYER", "LIMIT_BYTES", "Onnx", "layers_of_nodes", "write_onnx"]

LAYER = "ghostify.layer"
"""Metadata of a node: the dotted name of the layer that it belongs to."""

LIMIT_BYTES = 2**31 - 2**20
"""The format's limit for one file."""

_SCOPES = "pkg.torch.onnx.name_scopes"


def write_onnx(
    model: nn.Module,
    example: Sequence[Tensor],
    file: Path,
    *,
    dynamic_batch: bool = False,
    metadata: Mapping[str, str] = {},
) -> None:
    """Write a network in eval mode as one ONNX file, unchecked.

    Inputs are called ``input`` (``input_1``, ... if there are several), outputs ``output``.
    A node is called after its layer (``layer1.0.conv1/Conv``), so that a runtime's profile can
    be read.

    Args:
        metadata: kept in the file's ``metadata_props``.

    Raises:
        ExportError: the network, or an operator in it, cannot be written; it names the layer.
        RuntimeMissingError: the extra ``onnx`` is not installed.
    """
    require("onnx", "onnxscript", extra="onnx")
    program = capture(model, example, dynamic_batch=dynamic_batch)
    held = sum(
        tensor.numel() * tensor.element_size()
        for tensor in (*program.state_dict.values(), *program.constants.values())
        if isinstance(tensor, Tensor)
    )
    if held > LIMIT_BYTES:
        raise ExportError(
            f"an ONNX file holds at most 2 GiB and the network has {held / 2**30:.1f} GiB; "
            "export it as pt2"
        )
    try:
        with quiet():
            made = torch.onnx.export(program, dynamo=True, verbose=False)
            assert made is not None
            proto = made.model_proto
    except Exception as error:
        operator, layer = layer_with(program, _whole(error))
        where = f"the operator {operator} of {layer or 'the network'}" if operator else "it"
        raise ExportError(
            f"the network cannot be written as ONNX: {where} has no counterpart there "
            f"({first_line(error)}); keep that layer, or choose another format"
        ) from error
    _rename(proto)
    del proto.metadata_props[:]
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name = "ghostify"
    file.write_bytes(proto.SerializeToString())


class Onnx:
    """The format's place among the others."""

    name = "onnx"
    suffix = ".onnx"
    passes = "onnxruntime"

    def missing(self) -> str | None:
        return missing("onnx", "onnxscript", "onnxruntime", extra="onnx")

    def versions(self) -> Mapping[str, str]:
        return {name: packages.version(name) for name in ("onnx", "onnxscript", "onnxruntime")}

    def write(
        self,
        model: nn.Module,
        example: Sequence[Tensor],
        file: Path,
        *,
        dynamic_batch: bool = False,
        metadata: Mapping[str, str] = {},
    ) -> None:
        refuse_bfloat16("ONNX Runtime", model, example)
        write_onnx(model, example, file, dynamic_batch=dynamic_batch, metadata=metadata)

    def run(self, file: Path, inputs: Sequence[Sequence[Tensor]]) -> tuple[tuple[Tensor, ...], ...]:
        try:
            session = _open(file)
            names = [one.name for one in session.get_inputs()]
            outputs = []
            for tensors in inputs:
                arrays = [tensor.contiguous().numpy() for tensor in tensors]
                made = session.run(None, dict(zip(names, arrays, strict=True)))
                outputs.append(tuple(torch.from_numpy(array.copy()) for array in made))
        except Exception as error:
            raise ExportError(
                f"ONNX Runtime cannot run the file that was written ({first_line(error)}); "
                "choose another format"
            ) from error
        return tuple(outputs)

    def metadata(self, file: Path) -> Mapping[str, str]:
        return dict(_open(file).get_modelmeta().custom_metadata_map)


def layers_of_nodes(file: Path) -> dict[str, str]:
    """Return the layer of every node of a file that :func:`write_onnx` wrote, by its name."""
    require("onnx", extra="onnx")
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
    return {
        node.name: next((entry.value for entry in node.metadata_props if entry.key == LAYER), "")
        for node in graph.node
    }


def _open(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _rename(proto: Any) -> None:
    """Name nodes after layers, inputs and outputs by their place; drop all other remarks.

    The exporter notes down stack traces, with paths of this machine.
    """
    graph = proto.graph
    used: Counter[str] = Counter()
    weights = {tensor.name for tensor in graph.initializer}
    first = graph.input[0].type.tensor_type.shape.dim if graph.input else ()
    batch = first[0].dim_param if first and first[0].dim_param else None
    for node in graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
        layer = _layer(scopes)
        weight = node.input[1] if len(node.input) > 1 else ""
        if node.op_type == "Conv" and weight in weights and weight.endswith(".weight"):
            layer = weight.removesuffix(".weight")  # a batch norm that was folded lends its scope
        del node.metadata_props[:]
        node.metadata_props.add(key=LAYER, value=layer)
        name = f"{layer}/{node.op_type}" if layer else node.op_type
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name]}"
    names = _numbered("input", [value.name for value in graph.input])
    names |= _numbered("output", [value.name for value in graph.output])
    taken = {tensor.name for tensor in graph.initializer}
    taken |= {output for node in graph.node for output in node.output}
    inner = {
        name: f"{name}_inner" for name in names.values() if name in taken and name not in names
    }
    names |= inner
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
        if hasattr(value, "type"):
            for axis in value.type.tensor_type.shape.dim:
                if axis.dim_param == batch:
                    axis.dim_param = "batch"
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.metadata_props[:]


def _numbered(kind: str, names: list[str]) -> dict[str, str]:
    if len(names) == 1:
        return {names[0]: kind}
    return {name: f"{kind}_{number}" for number, name in enumerate(names, 1)}


def _layer(scopes: str) -> str:
    try:
        parts = ast.literal_eval(scopes) if scopes else []
    except (ValueError, SyntaxError):
        return ""
    return str(parts[-2]) if len(parts) >= 2 else ""


def _whole(error: BaseException) -> str:
    texts = [str(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        texts.insert(0, str(error))
    return json.dumps(texts)
