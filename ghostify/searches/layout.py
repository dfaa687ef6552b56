"""The variables of a search as plain values: enough to read its records without the network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ghostify.searches.architecture import Architecture
from ghostify.searches.choices import Argument, written
from ghostify.searches.problem import Problem

__all__ = ["Layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What there was to choose: for each variable its choices, and what they do to its layers.

    Where arguments are chosen that build a network, ``values`` has those of each; there are no
    layers then.
    """

    names: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    choices: tuple[tuple[str, ...], ...]
    effects: tuple[tuple[tuple[str, ...], ...], ...]  # by variable and choice, for each layer
    values: tuple[tuple[Argument, ...], ...] = ()

    @classmethod
    def of(cls, problem: Problem | Architecture) -> Layout:
        """Return the layout of a problem."""
        if isinstance(problem, Architecture):
            return cls._of_values(problem.names, problem.values)
        return cls(
            tuple(variable.name for variable in problem.variables),
            tuple(variable.layers for variable in problem.variables),
            tuple(tuple(map(written, variable.choices)) for variable in problem.variables),
            tuple(
                tuple(tuple(map(written, row)) for row in variable.effects)
                for variable in problem.variables
            ),
        )

    @property
    def digest(self) -> str:
        """Equal for equal choices of equal layers."""
        text = json.dumps([self.names, self.layers, self.choices, self.effects])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def plans(self) -> float:
        """How many plans there are, feasible or not."""
        count = 1.0
        for choices in self.choices:
            count *= len(choices)
        return count

    def plan(self, assignment: Sequence[int]) -> dict[str, str]:
        """Return an assignment as settings by layer; layers that stay are left out."""
        found: dict[str, str] = {}
        if self.values:
            return found
        for layers, effects, choice in zip(self.layers, self.effects, assignment, strict=True):
            pairs = zip(layers, effects[choice], strict=True)
            found |= {layer: setting for layer, setting in pairs if setting != "keep"}
        return found

    def arguments(self, assignment: Sequence[int]) -> dict[str, Argument]:
        """Return an assignment as the arguments that build its network."""
        places = zip(self.names, self.values, assignment, strict=True)
        return {name: values[place] for name, values, place in places}

    def as_json(self) -> list[dict[str, Any]]:
        """Return plain values."""
        if self.values:
            return [
                {"name": name, "values": list(values)}
                for name, values in zip(self.names, self.values, strict=True)
            ]
        return [
            {"name": name, "layers": list(layers), "choices": list(choices)}
            | (
                {}
                if all(set(row) == {choice} for row, choice in zip(effects, choices, strict=True))
                else {"effects": [list(row) for row in effects]}
            )
            for name, layers, choices, effects in zip(
                self.names, self.layers, self.choices, self.effects, strict=True
            )
        ]

    @classmethod
    def from_json(cls, value: Sequence[Mapping[str, Any]]) -> Layout:
        """Read what :meth:`as_json` wrote."""
        if value and "values" in value[0]:
            found = {str(one["name"]): tuple(one["values"]) for one in value}
            return cls._of_values(tuple(found), tuple(found.values()))
        names, layers, choices, effects = [], [], [], []
        for one in value:
            names.append(str(one["name"]))
            layers.append(tuple(one["layers"]))
            choices.append(tuple(one["choices"]))
            rows = one.get("effects") or [[choice] * len(layers[-1]) for choice in choices[-1]]
            effects.append(tuple(tuple(row) for row in rows))
        return cls(tuple(names), tuple(layers), tuple(choices), tuple(effects))

    @classmethod
    def _of_values(cls, names: tuple[str, ...], values: tuple[tuple[Argument, ...], ...]) -> Layout:
        choices = tuple(tuple(json.dumps(one) for one in row) for row in values)
        return cls(names, ((),) * len(names), choices, ((),) * len(names), values)
