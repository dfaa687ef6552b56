"""From the errors of all pairs of maps to a Ghost setting for a layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ghostify.analysis.values import Floats, Suggestion
from ghostify.cost.closed_form import ghost_macs
from ghostify.graph.pairing import choose
from ghostify.spec import ConvSite, GhostSpec

__all__ = ["suggest"]


def suggest(
    site: ConvSite,
    mse: Floats,
    variance: Floats,
    *,
    kernels: Sequence[int],
    ratios: Sequence[int],
    tolerance: float,
) -> Suggestion:
    """Return the setting with the fewest multiply-adds whose error stays within a tolerance.

    The error is what the ghosts would miss, as a share of the variance of all maps, with the
    intrinsic maps left as they are and paired with their ghosts as a fit does it where nothing
    else binds their order (:func:`ghostify.graph.pairing.choose`). A fit solves for the intrinsic
    filters too, which makes it less; what converted layers before this one miss makes it more.

    Args:
        mse: ``(kernels, n, n)``, ``[k, i, g]`` of making map g from map i; weighted, if at all,
            as ``variance`` is.
        variance: ``(n,)``, of the maps.
    """
    whole = float(variance.sum())
    if whole <= 0:
        return Suggestion(None, None, "its maps do not vary on these images")
    candidates = [
        (ghost_macs(site, spec), row, spec)
        for ratio in ratios
        for row, spec in enumerate(GhostSpec(ratio, kernel) for kernel in kernels)
        if spec.ratio <= site.out_channels
        and spec.intrinsic_maps(site.out_channels, site.groups) < site.out_channels
    ]
    cheaper = sorted(
        (one for one in candidates if one[0] < site.macs), key=lambda one: (one[0], one[1])
    )
    if not cheaper:
        return Suggestion(None, None, "no Ghost module would cost less")
    lowest = np.inf
    for macs, row, spec in cheaper:
        costs = np.asarray(mse[row], dtype=np.float64)
        ghosts = site.out_channels - spec.intrinsic_maps(site.out_channels, site.groups)
        bound = _bound(costs, ghosts) / whole
        if bound > tolerance:
            lowest = min(lowest, bound)
            continue
        error = choose(costs, ratio=spec.ratio, groups=site.groups).cost(costs) / whole
        if error <= tolerance:
            return Suggestion(spec, error, macs=macs)
        lowest = min(lowest, error)
    return Suggestion(
        None, None, f"its ghosts would miss at least {lowest:.3f} of the output's variance"
    )


def _bound(costs: Floats, ghosts: int) -> float:
    """Return what the cheapest maps would cost as ghosts, each with its best partner."""
    free = costs.copy()
    np.fill_diagonal(free, np.inf)
    return float(np.sort(free.min(axis=0))[:ghosts].sum())
