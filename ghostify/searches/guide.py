"""Proposing plans by a model of the scores so far: what layers lose alone, corrected by them.

Losses of single layers rank plans well, but not the best ones among themselves. A Gaussian
process over plans learns the difference: its mean rises with the sum of losses, each choice of
each layer has its own correction in proportion to its loss, and plans that differ in few layers
are alike. The proposal is the feasible plan with the greatest expected improvement (Jones et
al., 1998), found by a local search that changes one or two layers at a time; costs are closed
forms, so no plan beyond the budget is ever looked at twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import erfcx, ndtr

from ghostify.searches.problem import FloatArray, IntArray, Problem

__all__ = ["Guide"]

_MOST = 400  # scored plans that the model looks at: the best
_BEAM = 6  # plans that the local search goes on from
_PAIRS = 400  # changes of two variables that are tried from each of them
_ROUNDS = 12
_FIRST = (0.3, 0.03, 0.05, 3.0)  # deviations of slope, corrections and rest; changes to be unlike
_NOISE = 1e-4  # variance, in logarithms: scores are exact, the model is not
_LEAST = 1e-9  # divergence


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """What the model sees of plans.

    ``choices`` are zeros and ones ``(N, C)``, ``height`` the roots of sums of losses ``(N,)``.
    """

    choices: FloatArray
    height: FloatArray


class Guide:
    """Proposes feasible plans of a problem.

    Args:
        limits: the most that a plan may take, by resource.
        losses: of each choice of each variable, ``(K_v,)``; without, the multiply-adds that it
            saves stand for them.
    """

    def __init__(
        self,
        problem: Problem,
        limits: Mapping[str, float],
        losses: Sequence[FloatArray] | None = None,
    ) -> None:
        self._problem, self._limits = problem, limits
        if losses is None:
            losses = [table.max() - table for table in problem.terms["macs"].tables]
        flat = np.concatenate([np.maximum(0.0, row - row.min()) for row in losses])
        self._losses = flat / (flat.sum() or 1.0) * len(problem.shape)
        self._places = np.cumsum([0, *problem.shape[:-1]])
        self._sizes = np.array(problem.shape)

    def propose(
        self,
        plans: IntArray,
        divergences: FloatArray,
        *,
        pending: IntArray | None = None,
        rng: np.random.Generator,
    ) -> tuple[int, ...] | None:
        """Return the most promising feasible plan that is not among those given.

        Args:
            plans: assignments ``(N, V)`` that were scored.
            divergences: ``(N,)`` of these, lower is better.
            pending: assignments ``(M, V)`` that others are scoring; the model takes them to be
                as good as it expects.

        Returns:
            None if no feasible plan is near.
        """
        known = {tuple(row) for row in plans.tolist()}
        known |= {tuple(row) for row in pending.tolist()} if pending is not None else set()
        first = np.argsort(divergences, kind="stable")[:_MOST]
        plans, losses = plans[first], np.log(np.maximum(_LEAST, divergences[first]))
        model = _Model(self._features(plans), losses, self._losses)
        if pending is not None and len(pending):
            model = model.believing(self._features(pending))
        best = float(losses.min())
        beam, seen = plans[:_BEAM], set(known)
        found: list[tuple[float, tuple[int, ...]]] = []
        for _ in range(_ROUNDS):
            near = self._near(beam, rng)
            near = near[[tuple(row) not in seen for row in near.tolist()]]
            if not len(near):
                break
            seen |= {tuple(row) for row in near.tolist()}
            worth = model.improvement(self._features(near), best)
            before = found[0][0] if found else -np.inf
            top = np.argsort(-worth, kind="stable")[:_BEAM]
            found += [(float(worth[one]), tuple(near[one].tolist())) for one in top]
            found = sorted(found, key=lambda one: -one[0])[:_BEAM]
            if found[0][0] <= before:
                break
            beam = np.array([row for _, row in found], dtype=np.int64)
        return found[0][1] if found else None

    def _near(self, plans: IntArray, rng: np.random.Generator) -> IntArray:
        """Return feasible plans that differ in one variable, and some that differ in two."""
        variables = np.repeat(np.arange(len(self._sizes)), self._sizes)
        choices = np.concatenate([np.arange(size) for size in self._sizes])
        rows = []
        for plan in plans:
            one = np.repeat(plan[None], len(variables), 0)
            one[np.arange(len(variables)), variables] = choices
            two = np.repeat(plan[None], _PAIRS, 0)
            for _ in range(2):
                which = rng.integers(len(variables), size=_PAIRS)
                two[np.arange(_PAIRS), variables[which]] = choices[which]
            rows += [one, two]
        near = np.unique(np.concatenate(rows), axis=0)
        return near[self._problem.feasible(near, self._limits)]

    def _features(self, plans: IntArray) -> _Features:
        choices = np.zeros((len(plans), len(self._losses)))
        np.put_along_axis(choices, plans + self._places, 1.0, axis=1)
        return _Features(choices, np.sqrt(choices @ self._losses))


class _Model:
    """A Gaussian process over plans, of the logarithm of their divergence."""

    def __init__(
        self,
        seen: _Features,
        values: FloatArray,
        losses: FloatArray,
        wide: FloatArray | None = None,
    ) -> None:
        self._seen, self._values, self._losses = seen, values, losses
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        self._scaled = (values - self._mean) / self._scale
        self._parts = self._alike(seen, seen)
        self._wide = self._widths() if wide is None else wide
        factor = self._factor(self._wide)
        assert factor is not None
        self._chol = factor
        self._alpha = cho_solve((factor, True), self._scaled)

    def believing(self, others: _Features) -> _Model:
        """Return the model as if these plans had been found as good as it expects."""
        mean, _ = self.predict(others)
        both = _Features(
            np.concatenate([self._seen.choices, others.choices]),
            np.concatenate([self._seen.height, others.height]),
        )
        return _Model(both, np.concatenate([self._values, mean]), self._losses, self._wide)

    def predict(self, plans: _Features) -> tuple[FloatArray, FloatArray]:
        """Return mean and deviation, ``(N,)`` each."""
        cross = self._kernel(self._alike(plans, self._seen), self._wide)
        mean = self._mean + self._scale * (cross @ self._alpha)
        solved = solve_triangular(self._chol, cross.T, lower=True)
        slope, own, rest, _ = np.exp(self._wide)
        alone = 1.0 + slope**2 * plans.height**2 + rest**2
        alone = alone + own**2 * (plans.choices @ self._losses**2)
        variance = np.maximum(1e-12, alone - (solved**2).sum(0))
        return mean, self._scale * np.sqrt(variance)

    def improvement(self, plans: _Features, best: float) -> FloatArray:
        """Return the logarithm of the expected improvement over the best, ``(N,)``."""
        mean, deviation = self.predict(plans)
        z = (best - mean) / deviation
        density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        with np.errstate(divide="ignore", invalid="ignore"):
            near = np.log(density + z * ndtr(z))
            ratio = np.sqrt(np.pi / 2) * erfcx(-z / np.sqrt(2))  # of distribution to density
            far = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) + np.log1p(z * ratio)
            farther = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(-z)
        found: FloatArray = np.where(z > -3, near, np.where(z > -1e3, far, farther))
        return found + np.log(deviation)

    def _alike(self, one: _Features, other: _Features) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return products of heights, of shared choices' losses, and numbers of differences."""
        both = one.choices @ other.choices.T
        shared = (one.choices * self._losses**2) @ other.choices.T
        variables = one.choices.sum(1)[:, None]
        return np.outer(one.height, other.height), shared, variables - both

    @staticmethod
    def _kernel(parts: tuple[FloatArray, FloatArray, FloatArray], wide: FloatArray) -> FloatArray:
        heights, shared, apart = parts
        slope, own, rest, length = np.exp(wide)
        like = rest**2 * np.exp(-apart / length)
        found: FloatArray = 1.0 + slope**2 * heights + own**2 * shared + like
        return found

    def _factor(self, wide: FloatArray) -> FloatArray | None:
        kernel = self._kernel(self._parts, wide)
        kernel[np.diag_indices_from(kernel)] += _NOISE
        try:
            factor: FloatArray = np.tril(cho_factor(kernel, lower=True)[0])
        except LinAlgError:
            return None
        return factor

    def _widths(self) -> FloatArray:
        """Return the logarithms of deviations and length that make the scores most likely."""
        first = np.log(_FIRST)

        def unlikely(wide: FloatArray) -> float:
            factor = self._factor(wide)
            if factor is None:
                return 1e9
            solved = solve_triangular(factor, self._scaled, lower=True)
            likely = 0.5 * float(solved @ solved) + float(np.log(np.diag(factor)).sum())
            return likely + 0.1 * float(((wide - first) ** 2).sum())

        bounds = [(one - 4.0, one + 4.0) for one in first]
        found = minimize(unlikely, first, method="L-BFGS-B", bounds=bounds, options={"maxiter": 20})
        return np.asarray(found.x)
