"""ONNX in a fiftieth of the time, for small networks that are only timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ghostify.errors import ExportError
from ghostify.exporting.program import first_line, quiet

__all__ = ["write_draft"]


def write_draft(model: nn.Module, example: Sequence[Tensor], file: Path) -> None:
    """Write a network in eval mode as ONNX by torch's older exporter, unchecked and unnamed.

    It follows one run of the network, so the file is good for this very input only.

    Raises:
        ExportError: the exporter does not know an operator, or is gone from torch.
    """
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(model, tuple(example), str(file), dynamo=False)
    except Exception as error:
        raise ExportError(f"the network cannot be written quickly ({first_line(error)})") from error
