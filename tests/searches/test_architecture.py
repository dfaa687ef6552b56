"""Arguments of factories: costs by building, kept on disk; repairs by looking at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ghostify.cost.macs import count, count_params
from ghostify.errors import BudgetError, DataFileError, ModelError, PlanError
from ghostify.graph.probe import Probe, as_call
from ghostify.searches.architecture import Architecture
from ghostify.searches.factory import open_architecture
from ghostify.searches.space import parse_space
from tests.graph import networks

SPACE = parse_space(
    {
        "model": "net",
        "arguments": {"width": [1.0, 0.5, 2.0], "depth": [1, 2, 3]},
        "forbidden": [{"width": 0.5, "depth": 1}],
    }
)


class Costs:
    """Costs of width² x depth, counting how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, arguments: Mapping[str, Any]) -> dict[str, float]:
        self.asked.append(dict(arguments))
        if arguments == {"width": 2.0, "depth": 3}:
            raise ModelError("too large to build")
        macs = 100 * arguments["width"] ** 2 * arguments["depth"]
        return {"macs": macs, "params": macs / 10}


def test_costs_are_those_of_the_network_that_is_built() -> None:
    problem = Architecture(SPACE, Costs())

    found = problem.costs(np.array([[0, 0], [2, 1]]))

    assert found["macs"].tolist() == [100.0, 800.0]
    assert problem.original == {"macs": 100.0, "params": 10.0}
    assert problem.arguments(np.array([2, 1])) == {"width": 2.0, "depth": 2}
    assert problem.assignment({"width": 2.0, "depth": 2}).tolist() == [2, 1]


def test_a_network_is_built_once_even_by_two_processes(tmp_path: Path) -> None:
    first, second = Costs(), Costs()
    one = Architecture(SPACE, first, cache=tmp_path / "costs.jsonl", key="v1")
    one.costs(one.every())
    one.costs(one.every())

    other = Architecture(SPACE, second, cache=tmp_path / "costs.jsonl", key="v1")
    assert (other.costs(other.every())["macs"] == one.costs(one.every())["macs"]).all()

    assert len(first.asked) == len(one.every())
    assert second.asked == []
    assert len(Architecture(SPACE, second, cache=tmp_path / "costs.jsonl", key="v2").shape) == 2
    assert len(second.asked) == 1


def test_what_cannot_be_built_costs_infinitely_much() -> None:
    problem = Architecture(SPACE, Costs())

    assert problem.cost(np.array([2, 2]))["macs"] == np.inf
    assert list(problem.failed.values()) == ["too large to build"]


def test_a_repair_takes_the_nearest_that_holds_the_limits() -> None:
    problem = Architecture(SPACE, Costs())

    assert problem.repair(np.array([0, 0]), {"macs": 100.0}).tolist() == [0, 0]
    assert problem.repair(np.array([2, 1]), {"macs": 400.0}).tolist() == [1, 1]
    assert problem.repair(np.array([0, 2]), {"macs": 100.0}).tolist() == [1, 2]
    weights = [np.array([0.0, 9.0, 0.0]), np.array([1.0, 1.0, 1.0])]
    assert problem.repair(np.array([0, 2]), {"macs": 100.0}, weights=weights).tolist() == [0, 0]


def test_the_least_and_an_impossible_budget() -> None:
    problem = Architecture(SPACE, Costs())

    assert problem.least("macs") == 50.0  # width 0.5 and depth 2, since depth 1 is forbidden
    with pytest.raises(BudgetError) as error:
        problem.repair(np.array([0, 0]), {"macs": 10.0})
    assert str(error.value) == (
        "no arguments of the search space hold macs <= 10; the nearest possible budget is macs=50"
    )


def test_arguments_outside_the_space() -> None:
    problem = Architecture(SPACE, Costs())

    with pytest.raises(PlanError, match=r"width may be 1\.0, 0\.5, 2\.0 \(got 3\)"):
        problem.assignment({"width": 3, "depth": 1})
    with pytest.raises(PlanError, match="has no arguments to choose"):
        Architecture(parse_space({"layers": [{"match": "a", "choices": ["s2"]}]}), Costs())


def test_networks_are_built_by_their_function(tmp_path: Path) -> None:
    space = parse_space(
        {"model": "tests.graph.networks:plain", "arguments": {"channels": [8, 4, -1]}}
    )

    problem = open_architecture(space, input_size=(3, 16, 16), cache=tmp_path / "costs.jsonl")

    for place, channels in enumerate((8, 4)):
        model = networks.plain(channels)
        found = problem.cost(np.array([place]))
        counted = count(Probe(model, as_call(torch.zeros(1, 3, 16, 16))))
        assert found["macs"] == counted.macs
        assert found["params"] == count_params(model)
        assert found["size"] == 4 * count_params(model)
    assert problem.cost(np.array([2]))["macs"] == np.inf
    assert "building" in next(iter(problem.failed.values()))
    limit = {"macs": 0.5 * problem.original["macs"]}
    assert problem.repair(np.array([0]), limit).tolist() == [1]


def test_a_space_of_arguments_needs_a_model() -> None:
    with pytest.raises(DataFileError, match="names no model"):
        open_architecture(parse_space({"arguments": {"width": [1, 2]}}))
