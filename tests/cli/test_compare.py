"""``ghostify compare``: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.comparisons.suites import plain, write_suite
from tests.conftest import Run

Ghostify = Callable[..., Run]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return write_suite(tmp_path / "suite", **plain("random"))


def test_json_tells_how_many_runs_are_done_and_where(
    ghostify: Ghostify, suite: Path, tmp_path: Path
) -> None:
    output = tmp_path / "runs"

    first = ghostify("compare", suite, "-o", output, "--device", "cpu", "--json")
    again = ghostify("compare", suite, "-o", output, "--device", "cpu")

    assert first.code == again.code == 0
    assert json.loads(first.out) == {
        "done": 1,
        "left": 0,
        "failed": [],
        "remarks": [],
        "records": str(output / "records.jsonl"),
    }
    assert "1 runs recorded" in again.out + again.err
    assert len((output / "records.jsonl").read_text().splitlines()) == 1


def test_a_dry_run_lists_the_runs_and_writes_nothing(
    ghostify: Ghostify, suite: Path, tmp_path: Path
) -> None:
    page = ghostify("compare", suite, "-o", tmp_path / "runs", "--dry-run")
    told = ghostify("compare", suite, "-o", tmp_path / "runs", "--dry-run", "--json")

    assert page.out.splitlines()[0].split() == ["net/random/seed=0", "test", "waiting"]
    assert json.loads(told.out)["runs"][0]["state"] == "waiting"
    assert not (tmp_path / "runs").exists()


def test_a_failed_run_is_told_in_one_sentence_and_ends_with_1(
    ghostify: Ghostify, tmp_path: Path
) -> None:
    file = write_suite(
        tmp_path / "suite", **plain("l1") | {"budgets": ["macs=0.0001x"]}
    )  # fmt: skip

    result = ghostify("compare", file, "-o", tmp_path / "runs", "--device", "cpu", "--json")

    failed = json.loads(result.out)["failed"]
    assert result.code == 1
    assert [one["name"] for one in failed] == ["net/l1/macs=0.0001x/seed=0: start"]
    assert "Traceback" not in result.err


def test_nothing_is_begun_after_the_minutes(
    ghostify: Ghostify, suite: Path, tmp_path: Path
) -> None:
    result = ghostify(
        "compare", suite, "-o", tmp_path / "runs", "--device", "cpu", "--json",
        "--minutes", "0.0000001",
    )  # fmt: skip

    told = json.loads(result.out)
    assert (result.code, told["done"], told["left"]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "a comparison needs a directory; give it by -o DIR"),
        (("-o", "x", "--minutes", "0"), 2, "--minutes takes a number above 0 (got 0)"),
        (("-o", "x", "--only", "randon"), 1,
         "--only randon fits no run of the suite; did you mean random?"),
        (("-o", "x", "--device", "abacus"), 1,
         "no device is called 'abacus'; take auto, cpu or cuda"),
    ],
)  # fmt: skip
def test_bad_options_are_one_sentence(
    ghostify: Ghostify,
    suite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    result = ghostify("compare", suite, *arguments)

    assert (result.code, result.message) == (code, message)
    assert not (tmp_path / "x").exists()


def test_a_mistake_in_the_suite_names_file_place_and_nearest(
    ghostify: Ghostify, tmp_path: Path
) -> None:
    file = write_suite(tmp_path / "suite", methods={"l1": {"kind": "prun", "method": "l1"}})

    result = ghostify("compare", file, "-o", tmp_path / "runs")

    assert result.code == 1
    assert "suite.yaml: methods.l1.kind" in result.message
    assert "prune" in result.message


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_ends_with_130(tmp_path: Path) -> None:
    file = write_suite(
        tmp_path / "suite",
        **plain("random") | {"recipe": {"name": "distil", "steps": 100_000, "overrides": {
            "batch_size": 16, "feature_weight": 0.0}}},
    )  # fmt: skip
    output = tmp_path / "runs"
    command = [sys.executable, "-m", "ghostify", "compare", file, "-o", output, "--device", "cpu"]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while not list(output.glob("work/runs/*/log.csv")) and time.monotonic() < deadline:
        time.sleep(0.1)

    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)

    assert process.returncode == 130
    assert told.strip().splitlines()[-1] == (
        "error: interrupted with 0 runs recorded; the same command goes on from there"
    )
    assert list(output.glob("work/runs/*/checkpoint.pt"))
