"""Workers, samplers and storages, on a search without a network."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import search_fakes as fakes
from optuna.trial import TrialState

from ghostify.errors import SearchError, StorageError
from ghostify.searches.agenda import Start, best_of, due, front_of, is_done, ranked, standing_of
from ghostify.searches.climb import parse_climb
from ghostify.searches.opening import all_plans
from ghostify.searches.study.ledger import Ledger, Pace, Ticket
from ghostify.searches.study.record import chains, is_final
from ghostify.searches.study.samplers import SAMPLERS
from ghostify.searches.study.storage import Patience, masked, open_storage, storage_url
from ghostify.searches.team import run_alone
from ghostify.searches.worker import Search, Worker


def ledger_at(folder: Path, search: Search, storage: str | None = None, **settings: Any) -> Ledger:
    made = open_storage(storage_url(storage, folder))
    return Ledger(made, "one", search.objectives, pace=fakes.PACE, **settings)


def run(folder: Path, search: Search, **settings: Any) -> tuple[Ledger, fakes.FakeEvaluator]:
    ledger, evaluator = ledger_at(folder, search, **settings), fakes.FakeEvaluator()
    assert run_alone(ledger, search, Worker(ledger, search, evaluator))
    return ledger, evaluator


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"brute"}))
def test_every_sampler_pays_for_feasible_plans_only(tmp_path: Path, sampler: str) -> None:
    search = fakes.search("macs=0.4x,params=0.6x", trials=12, sampler=sampler, layers=3)

    ledger, evaluator = run(tmp_path, search)

    records = ledger.records()
    assert [record.state for record in records] == ["complete"] * 12
    assert any(record.repaired for record in records)
    assert len(evaluator.plans) == sum(record.evaluated for record in records)
    for _, plan in evaluator.plans:
        cost = search.problem.cost(search.problem.assignment(plan))
        assert cost["macs"] <= 0.4 * search.problem.original["macs"]
        assert cost["params"] <= 0.6 * search.problem.original["params"]


def test_the_sampler_learns_from_what_was_evaluated(tmp_path: Path) -> None:
    """The parameters in the study are those of the repaired plan; the wish is noted beside."""
    search = fakes.search(trials=12, sampler="random")

    ledger, evaluator = run(tmp_path, search)

    study = ledger._study
    for trial, record, (_, plan) in zip(
        study.trials, ledger.records(), evaluator.plans, strict=True
    ):
        stored = {name: value for name, value in trial.params.items() if value != "keep"}
        assert stored == {name: str(spec) for name, spec in plan.layers.items()}
        assert trial.values == [-fakes.divergence(plan)]
        for name, (_wanted, given) in record.repaired.items():
            assert trial.params[name] == given
        assert max(trial.constraints.values()) <= 0


def test_no_plan_is_paid_for_twice(tmp_path: Path) -> None:
    """Beyond the number of feasible plans, the known score is written down again."""
    search = fakes.search("macs=0.5x", layers=2, trials=30, sampler="random")
    rows = np.array(list(itertools.product(range(4), repeat=2)))
    feasible = int(search.problem.feasible(rows, search.limits).sum())
    assert feasible < 16

    ledger, evaluator = run(tmp_path, search)

    records = ledger.records()
    assert len(records) == 30
    assert len(evaluator.plans) == len({plan.digest for _, plan in evaluator.plans}) == feasible
    for record in records:
        if record.same_as is not None:
            assert records[record.same_as].assignment == record.assignment
            assert records[record.same_as].values == record.values


def test_brute_force_finds_what_is_best(tmp_path: Path) -> None:
    search = fakes.search("macs=0.5x", layers=3, trials=64, sampler="brute")
    start = tuple(all_plans(search.problem, None, search.limits))
    search = fakes.search("macs=0.5x", layers=3, trials=len(start), sampler="brute", start=start)

    ledger, _ = run(tmp_path, search)

    best = best_of(ledger.records(), search.rungs)
    assert best is not None
    rows = np.array(list(itertools.product(range(4), repeat=3)))
    rows = rows[search.problem.feasible(rows, search.limits)]
    assert len(ledger.records()) == len(rows)
    assert best.score["divergence"] == min(
        fakes.divergence(search.problem.plan(row)) for row in rows
    )


def test_brute_force_of_a_large_space_is_refused() -> None:
    search = fakes.search(layers=10, sampler="brute")

    with pytest.raises(SearchError, match=r"would go through 1.05e\+06 plans"):
        all_plans(search.problem, None, search.limits)


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    search = fakes.search(trials=14)
    (tmp_path / "whole").mkdir()
    whole, _ = run(tmp_path / "whole", search)
    (tmp_path / "parts").mkdir()
    first = ledger_at(tmp_path / "parts", search)
    steps = itertools.count()
    worker = Worker(first, search, fakes.FakeEvaluator())
    assert not run_alone(first, search, worker, should_stop=lambda: next(steps) >= 6)

    second, _ = run(tmp_path / "parts", search)

    mine, theirs = second.records(), whole.records()
    assert [one.assignment for one in mine] == [one.assignment for one in theirs]
    assert [one.values for one in mine] == [one.values for one in theirs]


def test_the_best_of_one_rung_climb_to_the_next(tmp_path: Path) -> None:
    search = fakes.search(rungs=parse_climb("free=12,distil=4x8,train=2@distil"))

    ledger, evaluator = run(tmp_path, search, pruner="none")

    records = ledger.records()
    by_rung = {kind: [one for one in records if one.rung == kind] for kind in ("free", "distil")}
    best = ranked(by_rung["free"])[:4]
    assert [one.assignment for one in by_rung["distil"]] == [one.assignment for one in best]
    assert [one.source for one in by_rung["distil"]] == [one.number for one in best]
    assert [kind for kind, _ in evaluator.plans] == ["free"] * 12 + ["distil"] * 4 + ["train"] * 2
    found = best_of(records, search.rungs)
    assert found is not None
    assert found.rung == "train"
    assert found.assignment == ranked(by_rung["distil"])[0].assignment


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_poor_trainings_are_ended(tmp_path: Path, pruner: str) -> None:
    search = fakes.search(rungs=parse_climb("free=16,distil=12x8"), sampler="random")

    ledger, _ = run(tmp_path, search, pruner=pruner)

    distilled = [one for one in ledger.records() if one.rung == "distil"]
    assert {one.state for one in distilled} == {"complete", "pruned"}
    pruned = [one for one in distilled if one.state == "pruned"]
    done = [one for one in distilled if one.state == "complete"]
    assert min(one.score["steps"] for one in pruned) < 8
    assert min(map(_loss, done)) < min(map(_loss, pruned))
    assert distilled[0].state == "complete"  # nothing to compare it with


def _loss(record: Any) -> float:
    return float(-record.steps[min(record.steps)])


def test_several_objectives_give_a_front(tmp_path: Path) -> None:
    objectives = {"macs": "minimize", "score": "maximize"}
    search = fakes.search("macs=0.9x", layers=3, trials=25, sampler="nsga2", objectives=objectives)

    ledger, _ = run(tmp_path, search)

    records = ledger.records()
    front = front_of(ranked(records), objectives)
    points = [(one.costs["macs"], -one.score["score"]) for one in records]
    beaten = [any(b[0] <= a[0] and b[1] <= a[1] and b != a for b in points) for a in points]
    alone = {point for point, lost in zip(points, beaten, strict=True) if not lost}
    assert {(one.costs["macs"], -one.score["score"]) for one in front} == alone
    assert len(front) > 3


def test_cma_es_weighs_one_objective_only(tmp_path: Path) -> None:
    objectives = {"macs": "minimize", "score": "maximize"}
    search = fakes.search(sampler="cmaes", objectives=objectives)
    ledger = ledger_at(tmp_path, search)
    worker = Worker(ledger, search, fakes.FakeEvaluator())

    with pytest.raises(SearchError, match="no plan can be scored: cmaes weighs one objective"):
        run_alone(ledger, search, worker)


def test_starts_come_first(tmp_path: Path) -> None:
    start = (Start("exact", (3, 3, 3, 3, 3, 3)), Start("neighbour", (3, 3, 3, 3, 3, 2)))
    search = fakes.search(trials=5, start=start)

    ledger, _ = run(tmp_path, search)

    records = ledger.records()
    assert [one.origin for one in records[:3]] == ["exact", "neighbour", ""]
    assert records[1].assignment == (3, 3, 3, 3, 3, 2)


def test_a_queued_plan_beyond_the_budget_is_not_evaluated(tmp_path: Path) -> None:
    search = fakes.search(trials=4, start=(Start("warm", (0,) * 6),))

    ledger, evaluator = run(tmp_path, search)

    assert len(evaluator.plans) == 3
    attempts = chains(ledger.records())["free:0"]
    assert [one.state for one in attempts] == ["failed", "failed"]
    assert "does not hold the budget" in attempts[-1].error


def test_a_plan_that_fails_is_tried_once_more(tmp_path: Path) -> None:
    class Moody(fakes.FakeEvaluator):
        def score(self, plan: Any, *args: Any, **more: Any) -> Any:
            found = super().score(plan, *args, **more)
            if len(self.plans) == 2:
                raise RuntimeError("out of luck")
            return found

    search = fakes.search(trials=4)
    ledger = ledger_at(tmp_path, search)

    assert run_alone(ledger, search, Worker(ledger, search, Moody()))

    attempts = chains(ledger.records())["free:1"]
    assert [one.state for one in attempts] == ["failed", "complete"]
    assert attempts[0].assignment == attempts[1].assignment
    assert attempts[1].retry_of == attempts[0].number
    assert "out of luck" in attempts[0].error


def test_a_search_in_which_nothing_works_gives_up(tmp_path: Path) -> None:
    class Broken(fakes.FakeEvaluator):
        def score(self, *args: Any, **more: Any) -> Any:
            raise RuntimeError("no memory left")

    search = fakes.search(trials=40)
    ledger = ledger_at(tmp_path, search)

    with pytest.raises(SearchError, match=r"no plan can be scored: .*no memory left"):
        run_alone(ledger, search, Worker(ledger, search, Broken()))
    assert len(ledger.records()) < 12


def test_a_ticket_that_stands_twice_is_evaluated_once(tmp_path: Path) -> None:
    search = fakes.search(trials=3)
    ledger = ledger_at(tmp_path, search)
    ledger.use(search.parameters())
    ledger.queue([Ticket(f"free:{number}", "free") for number in (0, 0, 1, 1, 2)])
    evaluator = fakes.FakeEvaluator()

    assert run_alone(ledger, search, Worker(ledger, search, evaluator))

    assert [one.state for one in ledger.records()] == [
        "complete", "void", "complete", "void", "complete",
    ]  # fmt: skip
    assert len(evaluator.plans) == 3


def test_a_lost_trial_is_queued_again_once_however_many_notice(tmp_path: Path) -> None:
    search = fakes.search(trials=1)
    lost = ledger_at(tmp_path, search, storage=str(tmp_path / "a.journal"))
    lost.use(search.parameters())
    lost.queue(due([], search.rungs, (), ahead=1))
    claim = lost.claim()
    assert claim is not None
    lost._storage.set_trial_user_attr(claim.identity, "worker", {**lost._me, "began": "1"})
    others = [ledger_at(tmp_path, search, storage=str(tmp_path / "a.journal")) for _ in range(4)]
    for other in others:
        other.use(search.parameters())

    threads = [threading.Thread(target=other.heal) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    records = others[0].records()
    assert [one.state for one in records] == ["failed", "waiting"]
    assert records[1].ticket == "free:0~1"
    assert records[1].retry_of == 0


def test_a_silent_worker_of_another_machine_counts_as_lost(tmp_path: Path) -> None:
    search = fakes.search(trials=1)
    quick = Pace(beat_s=0.1, grace_s=0.4)
    ledger = Ledger(open_storage(storage_url(None, tmp_path)), "one", search.objectives, pace=quick)
    ledger.use(search.parameters())
    ledger.queue(due([], search.rungs, (), ahead=1))
    claim = ledger.claim()
    assert claim is not None
    ledger._storage.set_trial_user_attr(claim.identity, "worker", {"system": "afar", "pid": 1})

    with ledger.beating(claim):  # heard of: not lost
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            assert ledger.heal() == 0
            time.sleep(0.05)
    until = time.monotonic() + 10
    while not ledger.heal() and time.monotonic() < until:
        time.sleep(0.05)

    assert [one.state for one in ledger.records()] == ["failed", "waiting"]
    trial = claim.trial
    assert trial is None
    assert not ledger._close(claim.identity)  # the silent one's own result comes too late


def test_one_who_dies_between_closing_and_queuing_is_made_good(tmp_path: Path) -> None:
    search = fakes.search(trials=1)
    quick = Pace(beat_s=0.1, grace_s=0.3)
    ledger = Ledger(open_storage(storage_url(None, tmp_path)), "one", search.objectives, pace=quick)
    ledger.use(search.parameters())
    ledger.queue(due([], search.rungs, (), ahead=1))
    claim = ledger.claim()
    assert claim is not None
    ledger._storage.set_trial_state_values(claim.identity, TrialState.FAIL)

    until = time.monotonic() + 10
    while not ledger.heal() and time.monotonic() < until:
        time.sleep(0.05)

    assert [one.state for one in ledger.records()] == ["failed", "waiting"]
    assert not is_done(ledger.records(), search.rungs, ())


def test_work_that_is_given_back_is_done_by_the_next(tmp_path: Path) -> None:
    search = fakes.search(rungs=parse_climb("free=3,distil=1x8"))
    ledger = ledger_at(tmp_path, search)
    stop = threading.Event()

    class Slow(fakes.FakeEvaluator):
        def score(self, plan: Any, rung: Any, **more: Any) -> Any:
            if rung.kind == "distil":
                stop.set()
            return super().score(plan, rung, **more)

    worker = Worker(ledger, search, Slow(), should_stop=stop.is_set)
    assert not run_alone(ledger, search, worker, should_stop=stop.is_set)
    assert [one.state for one in ledger.records()[3:]] == ["failed", "waiting"]

    _, evaluator = run(tmp_path, search)

    assert [kind for kind, _ in evaluator.plans] == ["distil"]
    records = ledger.records()
    assert standing_of(records, search.rungs).failed == 0
    assert all(map(is_final, chains(records).values()))


@pytest.mark.parametrize("kind", ["sqlite", "file", "journal", "url"])
def test_every_local_storage_holds_a_search(tmp_path: Path, kind: str) -> None:
    storage = {
        "sqlite": None,
        "file": str(tmp_path / "x.db"),
        "journal": str(tmp_path / "x.journal"),
        "url": f"journal://{tmp_path}/y",
    }[kind]
    search = fakes.search(trials=4)

    ledger, _ = run(tmp_path, search, storage=storage)

    again = ledger_at(tmp_path, search, storage=storage)
    again.use(search.parameters())
    assert [one.values for one in again.records()] == [one.values for one in ledger.records()]
    assert not again.created


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("postgres://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
        ("mysql://u@h/d", "mysql+pymysql://u@h/d"),
        ("grpc://h:1", "grpc://h:1"),
    ],
)
def test_urls_name_a_driver_that_the_extras_install(text: str, url: str, tmp_path: Path) -> None:
    assert storage_url(text, tmp_path) == url


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nowhere", "a storage is a URL such as postgresql://"),
        ("redis://h", "no storage is called 'redis'"),
        ("grpc://", "a gRPC proxy is written grpc://host:port"),
        ("postgresql+psycopg2://u:secret@h/d", "needs the package psycopg2; install psycopg2"),
        ("postgresql://u:secret@127.0.0.1:9/d", "cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_is_told_in_a_sentence(
    text: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match=re.escape(told)) as caught:
        open_storage(storage_url(text, tmp_path), patience=Patience(first_s=0.2))

    assert "secret" not in str(caught.value)


def test_passwords_are_masked() -> None:
    assert masked("postgresql://me:pa/ss@host/db") == "postgresql://me:***@host/db"
    assert masked("postgresql://me@host/db") == "postgresql://me@host/db"


def test_a_locked_file_is_waited_for(tmp_path: Path) -> None:
    search = fakes.search(trials=2)
    ledger = ledger_at(tmp_path, search)
    ledger.use(search.parameters())
    other = sqlite3.connect(tmp_path / "study.db", check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(1.0, lambda: (other.rollback(), other.close()))
    timer.start()

    ledger.queue(due([], search.rungs, (), ahead=2))

    timer.join()
    assert len(ledger.records()) == 2


def test_a_study_with_other_objectives_is_refused(tmp_path: Path) -> None:
    search = fakes.search()
    ledger_at(tmp_path, search)
    other = fakes.search(objectives={"macs": "minimize", "score": "maximize"})

    with pytest.raises(SearchError, match="optimises 1 objectives"):
        ledger_at(tmp_path, other)


def test_notes_are_plain_values(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path, fakes.search())

    ledger.note("start", [["exact", [1, 2]]])

    assert json.loads(json.dumps(ledger.notes())) == {"start": [["exact", [1, 2]]]}


def test_importance_finds_the_variable_that_matters(tmp_path: Path) -> None:
    class OneLayer(fakes.FakeEvaluator):
        def score(self, plan: Any, *args: Any, **more: Any) -> Any:
            super().score(plan, *args, **more)
            spec = plan.layers.get("conv1")
            return fakes.FakeScore(0.1 if spec is None else spec.ratio)

    search = fakes.search("macs=0.9x", layers=3, trials=40, sampler="random")
    ledger = ledger_at(tmp_path, search)
    assert run_alone(ledger, search, Worker(ledger, search, OneLayer()))

    found = ledger.importances("free")

    assert max(found, key=lambda name: found[name]) == "conv1"
