"""Ghost modules only where they are faster, on a bench whose times are given."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import nn

import ghostify
from ghostify.cost.table import LatencyTable
from ghostify.errors import InputError
from ghostify.only_faster import Faster, FasterOptions, faster_plan
from ghostify.plan import Plan
from tests.cost.bench import FakeBench, FakeSession, network

IMAGE = torch.randn(1, 3, 16, 16)


def chosen(
    tmp_path: Path, bench: FakeBench, model: nn.Module | None = None, *, margin: float = 0.02
) -> Faster:
    model = model or network()
    found = ghostify.inspect(model, example=IMAGE)
    options = FasterOptions("fake", margin=margin, rounds=5, table=tmp_path / "table.jsonl")
    table = LatencyTable.open(options.table)
    return faster_plan(model, found.plan, found.sites, (IMAGE,), options, bench=bench, table=table)


def test_layers_that_lose_stay_dense(tmp_path: Path) -> None:
    found = chosen(tmp_path, FakeBench({12: 0.5, 16: -0.25, 20: 0.75, 24: 0.3}))

    assert list(found.plan) == ["3", "9", "12"]
    assert [one.name for one in found.dropped] == ["6"]
    assert found.dropped[0].why == (
        "its ghost is not faster on fake (4.6 ms dense, 4.85 ms ghosted)"
    )
    assert found.trial is not None
    assert found.trial.speedup == pytest.approx(9 / (9 - 1.55))
    assert [trial.layers for trial in found.trials] == [4, 3]
    assert found.what == (
        "kept 3 of 4 Ghost modules, gave up 1 (1 that lose by the latency table): 7.45 ms instead "
        "of 9 ms on fake, 1.21x"
    )


def test_a_layer_has_to_win_by_the_margin(tmp_path: Path) -> None:
    """The piece around layer 3 takes 1 + 1.2 + 1.6 ms; 0.2 of 3.8 are 5.3 %."""
    gains = {12: 0.2, 20: 2.0, 16: 1.5, 24: 2.0}
    bench = FakeBench(gains, company=0.15)

    assert list(chosen(tmp_path, bench, margin=0.05).plan) == ["3", "6", "9", "12"]
    found = chosen(tmp_path, bench, margin=0.06)

    assert [trial.layers for trial in found.trials] == [3, 4]  # the slower one first


def test_what_loses_alone_may_win_in_company(tmp_path: Path) -> None:
    """Each Ghost module among others is 0.3 ms faster than in its own surroundings."""
    found = chosen(tmp_path, FakeBench({12: 0.5, 16: -0.2, 20: 0.75, 24: 0.3}, company=-0.3))

    assert list(found.plan) == ["3", "6", "9", "12"]
    assert found.dropped == ()
    assert found.what.startswith("kept 4 of 4 Ghost modules: ")


def test_a_network_that_is_slower_backs_off_by_halves(tmp_path: Path) -> None:
    """All four win alone, but each takes 0.7 ms more in the whole: only layer 9 is worth it."""
    found = chosen(tmp_path, FakeBench({12: 0.3, 16: 0.4, 20: 0.9, 24: 0.45}, company=0.7))

    assert [trial.layers for trial in found.trials] == [4, 2, 1]
    assert [trial.faster for trial in found.trials] == [False, False, True]
    assert list(found.plan) == ["9"]
    assert found.dropped[0].why == (
        "given up so that the network is faster on fake (3.8 ms dense, 3.5 ms ghosted)"
    )


def test_in_the_end_nothing_is_converted(tmp_path: Path) -> None:
    found = chosen(tmp_path, FakeBench({12: 0.3, 16: 0.4, 20: 0.9, 24: 0.45}, company=1.0))

    assert len(found.plan) == 0
    assert found.trial is None
    assert [trial.layers for trial in found.trials] == [4, 2, 1]
    assert found.what == (
        "nothing was converted: none of 4 Ghost modules is surely faster on fake; 1 of them took "
        "1.01x the original's time"
    )
    assert found.as_json()["speedup"] == 1.0


def test_if_every_layer_loses_the_whole_is_tried_once(tmp_path: Path) -> None:
    found = chosen(tmp_path, FakeBench({12: -0.3, 16: -0.4, 20: -0.9, 24: -0.45}))

    assert [trial.layers for trial in found.trials] == [4]
    assert len(found.plan) == 0


def test_a_gain_within_the_noise_is_not_worth_a_ghost(tmp_path: Path) -> None:
    """Runs differ by a tenth; a hundredth cannot be told from that."""

    class Shaky(FakeSession):
        def __init__(self, ms: float, seed: int) -> None:
            super().__init__(ms)
            self.numbers = random.Random(seed)

        def time(self, repeats: int) -> float:
            return super().time(repeats) * self.numbers.uniform(0.9, 1.1)

    class ShakyBench(FakeBench):
        def session(self, model: nn.Module, example: object, *, draft: bool) -> FakeSession:
            made = super().session(model, example, draft=draft)  # type: ignore[arg-type]
            return made if draft else Shaky(made.ms, len(self.sessions))

    small, large = tmp_path / "small", tmp_path / "large"
    assert len(chosen(small, ShakyBench({12: 0.09}), margin=0.0).plan) == 0
    assert len(chosen(large, ShakyBench({12: 1.1}), margin=0.0).plan) == 1


def test_a_layer_that_cannot_be_timed_stays_dense(tmp_path: Path) -> None:
    """The runtime takes no Ghost module of 16 maps, in no network."""

    class Picky(FakeBench):
        def session(self, model: nn.Module, example: object, *, draft: bool) -> FakeSession:
            if not draft:
                self.refuse = 0
            return super().session(model, example, draft=draft)  # type: ignore[arg-type]

    found = chosen(tmp_path, Picky({12: 0.5, 16: -2.0, 20: 0.75, 24: 0.3}, refuse=16))

    assert list(found.plan) == ["3", "9", "12"]
    assert found.dropped[0].why == "could not be timed on fake"
    assert "could not be timed, such as 6" in found.notes[0]


def test_layers_that_share_a_weight_are_kept_or_dropped_together(tmp_path: Path) -> None:
    model = network()
    model.extend(nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3)))
    model[17].weight = model[15].weight

    found = chosen(tmp_path, FakeBench({12: 0.5, 16: 0.5, 20: 0.75, 24: -0.3}), model)

    assert list(found.plan) == ["3", "6", "9"]
    assert {one.name for one in found.dropped} == {"12", "15", "17"}


def test_the_empty_plan_measures_nothing(tmp_path: Path) -> None:
    bench = FakeBench()
    sites = ghostify.inspect(network(), example=IMAGE).sites

    found = faster_plan(
        network(),
        Plan.empty(),
        sites,
        (IMAGE,),
        FasterOptions("fake"),
        bench=bench,
        table=LatencyTable.open(tmp_path / "table.jsonl"),
    )

    assert len(found.plan) == 0
    assert bench.sessions == []


def test_all_sessions_are_closed_and_the_model_is_as_it_was(tmp_path: Path) -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bench = FakeBench({12: 0.3, 16: 0.4, 20: 0.9, 24: 0.45}, company=0.6)

    chosen(tmp_path, bench, model)

    assert all(session.closed for session in bench.sessions)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_entry_is_plain_and_complete(tmp_path: Path) -> None:
    entry = chosen(tmp_path, FakeBench({12: 0.5, 16: -0.25, 20: 0.75, 24: 0.3})).as_json()

    assert entry["kind"] == "only-faster"
    assert (entry["runtime"], entry["threads"], entry["batch"]) == ("fake", 1, 1)
    assert (entry["original_ms"], entry["ms"]) == (9.0, 7.45)
    assert entry["kept"] == ["3", "9", "12"]
    assert entry["gave_up"] == [
        {
            "name": "6",
            "why": "its ghost is not faster on fake (4.6 ms dense, 4.85 ms ghosted)",
            "dense_ms": 4.6,
            "ghost_ms": 4.85,
        }
    ]
    assert entry["foreign"] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 0}, "threads is a whole number from 1 on (got 0)"),
        ({"batch": 1.5}, "batch is a whole number from 1 on (got 1.5)"),
        ({"margin": 1.0}, "a margin is a share from 0 to below 1 (got 1.0)"),
        ({"margin": float("nan")}, "a margin is a share from 0 to below 1 (got nan)"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        FasterOptions("fake", **changes)  # type: ignore[arg-type]

    assert str(error.value) == message
