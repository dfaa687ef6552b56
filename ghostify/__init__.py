"""Turn the convolutions of a trained CNN into Ghost modules (GhostNet, CVPR 2020)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ghostify.api import Inspection, convert, inspect
    from ghostify.artefact import load, save
    from ghostify.errors import GhostifyError
    from ghostify.graph.rewrite import Conversion, rewrite
    from ghostify.nn.ghost import GhostModule
    from ghostify.plan import Plan
    from ghostify.plan_file import load_plan
    from ghostify.search.space import SearchSpace, load_space
    from ghostify.spec import GhostSpec
    from ghostify.train.recipe import Recipe, load_recipe
    from ghostify.training import Trained, evaluate, finetune

__all__ = [
    "Conversion",
    "GhostModule",
    "GhostSpec",
    "GhostifyError",
    "Inspection",
    "Plan",
    "Recipe",
    "SearchSpace",
    "Trained",
    "convert",
    "evaluate",
    "finetune",
    "inspect",
    "load",
    "load_plan",
    "load_recipe",
    "load_space",
    "rewrite",
    "save",
]

_HOMES = {
    "Conversion": "ghostify.graph.rewrite",
    "GhostModule": "ghostify.nn.ghost",
    "GhostSpec": "ghostify.spec",
    "GhostifyError": "ghostify.errors",
    "Inspection": "ghostify.api",
    "Plan": "ghostify.plan",
    "Recipe": "ghostify.train.recipe",
    "SearchSpace": "ghostify.search.space",
    "Trained": "ghostify.training",
    "convert": "ghostify.api",
    "evaluate": "ghostify.training",
    "finetune": "ghostify.training",
    "inspect": "ghostify.api",
    "load": "ghostify.artefact",
    "load_plan": "ghostify.plan_file",
    "load_recipe": "ghostify.train.recipe",
    "load_space": "ghostify.search.space",
    "rewrite": "ghostify.graph.rewrite",
    "save": "ghostify.artefact",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import ghostify`` is light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ghostify' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
