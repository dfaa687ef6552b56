import re

import pytest

from ghostify.errors import SearchError
from ghostify.searches.climb import Rung, parse_climb, write_climb


def test_a_climb_is_read_in_any_order_and_written_from_cheap_to_dear() -> None:
    rungs = parse_climb("train=2@distil, free=200,distil=8x98")

    assert rungs == (
        Rung("free", 200),
        Rung("distil", 8, steps=98),
        Rung("train", 2, recipe="distil"),
    )
    assert write_climb(rungs) == "free=200,distil=8x98,train=2@distil"
    assert parse_climb(write_climb(rungs)) == rungs


def test_a_recipe_may_be_shortened() -> None:
    rungs = parse_climb("free=9,train=2x782@distil")

    assert rungs == (Rung("free", 9), Rung("train", 2, steps=782, recipe="distil"))
    assert write_climb(rungs) == "free=9,train=2x782@distil"


def test_what_is_not_said_has_a_default() -> None:
    assert parse_climb(None) == (Rung("free", 100),)
    assert parse_climb(None, trials=7) == (Rung("free", 7),)
    assert parse_climb("distil=3,train=1", trials=7) == (
        Rung("free", 7),
        Rung("distil", 3, steps=391),
        Rung("train", 1),
    )


@pytest.mark.parametrize(
    ("text", "trials", "told"),
    [
        ("free", None, "a climb is written free=200"),
        ("fre=3", None, "did you mean free?"),
        ("free=0", None, "at least one plan"),
        ("free=4,free=5", None, "names free twice"),
        ("free=4x3", None, "steps belong to distil"),
        ("distil=4@x", None, "a recipe to train"),
        ("distil=1x0", None, "at least one step"),
        ("free=4,distil=5", None, "takes 5 plans to distil, but only 4 come from free"),
        ("free=4", 5, "--trials 5 and --climb free=4 contradict each other"),
    ],
)
def test_a_climb_that_cannot_be_is_refused(text: str, trials: int | None, told: str) -> None:
    with pytest.raises(SearchError, match=re.escape(told)):
        parse_climb(text, trials=trials)
