"""Samplers by name, each of which only ever proposes plans that hold the budget.

What a sampler asks for is repaired before the trial's parameters are written, so that the
study holds, and the sampler learns from, what was evaluated and nothing else.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from ghostify.errors import SearchError, nearest
from ghostify.searches.layout import Layout
from ghostify.searches.study.guided import Guided, Propose
from ghostify.searches.study.storage import calm

__all__ = [
    "SAMPLERS",
    "Asked",
    "Feasible",
    "Parameters",
    "Propose",
    "check_sampler",
    "make_sampler",
    "seed_of",
]


def _tpe(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "guided": _tpe,  # inside Guided
    "tpe": _tpe,
    "gp": lambda seed: optuna.samplers.GPSampler(
        seed=seed, deterministic_objective=True, warn_independent_sampling=False
    ),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    "nsga3": lambda seed: optuna.samplers.NSGAIIISampler(seed=seed, population_size=20),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(
        seed=seed, warn_independent_sampling=False, with_margin=True
    ),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "brute": lambda seed: optuna.samplers.RandomSampler(seed=seed),  # all plans are queued
}
"""By name; each is made anew for every trial, from a seed of that trial's own."""

_ORDERED = ("cmaes",)
"""Those that know numbers only."""

_ONE_OBJECTIVE = ("cmaes", "guided")

_AGAIN, _STEPS_ASIDE = 4, 32

Assignment = Sequence[int]
Repair = Callable[[Assignment], Assignment]


class Parameters:
    """How the variables of a search appear in the study: by the names of their choices.

    For samplers that know numbers only, a choice is its place.
    """

    def __init__(self, layout: Layout, *, ordered: bool = False) -> None:
        self.ordered, self.names, self.written = ordered, layout.names, layout.choices

    @staticmethod
    def are_ordered(sampler: str) -> bool:
        """Return whether a sampler needs numbers."""
        return sampler in _ORDERED

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return what may be asked for, by variable."""
        if self.ordered:
            return {
                name: IntDistribution(0, len(choices) - 1)
                for name, choices in zip(self.names, self.written, strict=True)
            }
        return {
            name: CategoricalDistribution(choices)
            for name, choices in zip(self.names, self.written, strict=True)
        }

    def values(self, assignment: Assignment) -> dict[str, Any]:
        """Return the parameters that stand for an assignment."""
        if self.ordered:
            return {name: int(place) for name, place in zip(self.names, assignment, strict=True)}
        return {
            name: choices[place]
            for name, choices, place in zip(self.names, self.written, assignment, strict=True)
        }

    def assignment(self, values: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the assignment that parameters stand for."""
        if self.ordered:
            return tuple(int(values[name]) for name in self.names)
        return tuple(
            choices.index(values[name])
            for name, choices in zip(self.names, self.written, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What a sampler wanted, and what became of it."""

    wanted: tuple[int, ...]
    evaluated: tuple[int, ...]
    again: int  # times that it was asked again, since the plan was known already

    @property
    def repaired(self) -> bool:
        """Whether the plan had to be changed to hold the budget, or not to be done twice."""
        return self.wanted != self.evaluated


class Feasible(BaseSampler):
    """Lets another sampler propose, and turns each proposal into the nearest feasible plan.

    A plan that has been scored is not proposed again while there are others at hand: the
    sampler is asked again a few times, then one variable after the other is changed at random.
    """

    def __init__(
        self,
        inner: BaseSampler,
        parameters: Parameters,
        repair: Repair,
        *,
        known: Callable[[tuple[int, ...]], bool],
        seed: int,
    ) -> None:
        self._inner, self._parameters, self._repair = inner, parameters, repair
        self._known = known
        self._random = np.random.default_rng(seed)
        self._space = parameters.distributions()
        self.asked: Asked | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        first: tuple[int, ...] = ()
        found: tuple[int, ...] = ()
        again = 0
        while True:
            with calm():
                wanted = self._parameters.assignment(self._propose(study, trial))
            first = first or wanted
            found = tuple(int(place) for place in self._repair(wanted))
            if not self._known(found):
                break
            again += 1
            if again == _AGAIN:
                found = self._step_aside(found)
                break
        self.asked = Asked(first, found, again)
        return self._parameters.values(found)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise SearchError(f"the study has a variable {param_name} that the search space lacks")

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._inner.reseed_rng()

    def _propose(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        space = self._inner.infer_relative_search_space(study, trial)
        proposed = dict(self._inner.sample_relative(study, trial, space)) if space else {}
        growing = copy.deepcopy(trial)
        for name, distribution in self._space.items():
            if name not in proposed:
                proposed[name] = self._inner.sample_independent(study, growing, name, distribution)
            growing.params[name], growing.distributions[name] = proposed[name], distribution
        return proposed

    def _step_aside(self, found: tuple[int, ...]) -> tuple[int, ...]:
        """Return a feasible plan near a known one that is not known, if one is soon found."""
        counts = [len(choices) for choices in self._parameters.written]
        free = [place for place, count in enumerate(counts) if count > 1]
        if not free:
            return found
        near = list(found)
        for _ in range(_STEPS_ASIDE):
            place = int(self._random.choice(free))
            near[place] = int(self._random.integers(counts[place]))
            candidate = tuple(int(one) for one in self._repair(near))
            if not self._known(candidate):
                return candidate
        return found


def make_sampler(
    name: str,
    parameters: Parameters,
    repair: Repair,
    *,
    seed: int,
    known: Callable[[tuple[int, ...]], bool],
    objectives: int = 1,
    propose: Propose | None = None,
) -> Feasible:
    """Return a sampler by name that proposes feasible plans only.

    Args:
        propose: what ``guided`` asks, as :class:`Guided` does.

    Raises:
        SearchError: no sampler has this name, or it cannot weigh several objectives.
    """
    check_sampler(name, objectives)
    with calm():
        inner = SAMPLERS[name](seed % 2**31)
    if name == "guided" and propose is not None:
        inner = Guided(inner, parameters, propose)
    return Feasible(inner, parameters, repair, known=known, seed=seed)


def check_sampler(name: str, objectives: int = 1) -> None:
    """Make sure that there is a sampler of this name for so many objectives.

    Raises:
        SearchError: there is none.
    """
    if name not in SAMPLERS:
        raise SearchError(
            f"no sampler is called {name!r}"
            + (nearest(name, SAMPLERS) or f"; choose from {', '.join(SAMPLERS)}")
        )
    if objectives > 1 and name in _ONE_OBJECTIVE:
        raise SearchError(f"{name} weighs one objective only; take tpe or nsga2 with --pareto")


def seed_of(seed: int, what: str) -> int:
    """Return a seed for one purpose, from the seed of the whole search."""
    digest = hashlib.sha256(f"{seed} {what}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
