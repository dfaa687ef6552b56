"""A whole search of a small network: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml

import ghostify
from ghostify import searched
from ghostify.errors import BudgetError, GhostifyError, OutputError, SearchError
from ghostify.searches.outcome import Outcome, plan_text
from ghostify.searching import Found, search
from tests.train.toys import SIDE

NAME = "searchable:Net"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from searchable import write_all

    return write_all(tmp_path_factory.mktemp("files"))


def begin(files: tuple[Path, Path], output: Path, **settings: Any) -> Found:
    weights, data = files
    usual: dict[str, Any] = {
        "weights": weights, "budget": "macs=0.6x", "trials": 10, "calibration": 24,
        "held_back": 24, "device": "cpu",
    }  # fmt: skip
    data = settings.pop("data", data)
    return search(settings.pop("model", NAME), data, output=output, **(usual | settings))


@pytest.fixture(scope="module")
def found(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Found:
    return begin(files, tmp_path_factory.mktemp("runs") / "run")


def test_the_best_plan_converts_within_the_budget_as_the_counter_counts(found: Found) -> None:
    net = ghostify.load_plan(found.path / "best.yaml")
    example = torch.zeros(1, 3, SIDE, SIDE)

    conversion = ghostify.convert(NAME, plan=net, example=example)

    assert found.best is not None
    assert conversion.before is not None
    assert conversion.after is not None
    assert conversion.after.macs == found.best.costs["macs"] <= 0.6 * conversion.before.macs
    assert conversion.after.params == found.best.costs["params"]
    assert net.layers == found.plan.layers  # type: ignore[union-attr]


def test_no_plan_that_was_evaluated_exceeds_the_budget(found: Found) -> None:
    told = found.outcome.as_json()

    assert told["trials"] == told["feasible"] == 10
    assert told["infeasible"] == 0
    assert told["finished"]
    for record in found.outcome.records:
        assert record.costs["macs"] <= 0.6 * found.outcome.original["macs"]


def test_the_best_is_the_best_of_all_trials(found: Found) -> None:
    assert found.best is not None
    assert found.best.score["divergence"] == min(
        record.score["divergence"] for record in found.outcome.records
    )


def test_the_table_holds_every_trial_and_variable(found: Found) -> None:
    table = pyarrow.parquet.read_table(found.path / "trials.parquet").to_pylist()

    assert [row["trial"] for row in table] == list(range(10))
    for row, record in zip(table, found.outcome.records, strict=True):
        assert row["divergence"] == record.score["divergence"]
        assert row["macs"] == record.costs["macs"]
        assert record.assignment is not None
        plan = found.outcome.layout.plan(record.assignment)
        chosen = {
            name.removeprefix("layer "): value
            for name, value in row.items()
            if name.startswith("layer ") and value != "keep"
        }
        assert chosen == plan


def test_the_front_is_not_beaten(found: Found) -> None:
    plans = yaml.safe_load((found.path / "pareto.yaml").read_text())["plans"]
    points = [(one["macs"], one["divergence"]) for one in plans]
    everything = [(one.costs["macs"], one.score["divergence"]) for one in found.outcome.records]

    assert points
    for macs, loss in points:
        assert not any((a <= macs and b <= loss and (a, b) != (macs, loss)) for a, b in everything)
        number = next(one["trial"] for one in plans if one["macs"] == macs)
        assert ghostify.load_plan(found.path / "pareto" / f"trial-{number}.yaml")


def test_pictures_are_written(found: Found) -> None:
    for name in ("progress", "pareto", "plan"):
        assert (found.path / "pictures" / f"{name}.svg").read_text().startswith("<?xml")
        assert (found.path / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_call_goes_on(files: tuple[Path, Path], tmp_path: Path) -> None:
    run, looks = tmp_path / "run", []

    def look(now: Outcome) -> None:
        looks.append(now)

    part = begin(files, run, on_look=look, should_stop=lambda: len(looks) > 4)
    assert not part.outcome.finished
    assert (run / "best.yaml").is_file()

    whole = begin(files, run)

    assert whole.outcome.finished
    done = [one.number for one in part.outcome.records if one.finished]
    assert 0 < len(done) < 10
    for number in done:
        assert whole.outcome.records[number].ended == part.outcome.records[number].ended
    straight = begin(files, tmp_path / "straight")
    assert [one.values for one in whole.outcome.records] == [
        one.values for one in straight.outcome.records
    ]


def test_more_trials_may_be_asked_for_later(files: tuple[Path, Path], tmp_path: Path) -> None:
    first = begin(files, tmp_path / "run", trials=4)

    second = begin(files, tmp_path / "run", trials=7)

    assert [one.values for one in second.outcome.records[:4]] == [
        one.values for one in first.outcome.records
    ]
    assert len(second.outcome.records) == 7


def test_showing_needs_no_network(found: Found) -> None:
    shown = searched.show(found.path).as_json()
    kept = json.loads((found.path / "outcome.json").read_text())

    assert shown["best"] == found.outcome.as_json()["best"] == kept["best"]
    assert shown["finished"]


def test_a_trial_comes_out_the_same_again(found: Found) -> None:
    again = searched.rerun(found.path, 7)

    assert again.same
    assert again.score["divergence"] == again.record.score["divergence"]


def test_a_climb_distils_the_best(files: tuple[Path, Path], tmp_path: Path) -> None:
    done = begin(files, tmp_path / "run", trials=None, climb="free=5,distil=2x3", pruner="none")

    best = done.best
    assert best is not None
    assert best.rung == "distil"
    assert best.score["steps"] == 3
    assert [one.rung for one in done.outcome.records] == ["free"] * 5 + ["distil"] * 2
    assert searched.rerun(tmp_path / "run", best.number).same


def test_a_finished_search_can_be_begun_from(
    files: tuple[Path, Path], found: Found, tmp_path: Path
) -> None:
    done = begin(files, tmp_path / "run", trials=6, exact=False, warm=[found.path])

    first = done.outcome.records[0]
    assert found.best is not None
    assert first.origin == "warm"
    assert first.assignment == found.best.assignment
    assert first.values == found.best.values

    tried = {one.assignment for one in done.outcome.records}
    other = next(one for one in found.outcome.records if one.assignment not in tried)
    plan = tmp_path / "late.yaml"
    plan.write_text(plan_text(found.outcome, other), encoding="utf-8")
    same = begin(files, tmp_path / "run", trials=6, exact=False, warm=[found.path])
    late = begin(files, tmp_path / "run", trials=7, exact=False, warm=[plan])

    assert not any("--warm-start" in note for note in same.notes)
    assert any("not tried; begin another search" in note for note in late.notes)


def test_objectives_can_be_weighed(files: tuple[Path, Path], tmp_path: Path) -> None:
    done = begin(files, tmp_path / "run", pareto=["macs", "top1"], sampler="nsga2")

    front = [(one.costs["macs"], one.score["top1"]) for one in done.outcome.front]
    assert front
    assert len(set(front)) == len(front)
    assert all(record.values is not None and len(record.values) == 2
               for record in done.outcome.records)  # fmt: skip


def test_images_are_invented_where_there_are_none(files: tuple[Path, Path], tmp_path: Path) -> None:
    done = begin(files, tmp_path / "run", data=None, trials=3)

    assert any("synthetic" in note for note in done.notes)
    assert np.isfinite([one.values for one in done.outcome.records]).all()


def test_two_workers_do_what_one_does(files: tuple[Path, Path], tmp_path: Path) -> None:
    done = begin(files, tmp_path / "run", trials=6, workers=2)

    records = done.outcome.records
    assert len(records) == 6
    assert all(one.finished for one in records)
    begun = begin(files, tmp_path / "alone", trials=6)
    mine = {one.assignment: one.values for one in records}
    for record in begun.outcome.records:
        if record.assignment in mine:
            assert mine[record.assignment] == record.values


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"budget": "macs=0.7x"}, "budget: macs=0.6x there, macs=0.7x here"),
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"held_back": 20}, "data: "),
        ({"model": "tests.train.toys:Toy"}, ""),
    ],
)
def test_another_search_is_refused(
    files: tuple[Path, Path], found: Found, settings: dict[str, Any], told: str
) -> None:
    before = (found.path / "search.json").read_text()

    with pytest.raises(GhostifyError) as caught:
        begin(files, found.path, **settings)

    if told:
        assert f"{found.path} belongs to another search (" in str(caught.value)
        assert told in str(caught.value)
    assert (found.path / "search.json").read_text() == before


def test_other_weights_are_refused(found: Found, files: tuple[Path, Path], tmp_path: Path) -> None:
    from searchable import write_all

    weights, _ = write_all(tmp_path, seed=4)

    with pytest.raises(SearchError, match=r"belongs to another search .*weights: "):
        begin(files, found.path, weights=weights)


def test_an_impossible_budget_is_refused_with_the_nearest(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match=r"nearest possible budget is macs=0\.\d+x"):
        begin(files, tmp_path / "run", budget="macs=0.01x")


def test_a_directory_of_something_else_is_left_alone(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("dear")

    with pytest.raises(OutputError, match="holds something that is no search"):
        begin(files, tmp_path)

    assert [one.name for one in tmp_path.iterdir()] == ["letter.txt"]


def test_several_workers_need_a_name(files: tuple[Path, Path], tmp_path: Path) -> None:
    from searchable import Net

    with pytest.raises(SearchError, match="several workers need a network that goes by name"):
        begin(files, tmp_path / "run", model=Net(), weights=None, workers=2)


def test_a_network_in_memory_can_be_searched(files: tuple[Path, Path], tmp_path: Path) -> None:
    from searchable import Net

    done = begin(files, tmp_path / "run", model=Net(), weights=None, trials=3)

    assert done.best is not None
    with pytest.raises(SearchError, match="a network in memory, which cannot be opened again"):
        searched.rerun(tmp_path / "run", 0)


def test_a_latency_budget_is_held_as_measured(files: tuple[Path, Path], tmp_path: Path) -> None:
    done = begin(
        files, tmp_path / "run", trials=3, budget="macs=0.8x,latency=5x@torch",
        table=tmp_path / "table.jsonl",
    )  # fmt: skip

    best = done.best
    assert best is not None
    measured = done.outcome.measured[best.number]["latency@torch"]
    assert 0 < measured <= 5 * done.outcome.original["latency@torch"]
    assert done.outcome.holds(best)
    assert (tmp_path / "table.jsonl").is_file()
    assert "as measured" in (tmp_path / "run" / "best.yaml").read_text()
    again = begin(
        files, tmp_path / "run", trials=3, budget="macs=0.8x,latency=5x@torch",
        table=tmp_path / "table.jsonl",
    )  # fmt: skip
    assert again.outcome.measured == done.outcome.measured
