"""Budgets: how they are written, what they come to, and how mistakes are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostify.cost.budget import RESOURCES, Budget, Limit, say_amount
from ghostify.errors import BudgetError

ORIGINAL = {"macs": 4e9, "params": 25e6, "size": 1e8, "latency@onnxruntime": 50.0}


def test_every_kind_of_limit_is_read() -> None:
    budget = Budget.parse(
        "macs=0.5x, params=15M,latency=0.7x@onnxruntime,size=20MB,latency=12ms@openvino"
    )

    assert budget.limits == (
        Limit("macs", 0.5, True),
        Limit("params", 15e6),
        Limit("latency", 0.7, True, "onnxruntime"),
        Limit("size", 20e6),
        Limit("latency", 12.0, False, "openvino"),
    )
    assert budget.runtimes == ("onnxruntime", "openvino")


def test_shares_are_of_the_original() -> None:
    budget = Budget.parse("macs=0.5x,params=15M,latency=0.7x@onnxruntime")

    assert budget.absolute(ORIGINAL) == {
        "macs": 2e9,
        "params": 15e6,
        "latency@onnxruntime": pytest.approx(35),
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("macs=64000000", 64e6),
        ("macs=6.4e7", 64e6),
        ("macs=.064G", 64e6),
        ("params=250k", 250e3),
        ("macs=1T", 1e12),
        ("size=20MiB", 20 * 2**20),
        ("size=512", 512),
        ("size=3kB", 3000),
        ("latency=800us@x", 0.8),
        ("latency=0.5s@x", 500),
    ],
)
def test_units(text: str, value: float) -> None:
    assert Limit.parse(text).value == pytest.approx(value, rel=1e-12)


def test_what_exceeds_is_above_zero() -> None:
    budget = Budget.parse("macs=0.5x,params=15M")

    excess = budget.violations({"macs": 2e9, "params": 16e6}, ORIGINAL)

    assert excess == {"macs": 0.0, "params": 1e6}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a budget needs a limit; write macs=0.5x or macs=2G"),
        ("macs", "a budget is written like macs=0.5x or macs=2G (got 'macs')"),
        ("latency=", "a budget is written like latency=0.7x@onnxruntime"),
        ("mac=0.5x", "(got 'mac'); did you mean macs?"),
        ("flops=1G", "a budget limits macs, params, size, latency (got 'flops')"),
        ("macs=half", "the limit of macs is a number with one of the units x, k, M, G, T"),
        ("macs=-1G", "(got '-1G')"),
        ("macs=0x", "the limit of macs must be above 0 (got 0)"),
        ("macs=1e999", "must be above 0"),
        ("size=20mb", "did you mean MB?"),
        ("latency=0.7x", "names its runtime; write latency=0.7x@onnxruntime"),
        ("latency=7@onnxruntime", "units x, us, ms, s"),
        ("latency=7ms@", "names its runtime behind @"),
        ("macs=0.5x@onnxruntime", "only latency depends on a runtime"),
        ("macs=0.5x,macs=1G", "the budget limits macs twice"),
    ],
)
def test_a_mistake_names_the_remedy(text: str, message: str) -> None:
    with pytest.raises(BudgetError) as error:
        Budget.parse(text)

    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_share_of_something_unknown() -> None:
    with pytest.raises(BudgetError, match="latency@openvino, which is not known"):
        Budget.parse("latency=0.5x@openvino").absolute(ORIGINAL)


def test_a_cost_that_is_not_known() -> None:
    with pytest.raises(BudgetError, match="limits params, which is not among the costs"):
        Budget.parse("params=0.5x").violations({"macs": 1.0}, ORIGINAL)


@given(
    resource=st.sampled_from(RESOURCES),
    value=st.floats(1e-6, 1e15),
    relative=st.booleans(),
)
def test_a_limit_is_read_as_it_is_written(resource: str, value: float, relative: bool) -> None:
    limit = Limit(resource, value, relative, "onnxruntime" if resource == "latency" else "")

    assert Budget.parse(str(Budget((limit,)))).limits == (limit,)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("macs", 2.05e9, "2.05G"),
        ("params", 900, "900"),
        ("size", 20_480_000, "20.48MB"),
        ("latency@openvino", 12.34567, "12.35ms"),
        ("macs", 0.2, "0.2"),
    ],
)
def test_amounts_for_people(key: str, value: float, shown: str) -> None:
    assert say_amount(key, value) == shown
