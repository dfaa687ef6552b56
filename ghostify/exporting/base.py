"""What every file format can do: be written, be run by its own runtime, tell its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

__all__ = ["Format"]


class Format(Protocol):
    """A file format for networks. Packages are imported inside these methods only."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...

    @property
    def suffix(self) -> str:
        """How its files end, such as ``.onnx``."""
        ...

    @property
    def passes(self) -> str:
        """The runtime whose passes suit such files (a name for :func:`ghostify.optimize`)."""
        ...

    def missing(self) -> str | None:
        """Return None, or the sentence that says what to install."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Return the versions of the packages that do the work."""
        ...

    def write(
        self,
        model: nn.Module,
        example: Sequence[Tensor],
        file: Path,
        *,
        dynamic_batch: bool = False,
        metadata: Mapping[str, str] = {},
    ) -> None:
        """Write a network that is in eval mode and on the CPU, unchecked.

        Raises:
            ExportError: it cannot be written; the message names the operator and the layer.
        """
        ...

    def run(self, file: Path, inputs: Sequence[Sequence[Tensor]]) -> tuple[tuple[Tensor, ...], ...]:
        """Load a file anew by its own runtime and return its outputs for each of some inputs.

        Raises:
            ExportError: the runtime refuses.
        """
        ...

    def metadata(self, file: Path) -> Mapping[str, str]:
        """Return what was given to :meth:`write`."""
        ...
