"""Find runs in a store, order them, and tell how two of them differ."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostify.errors import GhostifyError, RecordError, nearest
from ghostify.plan import Plan
from ghostify.runs.frame import frame
from ghostify.runs.record import RunRecord
from ghostify.runs.store import Stored, open_runs

if TYPE_CHECKING:
    import pandas

__all__ = [
    "Difference",
    "differences",
    "find_run",
    "layers_of",
    "load_runs",
    "read_runs",
    "short_ids",
    "sort_runs",
    "where",
]

_log = logging.getLogger(__name__)

_LEAST = 6  # digits of a short id
_ORDERED = tuple(
    field.name
    for field in dataclasses.fields(RunRecord)
    if field.name not in ("settings", "plan", "latencies", "curve", "recipe", "provenance")
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two runs differ; None is what a run does not have."""

    part: str  # "settings", "plan", "figures" or "provenance"
    name: str
    one: Any
    two: Any


def load_runs(path: str | Path) -> pandas.DataFrame:
    """Return the runs of a comparison as a pandas frame, one row for each, ids as the index.

    Lines that are no record are logged, and listed in ``frame.attrs["remarks"]``.

    Args:
        path: the directory that ``ghostify compare`` wrote, or a file of records.

    Raises:
        RecordError: there is no store, or records are of another format.
    """
    stored = open_runs(path).read()
    for remark in stored.remarks:
        _log.warning("%s", remark)
    found = frame(stored.records)
    found.attrs["remarks"] = list(stored.remarks)
    return found


def read_runs(path: str | Path) -> Stored:
    """Return the records of a comparison's directory, of which there must be some.

    Raises:
        RecordError: there is no store, no record in it, or one of another format.
    """
    store = open_runs(path)
    stored = store.read()
    if not stored.records:
        count = len(stored.remarks)
        broken = f" but {count} broken line{'s' * (count != 1)}" if count else ""
        raise RecordError(
            f"{store.path} holds no run yet{broken}; ghostify compare goes on with it"
        )
    return stored


def find_run(records: Sequence[RunRecord], wish: str) -> RunRecord:
    """Return the record whose id begins with ``wish``.

    Raises:
        RecordError: none does, or several do.
    """
    found = [record for record in records if record.id.startswith(wish.lower())]
    if len(found) == 1 and wish:
        return found[0]
    ids = [record.id for record in records]
    if found:
        raise RecordError(
            f"{len(found)} runs begin with {wish!r} ({', '.join(one.id for one in found[:4])}"
            + (", ...); give more digits" if len(found) > 4 else "); give more digits")
        )
    shortened = {one[: max(len(wish), 1)]: one for one in ids}
    raise RecordError(
        f"no run is called {wish!r}"
        + (nearest(wish.lower(), ids) or nearest(wish.lower(), shortened))
        + "; ghostify runs ls lists them"
    )


def short_ids(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return the beginning of each id, long enough that no other run begins alike."""
    ids = {record.id for record in records}
    digits = _LEAST
    while len({one[:digits] for one in ids}) < len(ids):
        digits += 1
    return {one: one[:digits] for one in ids}


def sort_runs(records: Iterable[RunRecord], key: str, *, reverse: bool = False) -> list[RunRecord]:
    """Return records in the order of one of their fields; those without it come last.

    Raises:
        RecordError: no field has this name, or it has no order.
    """
    _check_field(key)
    records = list(records)
    there = [record for record in records if getattr(record, key) is not None]
    missing = [record for record in records if getattr(record, key) is None]
    return sorted(there, key=lambda one: getattr(one, key), reverse=reverse) + missing


def where(records: Iterable[RunRecord], wishes: Mapping[str, str]) -> list[RunRecord]:
    """Return the records whose fields, written as text, are what is asked for.

    Raises:
        RecordError: no field has this name.
    """
    for key in wishes:
        _check_field(key)
    return [
        record
        for record in records
        if all(_text(getattr(record, key)) == value for key, value in wishes.items())
    ]


def differences(one: RunRecord, two: RunRecord) -> list[Difference]:
    """Return in what two runs differ: settings, layers of the plans, figures, provenance."""
    found: list[Difference] = []
    for part, first, second in (
        ("settings", _settings(one), _settings(two)),
        ("plan", layers_of(one.plan), layers_of(two.plan)),
        ("figures", _figures(one), _figures(two)),
        ("provenance", _flat(one.provenance), _flat(two.provenance)),
    ):
        for name in dict.fromkeys((*first, *second)):
            if first.get(name) != second.get(name):
                found.append(Difference(part, name, first.get(name), second.get(name)))
    return found


def layers_of(plan: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what a plan makes of each layer, as text: ``s2,d3``, ``p0.5`` or ``12 maps``."""
    if not plan:
        return {}
    if isinstance(plan.get("kept"), Mapping):
        return {
            name: f"{len(maps) if isinstance(maps, Sequence) else maps} maps"
            for name, maps in plan["kept"].items()
        }
    try:
        return {name: str(spec) for name, spec in Plan.from_json(dict(plan)).layers.items()}
    except GhostifyError:
        return {name: _text(value) for name, value in _flat(plan).items()}


def _settings(record: RunRecord) -> dict[str, Any]:
    names = ("kind", "network", "model", "method", "budget", "seed", "teacher", "lr", "steps")
    found = {name: getattr(record, name) for name in names}
    return found | _flat(record.settings, "settings") | _flat(record.recipe, "recipe")


def _figures(record: RunRecord) -> dict[str, Any]:
    names = (
        "macs", "params", "macs_before", "params_before", "original_top1", "start_top1", "top1",
        "top5", "loss", "best_top1", "best_epoch", "epochs", "seconds", "setup_seconds",
    )  # fmt: skip
    found = {name: getattr(record, name) for name in names}
    for latency in record.latencies:
        at = f"{latency.runtime},t{latency.threads},b{latency.batch}"
        found[f"ms@{at}"] = latency.median_ms
    return found


def _flat(value: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(inner, Mapping):
            found |= _flat(inner, name)
        else:
            found[name] = list(inner) if isinstance(inner, tuple) else inner
    return found


def _check_field(key: str) -> None:
    if key not in _ORDERED:
        raise RecordError(
            f"runs have no field {key!r} to go by, they have {', '.join(_ORDERED)}"
            + nearest(key, _ORDERED)
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
