"""PT2: torch.export's own archive, which torch loads without the network's code."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ghostify.errors import ExportError
from ghostify.exporting.program import capture, first_line, quiet, single_tensors

__all__ = ["Pt2", "write_pt2"]

_LIST = "ghostify_keys"


def write_pt2(
    model: nn.Module,
    example: Sequence[Tensor],
    file: Path,
    *,
    dynamic_batch: bool = False,
    largest_batch: int | None = None,
    metadata: Mapping[str, str] = {},
) -> None:
    """Write a network in eval mode as a ``.pt2`` file, unchecked.

    Args:
        metadata: kept as extra files of the archive; ``ghostify_keys`` lists them.

    Raises:
        ExportError: it cannot be captured; the message names the layer.
    """
    program = capture(model, example, dynamic_batch=dynamic_batch, largest_batch=largest_batch)
    extra = dict(metadata)
    if extra:
        extra[_LIST] = "\n".join(metadata)
    held = io.BytesIO()  # torch reports a full disk as anything but that
    with quiet():
        torch.export.save(program, held, extra_files=extra)
    file.write_bytes(held.getbuffer())


class Pt2:
    """The format's place among the others."""

    name = "pt2"
    suffix = ".pt2"
    passes = "torch-compile"

    def missing(self) -> str | None:
        return None

    def versions(self) -> Mapping[str, str]:
        return {"torch": torch.__version__}

    def write(
        self,
        model: nn.Module,
        example: Sequence[Tensor],
        file: Path,
        *,
        dynamic_batch: bool = False,
        metadata: Mapping[str, str] = {},
    ) -> None:
        write_pt2(model, example, file, dynamic_batch=dynamic_batch, metadata=metadata)

    def run(self, file: Path, inputs: Sequence[Sequence[Tensor]]) -> tuple[tuple[Tensor, ...], ...]:
        try:
            with quiet(), torch.no_grad():
                network = torch.export.load(file).module()
                return tuple(single_tensors(network(*one)) for one in inputs)
        except Exception as error:
            raise ExportError(
                f"torch cannot run the file that was written ({first_line(error)}); "
                "choose another format"
            ) from error

    def metadata(self, file: Path) -> Mapping[str, str]:
        listed = {_LIST: ""}
        with quiet():
            torch.export.load(file, extra_files=listed)
            extra = dict.fromkeys(_text(listed[_LIST]).split(), "")
            torch.export.load(file, extra_files=extra)
        return {key: _text(value) for key, value in extra.items()}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
