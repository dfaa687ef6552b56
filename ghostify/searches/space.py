"""Search spaces written as YAML: read, with each mistake named by file and path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from ghostify.errors import DataFileError, SpecError, nearest
from ghostify.searches.choices import (
    KEEP,
    SHARING,
    Argument,
    Choices,
    Forbidden,
    SearchSpace,
    same,
    written,
)
from ghostify.spec import LayerSpec, parse_spec
from ghostify.yaml_file import read_yaml

__all__ = ["Choices", "Forbidden", "SearchSpace", "load_space", "parse_space", "shipped_spaces"]

_KEYS = ("model", "description", "layers", "arguments", "forbidden")
_LAYER_KEYS = ("match", "choices", "shared")


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
    if path.suffix not in (".yaml", ".yml", ".json"):
        if str(name) not in shipped_spaces():
            raise DataFileError(
                f"no search space is called {str(name)!r}"
                + (nearest(str(name), shipped_spaces()) or "; give the path of a YAML file")
            )
        path = _shipped_folder() / f"{name}.yaml"
    value = read_yaml(path, kind="search space")
    return parse_space(value, where=path.name)


def parse_space(value: object, *, where: str = "search space") -> SearchSpace:
    """Read a search space from plain values.

    Raises:
        DataFileError: a mistake in it, with the path inside and the nearest valid key.
    """
    if not isinstance(value, dict):
        raise DataFileError(f"{where}: a search space is a mapping with model and layers")
    _check_keys(value, _KEYS, where, "")
    for key in ("model", "description"):
        if not isinstance(value.get(key, ""), str):
            raise DataFileError(f"{where}: {key}: must be a text (got {value[key]!r})")
    if ("layers" in value) == ("arguments" in value):
        given = "both" if "layers" in value else "neither"
        raise DataFileError(
            f"{where}: layers: must be a list of match and choices, or arguments a mapping of "
            f"names to values (got {given}); give one of the two"
        )
    layers: tuple[Choices, ...] = ()
    arguments: dict[str, tuple[Argument, ...]] = {}
    if "layers" in value:
        entries = value["layers"]
        if not isinstance(entries, list) or not entries:
            raise DataFileError(f"{where}: layers: must be a list of match and choices")
        layers = tuple(_layer(entry, where, place) for place, entry in enumerate(entries))
    else:
        arguments = _arguments(value["arguments"], where)
    space = SearchSpace(
        model=value.get("model", ""),
        layers=layers,
        description=value.get("description", "").strip(),
        arguments=arguments,
        forbidden=_forbidden(value.get("forbidden", []), where, arguments),
    )
    if arguments and not space.combinations():
        raise DataFileError(
            f"{where}: forbidden: leaves no set of arguments at all; take a rule out"
        )
    return space


def _shipped_folder() -> Path:
    inside = Path(str(resources.files("ghostify"))) / "search_spaces"  # in a wheel
    return inside if inside.is_dir() else inside.parent.parent / "search_spaces"  # in a checkout


def _layer(value: object, where: str, place: int) -> Choices:
    inside = f"layers[{place}]"
    if not isinstance(value, dict) or not isinstance(value.get("match"), str):
        raise DataFileError(f"{where}: {inside}.match: must be a layer name or pattern")
    _check_keys(value, _LAYER_KEYS, where, f"{inside}.")
    if not value["match"]:
        raise DataFileError(f"{where}: {inside}.match: must be a layer name or pattern")
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        raise DataFileError(f"{where}: {inside}.choices: must be a list such as [keep, 's2,d3']")
    settings = tuple(
        _choice(choice, where, f"{inside}.choices[{number}]")
        for number, choice in enumerate(choices)
    )
    for number, setting in enumerate(settings):
        if setting in settings[:number]:
            raise DataFileError(
                f"{where}: {inside}.choices[{number}]: {written(setting)} stands twice; "
                "leave one out"
            )
    shared = value.get("shared", False)
    if shared is True or shared is False:
        shared = "all" if shared else ""
    elif shared not in SHARING:
        raise DataFileError(
            f"{where}: {inside}.shared: must be true, false, {', '.join(SHARING)} (got {shared!r})"
            + nearest(str(shared), SHARING)
        )
    return Choices(value["match"], settings, shared)


def _choice(value: object, where: str, inside: str) -> LayerSpec | None:
    if value == KEEP:
        return None
    if not isinstance(value, str):
        raise DataFileError(
            f"{where}: {inside}: must be keep, a Ghost setting like 's2,d3' or a pruned share "
            f"like 'p0.5' (got {value!r})"
        )
    try:
        return parse_spec(value)
    except SpecError as error:
        close = nearest(value, (KEEP,))
        raise DataFileError(f"{where}: {inside}: {error}{close}") from None


def _arguments(value: object, where: str) -> dict[str, tuple[Argument, ...]]:
    if not isinstance(value, dict) or not value:
        raise DataFileError(f"{where}: arguments: must map names to values: {{width: [0.5, 1.0]}}")
    found: dict[str, tuple[Argument, ...]] = {}
    for name, values in value.items():
        inside = f"arguments.{name}"
        if not isinstance(name, str) or not name.isidentifier():
            raise DataFileError(f"{where}: {inside}: is no name of an argument (got {name!r})")
        found[name] = _values(values, where, inside)
    return found


def _values(values: object, where: str, inside: str) -> tuple[Argument, ...]:
    if not isinstance(values, list) or not values:
        raise DataFileError(f"{where}: {inside}: must be a list of values such as [0.5, 1.0]")
    for number, value in enumerate(values):
        plain = value is None or isinstance(value, str | int | float)
        if not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise DataFileError(
                f"{where}: {inside}[{number}]: must be a number, a text, true, false or null "
                f"(got {value!r})"
            )
        if any(same(value, other) for other in values[:number]):
            raise DataFileError(
                f"{where}: {inside}[{number}]: {value!r} stands twice; leave one out"
            )
    return tuple(values)


def _forbidden(
    value: object, where: str, arguments: Mapping[str, tuple[Argument, ...]]
) -> tuple[Forbidden, ...]:
    if not isinstance(value, list):
        raise DataFileError(
            f"{where}: forbidden: must be a list of combinations such as "
            "{conv1: keep, conv2: 's4,d3'}"
        )
    return tuple(
        _combination(entry, where, f"forbidden[{place}]", arguments)
        for place, entry in enumerate(value)
    )


def _combination(
    value: object, where: str, inside: str, arguments: Mapping[str, tuple[Argument, ...]]
) -> Forbidden:
    if not isinstance(value, dict) or not value:
        raise DataFileError(
            f"{where}: {inside}: must map names to choices such as {{conv1: keep, conv2: 's4,d3'}}"
        )
    parts: list[tuple[str, tuple[LayerSpec | Argument, ...]]] = []
    for name, listed in value.items():
        path = f"{inside}.{name}"
        choices = listed if isinstance(listed, list) else [listed]
        if not isinstance(name, str) or not name or not choices:
            raise DataFileError(f"{where}: {path}: must name one choice or a list of them")
        if not arguments:
            parts.append((name, tuple(_choice(choice, where, path) for choice in choices)))
            continue
        if name not in arguments:
            raise DataFileError(
                f"{where}: {path}: is none of the arguments {', '.join(arguments)}"
                + nearest(name, arguments)
            )
        for choice in choices:
            if not any(same(choice, known) for known in arguments[name]):
                raise DataFileError(
                    f"{where}: {path}: {choice!r} is none of the values that {name} may take"
                )
        parts.append((name, tuple(choices)))
    return Forbidden(tuple(parts))


def _check_keys(value: dict[object, object], known: Sequence[str], where: str, inside: str) -> None:
    for key in value:
        if key not in known:
            raise DataFileError(
                f"{where}: {inside}{key}: unknown key, known are {', '.join(known)}"
                + nearest(str(key), known)
            )
