"""What networks of other arguments cost, by building each of them once."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from ghostify import api
from ghostify.cost.table_file import cache_folder
from ghostify.errors import DataFileError
from ghostify.models import zoo
from ghostify.search.architecture import Architecture
from ghostify.search.choices import Argument, SearchSpace

__all__ = ["open_architecture"]

_BYTES = 4  # of a parameter in float32


def open_architecture(
    space: SearchSpace,
    *,
    model: str = "",
    input_size: tuple[int, ...] | None = None,
    original: Mapping[str, Argument] | None = None,
    cache: Path | None = None,
) -> Architecture:
    """Put a space of arguments on the function that builds the network.

    Costs are ``"macs"``, ``"params"`` and ``"size"`` (bytes of the parameters in float32).

    Args:
        model: a name as :func:`ghostify.convert` takes it; the space's own if empty.
        input_size: ``(H, W)`` or ``(C, H, W)`` in place of the network's own.
        original: the arguments that shares of a budget refer to.
        cache: a file that keeps the costs; one in the cache folder if None.

    Raises:
        DataFileError: nobody says which network.
        PlanError: the space has no arguments.
        GhostifyError: the network of the original arguments cannot be built.
    """
    name = model or space.model
    if not name:
        raise DataFileError("the search space names no model; give the name of one beside it")

    def cost_of(arguments: Mapping[str, Argument]) -> dict[str, float]:
        built = zoo.build(name, args=arguments, seed=0)
        found = api.inspect(built, input_size=input_size).before
        return {"macs": found.macs, "params": found.params, "size": _BYTES * found.params}

    versions = " ".join(f"{one} {metadata.version(one)}" for one in ("ghostify", "torch"))
    return Architecture(
        space,
        cost_of,
        cache=cache or cache_folder() / "architectures.jsonl",
        key=f"{name} {input_size} {versions}",
        original=original,
    )
