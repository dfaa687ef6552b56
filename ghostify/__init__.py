"""Turn the convolutions of a trained CNN into Ghost modules (GhostNet, CVPR 2020)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ghostify.analysis.feature_maps import FeatureMaps, feature_maps
    from ghostify.analysis.measure import redundancy
    from ghostify.analysis.values import Redundancy
    from ghostify.artefact import load, save
    from ghostify.comparing import Compared, compare
    from ghostify.converting import convert
    from ghostify.errors import GhostifyError
    from ghostify.exports import Exported, export
    from ghostify.frozen import optimize
    from ghostify.graph.rewrite import Conversion, rewrite
    from ghostify.looking import Inspection, inspect
    from ghostify.nn.ghost import GhostModule
    from ghostify.plan import Plan
    from ghostify.plan_file import load_plan
    from ghostify.profiling import Profile, profile
    from ghostify.pruning import Pruned, prune
    from ghostify.reports.write import report
    from ghostify.runs.query import load_runs
    from ghostify.searches.space import SearchSpace, load_space
    from ghostify.searching import search
    from ghostify.spec import GhostSpec, PruneSpec
    from ghostify.timing import Comparison, latency
    from ghostify.train.recipe import Recipe, load_recipe
    from ghostify.training import Trained, evaluate, finetune

__all__ = [
    "Compared",
    "Comparison",
    "Conversion",
    "Exported",
    "FeatureMaps",
    "GhostModule",
    "GhostSpec",
    "GhostifyError",
    "Inspection",
    "Plan",
    "Profile",
    "PruneSpec",
    "Pruned",
    "Recipe",
    "Redundancy",
    "SearchSpace",
    "Trained",
    "compare",
    "convert",
    "evaluate",
    "export",
    "feature_maps",
    "finetune",
    "inspect",
    "latency",
    "load",
    "load_plan",
    "load_recipe",
    "load_runs",
    "load_space",
    "optimize",
    "profile",
    "prune",
    "redundancy",
    "report",
    "rewrite",
    "save",
    "search",
]

_HOMES = {
    "Compared": "ghostify.comparing",
    "Comparison": "ghostify.timing",
    "Conversion": "ghostify.graph.rewrite",
    "Exported": "ghostify.exports",
    "FeatureMaps": "ghostify.analysis.feature_maps",
    "GhostModule": "ghostify.nn.ghost",
    "GhostSpec": "ghostify.spec",
    "GhostifyError": "ghostify.errors",
    "Inspection": "ghostify.looking",
    "Plan": "ghostify.plan",
    "Profile": "ghostify.profiling",
    "PruneSpec": "ghostify.spec",
    "Pruned": "ghostify.pruning",
    "Recipe": "ghostify.train.recipe",
    "Redundancy": "ghostify.analysis.values",
    "SearchSpace": "ghostify.searches.space",
    "Trained": "ghostify.training",
    "compare": "ghostify.comparing",
    "convert": "ghostify.converting",
    "evaluate": "ghostify.training",
    "export": "ghostify.exports",
    "feature_maps": "ghostify.analysis.feature_maps",
    "finetune": "ghostify.training",
    "inspect": "ghostify.looking",
    "latency": "ghostify.timing",
    "load": "ghostify.artefact",
    "load_plan": "ghostify.plan_file",
    "load_recipe": "ghostify.train.recipe",
    "load_runs": "ghostify.runs.query",
    "load_space": "ghostify.searches.space",
    "optimize": "ghostify.frozen",
    "profile": "ghostify.profiling",
    "prune": "ghostify.pruning",
    "redundancy": "ghostify.analysis.measure",
    "report": "ghostify.reports.write",
    "rewrite": "ghostify.graph.rewrite",
    "save": "ghostify.artefact",
    "search": "ghostify.searching",
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
