"""What plans cost that also prune: removing a layer's maps makes their readers cheaper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ghostify.cost.budget import Cost
from ghostify.cost.closed_form import LayerCost, ghost_macs, ghost_params, macs_ratio, paper_ratio
from ghostify.spec import ConvSite, GhostSpec, LayerSpec, PruneSpec

__all__ = ["Prunable", "mixed_cost", "slim_sites"]


@dataclass(frozen=True, slots=True)
class Prunable:
    """A layer whose output maps can be removed, and what reads them.

    ``readers`` are the convolutions behind it with the number of their input channels that one
    map takes: dense ones lose input channels, depthwise ones lose these maps altogether.
    ``params`` and ``macs`` are what one map costs in everything that is no convolution: batch
    norms, PReLU, the inputs of linear layers.
    """

    layer: str
    maps: int
    readers: tuple[tuple[str, int], ...]
    params: int = 0
    macs: int = 0


def slim_sites(
    sites: Sequence[ConvSite],
    prunes: Mapping[str, PruneSpec],
    prunable: Mapping[str, Prunable],
) -> tuple[ConvSite, ...]:
    """Return the sites with the channels that they have once layers are pruned."""
    removed_out: dict[str, int] = {}
    removed_in: dict[str, int] = {}
    depthwise = {site.name for site in sites if site.depthwise}
    for site in sites:
        if site.name not in prunes:
            continue
        gone = site.out_channels - prunes[site.name].kept_maps(site.out_channels, site.groups)
        removed_out[site.name] = removed_out.get(site.name, 0) + gone
        for reader, channels in prunable[site.name].readers:
            removed_in[reader] = removed_in.get(reader, 0) + gone * channels
            if reader in depthwise:
                removed_out[reader] = removed_out.get(reader, 0) + gone * channels
    return tuple(
        _slim(site, removed_out.get(site.name, 0), removed_in.get(site.name, 0)) for site in sites
    )


def mixed_cost(
    before: Cost,
    sites: Sequence[ConvSite],
    layers: Mapping[str, LayerSpec],
    prunable: Mapping[str, Prunable],
) -> tuple[tuple[LayerCost, ...], Cost]:
    """Return the cost of every planned layer, and of the whole network then.

    Exact for any mixture. A planned layer's own cost afterwards is that with the input that
    it then has. The multiply-adds of a layer that is not a convolution's are kept.
    """
    prunes = {name: spec for name, spec in layers.items() if isinstance(spec, PruneSpec)}
    slim = slim_sites(sites, prunes, prunable)
    params, macs = before.params, before.macs
    costs: list[LayerCost] = []
    for old, new in zip(sites, slim, strict=True):
        spec = layers.get(old.name)
        was = Cost(old.params, old.macs)
        if isinstance(spec, GhostSpec):
            now = Cost(ghost_params(new, spec), ghost_macs(new, spec))
        else:
            now = Cost(new.params, new.macs)
        macs += now.macs - was.macs
        if not old.tied_to:
            params += now.params - was.params
        if spec is None:
            continue
        exact = was.macs / max(1, now.macs)
        if isinstance(spec, GhostSpec):
            exact = macs_ratio(new, spec)
        costs.append(
            LayerCost(
                name=old.name,
                spec=spec,
                tied=bool(old.tied_to),
                before=was,
                after=now,
                macs_ratio=exact,
                paper_ratio=paper_ratio(new, spec) if isinstance(spec, GhostSpec) else exact,
            )
        )
        if isinstance(spec, PruneSpec):
            gone = old.out_channels - new.out_channels
            params -= gone * prunable[old.name].params
            macs -= gone * prunable[old.name].macs
    return tuple(costs), Cost(params, macs)


def _slim(site: ConvSite, fewer_out: int, fewer_in: int) -> ConvSite:
    if not fewer_out and not fewer_in:
        return site
    out = site.out_channels - fewer_out
    return replace(
        site,
        out_channels=out,
        in_channels=site.in_channels - fewer_in,
        groups=out if site.depthwise else site.groups,
        extra_params=site.extra_params * out // site.out_channels,
    )
