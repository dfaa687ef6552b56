"""What networks of other arguments cost, by building each of them once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ghostify import looking
from ghostify.cost.table_file import cache_folder
from ghostify.errors import DataFileError
from ghostify.models import zoo
from ghostify.searches.architecture import Architecture
from ghostify.searches.choices import Argument, SearchSpace

__all__ = ["open_architecture"]

_BYTES = 4  # of a parameter in float32


@dataclass(frozen=True, slots=True)
class _BuildAndCount:
    """Builds a network with arguments, and says what it costs."""

    name: str
    fixed: Mapping[str, Any]
    input_size: tuple[int, ...] | None

    def __call__(self, arguments: Mapping[str, Argument]) -> dict[str, float]:
        built = zoo.build(self.name, args={**self.fixed, **arguments}, seed=0)
        found = looking.inspect(built, input_size=self.input_size).before
        return {"macs": found.macs, "params": found.params, "size": _BYTES * found.params}


def open_architecture(
    space: SearchSpace,
    *,
    model: str = "",
    input_size: tuple[int, ...] | None = None,
    original: Mapping[str, Argument] | None = None,
    fixed: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> Architecture:
    """Put a space of arguments on the function that builds the network.

    Costs are ``"macs"``, ``"params"`` and ``"size"`` (bytes of the parameters in float32).

    Args:
        model: a name as :func:`ghostify.convert` takes it; the space's own if empty.
        input_size: ``(H, W)`` or ``(C, H, W)`` in place of the network's own.
        original: the arguments that shares of a budget refer to.
        fixed: other arguments of the function, the same for all.
        cache: a file that keeps the costs; one in the cache folder if None.

    Raises:
        DataFileError: nobody says which network.
        PlanError: the space has no arguments.
        GhostifyError: the network of the original arguments cannot be built.
    """
    name = model or space.model
    if not name:
        raise DataFileError("the search space names no model; give the name of one beside it")

    versions = " ".join(f"{one} {metadata.version(one)}" for one in ("ghostify", "torch"))
    return Architecture(
        space,
        _BuildAndCount(name, dict(fixed or {}), input_size),
        cache=cache or cache_folder() / "architectures.jsonl",
        key=f"{name} {input_size} {versions}" + (f" {sorted(fixed.items())}" if fixed else ""),
        original=original,
    )
