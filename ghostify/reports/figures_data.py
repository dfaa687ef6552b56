"""From run records to what figures show: one series for each network, method and budget."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ghostify.reports.statistics import Estimate, estimate

if TYPE_CHECKING:
    from ghostify.runs.record import RunLatency, RunRecord

__all__ = [
    "Curve",
    "PublishedPoint",
    "Runtime",
    "Series",
    "by_budget",
    "controls_of",
    "curve_of",
    "layer_sizes",
    "methods_of",
    "plain",
    "runtimes_of",
    "series_of",
]

_LONGEST = 40  # letters of a name in a figure


@dataclass(frozen=True, slots=True)
class PublishedPoint:
    """What a paper reports of a network that it made of another one."""

    network: str  # label of the network that it came from: "ResNet-56"
    label: str  # "L1"
    top1: float  # percent
    macs: float | None = None  # a number, not millions
    latency_ms: float | None = None  # on the paper's device


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a latency was measured with."""

    runtime: str
    device: str
    threads: int
    batch: int

    def __str__(self) -> str:
        where = "" if self.device == "cpu" else f" on {self.device}"
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if not where else ""
        return f"{self.runtime}{where}{threads}, batch {self.batch}"


@dataclass(frozen=True, slots=True)
class Series:
    """The runs of one network by one method under one budget, over all seeds."""

    network: str
    network_label: str
    method: str
    method_label: str
    budget: str | None
    records: tuple[RunRecord, ...]  # by seed

    @property
    def control(self) -> bool:
        """Whether it is the network itself, trained as long as the others."""
        return self.records[0].settings.get("kind") == "dense"

    @property
    def trained(self) -> bool:
        """Whether any training lies behind the accuracy."""
        return any(record.steps > 0 for record in self.records)

    def mean(self, get: Callable[[RunRecord], float | None]) -> Estimate | None:
        """Return mean and interval over seeds of what is known; None where nothing is."""
        values = [value for record in self.records if (value := _finite(get(record))) is not None]
        return estimate(values) if values else None

    def latency(self, runtime: Runtime, *, before: bool = False) -> Estimate | None:
        """Return the latency in ms, this network's or the original's measured beside it."""

        def get(record: RunRecord) -> float | None:
            for one in record.latencies:
                if _runtime(one) == runtime:
                    return one.before_ms if before else one.median_ms
            return None

        return self.mean(get)


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy over training: the mean over seeds, and the lowest and highest of them."""

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int


def series_of(
    records: Iterable[RunRecord], order: Sequence[str] = (), *, kinds: Sequence[str] = ("test",)
) -> tuple[Series, ...]:
    """Group records; networks and methods come in the given order, others behind, by label."""
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in records:
        if record.kind in kinds:
            key = (record.network, record.method, record.budget or "")
            groups.setdefault(key, []).append(record)
    place = {name: index for index, name in enumerate(order)}
    series = [
        Series(
            network, plain(runs[0].label or network), method,
            plain(runs[0].method_label or method), budget or None,
            tuple(sorted(runs, key=lambda run: (run.seed, run.id))),
        )
        for (network, method, budget), runs in groups.items()
    ]  # fmt: skip

    def rank(one: Series) -> tuple[Any, ...]:
        last = len(place)
        return (
            place.get(one.network, last), _natural(one.network_label), one.network,
            place.get(one.method, last), not one.control, _natural(one.method_label), one.method,
            _natural(one.budget or ""),
        )  # fmt: skip

    return tuple(sorted(series, key=rank))


def by_budget(series: Iterable[Series]) -> list[Series]:
    """Put what can be compared together: what takes no budget, then one budget after another."""
    return sorted(series, key=lambda one: (one.budget is not None, _natural(one.budget or "")))


def methods_of(series: Iterable[Series], order: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the methods' names in one order for all networks."""
    found = dict.fromkeys(one.method for one in series)
    return (*(name for name in order if name in found), *(n for n in found if n not in order))


def controls_of(series: Iterable[Series]) -> frozenset[str]:
    """Return the methods that are dense controls."""
    return frozenset(one.method for one in series if one.control)


def runtimes_of(series: Iterable[Series]) -> tuple[Runtime, ...]:
    """Return all that latencies were measured with, by name."""
    found = {
        _runtime(latency)
        for one in series
        for record in one.records
        for latency in record.latencies
    }
    return tuple(sorted(found, key=lambda one: (one.runtime, one.device, one.threads, one.batch)))


def curve_of(series: Series) -> Curve | None:
    """Return accuracy by step, at the steps that all seeds have; None below two of them.

    Step 0 is the accuracy before any training, where it is known.
    """
    curves = [curve for record in series.records if (curve := _points(record))]
    if not curves:
        return None
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    if len(steps) < 2:
        return None
    values = [[curve[step] for curve in curves] for step in steps]
    return Curve(
        tuple(steps),
        tuple(math.fsum(column) / len(column) for column in values),
        tuple(map(min, values)),
        tuple(map(max, values)),
        len(curves),
    )


def plain(text: str) -> str:
    """Return a name as a figure can hold it: one line, no control characters, not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _points(record: RunRecord) -> dict[int, float]:
    points: dict[int, float] = {}
    if (start := _finite(record.start_top1)) is not None:
        points[0] = start
    for point in record.curve:
        step, top1 = point.get("step"), _finite(point.get("top1"))
        if isinstance(step, int) and top1 is not None:
            points[step] = top1
    return points


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _runtime(latency: RunLatency) -> Runtime:
    return Runtime(latency.runtime, latency.device, latency.threads, latency.batch)


def _natural(text: str) -> list[tuple[int, float | str]]:
    """Return a key that puts ResNet-20 before ResNet-110."""
    words = re.findall(r"[0-9]+(?:\.[0-9]+)?|[^0-9]+", text.casefold())
    return [(0, float(word)) if word[0] in "0123456789" else (1, word) for word in words]


def layer_sizes(series: Iterable[Series]) -> Mapping[str, int]:
    """Return the maps of each convolution before it was changed, where any plan tells them."""
    sizes: dict[str, int] = {}
    for one in series:
        for record in one.records:
            for name, shape in ((record.plan or {}).get("convs") or {}).items():
                sizes.setdefault(str(name), int(shape[0]))
    return sizes
