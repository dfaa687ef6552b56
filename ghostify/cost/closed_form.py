"""Equations 4 and 5 of the paper: what a layer costs as a convolution and as a Ghost module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ghostify.cost.budget import Cost
from ghostify.spec import ConvSite, GhostSpec, LayerSpec

__all__ = [
    "LayerCost",
    "ghost_macs",
    "ghost_params",
    "layer_costs",
    "macs_ratio",
    "paper_ratio",
    "planned_cost",
]


def ghost_macs(site: ConvSite, spec: GhostSpec) -> int:
    """Multiply-adds of the Ghost module in place of ``site`` (GhostNet eq. 4, denominator).

    Exact for every n: m = ceil(n / s) intrinsic maps (rounded up if the spec says so)
    and n - m ghosts.
    """
    return site.pixels * _taps(site, spec)


def ghost_params(site: ConvSite, spec: GhostSpec) -> int:
    """Parameters of the Ghost module in place of ``site`` (GhostNet eq. 5, denominator).

    The original's biases stay, one for each output map; further parameters of a subclass,
    such as a gain for each map, are kept for the intrinsic maps. Fixed filters count as
    multiply-adds, but only what is learned of them counts here.
    """
    maps = site.out_channels
    intrinsic = spec.intrinsic_maps(maps, site.groups)
    weights = intrinsic * site.weights_per_map + spec.ghost_weights(maps - intrinsic, intrinsic)
    offsets = maps if site.bias else (maps - intrinsic) * spec.own_offsets
    extra = site.extra_params * intrinsic // maps
    return weights + offsets + extra + site.fixed_params


def macs_ratio(site: ConvSite, spec: GhostSpec) -> float:
    """Return how many times fewer multiply-adds the Ghost module takes (eq. 4, exact)."""
    return site.out_channels * site.weights_per_map / _taps(site, spec)


def paper_ratio(site: ConvSite, spec: GhostSpec) -> float:
    """Return the paper's approximation of the same, s c / (s + c - 1) (eq. 4, last line)."""
    channels = site.in_channels // site.groups
    return spec.ratio * channels / (spec.ratio + channels - 1)


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One converted layer before and after; a tied layer's parameters are another's."""

    name: str
    spec: LayerSpec
    tied: bool
    before: Cost
    after: Cost
    macs_ratio: float  # eq. 4, exact
    paper_ratio: float  # eq. 4, approximation


def layer_costs(
    sites: Iterable[ConvSite], layers: Mapping[str, GhostSpec]
) -> tuple[LayerCost, ...]:
    """Return the cost of every planned layer, in execution order."""
    return tuple(
        LayerCost(
            name=site.name,
            spec=layers[site.name],
            tied=bool(site.tied_to),
            before=Cost(site.params, site.macs),
            after=Cost(ghost_params(site, layers[site.name]), ghost_macs(site, layers[site.name])),
            macs_ratio=macs_ratio(site, layers[site.name]),
            paper_ratio=paper_ratio(site, layers[site.name]),
        )
        for site in sites
        if site.name in layers
    )


def planned_cost(before: Cost, layers: Iterable[LayerCost]) -> Cost:
    """Return the whole network's cost once ``layers`` are converted; the rest stays as it is."""
    layers = tuple(layers)
    return Cost(
        params=before.params
        - sum(layer.before.params - layer.after.params for layer in layers if not layer.tied),
        macs=before.macs - sum(layer.before.macs - layer.after.macs for layer in layers),
    )


def _taps(site: ConvSite, spec: GhostSpec) -> int:
    """Multiply-adds of the Ghost module per pixel."""
    intrinsic = spec.intrinsic_maps(site.out_channels, site.groups)
    ghosts = spec.ghost_taps(site.out_channels - intrinsic, intrinsic)
    return intrinsic * site.weights_per_map + ghosts
