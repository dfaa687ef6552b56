"""The sampler that asks a model of the scores so far, as Optuna wants its samplers to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from ghostify.searches.problem import FloatArray, IntArray

if TYPE_CHECKING:
    from ghostify.searches.study.samplers import Parameters

__all__ = ["Guided", "Propose"]

Propose = Callable[[IntArray, FloatArray, IntArray], Sequence[int] | None]

_FEW = 2  # scored plans, with which a model can be made
_OTHER = 4  # every how many trials the model is not asked


class Guided(BaseSampler):
    """Proposes what a model of the scores so far expects most of, under the budget.

    Every fourth plan comes from another sampler, so that the model sees what it would not have
    asked for; without, it sometimes stays where it is.

    Args:
        other: proposes these, and until there are scores enough.
        propose: takes assignments ``(N, V)``, divergences ``(N,)`` and assignments that others
            are scoring ``(M, V)``; returns another assignment, or None.
    """

    def __init__(self, other: BaseSampler, parameters: Parameters, propose: Propose) -> None:
        self._other, self._parameters, self._propose = other, parameters, propose
        self._space = parameters.distributions()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        rung = trial.user_attrs.get("rung")
        scored: dict[tuple[int, ...], float] = {}
        pending = set()
        for one in study.get_trials(deepcopy=False):
            if one.user_attrs.get("rung") != rung or len(one.params) != len(self._space):
                continue
            assignment = self._parameters.assignment(one.params)
            if one.state == TrialState.COMPLETE and one.values:
                scored[assignment] = -one.values[0]
            elif one.state == TrialState.RUNNING and one.number != trial.number:
                pending.add(assignment)
        if len(scored) < _FEW or trial.number % _OTHER == _OTHER - 1:
            return self._others(study, trial)
        shape = (-1, len(self._space))
        found = self._propose(
            np.array(list(scored), dtype=np.int64),
            np.array(list(scored.values())),
            np.array(sorted(pending - set(scored)), dtype=np.int64).reshape(shape),
        )
        return self._others(study, trial) if found is None else self._parameters.values(found)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._other.sample_independent(study, trial, param_name, param_distribution)

    def _others(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        space = self._other.infer_relative_search_space(study, trial)
        return self._other.sample_relative(study, trial, space) if space else {}
