"""Latency in a search: what was learnt from whole networks is in what is predicted next."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from searchable import Net

from ghostify import looking
from ghostify.models.zoo import Built
from ghostify.searches.clock import Clocks
from ghostify.searches.problem import Problem
from ghostify.searches.settle import problem_of
from ghostify.searches.subject import Network
from ghostify.spec import Origin
from tests.train.toys import SIDE

KEY = "latency@torch"


def problem(network: Network, clocks: Clocks | None = None) -> Problem:
    space = network.space(None)
    plain = problem_of(network, space)
    return plain if clocks is None else problem_of(network, space, clocks.models(plain))


def test_predictions_are_corrected_by_what_was_measured(tmp_path: Path) -> None:
    look = looking.look(Built(Net().eval(), Origin("memory", "Net"), (3, SIDE, SIDE)))
    network = Network(look, {})
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    clocks = Clocks(look, images, ["torch"], table=tmp_path / "table.jsonl")
    plain = problem(network)
    clocks.time_layers(plain)
    before = problem(network, clocks)
    rows = [plain.nothing() for _ in plain.variables]
    for place, row in enumerate(rows):
        row[: place + 1] = 1
    plans = [plain.plan(row) for row in rows]
    clocks.measure(plans)

    clocks.learn(plans)
    after = problem(network, clocks)

    line = clocks._tables["torch"].calibrate(plans)
    assert line.apply(1.0) != 1.0
    for row in rows:
        summed = before.cost(row)[KEY]
        assert after.cost(row)[KEY] == pytest.approx(line.apply(summed))
    assert after.original == before.original
