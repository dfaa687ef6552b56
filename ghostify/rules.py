"""From rules ("stage4 with s = 3, keep the head") to a plan of explicit names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ghostify.cheap import CHEAP_COSTS
from ghostify.cost.closed_form import ghost_macs
from ghostify.errors import PlanError, RuleError, nearest
from ghostify.plan import Plan
from ghostify.spec import ConvSite, GhostSpec, LayerSpec, PruneSpec

__all__ = ["NARROW", "PlanRules", "Resolved", "Skipped", "explain_nothing", "follow", "resolve"]

NARROW = 16
"""Layers with fewer maps than this are kept if the ratio exceeds them; wider ones are an error."""


@dataclass(frozen=True, slots=True)
class PlanRules:
    """Which settings a layer gets: its exact name > the first matching pattern > the default.

    ``rules`` pairs a layer name or a pattern (``*``, ``?``, ``[ab]``; ``*`` spans dots) with
    settings, or with None to keep the layer as it is. By default the first convolution,
    depthwise convolutions and those for which the Ghost module would not cost less stay;
    a pattern converts the first convolution as well, an exact name any that can be.
    ``convert_first`` converts the first one in any case, as the paper's VGG-16 does.
    """

    default: GhostSpec | None = field(default_factory=GhostSpec)
    rules: tuple[tuple[str, GhostSpec | None], ...] = ()
    convert_first: bool = False

    def __post_init__(self) -> None:
        exact: dict[str, GhostSpec | None] = {}
        for name, spec in self.rules:
            if not _is_pattern(name) and exact.setdefault(name, spec) != spec:
                raise RuleError(
                    f"two rules for {name!r} contradict each other "
                    f"({_wish(exact[name])}, {_wish(spec)}); leave one out"
                )


@dataclass(frozen=True, slots=True)
class Skipped:
    """A convolution that stays as it is, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """What rules come to on one network: settings by name, and the layers that stay."""

    layers: dict[str, LayerSpec]
    skipped: tuple[Skipped, ...]


def resolve(rules: PlanRules, sites: Sequence[ConvSite]) -> Resolved:
    """Apply rules to the convolutions of a network, given in execution order.

    Raises:
        RuleError: a rule matches no convolution, or none that could be converted; a layer
            named exactly cannot be converted; a ratio exceeds the maps of a wide layer.
    """
    for rule in rules.rules:
        _check_rule(*rule, sites)
    first = next((site.name for site in sites if _may_be_first(site)), None)
    layers: dict[str, GhostSpec] = {}
    skipped: list[Skipped] = []
    for site in sites:
        pattern, spec = _choose(rules, site)
        reason = _why_kept(site, spec, pattern, is_first=site.name == first, rules=rules)
        if reason or spec is None:
            skipped.append(Skipped(site.name, reason))
        else:
            layers[site.name] = spec
    return _keep_ties(sites, layers, skipped)


def follow(plan: Plan, sites: Sequence[ConvSite]) -> Resolved:
    """Apply a plan of explicit names to the convolutions of a network.

    Whether maps can be removed takes more than a site tells, and is not checked here.

    Raises:
        PlanError: the plan asks for what is impossible.
    """
    layers: dict[str, LayerSpec] = {}
    skipped: list[Skipped] = []
    for site in sites:
        spec = plan.layers.get(site.name)
        if spec is None:
            skipped.append(Skipped(site.name, site.reason or "not in the plan"))
            continue
        if isinstance(spec, PruneSpec):
            layers[site.name] = spec
            continue
        impossible = site.reason or _why_impossible(site, spec)
        if impossible:
            raise PlanError(
                f"the plan asks for {spec} at {site.name}, which cannot be: {impossible}; "
                "take the layer out of the plan"
            )
        layers[site.name] = spec
    return Resolved(layers, tuple(skipped))


def explain_nothing(skipped: Sequence[Skipped]) -> str:
    """Say in one clause why no layer would be converted, the commonest reason first."""
    if not skipped:
        return "the network runs no convolution"
    counted = Counter(skip.reason for skip in skipped).most_common(3)
    return "; ".join(f"{count}x {reason}" for reason, count in counted)


def _keep_ties(
    sites: Sequence[ConvSite], layers: dict[str, GhostSpec], skipped: list[Skipped]
) -> Resolved:
    """Convolutions that share a weight are converted alike, or all of them stay."""
    groups: dict[str, list[str]] = {}
    for site in sites:
        groups.setdefault(site.tied_to or site.name, []).append(site.name)
    for group in groups.values():
        kept = [name for name in group if name not in layers]
        wanted = {layers[name] for name in group if name in layers}
        if len(group) > 1 and wanted and (kept or len(wanted) > 1):
            partner = kept[0] if kept else group[0]
            for name in group:
                if layers.pop(name, None):
                    reason = f"shares its weight with {partner}, which is not treated alike"
                    skipped.append(Skipped(name, reason))
    order = {site.name: place for place, site in enumerate(sites)}
    return Resolved({**layers}, tuple(sorted(skipped, key=lambda skip: order[skip.name])))


def _may_be_first(site: ConvSite) -> bool:
    plain = site.type != "functional" and not site.transposed
    return site.calls > 0 and plain and len(site.kernel) == 2


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _wish(spec: GhostSpec | None) -> str:
    return "keep" if spec is None else str(spec)


def _names(site: ConvSite) -> tuple[str, ...]:
    return (site.name, *site.aliases)


def _matches(pattern: str, site: ConvSite) -> bool:
    names = _names(site)
    return pattern in names or (
        _is_pattern(pattern) and any(fnmatchcase(name, pattern) for name in names)
    )


def _choose(rules: PlanRules, site: ConvSite) -> tuple[str | None, GhostSpec | None]:
    """Return the deciding rule's pattern (None: the default) and its settings."""
    ordered = sorted(rules.rules, key=lambda rule: _is_pattern(rule[0]))  # stable: exact first
    for pattern, spec in ordered:
        if _matches(pattern, site):
            return pattern, spec
    return None, rules.default


def _why_kept(
    site: ConvSite,
    spec: GhostSpec | None,
    pattern: str | None,
    *,
    is_first: bool,
    rules: PlanRules,
) -> str:
    if not site.eligible:
        return site.reason
    if spec is None:
        return f"kept by the rule {pattern!r}" if pattern else "no rule converts it"
    exact = pattern is not None and not _is_pattern(pattern)
    if is_first and pattern is None and not rules.convert_first:
        return "first convolution, which stays by default"
    if site.depthwise and not exact:
        return "depthwise convolution"
    impossible = _why_impossible(site, spec)
    if impossible:
        too_wide = site.out_channels < spec.ratio and site.out_channels >= NARROW
        if exact or too_wide:
            remedy = "keep the layer"
            if site.out_channels < spec.ratio:
                remedy = f"choose a ratio of at most {site.out_channels} or keep the layer"
            raise RuleError(
                f"{site.name} cannot become a Ghost module with {spec}: {impossible}; {remedy}"
            )
        return impossible
    wanted = exact or (is_first and rules.convert_first)
    if ghost_macs(site, spec) >= site.macs and not wanted:
        return f"a Ghost module with {spec} would not cost less"
    return ""


def _why_impossible(site: ConvSite, spec: GhostSpec) -> str:
    if spec.ratio > site.out_channels:
        maps = "1 output map" if site.out_channels == 1 else f"{site.out_channels} output maps"
        return f"{maps}, fewer than the ratio {spec.ratio}"
    if spec.intrinsic_maps(site.out_channels, site.groups) == site.out_channels:
        return f"its {site.groups} groups need all {site.out_channels} maps: no ghost is left"
    reach = spec.kernel // 2
    if CHEAP_COSTS[spec.cheap].moves and site.out_size and min(site.out_size) <= reach:
        size = "x".join(map(str, site.out_size))
        return f"its maps of {size} are too small to be moved by {reach}"
    return ""


def _check_rule(pattern: str, spec: GhostSpec | None, sites: Sequence[ConvSite]) -> None:
    matching = [site for site in sites if _matches(pattern, site)]
    if not matching:
        names = [name for site in sites for name in _names(site)]
        inside = [name for name in names if name.startswith(f"{pattern}.")]
        hint = f"; write {pattern + '.*'!r} for all below it" if inside else nearest(pattern, names)
        raise RuleError(f"the rule {pattern!r} matches no convolution" + (hint or _known(names)))
    if spec is not None and not any(site.eligible for site in matching):
        raise RuleError(
            f"the rule '{pattern}={spec}' asks for what cannot be converted: "
            f"{matching[0].name}: {matching[0].reason}"
        )


def _known(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"; the convolutions are {shown}{', ...' if len(names) > 5 else ''}" if names else ""
