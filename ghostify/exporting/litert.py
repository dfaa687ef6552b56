"""LiteRT, by its own packages in this environment or in one of their own."""

from __future__ import annotations

from ghostify.exporting.foreign import Foreign, ForeignFormat

__all__ = ["LiteRt"]


class LiteRt(ForeignFormat):
    """TensorFlow Lite's format, as litert-torch writes it."""

    name = "litert"
    suffix = ".tflite"
    place = Foreign(
        title="LiteRT",
        package="litert_torch",
        extra="litert",
        variable="GHOSTIFY_LITERT_PYTHON",
        worker="litert_worker.py",
    )
