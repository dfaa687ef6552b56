"""What each layer costs in milliseconds, dense and as a Ghost module: measured once, kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ghostify.cost.machine import Machine, fingerprint
from ghostify.cost.table_file import TableFile, cache_folder
from ghostify.cost.workbench import Conditions
from ghostify.graph.windows import Window
from ghostify.plan import Plan
from ghostify.spec import GhostSpec

__all__ = ["LatencyTable", "LayerTime", "NetworkTime"]

_Time = TypeVar("_Time")


@dataclass(frozen=True, slots=True)
class LayerTime:
    """A piece of a network around one layer, with the layer dense and as a Ghost module."""

    dense_ms: float
    ghost_ms: float
    iqr_ms: float  # the wider one of both
    machine: str  # digest

    @property
    def gain_ms(self) -> float:
        """What the Ghost module saves; negative if it costs more."""
        return self.dense_ms - self.ghost_ms

    @property
    def gain(self) -> float:
        """The same as a share of the piece's time."""
        return self.gain_ms / self.dense_ms


@dataclass(frozen=True, slots=True)
class NetworkTime:
    """A whole network by some plan, measured in turns with the original."""

    original_ms: float
    ms: float
    iqr_ms: float
    machine: str


class LatencyTable:
    """Measured times in a file: kept for good, and taken up again where it was interrupted.

    A time is valid for one machine, runtime, version, number of threads and batch. Of a file
    that was named by the caller, times from another machine are used where there are none
    from here; ``foreign`` then names the machine.
    """

    def __init__(self, file: TableFile, *, machine: Machine, named: bool = False) -> None:
        self._file = file
        self._machine = machine
        self._named = named
        self._foreign: dict[str, str] = {}
        self._layers: dict[tuple[Any, ...], LayerTime] = {}
        self._networks: dict[tuple[Any, ...], NetworkTime] = {}
        self._names: dict[str, str] = {}
        self._unknown = 0
        for entry in file:
            self._take(entry)

    @classmethod
    def open(cls, path: str | Path | None = None) -> LatencyTable:
        """Open a table, or begin one.

        Args:
            path: a file; without it, one in the cache folder that belongs to this machine.

        Raises:
            TableError: the file is something else.
            OutputError: it cannot be read or written.
        """
        machine = fingerprint()
        own = cache_folder() / "latency" / f"{machine.digest}.jsonl"
        return cls(
            TableFile(own if path is None else Path(path)), machine=machine, named=path is not None
        )

    def __len__(self) -> int:
        return len(self._layers) + len(self._networks)

    @property
    def path(self) -> Path:
        """Where the table is."""
        return self._file.path

    @property
    def foreign(self) -> tuple[str, ...]:
        """The machines, other than this one, whose times have been used."""
        return tuple(self._foreign.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the table."""
        found = []
        damaged = self._file.damaged + self._unknown
        if damaged:
            found.append(
                f"the latency table {self.path} was damaged: it was rebuilt without {damaged} "
                f"of its lines, which are measured again; {self.path.name}.damaged is what it was"
            )
        if self._foreign:
            found.append(
                f"the latency table {self.path} was measured on another machine "
                f"({'; '.join(self.foreign)}): its times are foreign"
            )
        return tuple(found)

    def layer(self, window: str, spec: GhostSpec, conditions: Conditions) -> LayerTime | None:
        """Return the time of one layer in its surroundings, if it is known."""
        return self._find(self._layers, (window, str(spec)), conditions)

    def whole(self, network: str, plan: Plan, conditions: Conditions) -> NetworkTime | None:
        """Return the time of a network by one plan, if it is known."""
        return self._find(self._networks, (network, plan.digest), conditions)

    def add_layer(
        self, window: Window, spec: GhostSpec, conditions: Conditions, found: LayerTime
    ) -> None:
        """Keep the time of one layer."""
        self._keep(
            {
                "kind": "layer",
                "window": window.key,
                "what": window.what,
                "spec": str(spec),
                "dense_ms": round(found.dense_ms, 6),
                "ghost_ms": round(found.ghost_ms, 6),
                "iqr_ms": round(found.iqr_ms, 6),
            },
            conditions,
        )

    def add_whole(
        self, network: str, plan: Plan, conditions: Conditions, found: NetworkTime
    ) -> None:
        """Keep the time of a whole network."""
        self._keep(
            {
                "kind": "network",
                "network": network,
                "plan": plan.digest,
                "layers": len(plan),
                "original_ms": round(found.original_ms, 6),
                "ms": round(found.ms, 6),
                "iqr_ms": round(found.iqr_ms, 6),
            },
            conditions,
        )

    def _keep(self, values: Mapping[str, Any], conditions: Conditions) -> None:
        entry = {
            **values,
            "runtime": conditions.runtime,
            "version": conditions.version,
            "threads": conditions.threads,
            "batch": conditions.batch,
            "machine": self._machine.digest,
            "machine_name": str(self._machine),
        }
        self._file.add(entry)
        self._take(entry)

    def _take(self, entry: Mapping[str, Any]) -> None:
        try:
            where = (entry["runtime"], entry["version"], entry["threads"], entry["batch"])
            machine = entry["machine"]
            self._names[machine] = str(entry.get("machine_name", machine))
            if entry["kind"] == "layer":
                key = (entry["window"], entry["spec"], *where, machine)
                self._layers[key] = LayerTime(
                    _positive(entry["dense_ms"]),
                    _positive(entry["ghost_ms"]),
                    float(entry["iqr_ms"]),
                    machine,
                )
            elif entry["kind"] == "network":
                key = (entry["network"], entry["plan"], *where, machine)
                self._networks[key] = NetworkTime(
                    _positive(entry["original_ms"]),
                    _positive(entry["ms"]),
                    float(entry["iqr_ms"]),
                    machine,
                )
        except (KeyError, TypeError, ValueError):
            self._unknown += 1

    def _find(
        self,
        known: Mapping[tuple[Any, ...], _Time],
        what: tuple[str, str],
        conditions: Conditions,
    ) -> _Time | None:
        where = (conditions.runtime, conditions.version, conditions.threads, conditions.batch)
        own = known.get((*what, *where, self._machine.digest))
        if own is not None or not self._named:
            return own
        for machine, name in self._names.items():
            found = known.get((*what, *where, machine))
            if found is not None:
                self._foreign[machine] = name
                return found
        return None


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError(value)
    return number
