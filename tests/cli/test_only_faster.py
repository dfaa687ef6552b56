"""``convert --only-faster``: what it says, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ghostify as package
from ghostify.manifest import parse_manifest
from tests.cost.bench import FakeBench

Command = Callable[..., Any]
MODEL = "tests.cost.bench:network"
CONVERT = ("convert", MODEL, "--input-size", "16", "--only-faster", "fake")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeBench:
    """A runtime on which one of four layers loses."""
    made = FakeBench({12: 0.5, 16: -0.25, 20: 0.75, 24: 0.3})
    monkeypatch.setattr("ghostify.only_faster.Workbench", lambda *_args, **_kwargs: made)
    monkeypatch.setenv("GHOSTIFY_CACHE", str(tmp_path / "cache"))
    return made


def test_what_loses_stays_dense_and_the_artefact_tells(
    ghostify: Command, bench: FakeBench, tmp_path: Path
) -> None:
    run = ghostify(*CONVERT, "--json", "-o", tmp_path / "out")

    value = json.loads(run.out)
    assert run.code == 0
    assert [one["name"] for one in value["replaced"]] == ["3", "9", "12"]
    assert value["only_faster"]["speedup"] == pytest.approx(9 / 7.45, abs=1e-3)
    assert [one["name"] for one in value["only_faster"]["gave_up"]] == ["6"]
    manifest = parse_manifest(tmp_path / "out" / "ghostify.json")
    assert dict(manifest.history[0]) == value["only_faster"]
    assert ("6", value["only_faster"]["gave_up"][0]["why"]) in manifest.skipped
    page = (tmp_path / "out" / "summary.md").read_text()
    assert "How the layers were chosen:\n\n- kept 3 of 4 Ghost modules" in page
    assert "start from random weights (seed 0)" in page
    assert package.load(tmp_path / "out")


def test_people_are_told_what_was_given_up(ghostify: Command, bench: FakeBench) -> None:
    run = ghostify(*CONVERT)

    assert run.code == 0
    assert "its ghost is not faster" in run.out
    assert "note: kept 3 of 4 Ghost modules, gave up 1" in run.err
    assert "start from random weights" in run.err


def test_a_second_run_takes_the_layers_from_the_table(
    ghostify: Command, bench: FakeBench, tmp_path: Path
) -> None:
    ghostify(*CONVERT, "-q")
    timed = bench.drafts

    assert ghostify(*CONVERT, "-q").code == 0

    assert timed > 0
    assert bench.drafts == timed
    assert len(list((tmp_path / "cache" / "latency").glob("*.jsonl"))) == 1


def test_nothing_may_be_worth_it_and_that_is_no_error(
    ghostify: Command, bench: FakeBench, tmp_path: Path
) -> None:
    bench.company = 5.0

    run = ghostify(*CONVERT, "-o", tmp_path / "out")

    assert run.code == 0
    assert "nothing was converted: none of 4 Ghost modules is surely faster on fake" in run.err
    assert "start from random weights" not in run.err
    assert parse_manifest(tmp_path / "out" / "ghostify.json").plan.layers == {}
    assert package.load(tmp_path / "out")


def test_a_damaged_table_is_rebuilt_and_told(
    ghostify: Command, bench: FakeBench, tmp_path: Path
) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text("{half a li")

    run = ghostify(*CONVERT, "--table", table)

    assert run.code == 0
    assert f"the latency table {table} was damaged: it was rebuilt without 1" in run.err


def test_a_dry_run_measures_nothing(ghostify: Command, bench: FakeBench) -> None:
    run = ghostify(*CONVERT, "--dry-run")

    assert run.code == 0
    assert bench.sessions == []
    assert "what is faster on fake is measured only in earnest" in run.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--margin", "3"], 2, "--margin goes with --only-faster; give that or leave it out"),
        (["--threads", "2"], 2, "--threads goes with --only-faster; give that or leave it out"),
        (
            ["--only-faster", "torch", "--margin", "100"],
            2,
            "--margin is a share from 0 to below 100 (got 100)",
        ),
        (["--only-faster", "onnxrutime"], 1, "no runtime is called 'onnxrutime'"),
        (["--only-faster", "torch", "--table", "."], 1, ". is a directory; name a file"),
    ],
)
def test_bad_input_is_one_sentence(
    ghostify: Command, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    run = ghostify("convert", MODEL, "--input-size", 16, *arguments, "-o", tmp_path / "out")

    assert run.code == code
    assert run.message.startswith(message)
    assert not (tmp_path / "out").exists()
