"""Milliseconds per run, measured so that networks can be compared: in turns, by medians."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ghostify.errors import InputError
from ghostify.runtimes.base import Session

__all__ = ["WIDE", "Latency", "Samples", "measure", "spread", "summarise"]

WIDE = 0.10
"""IQR over median beyond which a measurement is repeated, and in the end called noisy."""

_TRIES = 3
_SLICE_S = 0.01  # a sample is made of as many runs as take this long
_MOST_REPEATS = 1000
_FEWEST_ROUNDS = 5
_QUIET_S = 0.1  # of warm-up for each network

OnRound = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one run of a network takes."""

    median_ms: float
    iqr_ms: float
    runtime: str
    device: str
    threads: int
    batch: int
    rounds: int
    noisy: bool  # the spread stayed too wide, however often it was measured

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Samples:
    """Milliseconds of one run, one value for each round."""

    ms: tuple[float, ...]
    repeats: int = 1  # runs that each value is the mean of
    tries: int = 1  # how often all rounds were measured, until the spread was narrow enough

    @property
    def median_ms(self) -> float:
        """The middle value."""
        return statistics.median(self.ms)

    @property
    def iqr_ms(self) -> float:
        """The width of the middle half."""
        return spread(self.ms)

    @property
    def noisy(self) -> bool:
        """Whether the middle half is wide beside the median."""
        return self.iqr_ms > WIDE * self.median_ms


@dataclass(slots=True)
class _Plan:
    """How one session is measured."""

    session: Session
    repeats: int
    ms: list[float] = field(default_factory=list)


def measure(
    sessions: Mapping[str, Session],
    *,
    rounds: int = 25,
    seconds: float | None = None,
    warm_up_s: float = _QUIET_S,
    tries: int = _TRIES,
    on_round: OnRound | None = None,
) -> dict[str, Samples]:
    """Time all sessions in turns, so that what disturbs one of them disturbs them all.

    In each round every session is timed once, after one untimed run that brings its weights
    back into the caches. A session that is fast is run several times for one value. Where
    the spread of any session is too wide, all rounds are measured again, up to ``tries``
    times, and the ones with the narrowest spread stand.

    Args:
        rounds: values per session.
        seconds: end after so long in all for one try, but not before five rounds.
        on_round: called with the rounds that are done, and of how many.

    Raises:
        InputError: an impossible number.
    """
    _check(rounds, seconds, tries)
    plans = {
        name: _Plan(session, _warm_up(session, warm_up_s)) for name, session in sessions.items()
    }
    best: dict[str, Samples] = {}
    for attempt in range(1, tries + 1):
        found = _rounds(plans, rounds, seconds, attempt, on_round)
        if not best or _widest(found) < _widest(best):
            best = found
        if not any(samples.noisy for samples in best.values()):
            break
    return best


def summarise(
    samples: Samples, *, runtime: str, device: str = "cpu", threads: int = 1, batch: int = 1
) -> Latency:
    """Return the figures to show for what :func:`measure` found."""
    return Latency(
        median_ms=samples.median_ms,
        iqr_ms=samples.iqr_ms,
        runtime=runtime,
        device=device,
        threads=threads,
        batch=batch,
        rounds=len(samples.ms),
        noisy=samples.noisy,
    )


def spread(values: tuple[float, ...] | list[float]) -> float:
    """Return the interquartile range, by linear interpolation as numpy does it."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


def _rounds(
    plans: Mapping[str, _Plan],
    rounds: int,
    seconds: float | None,
    attempt: int,
    on_round: OnRound | None,
) -> dict[str, Samples]:
    for plan in plans.values():
        plan.ms.clear()
    order = list(plans.values())
    collecting = gc.isenabled()
    gc.disable()
    began = time.perf_counter()
    try:
        for done in range(rounds):
            late = seconds is not None and time.perf_counter() - began > seconds
            if late and done >= _FEWEST_ROUNDS:
                break
            for plan in order:
                plan.session.time(1)
                plan.ms.append(1e3 * plan.session.time(plan.repeats) / plan.repeats)
            order.append(order.pop(0))  # nobody always follows the same one
            if on_round is not None:
                on_round(done + 1, rounds)
    finally:
        if collecting:
            gc.enable()
    return {name: Samples(tuple(plan.ms), plan.repeats, attempt) for name, plan in plans.items()}


def _warm_up(session: Session, seconds: float) -> int:
    """Run a session until it runs as fast as it will; return the runs for one value."""
    session.time(1)
    taken = [session.time(1)]
    while sum(taken) < seconds and len(taken) < _MOST_REPEATS:
        taken.append(session.time(1))
    once = max(statistics.median(taken), 1e-9)
    return max(1, min(_MOST_REPEATS, round(_SLICE_S / once)))


def _widest(found: Mapping[str, Samples]) -> float:
    return max((one.iqr_ms / max(one.median_ms, 1e-12) for one in found.values()), default=0.0)


def _check(rounds: int, seconds: float | None, tries: int) -> None:
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise InputError(f"rounds is a whole number from 1 on (got {rounds!r})")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InputError(f"seconds is a number above 0 (got {seconds!r})")
    if isinstance(tries, bool) or not isinstance(tries, int) or tries < 1:
        raise InputError(f"tries is a whole number from 1 on (got {tries!r})")
