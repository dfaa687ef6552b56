"""Read a plan from a file that a person wrote, or from an artefact."""

from __future__ import annotations

from pathlib import Path

import yaml

from ghostify.artefact import parse_manifest
from ghostify.errors import PlanError
from ghostify.files import MANIFEST
from ghostify.plan import Plan

__all__ = ["load_plan"]


def load_plan(path: str | Path) -> Plan:
    """Read a plan from YAML or JSON, or from the ``ghostify.json`` of an artefact.

    Raises:
        PlanError: the file is missing, unreadable, or not a plan.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MANIFEST
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PlanError(f"no such plan: {path}; give the path of a YAML or JSON file") from None
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise PlanError(f"{path}{line}: not valid YAML; a plan is written layers: ...") from None
    if isinstance(value, dict) and "format" in value:
        return parse_manifest(path).plan
    return Plan.from_json(value, where=str(path))
