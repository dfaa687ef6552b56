"""The cost of a network as a value, and the limits that a search must hold."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ghostify.errors import BudgetError, nearest

__all__ = ["RESOURCES", "Budget", "Cost", "Limit", "say_amount"]

RESOURCES = ("macs", "params", "size", "latency")
"""What can be limited: multiply-adds, parameters, bytes of the weights, milliseconds."""

_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_BYTES |= {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_UNITS = {"macs": _COUNTS, "params": _COUNTS, "size": _BYTES, "latency": _MILLISECONDS}
_EXAMPLES = {
    "macs": "macs=0.5x or macs=2G",
    "params": "params=0.5x or params=15M",
    "size": "size=0.5x or size=20MB",
    "latency": "latency=0.7x@onnxruntime or latency=12ms@onnxruntime",
}
_VALUE = re.compile(r"(?P<number>\d+(\.\d*)?(e[+-]?\d+)?|\.\d+(e[+-]?\d+)?)\s*(?P<unit>[A-Za-z]*)")
_RUNTIME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters (all of them, shared ones once) and multiply-adds of one forward pass.

    ``copied`` counts the numbers that indexed copies move, where a fit has changed the order
    of a Ghost module's maps and the layers behind could not take it up. They are no
    multiply-adds, but they are not free either.
    """

    params: int
    macs: int
    copied: int = 0

    def as_json(self) -> dict[str, int]:
        """Return ``{"params", "macs"}``, and ``"copied"`` where there is any."""
        plain = {"params": self.params, "macs": self.macs}
        return plain | {"copied": self.copied} if self.copied else plain


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that a plan may take of one resource.

    Raises:
        BudgetError: an unknown resource, a value that is not above zero, a latency without
            its runtime or a runtime without latency.
    """

    resource: str  # one of RESOURCES
    value: float  # multiply-adds, parameters, bytes, ms; or a share of the original's
    relative: bool = False
    runtime: str = ""  # of a latency only

    def __post_init__(self) -> None:
        if self.resource not in RESOURCES:
            raise BudgetError(
                f"a budget limits {', '.join(RESOURCES)} (got {self.resource!r})"
                + nearest(self.resource, RESOURCES)
            )
        if not 0 < self.value < math.inf:
            raise BudgetError(
                f"the limit of {self.resource} must be above 0 (got {self.value:g}); "
                f"write {_EXAMPLES[self.resource]}"
            )
        if self.resource == "latency" and not self.runtime:
            raise BudgetError(f"a limit of latency names its runtime; write {_EXAMPLES['latency']}")
        if self.runtime and self.resource != "latency":
            raise BudgetError(
                f"only latency depends on a runtime (got {self.resource}@{self.runtime}); "
                f"write {_EXAMPLES[self.resource]}"
            )

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read ``macs=0.5x``, ``params=15M``, ``size=20MB`` or ``latency=12ms@openvino``.

        Raises:
            BudgetError: anything else, with an example of how to write it.
        """
        resource, equals, wish = (part.strip() for part in text.partition("="))
        if not equals or not resource or not wish:
            example = _EXAMPLES.get(resource, _EXAMPLES["macs"])
            raise BudgetError(f"a budget is written like {example} (got {text.strip()!r})")
        if resource not in RESOURCES:
            cls(resource, 1.0)  # says so, with the nearest
        value, at, runtime = (part.strip() for part in wish.partition("@"))
        if at and not _RUNTIME.fullmatch(runtime):
            raise BudgetError(
                f"a limit of latency names its runtime behind @ (got {wish!r}); "
                f"write {_EXAMPLES['latency']}"
            )
        number, relative = _number(resource, value)
        return cls(resource, number, relative, runtime)

    @property
    def key(self) -> str:
        """The resource as costs name it: ``"macs"``, ``"latency@openvino"``."""
        return f"{self.resource}@{self.runtime}" if self.runtime else self.resource

    def __str__(self) -> str:
        at = f"@{self.runtime}" if self.runtime else ""
        value = f"{self.value!r}x" if self.relative else _exact_amount(self.resource, self.value)
        return f"{self.resource}={value}{at}"


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits that hold together: a plan is feasible if it exceeds none of them.

    Raises:
        BudgetError: no limit, or two for the same thing.
    """

    limits: tuple[Limit, ...]

    def __post_init__(self) -> None:
        if not self.limits:
            raise BudgetError(f"a budget needs a limit; write {_EXAMPLES['macs']}")
        seen: set[str] = set()
        for limit in self.limits:
            if limit.key in seen:
                raise BudgetError(f"the budget limits {limit.key} twice; leave one of them out")
            seen.add(limit.key)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read limits with commas between them: ``macs=0.5x,latency=0.7x@onnxruntime``.

        Shares of the original's cost end in x. Counts may end in k, M, G or T; sizes are in
        bytes (kB, MB, GB, KiB, MiB, GiB) and latencies in ms (us, s).

        Raises:
            BudgetError: anything else, with an example of how to write it.
        """
        return cls(tuple(Limit.parse(part) for part in text.split(",") if part.strip()))

    def __str__(self) -> str:
        return ",".join(map(str, self.limits))

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes whose latency is limited."""
        return tuple(limit.runtime for limit in self.limits if limit.runtime)

    def absolute(self, original: Mapping[str, float]) -> dict[str, float]:
        """Return the limits in absolute units, by resource (``"latency@onnxruntime"``).

        Args:
            original: what the original network takes, by resource.

        Raises:
            BudgetError: a limit is relative to something that is not known.
        """
        found: dict[str, float] = {}
        for limit in self.limits:
            if not limit.relative:
                found[limit.key] = limit.value
            elif limit.key in original:
                found[limit.key] = limit.value * original[limit.key]
            else:
                raise BudgetError(
                    f"{limit} is a share of the original's {limit.key}, which is not known; "
                    "let it be measured first or give an absolute limit"
                )
        return found

    def violations(
        self, costs: Mapping[str, float], original: Mapping[str, float]
    ) -> dict[str, float]:
        """Return by how much each limit is exceeded; at most zero is feasible.

        Raises:
            BudgetError: a cost that is limited is missing.
        """
        limits = self.absolute(original)
        for key in limits:
            if key not in costs:
                raise BudgetError(f"the budget limits {key}, which is not among the costs")
        return {key: float(costs[key]) - limit for key, limit in limits.items()}


def say_amount(key: str, value: float) -> str:
    """Return an amount of a resource for people: ``2.05G``, ``20.5MB``, ``12.3ms``."""
    resource = key.partition("@")[0]
    if resource == "latency":
        return f"{value:.4g}ms"
    units = _COUNTS if resource != "size" else {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    unit, factor = max(
        ((unit, factor) for unit, factor in units.items() if factor <= max(value, 1.0)),
        key=lambda one: one[1],
    )
    return f"{value / factor:.4g}{unit}"


def _number(resource: str, text: str) -> tuple[float, bool]:
    """Return a value and whether it is a share of the original's."""
    match = _VALUE.fullmatch(text)
    units = _UNITS[resource]
    if match is None or (match["unit"] not in units and match["unit"] != "x"):
        known = ", ".join(unit for unit in ("x", *units) if unit)
        wrong = match["unit"] if match else ""
        same = [unit for unit in units if wrong and unit.lower() == wrong.lower()]
        close = f"; did you mean {same[0]}?" if same else nearest(wrong, units)
        raise BudgetError(
            f"the limit of {resource} is a number with one of the units {known} "
            f"(got {text!r}); write {_EXAMPLES[resource]}" + close
        )
    if match["unit"] == "x":
        return float(match["number"]), True
    return float(match["number"]) * units[match["unit"]], False


def _exact_amount(resource: str, value: float) -> str:
    shown = f"{value:.0f}" if value == int(value) and value < 2**53 else repr(value)
    return f"{shown}ms" if resource == "latency" else shown
