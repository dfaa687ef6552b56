"""Search spaces: which settings each layer of a network may take, written as YAML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from ghostify.errors import DataFileError, SpecError, nearest
from ghostify.spec import ConvSite, GhostSpec
from ghostify.yaml_file import read_yaml

__all__ = ["Choices", "SearchSpace", "load_space", "shipped_spaces"]

_KEYS = ("model", "description", "layers")
_LAYER_KEYS = ("match", "choices")


@dataclass(frozen=True, slots=True)
class Choices:
    """What the layers that match a pattern may become; None stands for keeping them."""

    pattern: str
    settings: tuple[GhostSpec | None, ...]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The choices for a network's layers; the first matching pattern decides.

    Layers that match none are kept.
    """

    model: str
    layers: tuple[Choices, ...]
    description: str = ""

    def choices(self, name: str) -> tuple[GhostSpec | None, ...]:
        """Return what one layer may become."""
        for layer in self.layers:
            if fnmatchcase(name, layer.pattern):
                return layer.settings
        return (None,)

    def size(self, sites: Sequence[ConvSite]) -> int:
        """Return the number of plans in the space for a network with these convolutions."""
        return math.prod(len(self.choices(site.name)) for site in sites if site.eligible)


def shipped_spaces() -> tuple[str, ...]:
    """Return the names of the search spaces that come with ghostify."""
    folder = _shipped_folder()
    return tuple(sorted(file.stem for file in folder.glob("*.yaml")))


def load_space(name: str | Path) -> SearchSpace:
    """Read a search space: a YAML file, or one of the shipped ones by name.

    Raises:
        DataFileError: no such space, or a mistake in it, with the file and the path inside.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if str(name) not in shipped_spaces():
            raise DataFileError(
                f"no search space is called {str(name)!r}"
                + (nearest(str(name), shipped_spaces()) or "; give the path of a YAML file")
            )
        path = _shipped_folder() / f"{name}.yaml"
    value = read_yaml(path, kind="search space")
    return _space(value, path.name)


def _shipped_folder() -> Path:
    inside = Path(str(resources.files("ghostify"))) / "search_spaces"  # in a wheel
    return inside if inside.is_dir() else inside.parent.parent / "search_spaces"  # in a checkout


def _space(value: object, where: str) -> SearchSpace:
    if not isinstance(value, dict):
        raise DataFileError(f"{where}: a search space is a mapping with model and layers")
    _check_keys(value, _KEYS, where, "")
    layers = value.get("layers")
    if not isinstance(layers, list) or not layers:
        raise DataFileError(f"{where}: layers: must be a list of match and choices")
    return SearchSpace(
        model=str(value.get("model") or ""),
        layers=tuple(_layer(layer, where, place) for place, layer in enumerate(layers)),
        description=str(value.get("description") or "").strip(),
    )


def _layer(value: object, where: str, place: int) -> Choices:
    inside = f"layers[{place}]"
    if not isinstance(value, dict) or not isinstance(value.get("match"), str):
        raise DataFileError(f"{where}: {inside}.match: must be a layer name or pattern")
    _check_keys(value, _LAYER_KEYS, where, f"{inside}.")
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        raise DataFileError(f"{where}: {inside}.choices: must be a list such as [keep, 's2,d3']")
    settings: list[GhostSpec | None] = []
    for number, choice in enumerate(choices):
        try:
            settings.append(None if choice == "keep" else GhostSpec.parse(str(choice)))
        except SpecError as error:
            raise DataFileError(f"{where}: {inside}.choices[{number}]: {error}") from None
    return Choices(value["match"], tuple(settings))


def _check_keys(value: dict[object, object], known: Sequence[str], where: str, inside: str) -> None:
    for key in value:
        if key not in known:
            raise DataFileError(
                f"{where}: {inside}{key}: unknown key, known are {', '.join(known)}"
                + nearest(str(key), known)
            )
