"""ExecuTorch, by its own packages in this environment or in one of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from ghostify.exporting.foreign import Foreign
from ghostify.exporting.program import refuse_bfloat16

__all__ = ["EXECUTORCH", "LARGEST_BATCH", "ExecuTorch"]

LARGEST_BATCH = 32
"""Of a dynamic batch: ExecuTorch plans its memory for it when a file is written."""

EXECUTORCH = Foreign(
    title="ExecuTorch",
    package="executorch",
    extra="executorch",
    variable="GHOSTIFY_EXECUTORCH_PYTHON",
    worker="executorch_worker.py",
)
"""Where the packages are."""


class ExecuTorch:
    """The format's place among the others."""

    name = "executorch"
    suffix = ".pte"
    passes = "executorch"

    def missing(self) -> str | None:
        return EXECUTORCH.missing()

    def versions(self) -> Mapping[str, str]:
        return EXECUTORCH.versions()

    def write(
        self,
        model: nn.Module,
        example: Sequence[Tensor],
        file: Path,
        *,
        dynamic_batch: bool = False,
        metadata: Mapping[str, str] = {},
    ) -> None:
        refuse_bfloat16("ExecuTorch", model, example)
        EXECUTORCH.convert(
            model,
            example,
            file,
            dynamic_batch=dynamic_batch,
            largest_batch=LARGEST_BATCH,
            metadata=metadata,
        )

    def run(self, file: Path, inputs: Sequence[Sequence[Tensor]]) -> tuple[tuple[Tensor, ...], ...]:
        return EXECUTORCH.run(file, inputs)

    def metadata(self, file: Path) -> Mapping[str, str]:
        return EXECUTORCH.describe(file)
