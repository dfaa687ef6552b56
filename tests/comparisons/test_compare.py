"""A whole suite: every run once, all under the same conditions, resumed wherever it was left."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ghostify
from ghostify.comparing import Compared, agenda
from ghostify.comparisons import work
from ghostify.comparisons.folder import Folder
from ghostify.comparisons.inputs import read_inputs
from ghostify.errors import GhostifyError, OutputError, SuiteError
from ghostify.runs.suite_file import load_suite
from tests.comparisons.suites import MODEL, accuracies, plain, run, write_suite
from tests.searches.searchable import Net


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def whole(suite: Path) -> Compared:
    """The suite, run to its end."""
    with contextlib.chdir(suite.parent):
        return run(suite, suite.parent / "whole")


def test_every_run_of_the_suite_has_one_record(whole: Compared) -> None:
    rows = sorted((one.kind, one.method, one.budget, one.seed, one.lr) for one in whole.records
                  if one.kind == "tune" or one.method == "fitted")  # fmt: skip
    tests = [one for one in whole.records if one.kind == "test"]

    assert whole.done == len(whole.records) == 14
    assert (whole.left, dict(whole.failed)) == (0, {})
    assert rows == [
        ("test", "fitted", None, 0, None),
        ("test", "fitted", None, 1, None),
        *(("tune", method, budget, 0, lr)
          for method, budget in (("dense", None), ("l1", "macs=0.6x"), ("random", None))
          for lr in (0.001, 0.03)),
    ]  # fmt: skip
    assert len(tests) == 8


def test_the_same_grid_is_tried_for_each_method_and_its_best_rate_taken(whole: Compared) -> None:
    for method in ("dense", "l1", "random"):
        tuned = [one for one in whole.records if (one.kind, one.method) == ("tune", method)]
        rates = {one.lr for one in whole.records if (one.kind, one.method) == ("test", method)}
        best = min(tuned, key=lambda one: (-(one.top1 or 0), one.loss, one.lr))

        assert sorted(one.lr or 0 for one in tuned) == [0.001, 0.03]
        assert {one.steps for one in tuned} == {4}
        assert rates == {best.lr}


def test_all_methods_are_trained_alike(whole: Compared) -> None:
    trained = [one for one in whole.records if one.kind == "test" and one.method != "fitted"]
    recipes = [{**one.recipe, "lr": None} for one in trained]

    assert all(recipe == recipes[0] for recipe in recipes)
    assert {(one.steps, one.teacher) for one in trained} == {(6, "original")}
    assert {one.provenance["data"]["images"] for one in trained} == {96}
    assert {one.original_top1 for one in whole.records if one.kind == "test"} != {None}


def test_tuning_sees_no_test_image(suite: Path, whole: Compared) -> None:
    inputs, pictures = read_inputs(load_suite(suite))
    assert pictures is not None
    assert pictures.fitting is not None
    assert pictures.validation is not None
    names = [dict(images.listing()).keys() for images in (pictures.fitting, pictures.validation)]
    indices = [sorted(map(int, list(one)[-1].split())) for one in names]
    tuned = [one for one in whole.records if one.kind == "tune"]

    assert sorted(indices[0] + indices[1]) == list(range(96))
    assert {one.provenance["test"]["digest"] for one in tuned} == {pictures.validation.digest}
    assert {one.provenance["data"]["digest"] for one in tuned} == {pictures.fitting.digest}
    assert inputs.test not in {one.provenance["test"]["digest"] for one in tuned}


def test_last_and_best_accuracy_are_those_of_the_curve(whole: Compared) -> None:
    for one in whole.records:
        if one.steps:
            assert one.curve[-1]["top1"] == one.top1
            assert one.curve[-1]["step"] == one.steps
            assert one.best_top1 == max(entry["top1"] for entry in one.curve if entry["step"])
        if one.kind == "test" and one.steps:
            assert one.curve[0] | {"top1": None} == one.curve[0] | {"step": 0, "top1": None}
            assert one.curve[0]["top1"] == one.start_top1


def test_the_dense_control_starts_where_the_original_is(whole: Compared) -> None:
    dense = [one for one in whole.records if (one.kind, one.method) == ("test", "dense")]

    assert {one.start_top1 == one.original_top1 for one in dense} == {True}
    assert {(one.macs, one.params) for one in dense} == {
        (dense[0].macs_before, dense[0].params_before)
    }


def test_a_finished_comparison_does_nothing_more(
    suite: Path, whole: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("ghostify.comparing.do", never)
    before = whole.store.read_bytes()

    again = run(suite, whole.path)

    assert whole.store.read_bytes() == before
    assert accuracies(again.records) == accuracies(whole.records)
    assert {one.state for one in agenda(suite, whole.path)} == {"done"}


def test_nothing_but_records_and_the_originals_stay(suite: Path, whole: Compared) -> None:
    kept = sorted(path.name for path in (whole.path / "work").iterdir())

    assert kept == ["originals"]
    assert (whole.path / "suite.yaml").read_text() == suite.read_text()


def test_a_changed_suite_runs_only_what_has_changed(
    whole: Compared, suite: Path, tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    output.mkdir()
    (output / "records.jsonl").write_bytes(whole.store.read_bytes())
    changed = write_suite(suite.parent, seeds=[0, 1, 2])
    try:
        states = [(one.job.name, one.state) for one in agenda(changed, output)]
        fewer = write_suite(suite.parent, seeds=[0], title="Another title")
        result = run(fewer, output)
    finally:
        write_suite(suite.parent)

    assert sorted(name for name, state in states if state == "waiting") == [
        "net/dense/seed=2",
        "net/fitted/seed=2",
        "net/l1/macs=0.6x/seed=2",
        "net/random/seed=2",
    ]
    assert (result.done, result.left) == (10, 0)
    assert any("4 records are of runs that the suite no longer asks for" in one
               for one in result.remarks)  # fmt: skip


def test_a_comparison_goes_on_where_it_was_stopped(
    suite: Path, whole: Compared, tmp_path: Path
) -> None:
    """Stopped in mid-training time and again, it ends with the same figures, and no run twice."""
    stops = 0
    result = None
    for patience in range(5, 400, 25):
        asked = 0

        def should_stop(patience: int = patience) -> bool:
            nonlocal asked
            asked += 1
            return asked > patience

        result = run(suite, tmp_path / "runs", should_stop=should_stop)
        if not result.left:
            break
        stops += 1

    assert stops >= 3
    assert result is not None
    assert result.left == 0
    assert accuracies(result.records) == accuracies(whole.records)
    assert len(result.store.read_text().splitlines()) == 14


def test_several_workers_give_what_one_gives(suite: Path, whole: Compared, tmp_path: Path) -> None:
    result = run(suite, tmp_path / "runs", workers=2, only="l1")

    known = accuracies(whole.records)
    assert (result.done, result.left) == (4, 0)
    assert all(known[key] == one for key, one in accuracies(result.records).items())


def test_the_commands_of_a_row_make_it_again(
    suite: Path, whole: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run alone, where the suite was run, they give the very same accuracy and loss."""
    record = next(one for one in whole.records
                  if (one.kind, one.method, one.seed) == ("test", "l1", 1))  # fmt: skip
    monkeypatch.chdir(suite.parent)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from ghostify.cli.app import main

    codes = [main([*shlex.split(line)[1:], "--quiet"]) for line in record.command.splitlines()]
    trained = json.loads(Path("trained/ghostify.json").read_text())["history"][-1]

    assert codes == [0, 0, 0]
    assert trained["evaluation"]["top1"] == record.top1
    assert trained["evaluation"]["loss"] == record.loss


def test_counts_are_those_of_torchs_own_counter(suite: Path, tmp_path: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    file = write_suite(
        tmp_path, data=None, recipe=None, teacher=None, adapt=None, tune=None,
        methods={"ghost": {"kind": "ghost", "s": 4, "d": 5}, "dense": {"kind": "dense"}},
        latency=[{"runtime": "torch", "rounds": 5}],
    )  # fmt: skip

    records = {one.method: one for one in run(file, tmp_path / "runs").records}

    net = Net().eval()
    net.load_state_dict(load_file(tmp_path / "net.safetensors"))
    ghost = ghostify.convert(net, ratio=4, kernel=5).model.eval()
    for name, model in (("dense", net), ("ghost", ghost)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, 8, 8))
        assert records[name].kind == "count"
        assert records[name].macs == counter.get_total_flops() // 2
        assert records[name].params == sum(one.numel() for one in model.parameters())
        assert records[name].latencies[0].median_ms > 0
        assert records[name].latencies[0].before_ms is not None
    assert sorted(records) == ["dense", "ghost"]


def test_a_new_network_begins_with_no_weight_of_the_original(tmp_path: Path) -> None:
    """What is trained from scratch depends on the seed alone, whatever weights there are."""
    scratch = {
        **plain("dense"),
        "methods": {"dense": {"kind": "dense", "start": "scratch"}},
        "teacher": None,
    }
    bare = {"networks": {"net": {"label": "Net", "model": MODEL}}}

    with_weights = run(write_suite(tmp_path, **scratch), tmp_path / "one").records
    without = run(write_suite(tmp_path, **scratch | bare), tmp_path / "two").records

    assert [one.loss for one in with_weights] == [one.loss for one in without]
    assert with_weights[0].original_top1 is not None
    assert without[0].original_top1 is None


def test_nobody_learns_from_a_network_that_was_never_trained(tmp_path: Path) -> None:
    bare = {"networks": {"net": {"label": "Net", "model": MODEL}}}

    with pytest.raises(SuiteError, match="net has no trained original to learn from"):
        run(write_suite(tmp_path, **plain("dense") | bare), tmp_path / "runs")


@pytest.mark.slow
def test_a_search_is_one_more_method(tmp_path: Path) -> None:
    file = write_suite(
        tmp_path,
        **plain("dense")
        | {
            "methods": {
                "found": {
                    "kind": "search",
                    "options": {"trials": 2, "calibration": 16, "held_back": 16},
                }
            }
        },
    )

    (record,) = run(file, tmp_path / "runs").records

    assert record.plan is not None
    assert record.plan["layers"]
    assert 0.3 < record.macs / record.macs_before <= 0.6
    assert record.command.splitlines()[0].startswith("ghostify search ")


def test_a_rate_by_which_training_diverges_has_lost(tmp_path: Path) -> None:
    """It is tried for each method like the others, and is no reason to go without the method."""
    recipe = {"name": "finetune", "steps": 12, "overrides": {"batch_size": 16, "clip_norm": None}}
    changes = plain("dense") | {"recipe": recipe, "teacher": None}
    some = write_suite(tmp_path, **changes | {"tune": {"rates": [0.01, 1e30], "steps": 6}})
    result = run(some, tmp_path / "some")
    every = write_suite(tmp_path, **changes | {"tune": {"rates": [1e30], "steps": 6}})
    none = run(every, tmp_path / "none")

    tuned = {one.lr: one.top1 for one in result.records if one.kind == "tune"}
    assert tuned[1e30] is None
    assert tuned[0.01] is not None
    assert [one.lr for one in result.records if one.kind == "test"] == [0.01]
    assert none.failed == {
        "net/dense/seed=0": "training has diverged by every rate of the grid; give smaller ones"
    }


def test_a_run_that_fails_does_not_keep_the_others(tmp_path: Path) -> None:
    file = write_suite(tmp_path, **plain("dense") | {
        "methods": {
            "tiny": {"kind": "prune", "method": "l1"},
            "dense": {"kind": "dense"},
        },
        "budgets": ["macs=0.0001x"],
    })  # fmt: skip

    result = run(file, tmp_path / "runs")

    assert [one.method for one in result.records] == ["dense"]
    assert list(result.failed) == ["net/tiny/macs=0.0001x/seed=0: start"]
    assert result.left == 1


def test_a_bug_in_one_run_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_suite(tmp_path, **plain("random"))
    real = work.do

    def faulty(task: Any, *arguments: Any, **how: Any) -> Any:
        if task.kind == "test":
            raise ZeroDivisionError("oh")
        return real(task, *arguments, **how)

    monkeypatch.setattr("ghostify.comparing.do", faulty)

    result = run(file, tmp_path / "runs")

    assert "this is a bug in ghostify (ZeroDivisionError: oh)" in result.failed["net/random/seed=0"]


def test_a_second_comparison_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    file = write_suite(tmp_path, **plain("dense"))

    with Folder(tmp_path / "runs").alone(), pytest.raises(OutputError) as error:
        run(file, tmp_path / "runs")

    assert str(error.value) == (
        f"another comparison is writing to {tmp_path / 'runs'}; wait for it, or choose another "
        "directory"
    )


def test_workers_of_a_killed_comparison_are_waited_for(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "runs")
    folder.path.mkdir()
    sign = folder.worker()
    timer = threading.Timer(0.4, sign.close)
    timer.start()

    with folder.alone():
        assert sign.closed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": {"net": {"model": "resnet20_cifar", "weights": "no.th"}}}, "no.th"),
        ({"data": {"path": "nowhere"}, "tune": None}, "nowhere"),
        ({"data": {"path": "data", "validation": 96}}, "must be below 96"),
        ({"methods": {"x": {"kind": "dence"}}}, "did you mean dense?"),
    ],
)
def test_what_a_suite_gets_wrong_is_told_before_anything_is_done(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = write_suite(tmp_path, **changes)

    with pytest.raises(GhostifyError) as error:
        run(file, tmp_path / "runs")

    assert message in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_an_unknown_pattern_names_what_is_near(suite: Path, tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as error:
        run(suite, tmp_path / "runs", only="randon")

    assert str(error.value) == "--only randon fits no run of the suite; did you mean random?"


def test_a_directory_of_something_else_is_refused(suite: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(OutputError, match=r"holds notes\.txt"):
        run(suite, tmp_path)


@pytest.mark.slow
def test_kills_lose_nothing_and_double_nothing(suite: Path, tmp_path: Path) -> None:
    """One process runs it and is killed three times; what it leaves is as if undisturbed."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.comparisons.kills", str(suite), str(tmp_path), "3"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 3
    assert found["lost"] == found["doubled"] == found["different"] == 0
    assert found["runs"] == 14
