"""What there is to choose in one network: a search space applied to its convolutions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ghostify.cost.closed_form import ghost_macs
from ghostify.errors import DataFileError, nearest
from ghostify.searches.choices import Choices, SearchSpace, written
from ghostify.spec import ConvSite, GhostSpec, LayerSpec, PruneSpec

__all__ = ["Found", "Variable", "Wish", "find_variables", "why_not"]


@dataclass(frozen=True, slots=True)
class Variable:
    """One choice: of a layer, or of several layers that take theirs together.

    ``effects[k][i]`` is what choice ``k`` makes of layer ``i``: the choice itself, or None
    where that layer cannot take it and stays as it is.
    """

    name: str
    layers: tuple[str, ...]
    choices: tuple[LayerSpec | None, ...]
    effects: tuple[tuple[LayerSpec | None, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.effects:
            effects = tuple((choice,) * len(self.layers) for choice in self.choices)
            object.__setattr__(self, "effects", effects)


Wish = tuple[tuple[int, tuple[int, ...]], ...]
"""Choices by variable, of which any one fulfils the wish."""


@dataclass(frozen=True, slots=True)
class Found:
    """A space on one network: its variables, what must not meet, and what was left out."""

    variables: tuple[Variable, ...]
    forbidden: tuple[tuple[Wish, ...], ...]
    notes: tuple[str, ...]


def find_variables(
    sites: Sequence[ConvSite],
    space: SearchSpace,
    *,
    prunable: Collection[str] = (),
    lacking: Mapping[tuple[str, LayerSpec], str] | None = None,
) -> Found:
    """Apply a space to the convolutions of a network, given in execution order.

    As in a conversion by rules, a pattern leaves alone what cannot be converted, depthwise
    convolutions, and layers for which the Ghost module would not cost less; what was left
    out is noted. Convolutions that share a weight choose together.

    Args:
        prunable: the layers whose output maps may be removed.
        lacking: choices that cannot be offered for other reasons.

    Raises:
        DataFileError: a pattern matches no convolution, or nothing is left to choose.
    """
    _check_patterns(sites, space)
    lacking = lacking or {}
    notes: dict[tuple[str, str], list[str]] = {}
    groups: dict[str, tuple[Choices, list[ConvSite]]] = {}
    for site in sites:
        decider = space.decider(site.name)
        if decider is None:
            continue
        if not site.eligible:
            if any(decider.settings):
                notes.setdefault(("", site.reason), []).append(site.name)
            continue
        group = decider.group(site.name)
        key = site.name if group == site.name else f"{group} ({decider.pattern})"
        if group == decider.pattern:
            key = group
        groups.setdefault(key, (decider, []))[1].append(site)
    variables = []
    for key, (choices, members) in _tied(groups).items():
        found = _variable(key, choices, members, prunable, lacking, notes)
        if found is not None:
            variables.append(found)
    said = tuple(_note(choice, reason, names) for (choice, reason), names in notes.items())
    if not variables:
        why = f": {said[0]}" if said else "; give layers a choice such as [keep, 's2,d3']"
        raise DataFileError(
            f"the search space leaves nothing to choose in {space.model or 'this network'}{why}"
        )
    return Found(tuple(variables), _rules(space, variables, sites), said)


def why_not(
    site: ConvSite, choice: LayerSpec | None, *, prunable: Collection[str], exact: bool
) -> str:
    """Say why a layer cannot take a choice, or return an empty text.

    Args:
        prunable: the layers whose output maps may be removed.
        exact: whether the layer was named, rather than matched by a pattern.
    """
    if choice is None:
        return ""
    if site.depthwise and not exact:
        return "depthwise convolution"
    maps = site.out_channels
    if isinstance(choice, PruneSpec):
        if site.name not in prunable or site.tied_to:
            return "its maps are read by what cannot do with fewer"
        if choice.kept_maps(maps, site.groups) == maps:
            return f"of {maps} maps none would go"
        return ""
    return _why_no_ghost(site, choice, exact)


def _why_no_ghost(site: ConvSite, spec: GhostSpec, exact: bool) -> str:
    maps = site.out_channels
    if spec.ratio > maps:
        return f"fewer maps ({maps}) than the ratio"
    if spec.intrinsic_maps(maps, site.groups) == maps:
        return f"its {site.groups} groups need all maps: no ghost is left"
    if not exact and ghost_macs(site, spec) >= site.macs:
        return "a Ghost module would not cost less"
    return ""


def _check_patterns(sites: Sequence[ConvSite], space: SearchSpace) -> None:
    if space.arguments:
        raise DataFileError(
            f"the search space chooses arguments ({', '.join(space.arguments)}), not layers; "
            "build one of these networks and choose for its layers, or see "
            "ghostify.searches.factory for what each costs"
        )
    names = [site.name for site in sites]
    patterns = [one.pattern for one in space.layers]
    patterns += [name for rule in space.forbidden for name, _ in rule.parts]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise DataFileError(
                f"the search space names {pattern!r}, which matches no convolution of "
                f"{space.model or 'the network'}"
                + (nearest(pattern, names) or f"; the first is {names[0]!r}" if names else "")
            )


def _tied(
    groups: dict[str, tuple[Choices, list[ConvSite]]],
) -> dict[str, tuple[Choices, list[ConvSite]]]:
    """Join groups whose convolutions hold the same weight."""
    home = {site.name: key for key, (_, members) in groups.items() for site in members}
    joined = dict(groups)
    for site in [site for _, members in groups.values() for site in members]:
        mine, other = home[site.name], home.get(site.tied_to, "")
        if not site.tied_to or not other or mine == other:
            continue
        choices, members = joined[other]
        theirs, moved = joined.pop(mine)
        both = tuple(one for one in choices.settings if one in theirs.settings)
        joined[other] = (Choices(choices.pattern, both, choices.shared), members + moved)
        home |= {one.name: other for one in moved}
    return joined


def _variable(
    name: str,
    choices: Choices,
    members: Sequence[ConvSite],
    prunable: Collection[str],
    lacking: Mapping[tuple[str, LayerSpec], str],
    notes: dict[tuple[str, str], list[str]],
) -> Variable | None:
    kept: list[LayerSpec | None] = []
    effects: list[tuple[LayerSpec | None, ...]] = []
    names = {site.name for site in members}
    if not choices.settings:
        reason = "they share a weight, and their entries have no choice in common"
        notes.setdefault(("", reason), []).extend(names)
    alone = [site for site in members if site.tied_to and site.tied_to not in names]
    for choice in choices.settings:
        row: list[LayerSpec | None] = []
        for site in members:
            exact = choices.pattern == site.name
            reason = why_not(site, choice, prunable=prunable, exact=exact)
            if choice is not None:
                reason = reason or lacking.get((site.name, choice), "")
                if site in alone or (isinstance(choice, PruneSpec) and _has_twin(site, members)):
                    reason = "shares its weight with a layer that stays as it is"
            if reason:
                notes.setdefault((written(choice), reason), []).append(site.name)
            row.append(None if reason else choice)
        if choice is None or any(row):
            kept.append(choice)
            effects.append(tuple(row))
    if not kept or kept == [None]:
        return None
    return Variable(name, tuple(site.name for site in members), tuple(kept), tuple(effects))


def _has_twin(site: ConvSite, members: Sequence[ConvSite]) -> bool:
    return any(other.tied_to == site.name for other in members)


def _rules(
    space: SearchSpace, variables: Sequence[Variable], sites: Sequence[ConvSite]
) -> tuple[tuple[Wish, ...], ...]:
    """Translate forbidden combinations; those that cannot occur anyway fall away."""
    free = {name for variable in variables for name in variable.layers}
    found = []
    for rule in space.forbidden:
        wishes: list[Wish] = []
        for pattern, choices in rule.parts:
            fixed = any(site.name not in free and fnmatchcase(site.name, pattern) for site in sites)
            if fixed and None in choices:
                continue  # a layer that stays as it is always fulfils it
            wish = []
            for place, variable in enumerate(variables):
                matching = [fnmatchcase(name, pattern) for name in variable.layers]
                meant = tuple(
                    k
                    for k, row in enumerate(variable.effects)
                    if any(
                        match and spec in choices for match, spec in zip(matching, row, strict=True)
                    )
                )
                if meant:
                    wish.append((place, meant))
            wishes.append(tuple(wish))
        if all(wishes):
            found.append(tuple(wishes))
    return tuple(found)


def _note(choice: str, reason: str, names: Sequence[str]) -> str:
    layers = f"{names[0]}" if len(names) == 1 else f"{len(names)} layers, such as {names[0]}"
    what = f"{choice} is left out for" if choice else "nothing can be chosen for"
    return f"{what} {layers}: {reason}"
