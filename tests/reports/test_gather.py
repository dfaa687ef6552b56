"""Directories of comparisons as they may be found: damaged, changed, several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ghostify.errors import RecordError
from ghostify.reports.gather import gather
from tests.reports.synthetic import changed, comparison, record, suite_of, write_runs


def test_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"holds no records\.jsonl; give the directory"):
        gather([tmp_path])


def test_store_without_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").touch()

    with pytest.raises(RecordError, match="holds no record yet; let ghostify compare finish"):
        gather([tmp_path])


def test_no_directory_is_refused() -> None:
    with pytest.raises(RecordError, match="give one"):
        gather([])


def test_other_format_is_refused(tmp_path: Path) -> None:
    value = record().as_json() | {"format": 99}
    (tmp_path / "records.jsonl").write_text(json.dumps(value) + "\n")

    with pytest.raises(RecordError, match="format 99, this ghostify reads format 1"):
        gather([tmp_path])


def test_cut_off_line_is_told_and_the_rest_used(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", comparison())
    whole = (runs / "records.jsonl").read_bytes()
    (runs / "records.jsonl").write_bytes(whole[:-40])

    found = gather([runs])

    assert len(found.records) == len(comparison()) - 1
    assert found.remarks == (
        f"records.jsonl: line {len(comparison())} is cut off and was left out",
    )


def test_nothing_but_a_cut_off_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"format": 1, "id"')

    with pytest.raises(RecordError, match="holds no whole record"):
        gather([tmp_path])


def test_runs_that_the_suite_no_longer_has_are_left_out(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", comparison(), suite=suite_of(("dense", "l1")))

    found = gather([runs])

    assert {one.method for one in found.records} == {"dense", "l1"}
    assert found.remarks == ("12 runs that the suite no longer asks for are left out",)


def test_changed_method_and_fewer_seeds_leave_old_runs_out(tmp_path: Path) -> None:
    suite = suite_of(("dense", "ghost-fitted"), seeds=(0, 1))
    suite["methods"]["ghost-fitted"] = suite["methods"]["ghost-fitted"] | {"s": 3}

    found = gather([write_runs(tmp_path / "runs", comparison(), suite=suite)])

    tests = [one for one in found.records if one.kind == "test"]
    assert [(one.method, one.seed) for one in tests] == [("dense", 0), ("dense", 1)]
    assert found.missing == ("ResNet-20, Ghost s=2, fitted",)


def test_suite_that_asks_for_none_of_the_runs_is_refused(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", [record("l1")], suite=suite_of(("dense",)))

    with pytest.raises(RecordError, match=r"holds no run that suite\.yaml beside it asks for"):
        gather([runs])


def test_missing_seeds_are_named(tmp_path: Path) -> None:
    records = [one for one in comparison() if (one.method, one.seed) != ("l1", 2)]

    found = gather([write_runs(tmp_path / "runs", records, suite=suite_of())])

    assert found.missing == ("ResNet-20, L1 at macs=0.52x, seed 2",)


def test_of_two_runs_of_one_seed_the_newer_stands(tmp_path: Path) -> None:
    newer = record(top1=91.0, id="newer", recipe={"name": "other"})

    found = gather([write_runs(tmp_path / "runs", [record(top1=90.0), newer])])

    assert [one.top1 for one in found.records] == [91.0]
    assert "an older run by other settings is left out" in found.remarks[0]


def test_rows_of_different_recipes_are_told(tmp_path: Path) -> None:
    records = [record("l1"), record(steps=98)]

    found = gather([write_runs(tmp_path / "runs", records)])

    assert any("not all trained by the same recipe" in one for one in found.remarks)


def test_unreadable_suite_is_told_and_all_is_shown(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", comparison())
    (runs / "suite.yaml").write_text("methods: [")

    found = gather([runs])

    assert len(found.records) == len(comparison())
    assert "suite beside the records cannot be read" in found.remarks[0]


def test_seeds_of_two_directories_are_joined(tmp_path: Path) -> None:
    one = write_runs(tmp_path / "one", [record(seed=0), record(seed=1)])
    two = write_runs(tmp_path / "two", [record(seed=1), record(seed=2)])

    found = gather([one, two])

    (result,) = found.results
    assert result.seeds == (0, 1, 2)
    assert result.name == "Ghost s=2, fitted"


def test_same_name_by_other_settings_stays_apart(tmp_path: Path) -> None:
    one = write_runs(tmp_path / "short", [record(seed=0)])
    two = write_runs(tmp_path / "long", [record(seed=1, steps=3910)])

    found = gather([one, two])

    names = [result.name for result in found.results]
    assert names == ["Ghost s=2, fitted (long)", "Ghost s=2, fitted (short)"]
    assert any("rows of their own" in one for one in found.remarks)


def test_same_seed_made_twice_elsewhere_stays_apart(tmp_path: Path) -> None:
    """Otherwise one seed would count as two."""
    one = write_runs(tmp_path / "one", [record(seed=0)])
    two = write_runs(tmp_path / "two", [changed(record(seed=0), id="again")])

    found = gather([one, two])

    assert [len(result.records) for result in found.results] == [1, 1]


def test_records_of_several_directories_are_copied_whole(tmp_path: Path) -> None:
    one = write_runs(tmp_path / "one", [record(seed=0)], suite=suite_of(("ghost-fitted",)))
    two = write_runs(tmp_path / "two", [record(seed=1)])
    path = one / "records.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # as a killed writer may leave it

    raw = dict(gather([one, two]).raw)

    (tmp_path / "joined").mkdir()
    (tmp_path / "joined" / "records.jsonl").write_bytes(raw["records.jsonl"])
    assert len(gather([tmp_path / "joined"]).records) == 2
    assert raw["suite-1.yaml"] == (one / "suite.yaml").read_bytes()
