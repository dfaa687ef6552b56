"""Predicted latency as a sum over layers, so that a plan's is known before it is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ghostify.plan import Plan
from ghostify.spec import GhostSpec, LayerSpec

__all__ = ["LatencyModel", "Times"]


class Times(Protocol):
    """Where times come from: :class:`ghostify.cost.network_table.NetworkTable`."""

    def gain_ms(self, name: str, spec: GhostSpec) -> float | None:
        """Return what the Ghost module saves, or None if that was not timed."""

    def predict(self, plan: Plan) -> float:
        """Return the milliseconds that the network by a plan is expected to take."""


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """The time of a network as that of the original less what each layer's choice saves.

    ``gains`` are by layer and choice and may be negative; the correction from sums to whole
    networks is in both numbers. ``original_ms`` is what shares of a budget refer to: the
    original as it was measured, which the corrected ``base_ms`` need not hit.
    """

    original_ms: float
    base_ms: float
    gains: Mapping[str, Mapping[LayerSpec, float]]

    @classmethod
    def of(
        cls,
        times: Times,
        choices: Mapping[str, Iterable[LayerSpec]],
        *,
        original_ms: float | None = None,
    ) -> LatencyModel:
        """Read the times that are there; choices that were not timed have no gain.

        Args:
            times: a table in which the original and the choices were timed; it may be
                calibrated, which this model takes over as it is now.
            choices: settings by layer.
            original_ms: the original as measured; what is predicted for it if None.

        Raises:
            TableError: the original was not timed.
        """
        base = times.predict(Plan.empty())
        gains: dict[str, dict[LayerSpec, float]] = {}
        for name, specs in choices.items():
            for spec in specs:
                if isinstance(spec, GhostSpec) and times.gain_ms(name, spec) is not None:
                    alone = times.predict(Plan({name: spec}))
                    gains.setdefault(name, {})[spec] = base - alone
        return cls(base if original_ms is None else original_ms, base, gains)

    def predict(self, plan: Plan) -> float:
        """Return the milliseconds of a network by a plan whose choices were all timed."""
        return self.base_ms - sum(self.gains[name][spec] for name, spec in plan.layers.items())
