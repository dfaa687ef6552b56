"""Read what a user typed into plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ghostify.cheap import check_sides
from ghostify.errors import SpecError
from ghostify.files import MANIFEST
from ghostify.rules import PlanRules
from ghostify.spec import GhostSpec

__all__ = [
    "Request",
    "UsageError",
    "parse_input_size",
    "parse_model_args",
    "parse_rules",
    "read_request",
]

_RULE_FLAGS = {
    "s": "--s",
    "d": "--d",
    "cheap": "--cheap",
    "round_to": "--round-to",
    "keep": "--keep",
    "set_": "--set",
    "all_": "--all",
}
_SIDES = re.compile(r"-?\d{1,99}(\+-?\d{1,99})*", re.ASCII)
_SIZE = re.compile(r"\d{1,9}(x\d{1,9}){0,2}", re.ASCII)


class UsageError(SpecError):
    """An option is not written as it should be."""


@dataclass(frozen=True, slots=True)
class Request:
    """Which network to look at, and by which rules or plan to convert it."""

    model: str
    rules: PlanRules
    plan: Path | None
    input_size: tuple[int, ...] | None
    weights: Path | None
    pretrained: bool
    model_args: dict[str, Any]
    seed: int

    @property
    def trained(self) -> bool:
        """Whether the network comes with weights: those given, the library's, an artefact's."""
        artefact = (Path(self.model) / MANIFEST).is_file()
        return self.weights is not None or self.pretrained or artefact


def _is_json(value: object) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def read_request(params: Mapping[str, Any], *, given: Collection[str]) -> Request:
    """Read the options that ``convert`` and ``inspect`` have in common.

    Args:
        given: the names of those that the user typed, as opposed to defaults.

    Raises:
        UsageError: an option is not written as it should be, or contradicts another.
        SpecError: an impossible ratio or kernel.
    """
    ignored = [flag for name, flag in _RULE_FLAGS.items() if name in given]
    if params["plan"] is not None and ignored:
        raise UsageError(
            f"--plan says everything itself; leave out {', '.join(ignored)} or edit the plan"
        )
    if params["weights"] is not None and params["pretrained"]:
        raise UsageError("--weights and --pretrained exclude each other; leave one out")
    spec = _read_spec(params, given=given)
    rules = parse_rules(params["keep"] or (), params["set_"] or (), spec)
    return Request(
        model=params["model"],
        rules=PlanRules(spec, rules, convert_first=params["all_"]),
        plan=params["plan"],
        input_size=parse_input_size(params["input_size"]),
        weights=params["weights"],
        pretrained=params["pretrained"],
        model_args=parse_model_args(params["model_arg"] or ()),
        seed=params["seed"],
    )


def _read_spec(params: Mapping[str, Any], *, given: Collection[str]) -> GhostSpec:
    """Read the settings of most layers: ``--s``, ``--d`` (also ``1+3``), ``--cheap``, ..."""
    if not _SIDES.fullmatch(params["d"]):
        raise UsageError(
            f"--d is written 3, or 1+3 for kernels of several sides (got {params['d']!r})"
        )
    sides = tuple(sorted(map(int, params["d"].split("+"))))
    size = {"kernel": sides[0]} if len(sides) == 1 else {"mixed": sides}
    spec = GhostSpec(params["s"], cheap=params["cheap"], round_to=params["round_to"], **size)
    if "d" in given:
        check_sides(spec.cheap, sides)
    return spec


def parse_rules(
    keep: Sequence[str], settings: Sequence[str], default: GhostSpec
) -> tuple[tuple[str, GhostSpec | None], ...]:
    """Read ``--keep PATTERN`` and ``--set PATTERN=s3,d5``; keeps come first.

    Raises:
        UsageError: a setting is not written like that.
    """
    rules: list[tuple[str, GhostSpec | None]] = [(pattern, None) for pattern in keep]
    for setting in settings:
        pattern, equals, text = setting.partition("=")
        if not pattern or not equals:
            raise UsageError(f"--set is written PATTERN=s3,d5 (got {setting!r})")
        if text == "keep":
            rules.append((pattern, None))
            continue
        try:
            rules.append((pattern, GhostSpec.parse(text, default=default)))
        except SpecError as error:
            raise UsageError(f"--set {setting}: {error}") from None
    return tuple(rules)


def parse_input_size(text: str | None) -> tuple[int, ...] | None:
    """Read ``32`` (a square), ``224x320`` or ``3x224x320`` as (H, W) or (C, H, W).

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    if not _SIZE.fullmatch(text):
        raise UsageError(f"--input-size is written 224, 224x320 or 3x224x320 (got {text!r})")
    size = tuple(int(side) for side in text.split("x"))
    if min(size) < 1:
        raise UsageError(f"--input-size has no side below 1 (got {text!r})")
    return size * 2 if len(size) == 1 else size


def parse_model_args(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs; values are YAML scalars or lists.

    Raises:
        UsageError: a pair without a name, or a value that cannot be read.
    """
    args: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key.isidentifier() or not equals:
            raise UsageError(f"--model-arg is written KEY=VALUE (got {text!r})")
        if key in args:
            raise UsageError(f"--model-arg {key} is given twice; leave one out")
        try:
            args[key] = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError, ValueError):
            raise UsageError(f"--model-arg {key}: {value!r} cannot be read; quote it") from None
        if not _is_json(args[key]):
            raise UsageError(
                f"--model-arg {key}: {value!r} is more than text, numbers, lists and mappings by "
                "text, so it could not be saved; quote it"
            )
    return args
