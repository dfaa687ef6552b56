"""Where a network's time goes, layer by layer, on the runtime that it is meant for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ghostify.cost.latency import Latency, measure, summarise
from ghostify.cost.machine import Machine, fingerprint
from ghostify.errors import GhostifyError, InputError, RuntimeFailedError
from ghostify.files import MANIFEST
from ghostify.graph.rewrite import Conversion
from ghostify.manifest import parse_manifest
from ghostify.models.zoo import rebuild
from ghostify.nn.ghost import GhostModule
from ghostify.runtimes import find_runtime
from ghostify.runtimes.base import NodeTime, Profiler, Runtime, check_threads
from ghostify.timing import Network, Step, Subject, optimized, ready_on, subject_of

__all__ = ["LayerTime", "Profile", "profile"]


@dataclass(frozen=True, slots=True)
class LayerTime:
    """What one layer of a network takes, all of its operations together."""

    name: str | None  # None: what no layer could be found for
    kind: str  # "ghost" for a Ghost module, else ""
    operators: tuple[str, ...]
    ms: float
    original_ms: float | None = None  # of the layer by that name in the network before

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "operators": list(self.operators),
            "ms": self.ms,
            "original_ms": self.original_ms,
        }


@dataclass(frozen=True, slots=True)
class Profile:
    """A network's layers with their times, and what it takes when nobody watches."""

    model: str
    input: str
    latency: Latency  # without a profiler
    layers: tuple[LayerTime, ...]
    machine: Machine
    version: str  # of the runtime
    original: Latency | None = None  # of the network before its conversion
    notes: tuple[str, ...] = ()

    @property
    def profiled_ms(self) -> float:
        """The sum over all layers; more than the latency by what watching costs."""
        return sum(layer.ms for layer in self.layers)

    @property
    def unmapped_ms(self) -> float:
        """What could not be given to any layer."""
        return sum(layer.ms for layer in self.layers if layer.name is None)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        total = self.profiled_ms
        return {
            "model": self.model,
            "runtime": self.latency.runtime,
            "version": self.version,
            "input": self.input,
            "latency": self.latency.as_json(),
            "original": self.original and self.original.as_json(),
            "profiled_ms": total,
            "unmapped_ms": self.unmapped_ms,
            "layers": [
                {**layer.as_json(), "share": layer.ms / total if total else 0.0}
                for layer in self.layers
            ],
            "machine": self.machine.as_json(),
            "notes": list(self.notes),
        }


def profile(
    model: Network,
    *,
    runtime: str = "torch",
    against: Network | None = "original",
    threads: int = 1,
    batch: int = 1,
    example: Any = None,
    input_size: tuple[int, ...] | None = None,
    optimize: bool = True,
    runs: int = 20,
    rounds: int = 15,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_step: Step | None = None,
) -> Profile:
    """Time the layers of a network on one runtime, beside those of the network before.

    Args:
        runtime: a name as in :data:`ghostify.runtimes.RUNTIMES`; not all can tell layers apart.
        against: a network with layers of the same names; "original" is what an artefact or
            a conversion was made from, if it was.
        runs: of which times are averaged.
        rounds: of the measurement without a profiler.
        model_args: for the functions that make the networks which go by a name.

    Raises:
        GhostifyError: as :func:`ghostify.latency`; also a runtime that cannot tell layers
            apart.
    """
    step = on_step or _ignore
    check_threads(threads)
    if isinstance(runs, bool) or not isinstance(runs, int) or runs < 1:
        raise InputError(f"runs is a whole number from 1 on (got {runs!r})")
    adapter = find_runtime(runtime)
    if not isinstance(adapter, Profiler):
        raise RuntimeFailedError(
            f"{runtime} does not tell how long each layer takes; profile on torch, onnxruntime "
            "or openvino, or measure the whole by ghostify latency"
        )
    settings: dict[str, Any] = {
        "batch": batch,
        "example": example,
        "pretrained": pretrained,
        "model_args": model_args,
        "seed": seed,
        "on_step": step,
    }
    subject = subject_of(model, input_size=input_size, **settings)
    subjects = [subject]
    before = _original(model) if against == "original" else against
    if before is not None:
        size = tuple(subject.example[0].shape[1:]) if len(subject.example) == 1 else input_size
        subjects.append(subject_of(before, input_size=size, **settings))
    notes = list(dict.fromkeys(note for one in subjects for note in one.notes))
    latencies = _latencies(adapter, subjects, threads, batch, optimize, rounds, step, notes)
    tables = []
    for one in subjects:
        step(f"profiling {one.name} on {runtime}")
        tables.append(_nodes(adapter, one, threads=threads, runs=runs, optimize=optimize))
    layers = _layers(tables[0], subject.model)
    if before is not None:
        layers = _beside(layers, _layers(tables[1], subjects[1].model, ghosts=subject.model))
    order = _order(subject)
    last = len(order)
    layers = tuple(sorted(layers, key=lambda layer: order.get(layer.name or "", last)))
    return Profile(
        subject.name,
        subject.input,
        latencies[0],
        layers,
        fingerprint(),
        adapter.version(),
        latencies[1] if before is not None else None,
        tuple(notes),
    )


def _original(model: Network) -> Network | None:
    """Return what a network was converted from, with no trained weights, if that is known."""
    if isinstance(model, Conversion):
        origin = model.origin
    elif isinstance(model, str | Path) and (Path(model) / MANIFEST).is_file():
        origin = parse_manifest(Path(model) / MANIFEST).origin
    else:
        return None
    return None if origin.source == "memory" else rebuild(origin)


def _latencies(
    runtime: Runtime,
    subjects: Sequence[Subject],
    threads: int,
    batch: int,
    optimize: bool,
    rounds: int,
    step: Step,
    notes: list[str],
) -> list[Latency]:
    """Measure the networks in turns, unwatched."""
    sessions = {}
    try:
        for number, one in enumerate(subjects):
            step(f"preparing {one.name} for {runtime.name}")
            sessions[str(number)], remarks = ready_on(
                runtime, one, threads=threads, optimize=optimize
            )
            notes += remarks
        step(f"measuring on {runtime.name}")
        samples = measure(sessions, rounds=rounds)
    finally:
        for session in sessions.values():
            session.close()
    return [
        summarise(
            samples[number],
            runtime=runtime.name,
            device=runtime.device(),
            threads=threads,
            batch=batch,
        )
        for number in sessions
    ]


def _nodes(
    runtime: Profiler, subject: Subject, *, threads: int, runs: int, optimize: bool
) -> tuple[NodeTime, ...]:
    try:
        name = getattr(runtime, "name", "")
        model = optimized(subject, name)[0] if optimize else subject.model
        return runtime.profile(model, subject.example, threads=threads, runs=runs)
    except GhostifyError as error:
        raise RuntimeFailedError(f"{subject.name}: {error}") from error


def _layers(
    nodes: Iterable[NodeTime], model: nn.Module, *, ghosts: nn.Module | None = None
) -> tuple[LayerTime, ...]:
    """Add up the operations of each layer; a Ghost module is one layer, whatever is in it."""
    modules = dict(model.named_modules())
    ghost_names = {
        name
        for name, module in (ghosts or model).named_modules()
        if isinstance(module, GhostModule)
    }
    spent: dict[_Key, float] = {}
    operators: dict[_Key, dict[str, None]] = {}
    for node in nodes:
        name = _known(node.layer, modules, ghost_names)
        key = (name, "" if name is not None else node.operator)
        spent[key] = spent.get(key, 0.0) + node.ms
        operators.setdefault(key, {})[node.operator] = None
    return tuple(
        LayerTime(
            key[0],
            "ghost" if key[0] in ghost_names and ghosts is None else "",
            tuple(one for one in operators[key] if one),
            spent[key],
        )
        for key in spent
    )


_PART = re.compile(r"(_from)?_\d+$")
"""How an optimised network calls the parts that it makes of one layer."""

_Key = tuple[str | None, str]  # the layer; the operator, if there is no layer


def _known(layer: str | None, modules: dict[str, nn.Module], ghosts: set[str]) -> str | None:
    """Return the layer of the caller's network that a node's layer lies in."""
    if not layer:
        return None
    parts = (
        [_PART.sub("", part) for part in layer.split(".")]
        if layer not in modules
        else (layer.split("."))
    )
    inside = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    found = None
    for path in inside:
        if path in ghosts:
            return path
        if path in modules:
            found = path
    return found


def _order(subject: Subject) -> dict[str, int]:
    """Number the modules in the order in which they end when the network runs."""
    order: dict[str, int] = {}

    def after(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, _output: Any) -> None:
            order.setdefault(name, len(order))

        return hook

    handles = [
        module.register_forward_hook(after(name))
        for name, module in subject.model.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            subject.model(*subject.example)
    finally:
        for handle in handles:
            handle.remove()
    return order


def _beside(layers: tuple[LayerTime, ...], before: tuple[LayerTime, ...]) -> tuple[LayerTime, ...]:
    """Give each layer the time of the original's layer by that name; add what is only there."""
    old = {_key(layer): layer for layer in before}
    rows = [
        replace(layer, original_ms=old[_key(layer)].ms if _key(layer) in old else 0.0)
        for layer in layers
    ]
    have = {_key(layer) for layer in layers}
    rows += [
        replace(layer, ms=0.0, original_ms=layer.ms) for layer in before if _key(layer) not in have
    ]
    return tuple(rows)


def _key(layer: LayerTime) -> _Key:
    return layer.name, "" if layer.name is not None else ", ".join(layer.operators)


def _ignore(_step: str) -> None:
    return None
