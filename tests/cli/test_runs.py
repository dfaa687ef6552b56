"""``ghostify runs``: lists, one run, and two beside each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghostify.runs.store import RECORDS, RunStore
from tests.runs.samples import record

Command = Callable[..., Any]
ONE = record(id="abcdef0011223344", top1=80.25, method="l1", method_label="L1 [bold]")
TWO = record(id="0123456789abcdef", top1=90.5, method="ghost", method_label="Ghost", seed=1)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    store = RunStore(tmp_path / "runs" / RECORDS)
    for one in (ONE, TWO):
        store.append(one)
    return tmp_path / "runs"


@pytest.fixture
def broken(runs: Path) -> Path:
    with (runs / RECORDS).open("a") as file:
        file.write('{"format": 1, "id": "ab')
    return runs


def test_ls_lists_runs_as_they_ended(ghostify: Command, runs: Path) -> None:
    run = ghostify("runs", "ls", runs)

    assert run.code == 0, run.err
    header, one, two, *_, last = run.out.splitlines()
    assert header.split()[:4] == ["id", "kind", "network", "method"]
    assert one.split() == [
        "abcdef", "test", "ResNet-20", "L1", "[bold]", "macs=0.5x", "0", "20.00", "M", "140.0",
        "k", "1.25", "80.25", "391", "0.001", "0.0",
    ]  # fmt: skip
    assert two.startswith("012345")
    assert last == f"2 runs in {runs}"


def test_ls_sorts_and_chooses(ghostify: Command, runs: Path) -> None:
    by_accuracy = ghostify("runs", "ls", runs, "--sort", "top1", "--reverse", "--json")
    chosen = ghostify("runs", "ls", runs, "--where", "method=l1", "--json")

    assert [one["id"] for one in json.loads(by_accuracy.out)] == [TWO.id, ONE.id]
    assert [one["id"] for one in json.loads(chosen.out)] == [ONE.id]
    assert json.loads(chosen.out)[0]["macs_ratio"] == 2.0


def test_show_prints_a_run_in_full(ghostify: Command, runs: Path) -> None:
    run = ghostify("runs", "show", runs, "abc")

    assert run.code == 0, run.err
    for text in ("L1 [bold]", "20,000,000", "8 maps", "the original 2.000 ms", "2.13"):
        assert text in run.out
    assert run.out.endswith("to make it alone:\nghostify prune resnet20_cifar\n")


def test_show_as_json_is_the_record(ghostify: Command, runs: Path) -> None:
    run = ghostify("runs", "show", runs, "abc", "--json")

    assert json.loads(run.out) == json.loads(json.dumps(ONE.as_json()))


def test_diff_shows_what_differs_and_by_how_much(ghostify: Command, runs: Path) -> None:
    run = ghostify("runs", "diff", runs, "abc", "012")

    assert run.code == 0, run.err
    lines = [line.split() for line in run.out.splitlines()]
    assert ["settings", "method", "l1", "ghost"] in lines
    assert ["seed", "0", "1"] in lines
    assert ["figures", "top1", "80.25", "90.5", "+10.25"] in lines


def test_diff_as_json_lists_the_differences(ghostify: Command, runs: Path) -> None:
    run = ghostify("runs", "diff", runs, "abc", "012", "--json")

    value = json.loads(run.out)
    assert (value["one"], value["two"]) == (ONE.id, TWO.id)
    assert {"part": "settings", "name": "seed", "one": 0, "two": 1} in value["differences"]


def test_a_run_does_not_differ_from_itself(ghostify: Command, runs: Path) -> None:
    run = ghostify("runs", "diff", runs, "abc", "abc")

    assert run.out == f"{ONE.id} and {ONE.id} differ in nothing\n"


@pytest.mark.parametrize("arguments", [("ls",), ("show", "abc"), ("diff", "abc", "012")])
def test_a_line_that_is_cut_off_is_told_and_the_rest_used(
    ghostify: Command, broken: Path, arguments: tuple[str, ...]
) -> None:
    verb, *ids = arguments

    run = ghostify("runs", verb, broken, *ids)

    assert run.code == 0
    assert run.out
    assert run.err == "note: records.jsonl: line 3 is cut off and was left out\n"


def test_mistakes_are_one_line(ghostify: Command, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / RECORDS).write_text("")

    nothing = ghostify("runs", "ls", tmp_path / "empty")
    begun = ghostify("runs", "ls", tmp_path / "new")
    unknown = ghostify("runs", "show", runs, "abcdef0011223355")
    field = ghostify("runs", "ls", runs, "--sort", "accuracy")
    pair = ghostify("runs", "ls", runs, "--where", "method")
    alone = ghostify("runs", "ls", runs, "--reverse")

    assert nothing.message == (
        f"{tmp_path / 'empty'} holds no records.jsonl; give the directory that ghostify compare "
        "wrote"
    )
    assert begun.message.endswith("holds no run yet; ghostify compare goes on with it")
    assert "did you mean abcdef0011223344?" in unknown.message
    assert field.message.startswith("runs have no field 'accuracy' to go by, they have id, kind")
    assert "FIELD=VALUE" in pair.message
    assert "--sort" in alone.message
    assert [run.code for run in (nothing, begun, unknown, field, pair, alone)] == [1, 1, 1, 1, 2, 2]


def test_another_format_is_an_error(ghostify: Command, runs: Path) -> None:
    value = ONE.as_json() | {"format": 7}
    (runs / RECORDS).write_text(json.dumps(value) + "\n")

    run = ghostify("runs", "ls", runs)

    assert run.code == 1
    assert run.message.startswith("records.jsonl: line 1 is a record of format 7, this ghostify")
