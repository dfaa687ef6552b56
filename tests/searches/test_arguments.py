"""Searching the arguments that build a network, by training each from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import ghostify
from ghostify import searched
from ghostify.errors import BudgetError, GhostifyError, SearchError
from ghostify.models.zoo import build
from ghostify.searches.climb import Rung, parse_training
from ghostify.searching import Found, search

NAME = "searchable:Net"
SPACE = {"model": NAME, "arguments": {"width": [8, 4, 6, 12]}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from searchable import write_all

    return write_all(tmp_path_factory.mktemp("files"))[1]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "net.yaml"
    path.write_text(yaml.safe_dump(SPACE))
    return path


def begin(data: Path | None, space: Path, output: Path, **settings: Any) -> Found:
    usual: dict[str, Any] = {
        "budget": "macs=0.9x", "climb": "train=4x6@cifar-resnet", "held_back": 24, "device": "cpu",
        "pruner": "none",
    }  # fmt: skip
    return search(NAME, data, space=space, output=output, **(usual | settings))


@pytest.fixture(scope="module")
def found(data: Path, space: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    return begin(data, space, tmp_path_factory.mktemp("runs") / "run")


def test_only_what_holds_the_budget_is_trained(found: Found) -> None:
    widths = [found.outcome.layout.arguments(one.assignment or ()) for one in found.outcome.records]

    assert len(widths) == 4
    assert {one["width"] for one in widths} == {4, 6}
    for record, chosen in zip(found.outcome.records, widths, strict=True):
        counted = ghostify.inspect(build(NAME, args=chosen)).before
        assert record.costs["macs"] == counted.macs <= 0.9 * found.outcome.original["macs"]
        assert record.costs["params"] == counted.params
    assert sum(record.evaluated for record in found.outcome.records) == 2


def test_the_best_has_the_smallest_loss(found: Found) -> None:
    told = found.outcome.as_json()

    assert told["best"]["loss"] == min(one.score["loss"] for one in found.outcome.records)
    assert told["best"]["objective"] == "negative cross-entropy"
    assert told["best"]["arguments"] == found.arguments
    assert found.plan is None
    assert told["best"]["plan"] == {}
    written = yaml.safe_load((found.path / "best.yaml").read_text())
    assert written == {"model": NAME, "arguments": found.arguments}


def test_a_trial_comes_out_the_same_again(found: Found) -> None:
    again = searched.rerun(found.path, 0)

    assert again.same
    assert again.score["loss"] == found.outcome.records[0].score["loss"]


def test_it_can_be_shown_and_gone_on_with(found: Found, data: Path, space: Path) -> None:
    shown = searched.show(found.path).as_json()

    again = begin(data, space, found.path)

    assert shown["finished"]
    assert shown["best"] == found.outcome.as_json()["best"]
    assert [one.ended for one in again.outcome.records] == [
        one.ended for one in found.outcome.records
    ]


def test_the_given_arguments_are_the_original(data: Path, space: Path, tmp_path: Path) -> None:
    done = begin(
        data, space, tmp_path / "run", model_args={"width": 12}, budget="params=1x",
        sampler="brute", climb="train=9x1",
    )  # fmt: skip

    records = done.outcome.records
    widths = [done.outcome.layout.arguments(one.assignment or ())["width"] for one in records]
    assert widths[0] == 12
    assert sorted(widths) == [4, 6, 8, 12]
    wide = ghostify.inspect(build(NAME, args={"width": 12})).before
    assert done.outcome.original["params"] == wide.params


def test_two_workers_share_the_work(data: Path, space: Path, tmp_path: Path) -> None:
    done = begin(data, space, tmp_path / "run", workers=2, sampler="brute", climb="train=4x2")

    assert done.outcome.finished
    assert sum(record.evaluated for record in done.outcome.records) == 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"climb": None}, r"trains each network from scratch; give --climb train=N@RECIPE"),
        ({"climb": "free=9,train=2"}, r"give --climb train=N@RECIPE.*got 'free=9,train=2'"),
        ({"climb": "train=4@resnet-cifar"}, "no recipe is called 'resnet-cifar'"),
        ({"climb": "train=4", "trials": 9}, "--trials 9 and --climb train=4 contradict"),
        ({"weights": "net.th"}, "trains each network from scratch; leave weights out"),
        ({"data": None}, "needs labelled images; give --data"),
        ({"budget": "latency=5ms@torch"}, "cannot limit latency; limit macs, params or size"),
        ({"sampler": "guided"}, "guided models what layers lose, not arguments"),
        ({"warm": ["plan.yaml"]}, "does not begin from plans"),
        ({"pareto": ["macs", "divergence"]}, "no original to diverge from"),
    ],
)
def test_what_arguments_cannot_do_is_said(
    data: Path, space: Path, tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    images = settings.pop("data", data)

    with pytest.raises(GhostifyError, match=told):
        begin(images, space, tmp_path / "run", **settings)


def test_an_impossible_budget_is_refused_with_the_nearest(
    data: Path, space: Path, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match="nearest possible budget is macs="):
        begin(data, space, tmp_path / "run", budget="macs=0.01x")


def test_a_space_of_another_network_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="the search space is for ghostnet, not searchable:Net"):
        begin(data, Path("ghostnet"), tmp_path / "run")


def test_a_training_rung_says_how_long() -> None:
    assert parse_training("train=4x20@distil") == (Rung("train", 4, 20, "distil"),)
    assert parse_training("train=4", trials=4) == (Rung("train", 4, None, "cifar-resnet"),)
