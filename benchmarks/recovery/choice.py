"""Which of the rates that a method was run at counts for it."""

from __future__ import annotations

import statistics
from typing import Any

from recovery.study import Run

Record = dict[str, Any]


def by_the_other_half(records: list[Record]) -> float | None:
    """Return one method's accuracy at rates that the other half of the test images has chosen.

    Args:
        records: of one method, length and seed; those without halves have no part in it.
    """
    halved = [record["top1_halves"] for record in records if "top1_halves" in record]
    if not halved:
        return None
    return statistics.fmean(
        max(halved, key=lambda halves: halves[1 - judge])[judge] for judge in (0, 1)
    )


def at_best_rate(records: list[Record]) -> list[Record]:
    """Return the runs at the rate that is best on seed 0, each run once, by seed.

    Args:
        records: of one network, method and length; none without seed 0.
    """
    runs = {Run.of(record): record for record in records}
    first = [record for record in runs.values() if record["seed"] == 0]
    if not first:
        return []
    best = max(first, key=lambda record: record["top1"])
    return sorted(
        (r for r in runs.values() if (r["lr"], r["held"]) == (best["lr"], best["held"])),
        key=lambda record: record["seed"],
    )
