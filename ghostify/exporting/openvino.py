"""OpenVINO's format: a graph as XML and its weights in a second file, in the given precision."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import ExportError
from ghostify.exporting.onnx import write_onnx
from ghostify.exporting.packages import missing, require
from ghostify.exporting.program import first_line, quiet, refuse_bfloat16

__all__ = ["OpenVino", "write_openvino"]

_KEYS = "ghostify_keys"


def write_openvino(
    model: nn.Module,
    example: Sequence[Tensor],
    file: Path,
    *,
    dynamic_batch: bool = False,
    metadata: Mapping[str, str] = {},
) -> None:
    """Write a network in eval mode as ``file`` (.xml) and its ``.bin``, by way of ONNX, unchecked.

    Weights stay as they are: OpenVINO would halve their precision by default.

    Args:
        metadata: kept as the model's ``rt_info``.

    Raises:
        ExportError: the network cannot be written; it names the layer.
        RuntimeMissingError: the extra ``openvino`` is not installed.
    """
    require("onnx", "onnxscript", "openvino", extra="openvino")
    import openvino

    with tempfile.TemporaryDirectory(prefix="ghostify-") as folder:
        source = Path(folder) / "model.onnx"
        write_onnx(model, example, source, dynamic_batch=dynamic_batch)
        try:
            with quiet():
                made = openvino.convert_model(str(source))
        except Exception as error:
            raise ExportError(
                f"OpenVINO cannot read the network ({first_line(error)}); choose another format"
            ) from error
        for key, value in metadata.items():
            made.set_rt_info(value, key)
        if metadata:
            made.set_rt_info(" ".join(metadata), _KEYS)
        try:
            openvino.save_model(made, str(file), compress_to_fp16=False)
        except RuntimeError as error:
            raise OSError(None, first_line(error)) from error


class OpenVino:
    """The format's place among the others."""

    name = "openvino"
    suffix = ".xml"
    passes = "openvino"

    def missing(self) -> str | None:
        return missing("onnx", "onnxscript", "openvino", extra="openvino")

    def versions(self) -> Mapping[str, str]:
        return {name: packages.version(name) for name in ("openvino", "onnx", "onnxscript")}

    def write(
        self,
        model: nn.Module,
        example: Sequence[Tensor],
        file: Path,
        *,
        dynamic_batch: bool = False,
        metadata: Mapping[str, str] = {},
    ) -> None:
        refuse_bfloat16("OpenVINO", model, example)
        write_openvino(model, example, file, dynamic_batch=dynamic_batch, metadata=metadata)

    def run(self, file: Path, inputs: Sequence[Sequence[Tensor]]) -> tuple[tuple[Tensor, ...], ...]:
        import openvino

        try:
            compiled = openvino.Core().compile_model(
                str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )
            return tuple(_run(compiled, one) for one in inputs)
        except RuntimeError as error:
            raise ExportError(
                f"OpenVINO cannot run the file that was written ({first_line(error)}); "
                "choose another format"
            ) from error

    def metadata(self, file: Path) -> Mapping[str, str]:
        import openvino

        model = openvino.Core().read_model(str(file))
        keys = str(model.get_rt_info(_KEYS).value).split()
        return {key: str(model.get_rt_info(key).value) for key in keys}


def _run(compiled: Any, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    request = compiled.create_infer_request()
    request.infer([tensor.contiguous().numpy() for tensor in inputs])
    return tuple(
        torch.from_numpy(request.get_output_tensor(number).data.copy())
        for number in range(len(compiled.outputs))
    )
