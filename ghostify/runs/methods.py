"""The methods of a suite: read, with the keys that each kind knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ghostify.cheap import CHEAP_COSTS, check_sides
from ghostify.errors import PlanError, SpecError
from ghostify.plan_file import load_plan
from ghostify.runs.reading import Node
from ghostify.runs.suite import KINDS, ORIGINAL, PRUNE_METHODS, STARTS, SuiteMethod
from ghostify.spec import GhostSpec

__all__ = ["read_method"]

COMMON_KEYS = ("kind", "label", "networks", "teacher", "train")
WHOLE_FIT_KEYS = ("block_steps", "joint_steps", "rounds", "iterations")
OPTION_KEYS: dict[str, tuple[str, ...]] = {
    "dense": (),
    "prune": ("method", "reconstruct", "images", "sparse_steps", "keep", "fit"),
    "ghost": ("s", "d", "cheap", "round_to", "all", "keep", "set", "fit"),
    "plan": ("plan", "fit"),
    "search": ("options", "fit"),
}
NEED_IMAGES = ("taylor", "hessian", "group-sparse", "growing-reg")
SEARCH_KEYS = (
    "calibration", "climb", "exact", "held_back", "pruner", "sampler", "space", "trials", "warm",
)  # fmt: skip


def read_method(
    name: str,
    node: Node,
    *,
    networks: tuple[str, ...],
    teacher: str | None,
    trained: bool,
    folder: Path,
    files: bool,
) -> SuiteMethod:
    """Read a method.

    Args:
        networks: the names of all networks of the suite.
        teacher: the suite's own.
        trained: whether the suite has images.
        folder, files: as for :func:`ghostify.runs.suite_file.parse_suite`.

    Raises:
        SuiteError: a mistake in it.
    """
    node.mapping()
    if node["kind"].value is None:
        node["kind"].fail(f"is missing; give one of {', '.join(KINDS)}")
    kind = node["kind"].choice(KINDS)
    starts = ("start",) if len(STARTS[kind]) > 1 else ()
    node.keys((*COMMON_KEYS, *starts, *OPTION_KEYS[kind]))
    chosen = _networks(node["networks"], networks)
    plans = _plans(node, chosen, folder, files) if kind == "plan" else {}
    options = _OPTIONS[kind](node, folder, files)
    start = node["start"].choice(STARTS[kind], STARTS[kind][0])
    if options.get("method") in NEED_IMAGES and not trained:
        node["method"].fail(f"{options['method']} ranks by labelled images; give data")
    fitted = start == "fitted" or bool(options.get("reconstruct"))
    if "fit" in node:
        if not fitted:
            node["fit"].fail("nothing is fitted here; give start: fitted, or leave it out")
        options["fit"] = _fit(node["fit"])
    if fitted and not trained:
        node.fail("a fit needs images; give data, or leave the fit out")
    own = "teacher" in node
    its = teacher if not own else _teacher(node["teacher"])
    return SuiteMethod(
        name=name,
        label=node["label"].text(name),
        kind=kind,
        options=options,
        networks=tuple(chosen),
        start=start,
        train=node["train"].flag(True) and trained,
        teacher=its,
        own_teacher=own and its != teacher,
        plans=plans,
        settings=node.mapping(),
    )


def _networks(node: Node, known: tuple[str, ...]) -> tuple[str, ...]:
    if node.value is None:
        return known
    if isinstance(node.value, str):
        return (node.choice(known),)
    return tuple(one.choice(known) for one in node.once("network"))


def _teacher(node: Node) -> str | None:
    return None if node.value is None else node.choice((ORIGINAL,))


def _fit(node: Node) -> dict[str, Any]:
    node.keys((*WHOLE_FIT_KEYS, "rate"))
    return {
        key: one.number() if key == "rate" else one.whole()
        for key, one in node.items()
    }  # fmt: skip


def _plans(node: Node, networks: tuple[str, ...], folder: Path, files: bool) -> dict[str, Path]:
    """Return the plan of each network: one file for all, or a file by network."""
    inner = node["plan"]
    if inner.value is None:
        inner.fail("is missing; give the file of a plan, or one for each network")
    if isinstance(inner.value, str):
        places = dict.fromkeys(networks, inner)
    else:
        inner.keys(networks, required=networks)
        places = dict(inner.items())
    paths = {name: place.path(folder, there=files) for name, place in places.items()}
    if files:
        for name, path in paths.items():
            try:
                load_plan(path)
            except PlanError as error:
                places[name].fail(str(error))
    return paths


def _dense(node: Node, folder: Path, files: bool) -> dict[str, Any]:
    return {}


def _prune(node: Node, folder: Path, files: bool) -> dict[str, Any]:
    if node["method"].value is None:
        node["method"].fail("is missing; give one of " + ", ".join(PRUNE_METHODS))
    options: dict[str, Any] = {
        "method": node["method"].choice(PRUNE_METHODS),
        "reconstruct": node["reconstruct"].flag(False),
    }
    for key in ("images", "sparse_steps"):
        if node[key].value is not None:
            options[key] = node[key].whole(least=1)
    if node["keep"].value is not None:
        options["keep"] = node["keep"].texts()
    return options


def _ghost(node: Node, folder: Path, files: bool) -> dict[str, Any]:
    spec = _spec(node)
    options: dict[str, Any] = {"s": spec.ratio, "d": "+".join(map(str, spec.kernels))}
    if not spec.mixed:
        options["d"] = spec.kernel
    options |= {"cheap": spec.cheap, "round_to": spec.round_to, "all": node["all"].flag(False)}
    options["keep"] = node["keep"].texts()
    options["set"] = {} if node["set"].value is None else _settings(node["set"], spec)
    return options


def _spec(node: Node) -> GhostSpec:
    """Read the settings of most layers, as the options --s, --d, --cheap and --round-to."""
    cheap = node["cheap"].choice(tuple(CHEAP_COSTS), "depthwise")
    given = node["d"].value
    sides = [] if given is None else str(given).split("+")
    if isinstance(given, bool) or not all(side.strip().isdecimal() for side in sides):
        node["d"].fail(f"is written 3, or 1+3 for kernels of several sides (got {given!r})")
    kernels = tuple(sorted(int(side) for side in sides))
    size: dict[str, Any] = {"mixed": kernels}
    if len(kernels) == 1:
        size = {"kernel": kernels[0]}
    try:
        if kernels:
            check_sides(cheap, kernels)
        return GhostSpec(
            node["s"].whole(2), cheap=cheap, round_to=node["round_to"].whole(1), **size
        )
    except SpecError as error:
        node.fail(str(error))


def _settings(node: Node, default: GhostSpec) -> dict[str, str]:
    """Read settings by layer or pattern, such as ``{"layer3.*": "s3,d5", "conv1": keep}``."""
    found = {}
    for pattern, one in node.items():
        found[pattern] = one.text()
        try:
            if found[pattern] != "keep":
                GhostSpec.parse(found[pattern], default=default)
        except SpecError as error:
            one.fail(str(error))
    return found


def _plan(node: Node, folder: Path, files: bool) -> dict[str, Any]:
    return {}


def _search(node: Node, folder: Path, files: bool) -> dict[str, Any]:
    inner = node["options"]
    if inner.value is None:
        return {}
    inner.keys(SEARCH_KEYS)
    return inner.mapping()


_OPTIONS: dict[str, Callable[[Node, Path, bool], dict[str, Any]]] = {
    "dense": _dense,
    "prune": _prune,
    "ghost": _ghost,
    "plan": _plan,
    "search": _search,
}
