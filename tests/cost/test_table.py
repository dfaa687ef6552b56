"""The latency table: timed once, kept, carried, mended; predictions of an additive machine."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import torch
from torch import nn

import ghostify
from ghostify.cost.correction import Correction, fit_correction
from ghostify.cost.machine import fingerprint
from ghostify.cost.network_table import NetworkTable
from ghostify.cost.table import LatencyTable
from ghostify.cost.table_file import TableFile, cache_folder
from ghostify.errors import OutputError, TableError
from ghostify.plan import Plan
from ghostify.spec import GhostSpec
from tests.cost.bench import FakeBench, network

IMAGE = torch.randn(1, 3, 16, 16)
GAINS = {12: 0.5, 16: -0.25, 20: 0.75, 24: 0.125}
NAMES = ("3", "6", "9", "12")
CHOICES = {name: [GhostSpec(2)] for name in NAMES}


def times(path: Path, bench: FakeBench, model: nn.Module | None = None) -> NetworkTable:
    model = model or network()
    sites = ghostify.inspect(model, example=IMAGE).sites
    return NetworkTable(LatencyTable.open(path), model, (IMAGE,), sites, bench)


def random_plan(seed: int) -> Plan:
    numbers = random.Random(seed)
    return Plan({name: GhostSpec(2) for name in NAMES if numbers.random() < 0.5})


def test_each_layer_is_timed_beside_its_dense_self(tmp_path: Path) -> None:
    found = times(tmp_path / "table.jsonl", FakeBench(GAINS))

    found.ensure(CHOICES)

    gains = [found.gain_ms(name, GhostSpec(2)) for name in NAMES]
    assert gains == pytest.approx([0.5, -0.25, 0.75, 0.125])


def test_layers_that_are_alike_are_timed_once(tmp_path: Path) -> None:
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1)]
    for _ in range(4):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    bench = FakeBench()
    found = times(tmp_path / "table.jsonl", bench, nn.Sequential(*layers))
    names = ["1", "3", "5", "7"]

    found.ensure({name: [GhostSpec(2)] for name in names})

    assert bench.drafts == 2 * 2  # the last one has no reader behind it
    assert None not in [found.gain_ms(name, GhostSpec(2)) for name in names]


def test_a_layer_that_runs_twice_saves_twice(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 3)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.body(self.body(self.stem(image)))
            return found

    found = times(tmp_path / "table.jsonl", FakeBench(GAINS), Twice())
    found.ensure({"body": [GhostSpec(2)]})

    single = found.time_of("body", GhostSpec(2))
    assert single is not None
    assert found.gain_ms("body", GhostSpec(2)) == pytest.approx(2 * single.gain_ms)


def test_a_table_is_taken_up_again(tmp_path: Path) -> None:
    first = times(tmp_path / "table.jsonl", FakeBench(GAINS))
    first.ensure({"3": [GhostSpec(2)], "6": [GhostSpec(2)]})
    again = FakeBench(GAINS)
    second = times(tmp_path / "table.jsonl", again)
    steps: list[tuple[int, int, str]] = []

    assert second.missing(CHOICES) == 2
    second.ensure(CHOICES, on_progress=lambda *step: steps.append(step))

    assert again.drafts == 2 * 2
    assert [step[:2] for step in steps] == [(0, 2), (1, 2), (2, 2)]
    assert second.missing(CHOICES) == 0
    assert second.table.notes == ()


def test_an_interrupted_table_keeps_what_was_timed(tmp_path: Path) -> None:
    found = times(tmp_path / "table.jsonl", FakeBench(GAINS))

    def stop(done: int, _of: int, _what: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found.ensure(CHOICES, on_progress=stop)

    assert times(tmp_path / "table.jsonl", FakeBench(GAINS)).missing(CHOICES) == 2


def test_another_setting_or_version_or_thread_is_another_time(tmp_path: Path) -> None:
    times(tmp_path / "table.jsonl", FakeBench(GAINS)).ensure(CHOICES)

    other = FakeBench(GAINS, version="2.0")
    threads = FakeBench(GAINS)
    threads.conditions = dataclasses.replace(threads.conditions, threads=2)
    assert times(tmp_path / "table.jsonl", other).missing(CHOICES) == 4
    assert times(tmp_path / "table.jsonl", threads).missing(CHOICES) == 4
    again = times(tmp_path / "table.jsonl", FakeBench(GAINS))
    assert again.missing({name: [GhostSpec(3)] for name in NAMES}) == 4


@pytest.mark.parametrize("seed", range(5))
def test_on_an_additive_machine_the_prediction_is_exact(tmp_path: Path, seed: int) -> None:
    bench = FakeBench(GAINS)
    found = times(tmp_path / "table.jsonl", bench)
    found.ensure(CHOICES)
    plan = random_plan(seed)

    [_, measured] = found.measure([Plan.empty(), plan], rounds=3)

    saved = sum(GAINS[maps] for name, maps in zip(NAMES, GAINS, strict=True) if name in plan.layers)
    assert found.predict(plan) == pytest.approx(1 + 8.0 - saved)
    assert measured.ms == pytest.approx(found.predict(plan))


def test_what_layers_take_in_company_is_corrected_for(tmp_path: Path) -> None:
    """Every Ghost module takes 0.05 ms more among others: about linear in what is saved."""
    bench = FakeBench({12: 0.5, 16: 0.5, 20: 0.5, 24: 0.5}, company=0.05)
    found = times(tmp_path / "table.jsonl", bench)
    found.ensure(CHOICES)
    known = [Plan.empty(), Plan(dict.fromkeys(NAMES, GhostSpec(2))), random_plan(3)]
    found.measure(known, rounds=3)
    plan = Plan({"3": GhostSpec(2)})
    [measured] = found.measure([plan], rounds=3)
    before = found.predict(plan)

    correction = found.calibrate(known)

    assert before == pytest.approx(measured.ms - 0.05)
    assert found.predict(plan) == pytest.approx(measured.ms)
    assert correction.slope == pytest.approx(0.9)


def test_networks_are_measured_once(tmp_path: Path) -> None:
    plans = [random_plan(seed) for seed in range(4)]
    times(tmp_path / "table.jsonl", FakeBench(GAINS)).measure(plans, rounds=3)
    again = FakeBench(GAINS)

    times(tmp_path / "table.jsonl", again).measure(plans, rounds=3)

    assert again.sessions == []


def test_a_prediction_without_its_times_says_what_is_missing(tmp_path: Path) -> None:
    found = times(tmp_path / "table.jsonl", FakeBench(GAINS))

    with pytest.raises(TableError, match="does not hold the original network"):
        found.predict(Plan.empty())
    found.measure([Plan.empty()], rounds=3)
    with pytest.raises(TableError, match="does not hold 6 with s2,d3 on fake"):
        found.predict(Plan({"6": GhostSpec(2)}))
    with pytest.raises(TableError, match="measure some first"):
        found.calibrate([Plan({"6": GhostSpec(2)})])


def test_a_piece_that_the_runtime_cannot_take_is_noted(tmp_path: Path) -> None:
    found = times(tmp_path / "table.jsonl", FakeBench(GAINS, refuse=16))

    found.ensure(CHOICES)

    assert found.gain_ms("6", GhostSpec(2)) is None
    assert found.gain_ms("9", GhostSpec(2)) == pytest.approx(0.75)
    assert found.notes == ("1 layers could not be timed, such as 6: fake cannot take the network "
                           "(too narrow)",)  # fmt: skip


def test_every_session_is_closed(tmp_path: Path) -> None:
    bench = FakeBench(GAINS, refuse=16)
    found = times(tmp_path / "table.jsonl", bench)

    found.ensure(CHOICES)
    found.measure([Plan({"3": GhostSpec(2)})], rounds=3)

    assert all(session.closed for session in bench.sessions)


def elsewhere(path: Path, target: Path) -> None:
    """Write a table as if another machine had measured it."""
    made = TableFile(target)
    for entry in TableFile(path):
        made.add(entry | {"machine": "0123456789ab", "machine_name": "Other CPU"})


def test_a_table_of_another_machine_is_used_where_it_is_named(tmp_path: Path) -> None:
    times(tmp_path / "own.jsonl", FakeBench(GAINS)).ensure(CHOICES)
    elsewhere(tmp_path / "own.jsonl", tmp_path / "other.jsonl")
    bench = FakeBench()
    found = times(tmp_path / "other.jsonl", bench)

    found.ensure(CHOICES)

    assert bench.drafts == 0
    assert found.gain_ms("9", GhostSpec(2)) == pytest.approx(0.75)
    assert found.table.foreign == ("Other CPU",)
    assert found.table.notes == (
        f"the latency table {tmp_path / 'other.jsonl'} was measured on another machine "
        "(Other CPU): its times are foreign",
    )


def test_own_times_come_before_foreign_ones(tmp_path: Path) -> None:
    times(tmp_path / "slow.jsonl", FakeBench()).ensure(CHOICES)
    elsewhere(tmp_path / "slow.jsonl", tmp_path / "table.jsonl")
    times(tmp_path / "own.jsonl", FakeBench(GAINS)).ensure(CHOICES)
    both = TableFile(tmp_path / "table.jsonl")
    for entry in TableFile(tmp_path / "own.jsonl"):
        both.add(entry)

    found = times(tmp_path / "table.jsonl", FakeBench())

    assert found.gain_ms("9", GhostSpec(2)) == pytest.approx(0.75)
    assert found.table.foreign == ()


def test_the_own_table_ignores_foreign_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GHOSTIFY_CACHE", str(tmp_path / "cache"))
    times(tmp_path / "own.jsonl", FakeBench(GAINS)).ensure(CHOICES)
    own = cache_folder() / "latency" / f"{fingerprint().digest}.jsonl"
    elsewhere(tmp_path / "own.jsonl", own)

    table = LatencyTable.open()

    sites = ghostify.inspect(network(), example=IMAGE).sites
    assert table.path == own
    found = NetworkTable(table, network(), (IMAGE,), sites, FakeBench())
    assert found.missing(CHOICES) == 4


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: text[:-20],  # cut off
        lambda text: text.replace('"ghost_ms":', '"ghost_ms":1', 1),
        lambda text: text.replace("crc", "rcr", 1),
        lambda text: text.replace('{"crc"', "\x00\x00", 1),
        lambda text: "not a table\n" + text.partition("\n")[2],
        lambda text: "[1, 2]\n" + text.partition("\n")[2],
        lambda text: '{"crc": 0, "entry": null}\n' + text.partition("\n")[2],
    ],
)
def test_a_damaged_table_is_rebuilt_and_says_so(tmp_path: Path, harm: object) -> None:
    file = tmp_path / "table.jsonl"
    gains = {12: 1.0, 16: 1.2, 20: 1.8, 24: 2.0}
    times(file, FakeBench(gains)).ensure(CHOICES)
    text = file.read_text()
    harmed = harm(text)  # type: ignore[operator]
    assert harmed != text
    file.write_text(harmed)

    found = times(file, FakeBench(gains))

    assert found.missing(CHOICES) == 1
    assert found.table.notes == (
        f"the latency table {file} was damaged: it was rebuilt without 1 of its lines, which are "
        "measured again; table.jsonl.damaged is what it was",
    )
    assert (tmp_path / "table.jsonl.damaged").read_text() == harmed
    found.ensure(CHOICES)
    mended = times(file, FakeBench(gains))
    assert (mended.missing(CHOICES), mended.table.notes) == (0, ())


def test_a_table_that_is_nothing_but_noise_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "table.jsonl"
    file.write_bytes(bytes(range(256)) * 4)

    found = LatencyTable.open(file)

    assert len(found) == 0
    assert "was damaged" in found.notes[0]


def test_an_entry_with_impossible_times_is_not_used(tmp_path: Path) -> None:
    times(tmp_path / "own.jsonl", FakeBench(GAINS)).ensure(CHOICES)
    changed = TableFile(tmp_path / "table.jsonl")
    for entry in TableFile(tmp_path / "own.jsonl"):
        changed.add(entry | {"dense_ms": -1.0})

    found = times(tmp_path / "table.jsonl", FakeBench(GAINS))

    assert found.missing(CHOICES) == 4
    assert "without 4 of its lines" in found.table.notes[0]


def test_any_other_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "thesis.txt"
    file.write_text("chapter one\n")

    with pytest.raises(TableError, match=r"thesis.txt is no latency table; name another file"):
        LatencyTable.open(file)
    with pytest.raises(OutputError, match="is a directory; name a file"):
        LatencyTable.open(tmp_path)

    assert file.read_text() == "chapter one\n"
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_line_through_two_networks_is_exact() -> None:
    assert fit_correction([(10.0, 12.0), (20.0, 23.0)]) == Correction(
        pytest.approx(1.0),
        pytest.approx(1.1),
        2,  # type: ignore[arg-type]
    )


def test_the_error_is_that_of_networks_left_out() -> None:
    line = fit_correction([(10.0, 11.0), (20.0, 21.0), (30.0, 31.0)])
    bent = fit_correction([(10.0, 11.0), (20.0, 26.0), (30.0, 31.0)])

    assert line.error == pytest.approx(0.0, abs=1e-9)
    assert bent.error is not None
    assert bent.error > 0.1


def test_one_network_or_several_alike_give_an_offset_only() -> None:
    assert fit_correction([(10.0, 12.0)]) == Correction(2.0, 1.0, 1)
    assert fit_correction([(10.0, 12.0), (10.0, 14.0)]).slope == 1.0


def test_the_cache_folder_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GHOSTIFY_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path

    monkeypatch.delenv("GHOSTIFY_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ghostify"
