"""A sensible search space for any network, when nobody has written one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ghostify.cost.closed_form import ghost_macs
from ghostify.errors import DataFileError
from ghostify.searches.choices import Choices, SearchSpace
from ghostify.searches.variables import why_not
from ghostify.spec import ConvSite, GhostSpec, LayerSpec, PruneSpec

__all__ = ["GHOSTS", "PRUNES", "derive_space"]

GHOSTS = (GhostSpec(2, 1), GhostSpec(2, 3), GhostSpec(3, 3), GhostSpec(4, 3))
"""The paper's ratios. d = 5 hardly fits better than 3 and costs more, so it is left out."""

PRUNES = tuple(PruneSpec(eighths / 8) for eighths in range(1, 7))
"""Shares in eighths: a pruned layer needs no fit to be scored, so that more of them cost little."""

_LEAST_SAVED = 0.001  # of the network's convolutions: less is not worth a dimension
_NARROW = 4  # maps, of which none is spared


def derive_space(
    sites: Sequence[ConvSite],
    *,
    prunable: Collection[str] = (),
    model: str = "",
    ghosts: Sequence[GhostSpec] = GHOSTS,
    prunes: Sequence[PruneSpec] = PRUNES,
) -> SearchSpace:
    """Return the choices of a network's layers, each layer by its name.

    Every layer may stay as it is. It may become each Ghost module that takes fewer
    multiply-adds, and lose each share of its maps where these can go. The first convolution,
    which is small and sees the image, stays; so do depthwise convolutions, and layers that can
    save less than a thousandth of all convolutions' multiply-adds.

    Args:
        sites: the network's convolutions in execution order.
        prunable: the layers whose output maps may be removed.
        model: what the network is called.
        ghosts: settings to choose from.
        prunes: shares to choose from.

    Raises:
        DataFileError: nothing would be left to choose.
    """
    total = sum(site.macs for site in sites)
    plain = [site for site in sites if site.calls and not site.transposed and len(site.kernel) == 2]
    first = plain[0].name if plain else ""
    layers = []
    for site in sites:
        if not site.eligible or site.name == first or site.out_channels < _NARROW:
            continue
        choices: list[LayerSpec | None] = [None]
        shares = {one.kept_maps(site.out_channels, site.groups): one for one in reversed(prunes)}
        offered: list[LayerSpec] = [*ghosts, *reversed(shares.values())]  # equal shares once
        for spec in offered:
            saved = site.macs - _macs(site, spec)
            reason = why_not(site, spec, prunable=prunable, exact=False)
            if not reason and saved >= _LEAST_SAVED * total and spec not in choices:
                choices.append(spec)
        if len(choices) > 1:
            layers.append(Choices(site.name, tuple(choices)))
    if not layers:
        raise DataFileError(
            f"no search space can be derived for {model or 'this network'}: none of its "
            f"{len(sites)} convolutions would take fewer multiply-adds as a Ghost module; "
            "give a space of your own"
        )
    return SearchSpace(
        model=model,
        layers=tuple(layers),
        description="Derived from the network: every choice saves multiply-adds.",
    )


def _macs(site: ConvSite, spec: LayerSpec) -> int:
    if isinstance(spec, GhostSpec):
        return ghost_macs(site, spec)
    return site.macs * spec.kept_maps(site.out_channels, site.groups) // site.out_channels
