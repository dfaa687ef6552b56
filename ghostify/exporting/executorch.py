"""ExecuTorch, by its own packages in this environment or in one of their own."""

from __future__ import annotations

from ghostify.exporting.foreign import Foreign, ForeignFormat

__all__ = ["ExecuTorch"]


class ExecuTorch(ForeignFormat):
    """A program for ExecuTorch's XNNPACK backend.

    Its memory is planned when the file is written, so a dynamic batch has a largest size.
    """

    name = "executorch"
    suffix = ".pte"
    largest_batch = 32
    place = Foreign(
        title="ExecuTorch",
        package="executorch",
        extra="executorch",
        variable="GHOSTIFY_EXECUTORCH_PYTHON",
        worker="executorch_worker.py",
    )
