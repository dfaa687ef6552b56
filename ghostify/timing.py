"""Measure networks side by side on the runtimes that they are meant for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostify import passes
from ghostify.cost.latency import Latency, measure, summarise
from ghostify.cost.machine import Machine, fingerprint
from ghostify.cost.macs import count
from ghostify.errors import GhostifyError, InputError, RuntimeFailedError
from ghostify.graph.probe import Call, Probe, tensors_of
from ghostify.graph.rewrite import Conversion
from ghostify.models import zoo
from ghostify.models.zoo import Built
from ghostify.runtimes import find_runtime
from ghostify.runtimes.base import Runtime, Session, check_inputs, check_threads, inference_copy
from ghostify.sources import open_source

__all__ = ["Comparison", "Subject", "Timed", "latency", "ready_on", "subject_of"]

Step = Callable[[str], None]
OnRound = Callable[[int, int], None]
Network = nn.Module | str | Path | Built | Conversion

_SAME, _SAME_ON_GPU = 1e-3, 2e-2
"""Relative difference to eager torch beyond which a runtime computes something else; a GPU
may round factors to TF32."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to measure, and the batch that it is measured on."""

    name: str
    model: nn.Module
    example: tuple[Tensor, ...]
    macs: int | None  # of the whole batch; None where they cannot be counted
    notes: tuple[str, ...] = ()

    @property
    def input(self) -> str:
        """The shapes of the batch, such as ``1x3x224x224``."""
        return ", ".join("x".join(map(str, one.shape)) for one in self.example)


@dataclass(frozen=True, slots=True)
class Timed:
    """One network on one runtime."""

    model: str
    latency: Latency
    speedup: float  # the first network's median over this one's
    macs: int | None
    macs_ratio: float | None  # the first network's multiply-adds over this one's
    max_difference: float  # from eager torch, relative to the largest output
    notes: tuple[str, ...] = ()  # what could not be optimised, whether it is noisy

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        figures = self.latency
        return {
            "model": self.model,
            "runtime": figures.runtime,
            "median_ms": figures.median_ms,
            "iqr_ms": figures.iqr_ms,
            "speedup": self.speedup,
            "macs": self.macs,
            "macs_ratio": self.macs_ratio,
            "device": figures.device,
            "threads": figures.threads,
            "batch": figures.batch,
            "rounds": figures.rounds,
            "noisy": figures.noisy,
            "max_difference": self.max_difference,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Networks that were measured in turns, runtime by runtime."""

    rows: tuple[Timed, ...]
    machine: Machine
    versions: Mapping[str, str]  # by runtime
    inputs: tuple[str, ...]
    notes: tuple[str, ...]


def latency(
    *models: Network,
    runtimes: str | Iterable[str] = "torch",
    threads: int = 1,
    batch: int = 1,
    example: Any = None,
    input_size: tuple[int, ...] | None = None,
    optimize: bool = True,
    rounds: int = 25,
    seconds: float | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_step: Step | None = None,
    on_round: OnRound | None = None,
) -> Comparison:
    """Measure the milliseconds of one inference, all networks in turns on each runtime.

    Args:
        models: networks, names, directories of artefacts, conversions; speed-ups are those
            over the first.
        runtimes: names as in :data:`ghostify.runtimes.RUNTIMES`.
        threads: that compute one inference, in every runtime.
        batch: images at once.
        example: arguments of a forward pass (a tensor or a tuple of tensors) for all
            networks, in place of ``batch`` and ``input_size``.
        input_size: ``(H, W)`` or ``(C, H, W)`` of a random batch.
        optimize: prepare every network for the runtime by :func:`ghostify.optimize` first.
        rounds: values of which the median is taken.
        seconds: time for each runtime, in place of all the rounds.
        pretrained: take the libraries' own trained weights.
        model_args: for the functions that make the networks which go by a name.
        seed: of random weights.

    Raises:
        GhostifyError: an unknown or missing runtime, a network that it cannot take, or
            arguments that are wrong, in one sentence.
    """
    step = on_step or _ignore
    check_threads(threads)
    names = (runtimes,) if isinstance(runtimes, str) else tuple(dict.fromkeys(runtimes))
    if not names:
        raise InputError("no runtime is named; name one, such as torch")
    if not models:
        raise InputError("no network is named; name at least one")
    if model_args and not any(_by_name(model) for model in models):
        raise InputError("model arguments are for networks that go by a name; here is none")
    adapters = [find_runtime(name) for name in names]
    subjects = [
        subject_of(
            model,
            batch=batch,
            example=example,
            input_size=input_size,
            pretrained=pretrained,
            model_args=model_args,
            seed=seed,
            on_step=step,
        )
        for model in models
    ]
    notes = [note for subject in subjects for note in subject.notes]
    if len({subject.input for subject in subjects}) > 1:
        inputs = "; ".join(f"{subject.name}: {subject.input}" for subject in subjects)
        notes.append(f"the networks take different inputs ({inputs}); --input-size makes one of it")
    rows: list[Timed] = []
    for runtime in adapters:
        rows += _measured(
            runtime,
            subjects,
            threads=threads,
            batch=batch,
            optimize=optimize,
            rounds=rounds,
            seconds=seconds,
            step=step,
            on_round=on_round,
        )
    notes += [note for row in rows for note in row.notes]
    return Comparison(
        tuple(rows),
        fingerprint(),
        {runtime.name: runtime.version() for runtime in adapters},
        tuple(dict.fromkeys(subject.input for subject in subjects)),
        tuple(dict.fromkeys(notes)),
    )


def subject_of(
    model: Network,
    *,
    batch: int = 1,
    example: Any = None,
    input_size: tuple[int, ...] | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_step: Step | None = None,
) -> Subject:
    """Build a network, in eval mode, with a random batch that it takes.

    Raises:
        GhostifyError: there is no such network, or it takes no such input.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch is a whole number from 1 on (got {batch!r})")
    by_name = _by_name(model)
    source = open_source(
        model,
        on_step or _ignore,
        pretrained=pretrained and by_name,
        model_args=model_args if by_name else None,
        seed=seed,
    )
    built = source.built
    name = str(model) if isinstance(model, str | Path) else built.origin.name.rpartition(".")[2]
    network = inference_copy(built.model)
    inputs = _inputs(built, network, example, input_size, batch)
    probe = Probe(network, Call(inputs, {}), name=name)
    probe.run()
    notes = (built.note,) if built.note else ()
    return Subject(name, network, inputs, _macs(probe), notes)


def ready_on(
    runtime: Runtime, subject: Subject, *, threads: int, optimize: bool
) -> tuple[Session, tuple[str, ...]]:
    """Make a network ready on a runtime; return remarks on what could not be optimised.

    Raises:
        RuntimeFailedError: the runtime cannot take it; the network is named.
    """
    try:
        model, notes = optimized(subject, runtime.name) if optimize else (subject.model, ())
        session = runtime.prepare(model, subject.example, threads=threads)
    except GhostifyError as error:
        raise RuntimeFailedError(f"{subject.name} on {runtime.name}: {error}") from error
    return session, tuple(f"{subject.name} on {runtime.name}: {note}" for note in notes)


def optimized(subject: Subject, runtime: str) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a network as it is best run on a runtime, and remarks."""
    model = passes.optimize(subject.model, subject.example, runtime=runtime)
    return model, tuple(getattr(model, "ghostify_notes", ()))


def _measured(
    runtime: Runtime,
    subjects: Sequence[Subject],
    *,
    threads: int,
    batch: int,
    optimize: bool,
    rounds: int,
    seconds: float | None,
    step: Step,
    on_round: OnRound | None,
) -> list[Timed]:
    """Measure all networks on one runtime."""
    sessions: dict[str, Session] = {}  # by number: a network may be named twice
    notes: list[list[str]] = []
    differences: list[float] = []
    try:
        for number, subject in enumerate(subjects):
            step(f"preparing {subject.name} for {runtime.name}")
            session, remarks = ready_on(runtime, subject, threads=threads, optimize=optimize)
            sessions[str(number)] = session
            notes.append(list(remarks))
            differences.append(_difference(session, subject))
            same = _SAME if runtime.device() == "cpu" else _SAME_ON_GPU
            if differences[-1] > same:
                notes[-1].append(
                    f"{subject.name} on {runtime.name} gives other values than in torch: "
                    f"{differences[-1]:.1e} of the largest output"
                )
        step(f"measuring on {runtime.name}")
        samples = measure(sessions, rounds=rounds, seconds=seconds, on_round=on_round)
    finally:
        for session in sessions.values():
            session.close()
    rows: list[Timed] = []
    for number, subject in enumerate(subjects):
        figures = summarise(
            samples[str(number)],
            runtime=runtime.name,
            device=runtime.device(),
            threads=threads,
            batch=batch,
        )
        if figures.noisy:
            notes[number].append(
                f"{subject.name} on {runtime.name} is noisy: the middle half of the values is "
                f"{100 * figures.iqr_ms / figures.median_ms:.0f} % of the median wide in the best "
                "of three tries; measure again on a quiet machine"
            )
        first = rows[0] if rows else None
        whole = subject.macs or 0
        ratio = (first.macs or 0 if first else whole) / whole if whole else None
        rows.append(
            Timed(
                subject.name,
                figures,
                (first.latency if first else figures).median_ms / figures.median_ms,
                subject.macs,
                ratio or None,
                differences[number],
                tuple(notes[number]),
            )
        )
    return rows


def _difference(session: Session, subject: Subject) -> float:
    """Return the largest difference between a session's outputs and eager torch's."""
    with torch.no_grad():
        expected = tensors_of(subject.model(*subject.example))
    found = session.run(*subject.example)
    worst = 0.0
    for mine, theirs in zip(found, expected, strict=False):
        if mine.shape != theirs.shape:
            return float("inf")
        if theirs.numel() == 0:
            continue
        mine, theirs = mine.double(), theirs.cpu().double()
        scale = max(float(theirs.abs().max()), torch.finfo(torch.float32).tiny)
        difference = float((mine - theirs).abs().max()) / scale
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst if len(found) == len(expected) else float("inf")


def _inputs(
    built: Built,
    network: nn.Module,
    example: Any,
    input_size: tuple[int, ...] | None,
    batch: int,
) -> tuple[Tensor, ...]:
    if example is not None:
        return check_inputs(example if isinstance(example, tuple) else (example,))
    one = check_inputs(zoo.example_input(built, input_size))
    weight = next((each for each in network.parameters() if each.is_floating_point()), None)
    inputs = tuple(tensor.repeat(batch, *[1] * (tensor.dim() - 1)) for tensor in one)
    if weight is None:
        return inputs
    return tuple(tensor.to(weight.device, weight.dtype) for tensor in inputs)


def _by_name(model: Network) -> bool:
    """Tell whether a network is one that a function makes, and no artefact."""
    return isinstance(model, str | Path) and not Path(model).is_dir()


def _macs(probe: Probe) -> int | None:
    try:
        return count(probe).macs
    except GhostifyError:
        return None


def _ignore(_step: str) -> None:
    return None
