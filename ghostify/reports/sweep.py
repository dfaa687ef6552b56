"""Which results belong to a sweep of one setting of Ghost modules, all else equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ghostify.reports.results import Result

__all__ = ["in_sweep", "setting"]

_DEFAULTS = {"s": 2, "d": 3}
"""The paper's choices, and those of a method that does not say."""


def in_sweep(results: Sequence[Result], swept: Literal["s", "d"]) -> tuple[Result, ...]:
    """Return the dense rows and those Ghost rows that differ in ``swept`` only, by its value.

    Where the other setting takes several values on a network, the one with the most rows is
    the sweep's; of equal ones, the paper's choice.
    """
    fixed = "d" if swept == "s" else "s"
    found: list[Result] = []
    for network in dict.fromkeys(one.first.network for one in results):
        mine = [one for one in results if one.first.network == network]
        ghosts = [one for one in mine if setting(one, swept) is not None]
        found += [one for one in mine if one.kind == "dense"]
        held = [setting(one, fixed) for one in ghosts]
        if not held:
            continue
        usual = max(
            sorted({value for value in held if value is not None}),
            key=lambda value: (held.count(value), value == _DEFAULTS[fixed]),
        )
        chosen = [one for one in ghosts if setting(one, fixed) == usual]
        found += sorted(chosen, key=lambda one: setting(one, swept) or 0.0)
    return tuple(found)


def setting(result: Result, name: str) -> float | None:
    """Return s or d of a result's Ghost modules; None where they have no single one."""
    if result.kind != "ghost":
        return None
    value = result.first.settings.get(name, _DEFAULTS[name])
    return float(value) if isinstance(value, int | float) else None
