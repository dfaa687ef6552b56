"""The commands that make one row of a comparison alone."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ghostify.comparisons.jobs import Job
from ghostify.runs.suite import ORIGINAL, Suite, SuiteMethod, SuiteNetwork, SuiteRecipe

__all__ = ["Place", "commands", "needs_labels", "short"]

_FLAGS = {"epochs": "--epochs", "steps": "--steps", "batch_size": "--batch-size", "lr": "--lr"}
_FIT_FLAGS = {"block_steps": "--block-steps", "joint_steps": "--joint-steps"}
_SEARCH_FLAGS = {"calibration": "--calibration-images", "held_back": "--held-back"}


class Place:
    """Where the commands leave their networks, and on what they run."""

    original, plan, searched, start, trained = (
        "original", "plan.yaml", "searched", "start", "trained",
    )  # fmt: skip

    def __init__(self, device: str = "auto", amp: str = "auto") -> None:
        self.device, self.amp = device, amp

    def flags(self) -> list[str]:
        """Return the options that say where a training runs."""
        device = [] if self.device == "auto" else ["--device", self.device]
        return device + ([] if self.amp == "auto" else ["--amp", self.amp])


def commands(suite: Suite, job: Job, place: Place, *, lr: float | None = None) -> str:
    """Return the commands of a run, one a line; each goes on with what the last one wrote.

    Tuning is none of them: a run has the rate that was found.

    Args:
        lr: the rate that a run was trained with.
    """
    network, method = suite.network(job.network), suite.method(job.method)
    lines: list[str] = []
    source = _source(network)
    if network.adapt is not None and method.start != "scratch":
        adapt = network.adapt
        lines.append(
            _line("train", network.model, *source, *_data(suite), *_recipe(adapt.recipe),
                  "--seed", str(adapt.seed), *place.flags(), "-o", place.original)
        )  # fmt: skip
        source = ["--weights", f"{place.original}/model.safetensors", *_arguments(network)]
    if method.start == "scratch":
        source = _arguments(network)
    lines += _start(suite, network, method, job, source, place)
    if suite.data is None:
        return "\n".join(lines)
    if not method.train:
        data = short(suite.data.test or suite.data.path)
        return "\n".join([*lines, _line("evaluate", place.start, "--data", data)])
    assert network.recipe is not None
    rate = lr if lr is not None else network.lr
    chosen = SuiteRecipe(
        network.recipe.name, {**network.recipe.overrides, **({} if rate is None else {"lr": rate})}
    )
    lines.append(
        _line("finetune", place.start, *_data(suite), *_teacher(network, method, place),
              *_recipe(chosen), "--seed", str(job.seed), *place.flags(), "-o", place.trained)
    )  # fmt: skip
    return "\n".join(lines)


def short(path: Path) -> str:
    """Return a path as it is written from here, if that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)


def _line(*parts: str) -> str:
    return shlex.join(["ghostify", *parts])


def _start(
    suite: Suite,
    network: SuiteNetwork,
    method: SuiteMethod,
    job: Job,
    source: list[str],
    place: Place,
) -> list[str]:
    """Return the commands that make what a run begins with."""
    options, end = method.options, ["--seed", str(job.seed), "-o", place.start]
    if network.input is not None:
        end = ["--input-size", "x".join(map(str, network.input)), *end]
    if method.kind == "prune":
        wish = ["--method", str(options["method"]), "--budget", str(job.budget)]
        if suite.data is not None and needs_labels(method):
            wish += ["--data", short(suite.data.path)]
        for key, flag in (("images", "--images"), ("sparse_steps", "--sparse-steps")):
            wish += [flag, str(options[key])] if key in options else []
        wish += _repeated("--keep", options.get("keep", ()))
        return [_line("prune", network.model, *source, *wish, *_fit(suite, method), *end)]
    lines: list[str] = []
    if method.kind == "ghost":
        wish = _ghost(options)
    elif method.kind == "plan":
        wish = ["--plan", short(method.plans[network.name])]
    elif method.kind == "search":
        data = [] if suite.data is None else ["--data", short(suite.data.path)]
        lines.append(
            _line("search", network.model, *source, *data, "--budget", str(job.budget),
                  *_search(options), "--seed", str(job.seed), "-o", place.searched)
        )  # fmt: skip
        wish = ["--plan", f"{place.searched}/best.yaml"]
    else:
        lines.append(f"echo 'layers: {{}}' > {place.plan}")
        wish = ["--plan", place.plan]
    return [*lines, _line("convert", network.model, *source, *wish, *_fit(suite, method), *end)]


def needs_labels(method: SuiteMethod) -> bool:
    """Tell whether labelled images decide which maps go."""
    return method.options["method"] in ("taylor", "hessian", "group-sparse", "growing-reg")


def _ghost(options: Mapping[str, Any]) -> list[str]:
    found = ["--s", str(options["s"])]
    if options["cheap"] == "depthwise" or str(options["d"]) != "3":
        found += ["--d", str(options["d"])]
    if options["cheap"] != "depthwise":
        found += ["--cheap", str(options["cheap"])]
    if options["round_to"] != 1:
        found += ["--round-to", str(options["round_to"])]
    found += ["--all"] if options["all"] else []
    found += _repeated("--keep", options["keep"])
    settings = [f"{pattern}={value}" for pattern, value in options["set"].items()]
    return found + _repeated("--set", settings)


def _search(options: Mapping[str, Any]) -> list[str]:
    found = []
    for key, value in options.items():
        if key == "fit":
            continue
        if key == "exact":
            found += ["--exact" if value else "--no-exact"]
        elif key == "warm":
            found += _repeated("--warm-start", [short(Path(one)) for one in value])
        else:
            found += [_SEARCH_FLAGS.get(key, f"--{key}"), str(value)]
    return found


def _fit(suite: Suite, method: SuiteMethod) -> list[str]:
    data = suite.data
    if data is None or not method.fits:
        return []
    found = ["--calibrate", short(data.path), "--calibration-images", str(data.calibration)]
    for key, value in (method.options.get("fit") or {}).items():
        found += [_FIT_FLAGS.get(key, f"--{key.replace('_', '-')}"), str(value)]
    return found


def _teacher(network: SuiteNetwork, method: SuiteMethod, place: Place) -> list[str]:
    if method.teacher is None:
        return ["--no-teacher"]
    if method.start != "scratch":
        return ["--teacher", ORIGINAL]
    found = ["--teacher", network.model]
    if network.adapt is not None:
        return [*found, "--teacher-weights", f"{place.original}/model.safetensors"]
    weights = [] if network.weights is None else ["--teacher-weights", short(network.weights)]
    return found + weights


def _source(network: SuiteNetwork) -> list[str]:
    weights = [] if network.weights is None else ["--weights", short(network.weights)]
    return weights + (["--pretrained"] if network.pretrained else []) + _arguments(network)


def _arguments(network: SuiteNetwork) -> list[str]:
    given = [f"{key}={json.dumps(value)}" for key, value in network.model_args.items()]
    return _repeated("--model-arg", given)


def _data(suite: Suite) -> list[str]:
    assert suite.data is not None
    test = [] if suite.data.test is None else ["--test", short(suite.data.test)]
    return ["--data", short(suite.data.path), *test]


def _recipe(recipe: SuiteRecipe) -> list[str]:
    name = Path(recipe.name)
    found = ["--recipe", short(name) if name.is_absolute() else recipe.name]
    for key, value in recipe.overrides.items():
        if key in _FLAGS:
            found += [_FLAGS[key], str(value)]
        else:
            found += ["--set", f"{key}={json.dumps(value)}"]
    return found


def _repeated(flag: str, values: Any) -> list[str]:
    return [part for value in values for part in (flag, str(value))]
