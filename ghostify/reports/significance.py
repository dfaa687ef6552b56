"""Which methods differ from the reference: Welch's test for each, corrected after Holm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ghostify.reports.results import Result
from ghostify.reports.statistics import LEVEL, Difference, difference, holm

__all__ = ["Verdict", "reference_of", "trained_top1", "verdicts"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one method's accuracy compares with the reference's."""

    result: Result
    reference: Result
    difference: Difference
    corrected: float | None  # p after Holm's correction, within the network

    @property
    def significant(self) -> bool:
        """Whether chance alone is an unlikely explanation."""
        return self.corrected is not None and self.corrected < 1 - LEVEL


def trained_top1(result: Result) -> tuple[float, ...]:
    """Return the accuracies of the last epoch, by seed; none where nothing was trained."""
    return result.values("top1") if result.first.steps else ()


def reference_of(result: Result, results: Sequence[Result], reference: str) -> Result | None:
    """Return what a result is tested against: the reference on its network, at its budget.

    A reference that takes no budget stands for all of them. Where it takes several and the
    result none, there is none.
    """
    same = [
        one
        for one in results
        if one.first.network == result.first.network and one.first.method == reference
    ]
    at_budget = [one for one in same if one.first.budget == result.first.budget]
    found = at_budget or [one for one in same if one.first.budget is None] or same
    alike = [one for one in found if one.variant == result.variant] or found
    return alike[0] if len(alike) == 1 else None


def verdicts(results: Sequence[Result], reference: str | None) -> dict[str, Verdict]:
    """Test all results against the reference, by id; without the reference itself.

    The comparisons of one network are one family for Holm's correction.
    """
    found: dict[str, tuple[Result, Result, Difference]] = {}
    for result in results:
        other = reference_of(result, results, reference) if reference else None
        if other is None or other.id == result.id:
            continue
        ours, theirs = trained_top1(result), trained_top1(other)
        if ours and theirs:
            found[result.id] = (result, other, difference(ours, theirs))
    corrected: dict[str, float] = {}
    for network in dict.fromkeys(one[0].first.network for one in found.values()):
        family = {
            name: test.p
            for name, (result, _, test) in found.items()
            if result.first.network == network and test.p is not None
        }
        corrected |= holm(family)
    return {
        name: Verdict(result, other, test, corrected.get(name))
        for name, (result, other, test) in found.items()
    }
