"""Intervals and tests against scipy's own and against arithmetic by hand."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ghostify.reports.statistics import difference, estimate, holm, pareto_front

ONE, TWO = (90.1, 90.3, 90.5), (88.0, 88.4, 88.1, 87.2)


def test_interval_is_that_of_student() -> None:
    found = estimate(ONE)

    low, high = stats.t.interval(0.95, 2, loc=90.3, scale=stats.sem(ONE))
    assert found.mean == pytest.approx(90.3)
    assert found.sd == pytest.approx(0.2)
    assert found.mean - found.half_width == pytest.approx(low)
    assert found.mean + found.half_width == pytest.approx(high)


def test_interval_by_hand() -> None:
    """Of 1 and 3 the standard error is 1, and t of one degree of freedom is 12.706."""
    found = estimate((1.0, 3.0))

    assert found.half_width == pytest.approx(12.7062, abs=1e-4)


def test_one_seed_has_no_interval() -> None:
    found = estimate((90.0,))

    assert (found.mean, found.n, found.sd, found.half_width) == (90.0, 1, None, None)


def test_difference_is_welchs() -> None:
    found = difference(ONE, TWO)

    test = stats.ttest_ind(ONE, TWO, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert found.p == pytest.approx(test.pvalue)
    assert found.freedom == pytest.approx(test.df)
    assert found.value - found.half_width == pytest.approx(interval.low)
    assert found.value + found.half_width == pytest.approx(interval.high)


@pytest.mark.parametrize(("one", "two"), [((90.0,), TWO), (ONE, (88.0,)), ((1, 1), (2, 2))])
def test_nothing_is_said_of_chance_without_variation(
    one: tuple[float, ...], two: tuple[float, ...]
) -> None:
    found = difference(one, two)

    assert found.p is None
    assert found.half_width is None
    assert found.value == pytest.approx(sum(one) / len(one) - sum(two) / len(two))


def test_holm_by_hand() -> None:
    """Holm (1979): the smallest of four by 4, then by 3, 2 and 1, never falling."""
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})

    assert list(found) == ["a", "b", "c", "d"]
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_holm_stays_a_probability() -> None:
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


_POINTS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)),
    max_size=8,
)


@given(_POINTS)
def test_front_holds_what_no_other_beats(points: dict[str, tuple[float, float]]) -> None:
    front = pareto_front(points)

    beaten = {
        one
        for one, two in itertools.permutations(points, 2)
        if points[two][0] <= points[one][0]
        and points[two][1] >= points[one][1]
        and points[one] != points[two]
    }
    assert front == set(points) - beaten


def test_mean_needs_a_value() -> None:
    with pytest.raises(ValueError, match="a mean needs a value"):
        estimate(())


def test_large_numbers_of_seeds_come_near_the_normal() -> None:
    values = tuple(math.sin(one) for one in range(2000))

    found = estimate(values)

    assert found.half_width == pytest.approx(1.96 * found.sd / math.sqrt(2000), rel=2e-3)
