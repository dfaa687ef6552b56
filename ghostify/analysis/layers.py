"""Which layers are looked at, and what is told of each once its sums are complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import numpy as np
from torch import Tensor, nn

from ghostify import looking
from ghostify.analysis.stream import LayerSums
from ghostify.analysis.values import Floats, LayerRedundancy, MapPair, Suggestion, usual_kernel
from ghostify.errors import RuleError, nearest
from ghostify.graph.nested import pair_filter
from ghostify.models.zoo import Built
from ghostify.rules import Skipped
from ghostify.spec import ConvSite

__all__ = ["choose_sites", "describe"]

_CONSTANT = 1e-10  # of the largest variance in the layer: rounding


def choose_sites(
    built: Built, batch: Tensor, layers: str | Sequence[str] | None
) -> tuple[list[ConvSite], tuple[Skipped, ...], dict[str, str]]:
    """Return the convolutions to look at, those that are not and why, and why some stay dense.

    Raises:
        RuleError: there is nothing to look at, or a pattern matches nothing.
    """
    found = looking.inspect(built, example=batch[:1])
    reasons = {one.name: one.reason for one in found.skipped}
    skipped: list[Skipped] = []
    sites: list[ConvSite] = []
    for site in found.sites:
        why = _why_not(site, built.model)
        if why:
            skipped.append(Skipped(site.name, why))
        else:
            sites.append(site)
    if layers is not None:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        names = [site.name for site in sites]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise RuleError(
                    f"no convolution of {found.name} matches {pattern!r}" + nearest(pattern, names)
                )
        kept = [s for s in sites if any(fnmatchcase(s.name, pattern) for pattern in patterns)]
        skipped += [Skipped(one.name, "not asked for") for one in sites if one not in kept]
        sites = kept
    if not sites:
        raise RuleError(f"{found.name} has no convolution with several output maps to compare")
    return sites, tuple(skipped), reasons


def _why_not(site: ConvSite, model: nn.Module) -> str:
    try:
        module = model.get_submodule(site.name)
    except AttributeError:
        return site.reason or "belongs to no module"
    if not isinstance(module, nn.Conv2d):
        return site.reason or "no 2-D convolution"
    if not site.calls:
        return "does not run in eval mode"
    if site.out_channels < 2:
        return "has one output map, which has no partner"
    return ""


def describe(
    site: ConvSite,
    sums: LayerSums,
    loads: Tensor,
    count: int,
    advise: Callable[[Floats, Floats], Suggestion],
) -> LayerRedundancy:
    """Turn the sums of a layer into what is told of it.

    Args:
        loads: ``(n,)``, what the error of each map weighs in the suggestion.
        count: of pairs.
        advise: makes a suggestion of the weighted errors and variances.
    """
    variance = sums.variance.numpy().copy()
    variance[variance <= _CONSTANT * variance.max(initial=0.0)] = 0.0
    alive = variance > 0
    best = sums.best.numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(alive, np.clip(best / variance, 0.0, 1.0), np.nan)
    partners = np.where(alive, sums.partner.numpy(), -1)
    weight = loads.numpy()
    advice = advise(sums.mse.numpy() * weight, variance * weight)
    return LayerRedundancy(
        site=site,
        depth=sums.depth,
        kernels=sums.kernels,
        positions=sums.positions,
        variance=variance,
        relative=relative,
        partners=partners,
        pairs=_similar(site.name, sums, relative, variance, count),
        suggestion=advice,
    )


def _similar(
    layer: str, sums: LayerSums, relative: Floats, variance: Floats, count: int
) -> tuple[MapPair, ...]:
    """Return the most similar pairs of a layer; no map is in two of them."""
    kernels = sums.kernels
    row = kernels.index(usual_kernel(kernels))
    used: set[int] = set()
    pairs: list[MapPair] = []
    for target in np.argsort(relative[row], kind="stable").tolist():  # NaN comes last
        source = int(sums.partner[row, target])
        if len(pairs) == count or not np.isfinite(relative[row, target]):
            break
        if source < 0 or used & {source, target} or variance[source] <= 0:
            continue
        used |= {source, target}
        filters = [pair_filter(sums.gram[source], sums.cross[row, target], k) for k in kernels]
        mse = [float(one) for one in sums.mse[:, source, target]]
        offsets = [_offset(sums, source, target, one) for one in filters]
        pairs.append(
            MapPair(
                layer=layer,
                source=source,
                target=target,
                kernels=kernels,
                mse=tuple(mse),
                relative=tuple(min(1.0, one / float(variance[target])) for one in mse),
                filters=tuple(_rows(one) for one in filters),
                offsets=tuple(offsets),
            )
        )
    return tuple(pairs)


def _rows(weights: Tensor) -> tuple[tuple[float, ...], ...]:
    """Return a filter as numbers of six digits, which is what its sums are good for."""
    return tuple(tuple(float(f"{one:.6g}") for one in row) for row in weights.tolist())


def _offset(sums: LayerSums, source: int, target: int, weights: Tensor) -> float:
    side, most = len(weights), max(sums.kernels)
    cut = (most - side) // 2
    means = sums.first[source].view(most, most)[cut : most - cut, cut : most - cut]
    return float(sums.mean[target] - (weights * means).sum())
