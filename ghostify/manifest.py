"""What ``ghostify.json`` says of an artefact, read and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostify.cost.budget import Cost
from ghostify.errors import ArtefactError
from ghostify.plan import Plan
from ghostify.spec import Origin

__all__ = ["FORMAT", "PRUNED_FORMAT", "Manifest", "parse_manifest"]

FORMAT = 1
"""Version of the layout of ``ghostify.json``; a reader refuses any that it does not know."""

PRUNED_FORMAT = 2
"""The same for networks that have lost maps: with the stages by which they are built."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``ghostify.json`` says."""

    origin: Origin
    plan: Plan
    seed: int | None
    training: bool
    modes: Mapping[str, bool]  # of modules whose mode differs from the network's
    input: tuple[str, ...]  # shapes of the example, such as "1x3x224x224"
    before: Cost | None
    after: Cost | None
    skipped: tuple[tuple[str, str], ...]  # name, reason
    aliases: Mapping[str, str]  # keys that share another key's tensor
    versions: Mapping[str, str]
    files: Mapping[str, str]  # SHA-256 by file name
    images: Mapping[str, Any] | None = None  # how the network wants its images
    history: tuple[Mapping[str, Any], ...] = ()  # what was done to the weights, in order
    stages: tuple[Any, ...] = ()  # how it was made, where that takes more than the plan

    def as_json(self) -> dict[str, Any]:
        """Return plain values, with a digest of all of them."""
        from ghostify.graph.rewrite import stages_as_json

        origin = self.origin
        content: dict[str, Any] = {
            "format": PRUNED_FORMAT if self.stages else FORMAT,
            "model": {"source": origin.source, "name": origin.name, "args": dict(origin.args)},
            "plan": self.plan.as_json(),
            "plan_digest": self.plan.digest,
            "seed": self.seed,
            "training": self.training,
            "modes": dict(self.modes),
            "input": list(self.input),
            "before": self.before and self.before.as_json(),
            "after": self.after and self.after.as_json(),
            "skipped": [{"name": name, "reason": reason} for name, reason in self.skipped],
            "aliases": dict(self.aliases),
            "versions": dict(self.versions),
            "files": dict(self.files),
            "images": self.images and dict(self.images),
            "history": [dict(entry) for entry in self.history],
        }
        if self.stages:
            content["stages"] = stages_as_json(self.stages)
        return content | {"digest": _digest(content)}


def parse_manifest(path: Path) -> Manifest:
    """Read and check a ``ghostify.json``.

    Raises:
        ArtefactError: missing, changed since it was written, or of another format.
    """
    if not path.is_file():
        raise ArtefactError(f"{path.parent} is no artefact of ghostify: {path.name} is missing")
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
        found = value["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ArtefactError(f"{path} is damaged: it is not the JSON of an artefact") from None
    if found not in (FORMAT, PRUNED_FORMAT):
        raise ArtefactError(
            f"{path} has format {found!r}, this version of ghostify reads {FORMAT} and "
            f"{PRUNED_FORMAT}; "
            "convert again or use the version that wrote it"
        )
    digest = value.pop("digest", None)
    if digest != _digest(value):
        raise ArtefactError(
            f"{path} is damaged or was edited: its digest does not match; convert again "
            "(a plan to edit is given by --plan FILE.yaml)"
        )
    try:
        return _manifest(value, path)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ArtefactError(f"{path} is no manifest of an artefact ({error!r})") from None


def _manifest(value: dict[str, Any], path: Path) -> Manifest:
    from ghostify.graph.rewrite import read_stages

    model = value["model"]
    return Manifest(
        origin=Origin(model["source"], model["name"], model["args"]),
        plan=Plan.from_json(value["plan"], where=str(path)),
        seed=value["seed"],
        training=value["training"],
        modes=value["modes"],
        input=tuple(value["input"]),
        before=value["before"] and Cost(**value["before"]),
        after=value["after"] and Cost(**value["after"]),
        skipped=tuple((skip["name"], skip["reason"]) for skip in value["skipped"]),
        aliases=value["aliases"],
        versions=value["versions"],
        files=value["files"],
        images=value.get("images"),
        history=tuple(value.get("history", ())),
        stages=read_stages(value.get("stages", ()), where=str(path)),
    )


def _digest(content: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"the model's arguments cannot be written as JSON ({error})") from None
    return hashlib.sha256(text.encode()).hexdigest()
