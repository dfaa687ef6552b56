"""Latency in a search: layers are timed first, whole networks at the end, the rest is learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ghostify.cost.network_table import NetworkTable
from ghostify.cost.table import LatencyTable
from ghostify.cost.workbench import Workbench
from ghostify.graph.probe import copy_model
from ghostify.looking import Look
from ghostify.plan import Plan
from ghostify.searches.latency import LatencyModel
from ghostify.searches.problem import Problem
from ghostify.spec import GhostSpec, parse_spec

__all__ = ["Clocks", "latencies_as_json", "latencies_from_json"]

Progress = Callable[[int, int, str], None]


class Clocks:
    """The times of one network's plans on the runtimes whose latency is limited.

    Args:
        table: file of latencies that is read and added to; None: the machine's own.

    Raises:
        RuntimeNotFoundError: no runtime is called that.
        RuntimeMissingError: it is not installed.
    """

    def __init__(
        self,
        look: Look,
        example: Tensor,
        runtimes: Sequence[str],
        *,
        table: Path | None = None,
        threads: int = 1,
    ) -> None:
        benches = {name: Workbench(name, threads=threads, batch=1) for name in runtimes}
        model = copy_model(look.built.model, hooks=False).eval()
        times = LatencyTable.open(table)
        self._tables = {
            name: NetworkTable(times, model, (example[:1],), look.sites, bench)
            for name, bench in benches.items()
        }
        self._originals: dict[str, float] = {}  # ms, by runtime

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the times."""
        return tuple(note for table in self._tables.values() for note in table.notes)

    def time_layers(self, problem: Problem, on_progress: Progress | None = None) -> None:
        """Time each layer with each of its Ghost settings, and the original as a whole."""
        choices = {
            name: [spec for spec in specs if isinstance(spec, GhostSpec)]
            for name, specs in problem.layer_choices().items()
        }
        for name, table in self._tables.items():
            table.ensure(choices, on_progress=on_progress)
            timed = table.measure([Plan.empty()], on_progress=on_progress)
            self._originals[name] = timed[0].ms

    def measure(
        self, plans: Sequence[Plan], on_progress: Progress | None = None
    ) -> list[dict[str, float]]:
        """Return the milliseconds of whole networks, by ``"latency@RUNTIME"``."""
        found: list[dict[str, float]] = [{} for _ in plans]
        for name, table in self._tables.items():
            times = table.measure([Plan.empty(), *plans], on_progress=on_progress)
            base = self._originals[name] = times[0].ms
            for one, timed in zip(found, times[1:], strict=True):
                one[f"latency@{name}"] = base * timed.ms / timed.original_ms
        return found

    def learn(self, plans: Sequence[Plan]) -> None:
        """Correct what is predicted by networks that were measured."""
        for table in self._tables.values():
            table.calibrate(plans)

    def models(self, problem: Problem) -> dict[str, LatencyModel]:
        """Return what is predicted now, by runtime; the original must have been measured.

        Nothing is measured here, since that would undo what :meth:`learn` has corrected.
        """
        choices = problem.layer_choices()
        return {
            name: LatencyModel.of(table, choices, original_ms=self._originals[name])
            for name, table in self._tables.items()
        }


def latencies_as_json(models: Mapping[str, LatencyModel]) -> dict[str, Any]:
    """Return latency models as plain values, for machines that join."""
    return {
        name: {
            "original_ms": model.original_ms,
            "base_ms": model.base_ms,
            "gains": {
                layer: {str(spec): ms for spec, ms in gains.items()}
                for layer, gains in model.gains.items()
            },
        }
        for name, model in models.items()
    }


def latencies_from_json(value: Mapping[str, Any]) -> dict[str, LatencyModel]:
    """Read what :func:`latencies_as_json` wrote."""
    return {
        name: LatencyModel(
            float(one["original_ms"]),
            float(one["base_ms"]),
            {
                layer: {parse_spec(spec): float(ms) for spec, ms in gains.items()}
                for layer, gains in one["gains"].items()
            },
        )
        for name, one in value.items()
    }
