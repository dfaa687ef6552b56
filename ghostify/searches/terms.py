"""What each choice costs: tables for every variable, and for pairs that cost together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ghostify.cost.closed_form import ghost_macs, ghost_params
from ghostify.cost.mixed import Prunable
from ghostify.searches.variables import Variable
from ghostify.spec import ConvSite, GhostSpec, LayerSpec

__all__ = ["FloatArray", "Pair", "Terms", "count_terms"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """What two variables cost beside the sum of both: ``table[k, l]``, ``(K_u, K_v)``."""

    first: int
    second: int
    table: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """One resource as a constant, a table for each variable, and tables for pairs of them."""

    base: float
    tables: tuple[FloatArray, ...]
    pairs: tuple[Pair, ...] = ()
    whole: bool = True  # all whole numbers, so that sums are exact


def count_terms(
    variables: Sequence[Variable],
    sites: Sequence[ConvSite],
    prunable: Mapping[str, Prunable],
) -> tuple[Terms, Terms]:
    """Return the changes in parameters and in multiply-adds against the original.

    A layer that loses maps costs less itself, and so does all that reads them: a convolution
    in proportion to the maps that it still computes, so that its own choice and that of the
    layer before it cost something together. All numbers are whole, hence exact in float64.
    """
    by_name = {site.name: site for site in sites}
    count = [len(variable.choices) for variable in variables]
    tables = {kind: [np.zeros(size) for size in count] for kind in ("params", "macs")}
    pairs: dict[str, dict[tuple[int, int], FloatArray]] = {"params": {}, "macs": {}}
    where = {name: v for v, one in enumerate(variables) for name in one.layers}
    specs = {
        name: [row[place] for row in one.effects]
        for one in variables
        for place, name in enumerate(one.layers)
    }
    for name, v in where.items():
        site = by_name[name]
        for k, spec in enumerate(specs[name]):
            if not site.tied_to:
                tables["params"][v][k] += _params(site, spec) - site.params
            tables["macs"][v][k] += _macs(site, spec) - site.macs
    for name, v in where.items():
        lost = np.array([by_name[name].out_channels - _maps(by_name[name], s) for s in specs[name]])
        if not lost.any():
            continue
        tables["params"][v] -= lost * prunable[name].params
        tables["macs"][v] -= lost * prunable[name].macs
        for reader, share in prunable[name].readers:
            site = by_name[reader]
            if site.depthwise:  # it loses the maps themselves, and is no variable
                tables["params"][v] -= lost * share * (site.weights_per_map + site.bias)
                tables["macs"][v] -= lost * share * site.pixels * site.weights_per_map
                continue
            area = site.weights_per_map // (site.in_channels // site.groups)
            for kind, factor in (("params", 0 if site.tied_to else 1), ("macs", site.pixels)):
                saved = -lost * share * area * factor
                if reader not in where:
                    tables[kind][v] += saved * site.out_channels
                    continue
                u = where[reader]
                maps = np.array([_computed(site, spec) for spec in specs[reader]])
                if u == v:
                    tables[kind][v] += saved * maps
                    continue
                tables[kind][v] += saved * maps.max()
                together = np.outer(saved, maps - maps.max()).astype(np.float64)
                key, together = ((v, u), together) if v < u else ((u, v), together.T)
                pairs[kind][key] = pairs[kind].get(key, 0.0) + together
    found = [
        Terms(
            0.0,
            tuple(tables[kind]),
            tuple(Pair(u, v, table) for (u, v), table in pairs[kind].items()),
        )
        for kind in ("params", "macs")
    ]
    return found[0], found[1]


def _maps(site: ConvSite, spec: LayerSpec | None) -> int:
    """Return how many output maps a layer has left."""
    if spec is None or isinstance(spec, GhostSpec):
        return site.out_channels
    return spec.kept_maps(site.out_channels, site.groups)


def _computed(site: ConvSite, spec: LayerSpec | None) -> int:
    """Return how many maps a layer computes from its input maps."""
    if isinstance(spec, GhostSpec):
        return spec.intrinsic_maps(site.out_channels, site.groups)
    return _maps(site, spec)


def _params(site: ConvSite, spec: LayerSpec | None) -> int:
    if isinstance(spec, GhostSpec):
        return ghost_params(site, spec)
    maps = _maps(site, spec)
    of_maps = maps * (site.weights_per_map + site.bias)
    return of_maps + site.extra_params * maps // site.out_channels + site.fixed_params


def _macs(site: ConvSite, spec: LayerSpec | None) -> int:
    if isinstance(spec, GhostSpec):
        return ghost_macs(site, spec)
    return site.pixels * _maps(site, spec) * site.weights_per_map + site.other_macs
