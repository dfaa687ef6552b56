"""What came out of a comparison, in sentences: which method won, by how much, how certainly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ghostify.reports.gather import Gathered
from ghostify.reports.results import Result
from ghostify.reports.side_tables import p_text
from ghostify.reports.significance import Verdict, trained_top1
from ghostify.reports.statistics import Estimate, estimate

__all__ = ["summary", "title_of"]


def title_of(gathered: Gathered) -> str:
    """Return the suites' titles; the directories' names where there are none."""
    titles = dict.fromkeys(suite.title for suite in gathered.suites)
    return "; ".join(titles) or f"Comparison of {', '.join(gathered.names)}"


def summary(results: Sequence[Result], verdicts: Mapping[str, Verdict]) -> tuple[str, ...]:
    """Say for each network (and budget) which method won, by how much, and how certain it is."""
    found = []
    for network in dict.fromkeys(one.first.network for one in results):
        mine = [one for one in results if one.first.network == network]
        rivals = [one for one in mine if one.kind != "dense" and trained_top1(one)]
        budgets = list(dict.fromkeys(one.first.budget for one in rivals if one.first.budget))
        if not rivals:
            found += _costs(mine)
            continue
        if len(budgets) < 2:
            found += _winner(rivals, verdicts, "")
            continue
        for budget in dict.fromkeys(one.first.budget for one in rivals):
            at = f" at {budget}" if budget else " without a budget"
            found += _winner([one for one in rivals if one.first.budget == budget], verdicts, at)
    return tuple(found)


def _winner(rivals: Sequence[Result], verdicts: Mapping[str, Verdict], at: str) -> list[str]:
    if not rivals:
        return []
    ranked = sorted(rivals, key=lambda one: -estimate(trained_top1(one)).mean)
    best = ranked[0]
    text = (
        f"{best.network}{at}: {best.name} has the highest top-1, "
        f"{_percent(estimate(trained_top1(best)))}"
    )
    if len(ranked) > 1:
        second = estimate(trained_top1(ranked[1])).mean
        lead = estimate(trained_top1(best)).mean - second
        text += f", {lead:.2f} points above {ranked[1].name}" if lead > 0 else (
            f", level with {ranked[1].name}"
        )  # fmt: skip
    verdict = verdicts.get(best.id)
    if verdict is None:
        return [text + "."]
    value = verdict.difference.value
    side = "above" if value >= 0 else "below"
    text += f"; {abs(value):.2f} points {side} {verdict.reference.name}"
    if verdict.corrected is None:
        return [text + ", with too few seeds to say whether by chance."]
    p = p_text(verdict.corrected)
    p = f"p {p}" if p.startswith("<") else f"p = {p}"
    certain = "significant" if verdict.significant else "not significant"
    return [f"{text} ({certain}: {p} after Holm's correction)."]


def _costs(mine: Sequence[Result]) -> list[str]:
    ratios = [
        (before / macs, one)
        for one in mine
        if (macs := one.mean("macs")) and (before := one.mean("macs_before"))
    ]
    most = max(ratios, key=lambda pair: pair[0], default=None)
    if most is None or most[0] <= 1:
        return []
    ratio, one = most
    speeds = [
        f"{timing.before_ms / timing.median_ms:.2f}x as fast in {key[0]}"
        for key, timing in one.timings().items()
        if timing.before_ms
    ]
    return [
        f"{one.network}: {one.name} takes the fewest multiply-adds, {ratio:.2f}x less than the "
        f"original{'; it is ' + ', '.join(speeds) if speeds else ''}."
    ]


def _percent(found: Estimate) -> str:
    spread = "" if found.half_width is None else f" ± {found.half_width:.2f}"
    seeds = f"{found.n} seeds" if found.n != 1 else "one seed"
    return f"{found.mean:.2f}{spread} % ({seeds})"
