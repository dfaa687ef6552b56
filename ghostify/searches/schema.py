"""The JSON Schema of search spaces, by which editors complete and check them.

``python -m ghostify.searches.schema`` prints it; ``search_spaces/schema.json`` holds it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ghostify.cheap import CHEAP_COSTS
from ghostify.searches.choices import KEEP, SHARING
from ghostify.searches.derive import GHOSTS, PRUNES

__all__ = ["choice_pattern", "space_schema"]

_SIDE = r"0*[0-9]?[13579]"  # odd, of two digits
_RATIO = r"0*([2-9]|[1-9][0-9]+)"
_SHARE = r"0*\.0*[1-9][0-9]*"


def choice_pattern() -> str:
    """Return the regular expression of what a layer may become."""
    parts = "|".join(
        (
            rf"s *=? *{_RATIO}",
            rf"d *=? *{_SIDE}( *\+ *(d *=? *)?{_SIDE})*",
            r"r *=? *0*[1-9][0-9]*",
            *CHEAP_COSTS,
        )
    )
    return rf"^({KEEP}| *({parts}) *(, *({parts}) *)*|p *=? *{_SHARE} *)$"


def space_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of what :func:`.space.parse_space` reads."""
    value = {"type": ["string", "number", "boolean", "null"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ghostify search space",
        "description": "What the layers of a network may become, or the arguments that build it.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "model": {
                "type": "string",
                "description": "The network that the space is for; empty: any.",
            },
            "description": {"type": "string"},
            "layers": {
                "type": "array",
                "minItems": 1,
                "description": "The first entry that matches a layer decides; others are kept.",
                "items": {"$ref": "#/$defs/layer"},
            },
            "arguments": {
                "type": "object",
                "minProperties": 1,
                "description": "Values of arguments of the function that builds the network.",
                "propertyNames": {"pattern": r"^[A-Za-z_][A-Za-z0-9_]*$"},
                "additionalProperties": {
                    "type": "array",
                    "minItems": 1,
                    "uniqueItems": True,
                    "items": value,
                },
            },
            "forbidden": {
                "type": "array",
                "description": (
                    "Combinations that are out: of each entry, not all parts may occur together."
                ),
                "items": {"type": "object", "minProperties": 1},
            },
        },
        "oneOf": [
            {
                "required": ["layers"],
                "properties": {"forbidden": {"items": _combination({"$ref": "#/$defs/choice"})}},
            },
            {
                "required": ["arguments"],
                "properties": {"forbidden": {"items": _combination(value)}},
            },
        ],
        "$defs": {
            "layer": {
                "type": "object",
                "additionalProperties": False,
                "required": ["match", "choices"],
                "properties": {
                    "match": {
                        "type": "string",
                        "minLength": 1,
                        "description": "A layer's name or a pattern of names: *, ? and [ab].",
                    },
                    "choices": {
                        "type": "array",
                        "minItems": 1,
                        "uniqueItems": True,
                        "items": {"$ref": "#/$defs/choice"},
                    },
                    "shared": {
                        "enum": [True, False, *SHARING],
                        "default": False,
                        "description": (
                            "Which of the layers choose together: all (true), those of one "
                            "stage (layer1) or those of one block (layer1.0)."
                        ),
                    },
                },
            },
            "choice": {
                "description": (
                    "keep, a Ghost module (s: ratio, d: kernel, r: rounding, cheap operation) "
                    "or a share of the output maps to remove (p0.5)."
                ),
                "type": "string",
                "anyOf": [
                    {"enum": [KEEP, *map(str, GHOSTS), *map(str, PRUNES)]},
                    {"pattern": choice_pattern()},
                ],
            },
        },
    }


def _combination(value: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one forbidden combination."""
    one_or_more = {"anyOf": [value, {"type": "array", "minItems": 1, "items": value}]}
    return {"propertyNames": {"minLength": 1}, "additionalProperties": one_or_more}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(space_schema(), indent=2) + "\n")
