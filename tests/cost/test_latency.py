"""Measuring in turns, with sessions whose times are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy
import pytest
from torch import Tensor

from ghostify.cost.latency import WIDE, Latency, Samples, measure, spread, summarise
from ghostify.errors import InputError


class Clock:
    """A session that takes the seconds it is told to, one value for each call of ``time``."""

    def __init__(self, name: str, seconds: Iterable[float], log: list[str]) -> None:
        self.name, self.log = name, log
        self.seconds: Iterator[float] = iter(seconds)
        self.last = 0.0

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return inputs

    def time(self, repeats: int) -> float:
        self.last = next(self.seconds, self.last)
        self.log.append(f"{self.name}{repeats}")
        return self.last * repeats

    def close(self) -> None: ...


def constant(value: float) -> list[float]:
    return [value]


def test_the_median_and_the_repeats_of_a_steady_network() -> None:
    log: list[str] = []

    found = measure({"a": Clock("a", constant(0.002), log)}, rounds=7)

    assert found["a"].repeats == 5  # 10 ms for one value
    assert found["a"].ms == pytest.approx([2.0] * 7)
    assert (found["a"].iqr_ms, found["a"].tries) == (pytest.approx(0), 1)
    assert not found["a"].noisy


def test_rounds_are_interleaved_and_nobody_is_always_first() -> None:
    log: list[str] = []
    sessions = {name: Clock(name, constant(0.05), log) for name in "abc"}

    measure(sessions, rounds=3, warm_up_s=0.01)

    turns = [entry[0] for entry in log[-18:]]  # each an untimed run and a timed one
    assert turns[::2] == turns[1::2] == list("abcbcacab")


def test_a_noisy_network_is_measured_again_with_the_others() -> None:
    log: list[str] = []
    warm = [0.1, 0.1]
    noisy = [value for time in (0.1, 0.2, 0.1, 0.2, 0.1) for value in (0.1, time)]
    steady = [0.1] * 10
    sessions = {
        "a": Clock("a", warm + noisy + steady, log),
        "b": Clock("b", constant(0.1), log),
    }

    found = measure(sessions, rounds=5, warm_up_s=0.01)

    assert (found["a"].tries, found["b"].tries) == (2, 2)
    assert not found["a"].noisy


def test_what_stays_noisy_is_flagged_after_three_tries() -> None:
    log: list[str] = []
    shaky = [0.1, 0.1] + [value for _ in range(8) for value in (0.1, 0.1, 0.1, 0.2)]
    rounds: list[tuple[int, int]] = []

    found = measure(
        {"a": Clock("a", shaky, log)},
        rounds=4,
        warm_up_s=0.01,
        on_round=lambda *done: rounds.append(done),
    )

    assert found["a"].noisy
    assert rounds == [(1, 4), (2, 4), (3, 4), (4, 4)] * 3
    assert summarise(found["a"], runtime="torch").noisy


def test_the_narrowest_try_stands() -> None:
    log: list[str] = []
    tries = [[0.1, 0.3, 0.1, 0.3], [0.1, 0.15, 0.1, 0.15], [0.1, 0.2, 0.1, 0.2]]
    values = [0.1, 0.1] + [value for one in tries for time in one for value in (0.1, time)]

    found = measure({"a": Clock("a", values, log)}, rounds=4, warm_up_s=0.01)

    assert found["a"].tries == 2
    assert sorted(found["a"].ms) == pytest.approx([100, 100, 150, 150])


def test_seconds_end_a_try_but_not_before_five_rounds() -> None:
    found = measure({"a": Clock("a", constant(0.1), [])}, rounds=100, seconds=1e-9, warm_up_s=0.01)

    assert len(found["a"].ms) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds is a whole number from 1 on (got 0)"),
        ({"rounds": 2.5}, "rounds is a whole number from 1 on (got 2.5)"),
        ({"seconds": 0.0}, "seconds is a number above 0 (got 0.0)"),
        ({"seconds": float("nan")}, "seconds is a number above 0 (got nan)"),
        ({"tries": 0}, "tries is a whole number from 1 on (got 0)"),
    ],
)
def test_impossible_numbers_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as caught:
        measure({}, **settings)  # type: ignore[arg-type]

    assert str(caught.value) == message


def test_the_spread_is_numpys() -> None:
    values = tuple(float(value) for value in numpy.random.default_rng(0).normal(10, 2, 31))

    assert spread(values) == pytest.approx(
        float(numpy.subtract(*numpy.percentile(values, [75, 25])))
    )
    assert spread((1.0,)) == 0


def test_a_summary_keeps_the_figures() -> None:
    found = summarise(
        Samples((1.0, 2.0, 3.0, 4.0, 5.0)), runtime="openvino", device="cpu", threads=2, batch=8
    )

    assert found == Latency(3.0, 2.0, "openvino", "cpu", 2, 8, 5, True)
    assert found.as_json()["iqr_ms"] == 2.0
    assert found.iqr_ms > WIDE * found.median_ms
