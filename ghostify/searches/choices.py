"""What the layers of a network, or the arguments that build it, may be chosen from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from types import MappingProxyType
from typing import Any

from ghostify.spec import ConvSite, LayerSpec

__all__ = ["KEEP", "SHARING", "Argument", "Choices", "Forbidden", "SearchSpace", "same", "written"]

KEEP = "keep"
"""How the choice to leave a layer as it is is written."""

SHARING = ("all", "stage", "block")
"""Which layers of one pattern take their choice together; ``true`` stands for all."""

Argument = str | int | float | bool | None
"""A value that a factory takes."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the layers that match a pattern may become; None stands for keeping them.

    ``shared`` says which of them take one choice together: ``"all"``, those of one
    ``"stage"`` (their names agree up to the first part with a digit: ``layer1``,
    ``blocks.2``) or of one ``"block"`` (up to the second: ``layer1.0``); empty: none.
    """

    pattern: str
    settings: tuple[LayerSpec | None, ...]
    shared: str = ""

    def group(self, name: str) -> str:
        """Return what the layers that choose together with ``name`` have in common."""
        if self.shared == "all":
            return self.pattern
        if not self.shared:
            return name
        parts = name.split(".")
        numbered = [place for place, part in enumerate(parts) if any(map(str.isdigit, part))]
        wanted = 1 if self.shared == "stage" else 2
        if not numbered:
            return name
        return ".".join(parts[: numbered[:wanted][-1] + 1])


@dataclass(frozen=True, slots=True)
class Forbidden:
    """Choices that must not meet: a plan in which every one of them occurs is out.

    Each is a pattern of layer names with the choices meant, of which any on any matching
    layer counts; or the name of an argument with its values.
    """

    parts: tuple[tuple[str, tuple[LayerSpec | Argument, ...]], ...]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The choices for a network's layers, or for the arguments of the function that builds it.

    The first matching pattern decides what a layer may become; layers that match none are
    kept.
    """

    model: str
    layers: tuple[Choices, ...] = ()
    description: str = ""
    arguments: Mapping[str, tuple[Argument, ...]] = field(default_factory=dict)
    forbidden: tuple[Forbidden, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = dict(self.arguments)
        return SearchSpace, (
            self.model,
            self.layers,
            self.description,
            arguments,
            self.forbidden,
        )

    def decider(self, name: str) -> Choices | None:
        """Return the entry that decides what one layer may become, if there is one."""
        return next((one for one in self.layers if fnmatchcase(name, one.pattern)), None)

    def choices(self, name: str) -> tuple[LayerSpec | None, ...]:
        """Return what one layer may become."""
        decider = self.decider(name)
        return (None,) if decider is None else decider.settings

    def size(self, sites: Sequence[ConvSite]) -> int:
        """Return the number of plans in the space for a network with these convolutions.

        Layers that share a choice count once; forbidden combinations are not taken off.
        """
        groups: dict[tuple[str, str], int] = {}
        for site in sites:
            decider = self.decider(site.name)
            if site.eligible and decider is not None:
                groups[decider.pattern, decider.group(site.name)] = len(decider.settings)
        return math.prod([*groups.values(), *map(len, self.arguments.values())])

    def combinations(self) -> list[dict[str, Argument]]:
        """Return every allowed set of arguments, in the order of their values."""
        names = list(self.arguments)
        found = [
            dict(zip(names, values, strict=True)) for values in product(*self.arguments.values())
        ]
        return [one for one in found if not self._is_forbidden(one)]

    def _is_forbidden(self, arguments: Mapping[str, Argument]) -> bool:
        return any(
            all(any(same(arguments[name], value) for value in values) for name, values in rule)
            for rule in (one.parts for one in self.forbidden)
        )

    def as_json(self) -> dict[str, Any]:
        """Return the space as plain values, which ``parse_space`` reads."""
        value: dict[str, Any] = {"model": self.model}
        if self.description:
            value["description"] = self.description
        if self.arguments:
            value["arguments"] = {name: list(values) for name, values in self.arguments.items()}
        if self.layers:
            value["layers"] = [
                {"match": one.pattern, "choices": [written(choice) for choice in one.settings]}
                | ({"shared": one.shared} if one.shared else {})
                for one in self.layers
            ]
        if self.forbidden:
            of_layers = bool(self.layers)
            value["forbidden"] = [
                {
                    name: [written(choice) if of_layers else choice for choice in choices]
                    for name, choices in one.parts
                }
                for one in self.forbidden
            ]
        return value

    @property
    def digest(self) -> str:
        """SHA-256 of everything but the description: equal spaces, equal digests."""
        value = self.as_json()
        value.pop("description", None)
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def written(choice: Any) -> str:
    """Return how a layer's choice is written."""
    return KEEP if choice is None else str(choice)


def same(one: object, other: object) -> bool:
    """Compare values of arguments so that true is not 1, but 1.0 is."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
