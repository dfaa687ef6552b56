"""One run as a value: what was asked for, what it cost, and how accurate the network became."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, UnionType
from typing import Any

from ghostify.errors import RecordError

__all__ = ["FORMAT", "KINDS", "RunLatency", "RunRecord", "identify"]

FORMAT = 1
"""Of the lines of a store."""

KINDS: dict[str, str] = {
    "test": "a network that was measured on the test images",
    "tune": "a learning rate that was tried on the validation images",
    "count": "a network of which only the costs were taken",
}
"""What a run was for."""


def identify(asked: Mapping[str, Any]) -> str:
    """Return 16 hex digits for what was asked for: equal wishes, equal digits.

    Raises:
        RecordError: it holds more than texts, numbers, lists and mappings by text.
    """
    try:
        text = json.dumps(_plain(asked), sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise RecordError(f"a run is asked for by plain values ({error})") from None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class RunLatency:
    """How long one forward pass takes; ``before`` is the original network beside it."""

    runtime: str
    threads: int
    batch: int
    median_ms: float
    iqr_ms: float
    device: str = "cpu"
    noisy: bool = False
    before_ms: float | None = None  # median of the original, measured in turns with it

    @classmethod
    def from_json(cls, value: object) -> RunLatency:
        """Read plain values.

        Raises:
            RecordError: a key is missing or unknown, or its value is of another type.
        """
        return cls(**_fields(cls, value))


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run that is done. Accuracies are in percent, of the network's last state unless said."""

    id: str  # of what was asked for, see identify
    kind: str  # one of KINDS
    network: str  # the suite's name of the network
    label: str  # of the network, for people
    model: str  # what the zoo builds
    method: str  # the suite's name of the method
    method_label: str
    settings: Mapping[str, Any]  # the method as the suite gives it
    budget: str | None  # "macs=0.52x"
    seed: int
    macs: int
    params: int
    macs_before: int
    params_before: int
    plan: Mapping[str, Any] | None = None  # Plan.as_json(), or {"kept": {layer: maps}}
    latencies: tuple[RunLatency, ...] = ()
    original_top1: float | None = None  # before the conversion, on the same images
    start_top1: float | None = None  # after conversion, pruning or fit, before any training
    top1: float | None = None  # after the last step
    top5: float | None = None
    loss: float | None = None
    best_top1: float | None = None
    best_epoch: float | None = None
    curve: tuple[Mapping[str, Any], ...] = ()  # {"step", "epoch", "top1", "loss"} as measured
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lr: float | None = None
    steps: int = 0
    epochs: float = 0.0
    teacher: str | None = None
    seconds: float = 0.0  # of training
    setup_seconds: float = 0.0  # of conversion, pruning and fit
    command: str = ""  # what makes this row alone
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    created: str = ""  # ISO 8601, UTC

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RecordError(f"RunRecord.kind is one of {', '.join(KINDS)} (got {self.kind!r})")
        if not self.id:
            raise RecordError("RunRecord.id must not be empty; make it by identify")
        for name in ("settings", "plan", "recipe", "provenance"):
            value = getattr(self, name)
            if isinstance(value, dict):
                object.__setattr__(self, name, MappingProxyType(value))
        object.__setattr__(self, "latencies", tuple(self.latencies))
        object.__setattr__(self, "curve", tuple(self.curve))

    def __reduce__(self) -> tuple[Any, ...]:
        return RunRecord.from_json, (self.as_json(),)

    @property
    def macs_ratio(self) -> float:
        """The original's multiply-adds over this network's."""
        return self.macs_before / self.macs if self.macs else math.inf

    @property
    def params_ratio(self) -> float:
        """The original's parameters over this network's."""
        return self.params_before / self.params if self.params else math.inf

    def as_json(self) -> dict[str, Any]:
        """Return plain values, with the format; what is no finite number becomes None."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["latencies"] = [dataclasses.asdict(latency) for latency in self.latencies]
        plain: dict[str, Any] = _plain({"format": FORMAT} | fields)
        return plain

    @classmethod
    def from_json(cls, value: object) -> RunRecord:
        """Read what :meth:`as_json` wrote.

        Raises:
            RecordError: a key is missing or unknown, or its value is of another type.
        """
        if not isinstance(value, Mapping):
            raise RecordError("it is no mapping")
        given = {key: one for key, one in value.items() if key != "format"}
        read = _fields(cls, given)
        read["latencies"] = tuple(map(RunLatency.from_json, given.get("latencies", ())))
        return cls(**read)


def _fields(kind: type[RunRecord] | type[RunLatency], value: object) -> dict[str, Any]:
    """Check the keys and the types of what becomes a dataclass."""
    if not isinstance(value, Mapping):
        raise RecordError(f"{kind.__name__} is no mapping")
    hints = typing.get_type_hints(kind)
    for key in value:
        if key not in hints:
            raise RecordError(f"it has the unknown key {key!r}")
    for field in dataclasses.fields(kind):
        optional = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if field.name not in value and not optional:
            raise RecordError(f"it has no {field.name}")
        if field.name in value and not _fits(value[field.name], hints[field.name]):
            raise RecordError(f"its {field.name} is {value[field.name]!r}")
    return dict(value)


def _fits(value: object, wanted: Any) -> bool:
    if isinstance(wanted, UnionType):
        return any(_fits(value, one) for one in typing.get_args(wanted))
    origin = typing.get_origin(wanted) or wanted
    if origin is tuple:
        return isinstance(value, list | tuple)
    if isinstance(value, bool) or origin is bool:
        return isinstance(value, bool) and origin is bool
    if origin is float:
        return isinstance(value, int | float)
    return isinstance(value, origin)


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in (sorted(value) if isinstance(value, set) else value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
