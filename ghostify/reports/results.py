"""Run records summed up: one result for each network, method and budget, over its seeds."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ghostify.reports.statistics import Estimate, estimate
from ghostify.runs.record import RunLatency, RunRecord

__all__ = ["LatencyKey", "Result", "Timing", "anchor", "summed_up", "wish_of"]

LatencyKey = tuple[str, str, int, int]
"""Runtime, device, threads, batch."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a network takes on one runtime; over seeds, the means of medians and spreads."""

    median_ms: float
    iqr_ms: float
    before_ms: float | None  # of the original, measured in turns with it
    noisy: bool


@dataclass(frozen=True, slots=True)
class Result:
    """All seeds of one method on one network under one budget."""

    id: str
    records: tuple[RunRecord, ...]  # by seed; of the kinds "test" and "count"
    tried: tuple[RunRecord, ...] = field(default=(), repr=False)  # of "tune", by learning rate
    variant: str = ""  # tells it from another one of the same name

    @property
    def first(self) -> RunRecord:
        """The record of the lowest seed, for what all have in common."""
        return self.records[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that were run."""
        return tuple(record.seed for record in self.records)

    @property
    def name(self) -> str:
        """The method, for people."""
        label = self.first.method_label or self.first.method
        return f"{label} ({self.variant})" if self.variant else label

    @property
    def network(self) -> str:
        """The network, for people."""
        return self.first.label or self.first.network

    @property
    def kind(self) -> str:
        """What the method does, as the suite says it: "dense", "prune", "ghost" ...; or ""."""
        return str(self.first.settings.get("kind", ""))

    @property
    def teacher(self) -> str | None:
        """Whom the network learnt from."""
        return self.first.teacher

    def values(self, name: str) -> tuple[float, ...]:
        """Return one field of all records that have it, as finite numbers, by seed."""
        found = (getattr(record, name) for record in self.records)
        return tuple(float(one) for one in found if one is not None and math.isfinite(one))

    def estimate(self, name: str) -> Estimate | None:
        """Return the mean of one field over seeds, or None where no record has it."""
        values = self.values(name)
        return estimate(values) if values else None

    def mean(self, name: str) -> float | None:
        """Return the plain mean of one field, or None."""
        values = self.values(name)
        return statistics.fmean(values) if values else None

    def timings(self) -> dict[LatencyKey, Timing]:
        """Return the latencies on each runtime."""
        found: dict[LatencyKey, list[RunLatency]] = {}
        for record in self.records:
            for one in record.latencies:
                found.setdefault((one.runtime, one.device, one.threads, one.batch), []).append(one)
        return {key: _timing(values) for key, values in sorted(found.items())}


def summed_up(
    records: Iterable[RunRecord],
    *,
    variants: Mapping[str, str] | None = None,
    order: Callable[[RunRecord], tuple[Any, ...]] | None = None,
) -> tuple[Result, ...]:
    """Group records by network, method and budget; the order of the lines plays no part.

    Args:
        variants: names by record id, for what would else fall into one row but may not.
        order: where a record's row stands; by name if it is not given, dense ones first.
    """
    variants = variants or {}
    rank = order or _by_name
    rows: dict[tuple[str, str, str, str], list[RunRecord]] = {}
    tried: dict[tuple[str, str, str, str], list[RunRecord]] = {}
    for record in records:
        key = (record.network, record.method, record.budget or "", variants.get(record.id, ""))
        (tried if record.kind == "tune" else rows).setdefault(key, []).append(record)
    found = []
    for key, mine in rows.items():
        mine.sort(key=lambda one: (one.seed, one.id))
        rates = sorted(tried.get(key, ()), key=lambda one: (one.lr or 0.0, one.seed, one.id))
        name = ".".join(anchor(part) for part in key if part)
        found.append(Result(name, tuple(mine), tuple(rates), key[3]))
    found.sort(key=lambda one: (*rank(one.first), one.variant, one.id))
    return _told_apart(found)


def wish_of(record: RunRecord) -> str:
    """Return all that must be equal for two seeds to stand in one row, as text."""
    recipe = {key: value for key, value in record.recipe.items() if key != "lr"}
    data = record.provenance.get("data")
    digest = data.get("digest") if isinstance(data, Mapping) else data
    asked = [_plain(record.settings), _plain(recipe), record.steps, record.teacher, _plain(digest)]
    return json.dumps(asked, sort_keys=True, default=str)


def anchor(text: str) -> str:
    """Return a text as a part of file names and links: small letters, digits, ``-``."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def _told_apart(found: Sequence[Result]) -> tuple[Result, ...]:
    """Number the ids that different names have made equal."""
    seen: dict[str, int] = {}
    told = []
    for one in found:
        seen[one.id] = seen.get(one.id, 0) + 1
        name = one.id if seen[one.id] == 1 else f"{one.id}.{seen[one.id]}"
        told.append(Result(name, one.records, one.tried, one.variant))
    return tuple(told)


def _by_name(record: RunRecord) -> tuple[Any, ...]:
    dense = record.settings.get("kind") == "dense"
    return (record.network, not dense, record.method, record.budget or "")


def _timing(values: Sequence[RunLatency]) -> Timing:
    befores = [one.before_ms for one in values if one.before_ms is not None]
    return Timing(
        median_ms=statistics.fmean(one.median_ms for one in values),
        iqr_ms=statistics.fmean(one.iqr_ms for one in values),
        before_ms=statistics.fmean(befores) if befores else None,
        noisy=any(one.noisy for one in values),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return list(value) if isinstance(value, tuple) else value
