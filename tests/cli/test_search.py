"""The verb search, from the outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "searches"))  # for workers' processes too

from searchable import write_all  # noqa: E402

Ghostify = Callable[..., Any]
NAME = "searchable:Net"
SMALL = ("--calibration-images", 16, "--held-back", 16, "--device", "cpu")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    weights, data = write_all(tmp_path_factory.mktemp("files"))
    return (NAME, "--weights", weights, "--data", data, "--budget", "macs=0.6x", *SMALL)


def test_search_show_rerun_and_convert(
    ghostify: Ghostify, given: tuple[object, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"

    done = ghostify("search", *given, "--trials", 5, "-o", run)

    assert done.code == 0, done.err
    assert "5 trials, 5 feasible, 0 infeasible" in done.out
    assert "the additive optimum has divergence" in done.err
    shown = ghostify("search", "show", run, "--json")
    value = json.loads(shown.out)
    assert {"trials", "feasible", "infeasible", "budget", "best"} <= set(value)
    assert {"score", "macs", "params", "plan"} <= set(value["best"])
    assert value["trials"] == 5
    again = ghostify("search", "rerun", run, "--trial", 3, "--json")
    assert json.loads(again.out)["same"] is True
    converted = ghostify("convert", NAME, "--plan", run / "best.yaml", "--json")
    assert json.loads(converted.out)["after"]["macs"] == value["best"]["macs"]


def test_arguments_are_searched_shown_and_trained(
    ghostify: Ghostify, given: tuple[object, ...], tmp_path: Path
) -> None:
    run, space = tmp_path / "run", tmp_path / "net.yaml"
    space.write_text("arguments: {width: [8, 4, 6]}\n")
    data = ("--data", given[4], "--device", "cpu")

    done = ghostify(
        "search", NAME, *data, "--space", space, "--budget", "macs=0.9x", "--held-back", 24,
        "--climb", "train=3x2@cifar-resnet", "-o", run,
    )  # fmt: skip

    assert done.code == 0, done.err
    assert "3 trials, 3 feasible, 0 infeasible" in done.out
    best = json.loads(ghostify("search", "show", run, "--json").out)["best"]
    width = best["arguments"]["width"]
    assert width in (4, 6)
    assert f"best arguments: width={width}" in done.out
    assert f"ghostify train {NAME} --model-arg width={width} trains the best" in done.err
    again = ghostify("search", "rerun", run, "--trial", best["trial"])
    assert f"trial {best['trial']}: loss {best['loss']!r}, as recorded" in again.out


def test_options_may_come_before_the_model(
    ghostify: Ghostify, given: tuple[object, ...], tmp_path: Path
) -> None:
    name, *options = given

    done = ghostify("search", *options, "--trials", 2, "-o", tmp_path / "run", name, "--json")

    assert done.code == 0, done.err
    assert json.loads(done.out)["trials"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((NAME, "-o", "x"), 2, "a search needs a budget"),
        ((NAME, "--budget", "macs=0.5x"), 2, "a search needs a directory"),
        ((NAME, "--budget", "mac=0.5x", "-o", "x"), 1, "did you mean macs?"),
        ((NAME, "--budget", "macs=0.5x", "-o", "x", "--sampler", "tpr"), 1, "did you mean tpe?"),
        ((NAME, "--budget", "macs=0.5x", "-o", "x", "--pruner", "medain"), 1, "mean median?"),
        ((NAME, "--budget", "macs=0.5x", "-o", "x", "--pareto", "macs,top"), 1, "mean top1?"),
        ((NAME, "--budget", "macs=0.5x", "-o", "x", "--climb", "free"), 1, "a climb is written"),
        ((NAME, "--budget", "macs=0.5x", "-o", "x", "--space", "resnet5"), 1, "resnet50"),
        ((NAME, "--budget", "macs=0.5x", "-o", "x", "--storage", "abc"), 1, "a storage is a URL"),
        ((NAME, "--budget", "latency=0.5x@onxruntime", "-o", "x"), 1, "onnxruntime"),
        (("no_such_net", "--budget", "macs=0.5x", "-o", "x"), 1, "no model is called"),
        ((NAME, "--budget", "macs=0.5x", "-o", "/proc/run"), 1, "/proc/run cannot be written"),
        (("show", "nowhere"), 1, "nowhere is no search"),
        (("rerun", "nowhere"), 2, "which trial?"),
        (("dashboard", "nowhere"), 1, "nowhere is no search"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    ghostify: Ghostify,
    arguments: tuple[str, ...],
    code: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    done = ghostify("search", *arguments)

    assert done.code == code
    assert told in done.message


def test_the_dashboard_names_its_extra(
    ghostify: Ghostify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ghostify import searched

    monkeypatch.setattr(searched, "storage_of", lambda *_: "sqlite:///x")
    monkeypatch.setattr(searched, "has_dashboard", lambda: False)

    done = ghostify("search", "dashboard", tmp_path)

    assert done.code == 1
    assert done.message.endswith("pip install 'ghostify[dashboard]'")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_told(
    ghostify: Ghostify, given: tuple[object, ...], tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)

    done = ghostify("search", *given, "-o", tmp_path / "run")

    assert done.code == 1
    assert "cannot be written" in done.message


def test_help_shows_the_options_of_a_search(ghostify: Ghostify) -> None:
    done = ghostify("search", "--help")

    assert done.code == 0
    assert "--budget" in done.out
    assert "show|rerun|dashboard" in done.out


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_a_search_that_goes_on(
    ghostify: Ghostify, given: tuple[object, ...], tmp_path: Path, workers: int
) -> None:
    run = tmp_path / "run"
    command = [
        "search", *map(str, given), "--trials", "4000", "-o", str(run), "--workers", str(workers),
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "ghostify", *command],
        cwd=ROOT / "tests" / "searches",
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (run / "best.yaml").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, told = process.communicate(timeout=120)

    assert process.returncode == 130
    assert told.strip().splitlines()[-1].startswith("error: interrupted after ")
    assert "Traceback" not in told
    value = json.loads(ghostify("search", "show", run, "--json").out)
    assert value["best"] is not None
    assert value["failed"] == 0
    assert (run / "trials.parquet").is_file()
