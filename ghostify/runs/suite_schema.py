"""The JSON Schema of suites, by which editors complete and check them.

``python -m ghostify.runs.suite_schema`` prints it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from ghostify.cheap import CHEAP_COSTS
from ghostify.published import published_tables
from ghostify.runs.methods import SEARCH_KEYS, WHOLE_FIT_KEYS
from ghostify.runs.suite import KINDS, LAYOUTS, ORIGINAL, PRUNE_METHODS, STARTS
from ghostify.runtimes import RUNTIMES
from ghostify.train.recipe import Recipe

__all__ = ["suite_schema"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_FLAG: Schema = {"type": "boolean"}
_TEXTS: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_ANYTHING: Schema = {"type": "object"}
_NAME = "^[A-Za-z0-9][A-Za-z0-9_.+-]*$"


def suite_schema() -> Schema:
    """Return the schema (draft 2020-12) of what :func:`ghostify.runs.suite_file.load_suite` reads.

    It knows no files, and nothing that two places of a suite must agree on.
    """
    network = {
        "label": _TEXT,
        "model": _TEXT | {"description": "As ghostify convert takes it."},
        "weights": _maybe(_TEXT),
        "pretrained": _FLAG,
        "model_args": _maybe(_ANYTHING),
        "input": _maybe(
            {"type": "array", "items": _whole(1), "minItems": 3, "maxItems": 3}
            | {"description": "Channels, height and width."}
        ),
        "recipe": _maybe(_object({key: _RECIPE[key] for key in ("epochs", "steps", "overrides")})),
    }
    of_both = {
        "seeds": _list(_whole(0)),
        "budgets": _list(_TEXT) | {"description": "Such as macs=0.5x."},
        "adapt": _maybe({"$ref": "#/$defs/adapt"}),
        "tune": _maybe({"$ref": "#/$defs/tune"}),
        "lr": _maybe({"$ref": "#/$defs/number"}),
    }
    suite = _object(
        {
            "title": _TEXT,
            "description": {"type": "string"},
            "networks": _mapping({"$ref": "#/$defs/network"}),
            "data": _maybe(_data()),
            "recipe": {"$ref": "#/$defs/recipe"},
            "teacher": {"enum": [ORIGINAL, None]},
            "latency": _maybe(_list(_latency())),
            "methods": _mapping({"$ref": "#/$defs/method"}),
            "report": _maybe(_report()),
        }
        | {key: _maybe(one) for key, one in of_both.items()},
        required=("title", "networks", "methods"),
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ghostify suite",
        "description": "Networks, methods, budgets and seeds that ghostify compare runs.",
        **suite,
        "$defs": {
            "number": {
                "anyOf": [
                    {"type": "number", "exclusiveMinimum": 0},
                    {"type": "string", "pattern": r"^[0-9.]+[eE][-+]?[0-9]+$"},
                ]
            },
            "recipe": {"anyOf": [_TEXT, _object(_RECIPE, required=("name",))]},
            "adapt": _object(
                {"recipe": {"$ref": "#/$defs/recipe"}, "seed": _whole(0)}
                | {key: _RECIPE[key] for key in ("epochs", "steps", "overrides")}
                | {"lr": {"$ref": "#/$defs/number"}},
                required=("recipe",),
            ),
            "tune": _object(
                {
                    "rates": _list({"$ref": "#/$defs/number"}),
                    "steps": _whole(1),
                    "seed": _whole(0),
                },
                required=("rates", "steps"),
            ),
            "network": _object(network | of_both, required=("model",)),
            "method": {"oneOf": [_method(kind) for kind in KINDS]},
        },
    }


def _object(properties: Schema, *, required: tuple[str, ...] = ()) -> Schema:
    found: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return found | ({"required": list(required)} if required else {})


def _mapping(value: Schema) -> Schema:
    return {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": _NAME},
        "additionalProperties": value,
    }


def _list(value: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "uniqueItems": True, "items": value}


def _maybe(value: Schema) -> Schema:
    return {"anyOf": [value, {"type": "null"}]}


def _whole(least: int) -> Schema:
    return {"type": "integer", "minimum": least}


_RECIPE: Schema = {
    "name": _TEXT | {"description": "A recipe that ghostify recipes lists, or a YAML file."},
    "epochs": {"$ref": "#/$defs/number"},
    "steps": _whole(1),
    "overrides": _object({field.name: {} for field in dataclasses.fields(Recipe)}),
}


def _data() -> Schema:
    return _object(
        {
            "path": _TEXT,
            "split": _maybe(_TEXT),
            "validation": _whole(0),
            "calibration": _whole(1),
            "test": _maybe(_TEXT),
        },
        required=("path",),
    )


def _latency() -> Schema:
    return _object(
        {
            "runtime": {"enum": list(RUNTIMES)},
            "threads": _whole(1),
            "batch": _whole(1),
            "rounds": _whole(5),
        },
        required=("runtime",),
    )


def _report() -> Schema:
    layout = {"enum": list(LAYOUTS)}
    return _object(
        {
            "layout": {"anyOf": [layout, _list(layout)]},
            "reference": _maybe(_TEXT),
            "published": {"type": "array", "items": {"enum": list(published_tables())}},
            "notes": _TEXTS,
        }
    )


def _method(kind: str) -> Schema:
    """Return the schema of a method of one kind."""
    own, required = _own_keys(kind)
    fit = {"fit": _object({key: _whole(0) for key in WHOLE_FIT_KEYS} | {"rate": _RATE})}
    properties = {
        "kind": {"const": kind},
        "label": _TEXT,
        "networks": _maybe({"anyOf": [_TEXT, _list(_TEXT)]}),
        "teacher": {"enum": [ORIGINAL, None]},
        "train": _FLAG | {"description": "false: accuracy before any training only."},
        **own,
        **({} if kind == "dense" else fit),
    }
    if len(STARTS[kind]) > 1:
        properties["start"] = {"enum": list(STARTS[kind])}
    return _object(properties, required=("kind", *required))


_RATE: Schema = {"$ref": "#/$defs/number"}


def _own_keys(kind: str) -> tuple[Schema, tuple[str, ...]]:
    if kind == "prune":
        return {
            "method": {"enum": list(PRUNE_METHODS)},
            "reconstruct": _FLAG,
            "images": _whole(1),
            "sparse_steps": _whole(1),
            "keep": _TEXTS,
        }, ("method",)
    if kind == "ghost":
        return {
            "s": _whole(2),
            "d": {"anyOf": [_whole(1), {"type": "string", "pattern": r"^[0-9 +]+$"}]},
            "cheap": {"enum": list(CHEAP_COSTS)},
            "round_to": _whole(1),
            "all": _FLAG,
            "keep": _TEXTS,
            "set": _maybe({"type": "object", "minProperties": 1, "additionalProperties": _TEXT}),
        }, ()
    if kind == "plan":
        return {"plan": {"anyOf": [_TEXT, _mapping(_TEXT)]}}, ("plan",)
    if kind == "search":
        return {"options": _maybe(_object({key: {} for key in SEARCH_KEYS}))}, ()
    return {}, ()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(suite_schema(), indent=2) + "\n")
