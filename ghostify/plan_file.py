"""Read a plan from a file that a person wrote, or from an artefact."""

from __future__ import annotations

from pathlib import Path

from ghostify.errors import PlanError
from ghostify.files import MANIFEST
from ghostify.manifest import parse_manifest
from ghostify.plan import Plan
from ghostify.yaml_file import read_yaml

__all__ = ["load_plan"]


def load_plan(path: str | Path) -> Plan:
    """Read a plan from YAML or JSON, or from the ``ghostify.json`` of an artefact.

    Raises:
        PlanError: the file is missing, unreadable, or not a plan.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MANIFEST
    value = read_yaml(path, kind="plan", error=PlanError)
    if isinstance(value, dict) and "format" in value:
        return parse_manifest(path).plan
    return Plan.from_json(value, where=str(path))
