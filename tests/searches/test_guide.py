"""The model that proposes plans: against formulas worked out otherwise, and brute force."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import search_fakes as fakes
from numpy.typing import NDArray
from scipy import stats

from ghostify.errors import SearchError
from ghostify.searches.guide import Guide, _Model
from ghostify.searches.study.ledger import Ledger
from ghostify.searches.study.samplers import check_sampler
from ghostify.searches.study.storage import open_storage, storage_url
from ghostify.searches.team import run_alone
from ghostify.searches.worker import Search, Worker

Floats = NDArray[np.float64]


@pytest.fixture
def scored() -> tuple[Guide, NDArray[np.int64], Floats, _Model]:
    search = fakes.search("macs=0.5x")
    guide = Guide(search.layers, search.limits, losses(search))
    rng = np.random.default_rng(0)
    rows = np.unique(search.layers.random(40, rng), axis=0)
    values = np.array([fakes.divergence(search.layers.plan(row)) for row in rows]) + 0.1
    model = _Model(guide._features(rows), np.log(values), guide._losses)
    return guide, rows, values, model


def losses(search: Search) -> list[Floats]:
    """What single choices lose by themselves."""
    found = []
    for place, count in enumerate(search.layers.shape):
        row = search.layers.nothing()
        losses = []
        for choice in range(count):
            row[place] = choice
            losses.append(fakes.divergence(search.layers.plan(row)))
        found.append(np.array(losses))
    return found


def kernel(guide: Guide, model: _Model, one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """The covariance of two plans, one variable after the other."""
    slope, own, rest, length = np.exp(model._wide)
    rows = np.split(guide._losses, guide._places[1:])
    sums = [sum(row[k] for row, k in zip(rows, plan, strict=True)) for plan in (one, other)]
    found = 1 + slope**2 * np.sqrt(sums[0] * sums[1])
    found += own**2 * sum(row[a] ** 2 for row, a, b in zip(rows, one, other, strict=True) if a == b)
    return float(found + rest**2 * np.exp(-(one != other).sum() / length))


def test_predictions_are_those_of_the_process(
    scored: tuple[Guide, NDArray[np.int64], Floats, _Model],
) -> None:
    guide, rows, values, model = scored
    new = fakes.problem().random(5, np.random.default_rng(1))
    scale, logs = np.log(values).std(), np.log(values)
    among = np.array([[kernel(guide, model, a, b) for b in rows] for a in rows])
    among += 1e-4 * np.eye(len(rows))
    across = np.array([[kernel(guide, model, a, b) for b in rows] for a in new])

    mean, deviation = model.predict(guide._features(new))

    inverse = np.linalg.inv(among)
    expected = logs.mean() + across @ inverse @ (logs - logs.mean())
    own = np.array([kernel(guide, model, a, a) for a in new])
    spread = scale * np.sqrt(own - np.einsum("ij,jk,ik->i", across, inverse, across))
    assert mean == pytest.approx(expected, rel=1e-5)
    assert deviation == pytest.approx(spread, rel=1e-3)


def test_what_was_scored_is_predicted(
    scored: tuple[Guide, NDArray[np.int64], Floats, _Model],
) -> None:
    guide, rows, values, model = scored

    mean, deviation = model.predict(guide._features(rows))

    assert np.abs(mean - np.log(values)).max() < 0.05
    assert deviation.max() < 0.1


@pytest.mark.parametrize("best", [-3.0, -1.0, 0.0, 2.0])
def test_the_improvement_is_the_integral(
    scored: tuple[Guide, NDArray[np.int64], Floats, _Model], best: float
) -> None:
    guide, _, _, model = scored
    features = guide._features(fakes.problem().random(6, np.random.default_rng(2)))
    mean, deviation = model.predict(features)

    found = model.improvement(features, best)

    for one, m, s in zip(found, mean, deviation, strict=True):
        x = np.linspace(m - 12 * s, min(best, m + 12 * s), 40001)
        if best > m - 10 * s:  # else the integral is below what numbers hold
            gain = np.trapezoid((best - x) * stats.norm.pdf(x, m, s), x)
            assert one == pytest.approx(np.log(gain), abs=1e-3)


def test_improvements_far_away_fall_as_they_should(
    scored: tuple[Guide, NDArray[np.int64], Floats, _Model],
) -> None:
    guide, rows, _, model = scored
    features = guide._features(rows[:1])
    mean, deviation = model.predict(features)

    worth = [float(model.improvement(features, mean[0] - z * deviation[0])[0])
             for z in (2.9, 3.1, 50.0, 900.0, 1100.0, 1e4)]  # fmt: skip

    assert np.isfinite(worth).all()
    assert worth == sorted(worth, reverse=True)


def test_proposals_are_feasible_and_new(
    scored: tuple[Guide, NDArray[np.int64], Floats, _Model],
) -> None:
    _, rows, values, _ = scored
    search = fakes.search("macs=0.5x")
    guide = Guide(search.layers, search.limits, losses(search))
    known = {tuple(row) for row in rows.tolist()}
    pending: list[tuple[int, ...]] = []

    for seed in range(6):
        found = guide.propose(
            rows, values, pending=np.array(pending, dtype=np.int64).reshape(-1, 6),
            rng=np.random.default_rng(seed),
        )  # fmt: skip
        assert found is not None
        assert search.feasible(found)
        assert found not in known | set(pending)
        pending.append(found)


@pytest.mark.parametrize("told", [True, False], ids=["losses", "no losses"])
def test_the_best_plan_is_found_in_few_trials(tmp_path: Path, told: bool) -> None:
    """Of 4096 plans, of which a budget leaves some, 40 trials reach the best but for a hair."""
    search = fakes.search("macs=0.5x", trials=40, sampler="guided")
    if told:
        search = fakes.search("macs=0.5x", trials=40, sampler="guided", weights=losses(search))
    rows = np.array(list(itertools.product(range(4), repeat=6)))
    rows = rows[search.layers.feasible(rows, search.limits)]
    best = min(fakes.divergence(search.layers.plan(row)) for row in rows)
    ledger = Ledger(open_storage(storage_url(None, tmp_path)), "one", search.objectives)

    assert run_alone(ledger, search, Worker(ledger, search, fakes.FakeEvaluator()))

    assert min(record.loss for record in ledger.records()) <= best * 1.03


def test_several_objectives_are_not_guided() -> None:
    with pytest.raises(SearchError, match="guided weighs one objective only; take tpe or nsga2"):
        check_sampler("guided", 2)
