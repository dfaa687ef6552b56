"""Read a plan from a file that a person wrote, or from an artefact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ghostify.artefact import parse_manifest
from ghostify.errors import PlanError
from ghostify.files import MANIFEST
from ghostify.plan import Plan

__all__ = ["load_plan"]


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise PlanError(f"{key.value} stands twice in line {key.start_mark.line + 1}")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def load_plan(path: str | Path) -> Plan:
    """Read a plan from YAML or JSON, or from the ``ghostify.json`` of an artefact.

    Raises:
        PlanError: the file is missing, unreadable, or not a plan.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MANIFEST
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except FileNotFoundError:
        raise PlanError(f"no such plan: {path}; give the path of a YAML or JSON file") from None
    except PlanError as error:
        raise PlanError(f"{path}: {error}; leave one out") from None
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise PlanError(f"{path}{line}: not valid YAML; a plan is written layers: ...") from None
    if isinstance(value, dict) and "format" in value:
        return parse_manifest(path).plan
    return Plan.from_json(value, where=str(path))
