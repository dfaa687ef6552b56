"""LiteRT, by its own packages in this environment or in one of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from ghostify.exporting.foreign import Foreign
from ghostify.exporting.program import refuse_bfloat16

__all__ = ["LITERT", "LiteRt"]

LITERT = Foreign(
    title="LiteRT",
    package="litert_torch",
    extra="litert",
    variable="GHOSTIFY_LITERT_PYTHON",
    worker="litert_worker.py",
)
"""Where the packages are."""


class LiteRt:
    """The format's place among the others."""

    name = "litert"
    suffix = ".tflite"
    passes = "litert"

    def missing(self) -> str | None:
        return LITERT.missing()

    def versions(self) -> Mapping[str, str]:
        return LITERT.versions()

    def write(
        self,
        model: nn.Module,
        example: Sequence[Tensor],
        file: Path,
        *,
        dynamic_batch: bool = False,
        metadata: Mapping[str, str] = {},
    ) -> None:
        refuse_bfloat16("LiteRT", model, example)
        LITERT.convert(
            model,
            example,
            file,
            dynamic_batch=dynamic_batch,
            largest_batch=None,
            metadata=metadata,
        )

    def run(self, file: Path, inputs: Sequence[Sequence[Tensor]]) -> tuple[tuple[Tensor, ...], ...]:
        return LITERT.run(file, inputs)

    def metadata(self, file: Path) -> Mapping[str, str]:
        return LITERT.describe(file)
