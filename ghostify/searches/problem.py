"""A network's search space with what every plan in it costs, by arithmetic alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ghostify.cost.budget import Cost
from ghostify.cost.mixed import Prunable
from ghostify.errors import PlanError, nearest
from ghostify.plan import Plan
from ghostify.searches.choices import SearchSpace, written
from ghostify.searches.latency import LatencyModel
from ghostify.searches.terms import FloatArray, Pair, Terms, count_terms
from ghostify.searches.variables import Variable, Wish, find_variables
from ghostify.spec import ConvSite, LayerSpec

__all__ = ["BoolArray", "FloatArray", "IntArray", "Problem", "Variable", "make_problem"]

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_AT_ONCE = 4096  # plans, so that intermediate arrays stay in the processor's cache
_BYTES = 4  # of a parameter in float32


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What there is to choose in one network, and what each choice costs.

    An assignment is a vector ``(V,)`` of whole numbers: the choice of each variable by its
    place. Costs are ``"macs"``, ``"params"``, ``"size"`` (bytes of the parameters in float32) and
    ``"latency@RUNTIME"`` (ms, predicted); the first three are exact.
    """

    variables: tuple[Variable, ...]
    original: Mapping[str, float]
    terms: Mapping[str, Terms]
    forbidden: tuple[tuple[Wish, ...], ...] = ()
    model: str = ""
    order: tuple[str, ...] = ()  # of all layers, as they run
    notes: tuple[str, ...] = ()
    _places: IntArray = field(init=False, repr=False)
    _flat: FloatArray = field(init=False, repr=False)
    _pairs: tuple[tuple[int, int, int, int], ...] = field(init=False, repr=False)
    _joint: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = [len(variable.choices) for variable in self.variables]
        places = np.cumsum([0, *sizes[:-1]]).astype(np.int64)
        flat = np.stack([np.concatenate(one.tables) for one in self.terms.values()])
        tables: dict[tuple[int, int], dict[str, FloatArray]] = {}
        for name, terms in self.terms.items():
            for pair in terms.pairs:
                tables.setdefault((pair.first, pair.second), {})[name] = pair.table
        pairs, joint, start = [], [np.zeros((len(self.terms), 0))], 0
        for (u, v), by_name in tables.items():
            empty = np.zeros((sizes[u], sizes[v]))
            joint.append(np.stack([by_name.get(name, empty).ravel() for name in self.terms]))
            pairs.append((u, v, start, sizes[v]))
            start += sizes[u] * sizes[v]
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_flat", np.ascontiguousarray(flat))
        object.__setattr__(self, "_pairs", tuple(pairs))
        object.__setattr__(self, "_joint", np.ascontiguousarray(np.concatenate(joint, 1)))

    @property
    def shape(self) -> tuple[int, ...]:
        """How many choices each variable has."""
        return tuple(len(variable.choices) for variable in self.variables)

    def costs(self, assignments: IntArray) -> dict[str, FloatArray]:
        """Return what plans cost, by resource: ``(N, V)`` in, ``(N,)`` out; or ``(V,)``, ``()``.

        Raises:
            PlanError: the array has another shape, or names choices that are not there.
        """
        checked = self._checked(assignments)
        rows = np.atleast_2d(checked)
        found = np.empty((len(self.terms), len(rows)))
        for start in range(0, len(rows), _AT_ONCE):
            chunk = rows[start : start + _AT_ONCE]
            index = chunk + self._places
            joint = [at + chunk[:, u] * size + chunk[:, v] for u, v, at, size in self._pairs]
            for number, terms in enumerate(self.terms.values()):
                total = self._flat[number][index].sum(1)
                if terms.pairs:
                    total += self._joint[number][np.stack(joint, 1)].sum(1)
                found[number, start : start + _AT_ONCE] = terms.base + total
        return {
            name: row.reshape(checked.shape[:-1])
            for name, row in zip(self.terms, found, strict=True)
        }

    def cost(self, assignment: IntArray) -> dict[str, float]:
        """Return what one plan costs, by resource."""
        return {name: float(value) for name, value in self.costs(assignment).items()}

    def feasible(self, assignments: IntArray, limits: Mapping[str, float]) -> BoolArray:
        """Return which plans ``(N, V)`` hold all limits and meet nothing that is forbidden."""
        costs = self.costs(assignments)
        held = self.allowed(assignments)
        for name, limit in limits.items():
            held = held & (costs[name] <= limit)
        return held

    def allowed(self, assignments: IntArray) -> BoolArray:
        """Return which plans ``(N, V)`` contain no forbidden combination."""
        checked = self._checked(assignments)
        rows = np.atleast_2d(checked)
        allowed = np.ones(len(rows), dtype=np.bool_)
        for wishes in self.forbidden:
            together = np.ones(len(rows), dtype=np.bool_)
            for wish in wishes:
                met = np.zeros(len(rows), dtype=np.bool_)
                for place, choices in wish:
                    met |= np.isin(rows[:, place], choices)
                together &= met
            allowed &= ~together
        return allowed.reshape(checked.shape[:-1])

    def plan(self, assignment: IntArray) -> Plan:
        """Return an assignment ``(V,)`` as a plan of explicit names, in execution order."""
        checked = self._checked(assignment)
        layers: dict[str, LayerSpec] = {}
        for variable, choice in zip(self.variables, checked.tolist(), strict=True):
            for name, spec in zip(variable.layers, variable.effects[choice], strict=True):
                if spec is not None:
                    layers[name] = spec
        rank = {name: place for place, name in enumerate(self.order)}
        return Plan(
            {name: layers[name] for name in sorted(layers, key=lambda one: rank.get(one, 0))},
            model=self.model,
        )

    def assignment(self, plan: Plan) -> IntArray:
        """Return a plan as an assignment ``(V,)``.

        Raises:
            PlanError: the plan is not in the space, and which layer is the reason.
        """
        known = {name for variable in self.variables for name in variable.layers}
        for name, spec in plan.layers.items():
            if name not in known:
                raise PlanError(
                    f"the plan is outside the search space: it makes {name} {spec}, where "
                    f"nothing can be chosen{nearest(name, known)}"
                )
        found = []
        for variable in self.variables:
            wanted = tuple(plan.layers.get(name) for name in variable.layers)
            if wanted not in variable.effects:
                names = ", ".join(variable.layers[:3]) + (", ..." * (len(wanted) > 3))
                listed = ", ".join(dict.fromkeys(written(one) for one in wanted))
                raise PlanError(
                    f"the plan is outside the search space: {names} may be "
                    f"{', '.join(map(written, variable.choices))} (got {listed})"
                )
            found.append(variable.effects.index(wanted))
        return np.array(found, dtype=np.int64)

    def nothing(self) -> IntArray:
        """Return the assignment that keeps most: keep where it is a choice, else the first."""
        first = [one.choices.index(None) if None in one.choices else 0 for one in self.variables]
        return np.array(first, dtype=np.int64)

    def layer_choices(self) -> dict[str, tuple[LayerSpec, ...]]:
        """Return what each layer may become, but for staying as it is."""
        found: dict[str, tuple[LayerSpec, ...]] = {}
        for variable in self.variables:
            for place, name in enumerate(variable.layers):
                specs = dict.fromkeys(row[place] for row in variable.effects)
                found[name] = tuple(spec for spec in specs if spec is not None)
        return found

    def losses(
        self, by_layer: Mapping[str, Mapping[LayerSpec, float]], *, kept: float = 0.0
    ) -> list[FloatArray]:
        """Return what each choice of each variable loses, ``(K_v,)``, from losses by layer.

        Args:
            by_layer: loss by layer and setting, smaller is better, such as sensitivities.
            kept: loss of a layer that stays as it is.

        Raises:
            PlanError: a loss is missing.
        """
        found = []
        for variable in self.variables:
            row = []
            for effect in variable.effects:
                total = 0.0
                for name, spec in zip(variable.layers, effect, strict=True):
                    if spec is not None and spec not in by_layer.get(name, {}):
                        raise PlanError(f"nothing is known of {name} as {spec}; score it first")
                    total += kept if spec is None else by_layer[name][spec]
                row.append(total)
            found.append(np.array(row))
        return found

    def random(self, count: int, rng: np.random.Generator) -> IntArray:
        """Draw assignments ``(count, V)``, each choice alike; they may be infeasible."""
        return rng.integers(0, np.array(self.shape), size=(count, len(self.variables)))

    def _checked(self, assignments: IntArray) -> IntArray:
        found = np.asarray(assignments)
        if found.shape[-1:] != (len(self.variables),) or found.ndim > 2:
            raise PlanError(
                f"an assignment has {len(self.variables)} choices, one for each variable "
                f"(got shape {found.shape})"
            )
        if found.dtype.kind not in "iu":
            raise PlanError(f"an assignment holds whole numbers (got {found.dtype})")
        if found.size and ((found < 0).any() or (found >= np.array(self.shape)).any()):
            raise PlanError("an assignment names a choice that its variable does not have")
        return found.astype(np.int64, copy=False)


def make_problem(
    sites: Sequence[ConvSite],
    space: SearchSpace,
    *,
    total: Cost,
    prunable: Mapping[str, Prunable] | None = None,
    latencies: Mapping[str, LatencyModel] | None = None,
    model: str = "",
) -> Problem:
    """Put a search space on a network.

    Args:
        sites: the network's convolutions in execution order.
        total: what the whole original costs.
        prunable: the layers whose output maps may be removed, with what reads them
            (``ghostify.prune`` finds them); without it, choices that prune are not offered.
        latencies: by runtime; a choice that was not timed there is not offered.
        model: what the plans are for.

    Raises:
        DataFileError: a pattern matches nothing, or nothing is left to choose.
    """
    prunable, latencies = prunable or {}, latencies or {}
    found = find_variables(
        sites,
        space,
        prunable={name for name in prunable if _can_shrink(prunable[name], sites, space)},
        lacking=_untimed(sites, space, latencies),
    )
    params, macs = count_terms(found.variables, sites, prunable)
    original = {
        "macs": float(total.macs),
        "params": float(total.params),
        "size": float(_BYTES * total.params),
    }
    terms = {
        "macs": Terms(original["macs"], macs.tables, macs.pairs),
        "params": Terms(original["params"], params.tables, params.pairs),
        "size": Terms(
            original["size"],
            tuple(_BYTES * table for table in params.tables),
            tuple(Pair(one.first, one.second, _BYTES * one.table) for one in params.pairs),
        ),
    }
    for runtime, latency in latencies.items():
        original[f"latency@{runtime}"] = latency.original_ms
        terms[f"latency@{runtime}"] = _latency(found.variables, latency)
    return Problem(
        variables=found.variables,
        original=original,
        terms=terms,
        forbidden=found.forbidden,
        model=model or space.model,
        order=tuple(site.name for site in sites),
        notes=found.notes,
    )


def _can_shrink(layer: Prunable, sites: Sequence[ConvSite], space: SearchSpace) -> bool:
    """Whether what reads a layer's maps costs less by what :func:`count_terms` says."""
    by_name = {site.name: site for site in sites}
    for reader, _ in layer.readers:
        site = by_name.get(reader)
        if site is None:
            return False
        chosen = space.decider(reader)
        named = chosen is not None and chosen.pattern == reader and any(chosen.settings)
        if site.groups > 1 and (not site.depthwise or named):
            return False
    return True


def _untimed(
    sites: Sequence[ConvSite], space: SearchSpace, latencies: Mapping[str, LatencyModel]
) -> dict[tuple[str, LayerSpec], str]:
    return {
        (site.name, spec): f"it was not timed on {runtime}"
        for runtime, latency in latencies.items()
        for site in sites
        for spec in space.choices(site.name)
        if spec is not None and spec not in latency.gains.get(site.name, {})
    }


def _latency(variables: Sequence[Variable], latency: LatencyModel) -> Terms:
    tables = tuple(
        np.array(
            [
                -sum(
                    latency.gains[name][spec]
                    for name, spec in zip(variable.layers, row, strict=True)
                    if spec is not None
                )
                for row in variable.effects
            ],
            dtype=np.float64,
        )
        for variable in variables
    )
    return Terms(latency.base_ms, tables, whole=False)
