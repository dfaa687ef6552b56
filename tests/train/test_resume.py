"""Runs that are interrupted, killed or short of disk go on to the same weights."""

from __future__ import annotations

import csv
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ghostify.errors import GhostifyError, OutputError, TrainingError
from ghostify.train import checkpoint
from ghostify.train.checkpoint import CHECKPOINT, RunDirectory, read_checkpoint
from ghostify.train.log import Log
from ghostify.train.loop import Outcome, train
from tests.train.toys import PREPROCESS, Synthetic, recipe, same, toy

IMAGES, TEST = Synthetic(64), Synthetic(20, seed=1)


def run(folder: Path | None, *, stop_after: int | None = None, **settings: Any) -> Outcome:
    """Train the same network each time; ``stop_after`` steps, stop in an orderly way."""
    done = 0

    def stop() -> bool:
        nonlocal done
        done += 1
        return done == stop_after

    names = ("checkpoint_every", "evaluate_every", "seed", "teacher")
    others = {name: settings.pop(name) for name in names if name in settings}
    images = settings.pop("images", IMAGES)
    return train(
        settings.pop("model", toy()),
        recipe(**({"steps": 20} | settings)),
        images,
        PREPROCESS,
        test=TEST,
        directory=folder,
        device="cpu",
        should_stop=stop,
        **others,
    )


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return [
            {name: value for name, value in row.items() if name != "images_per_s"}
            for row in csv.DictReader(file)
        ]


def events(folder: Path) -> list[tuple[int, str, float]]:
    """Read event files as TensorBoard does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return sorted(
        (event.step, tag, event.value)
        for tag in found.Tags()["scalars"]
        for event in found.Scalars(tag)
        if "images_per_s" not in tag
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adamw", "lr": 1e-3},
        {"ema": 0.9},
        {"mixup": 0.2},
        {"teacher": toy(1), "feature_weight": 1.0},
        {"bn_frozen_steps": 9},
        {"schedule": "step", "clip_norm": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("stop_after", [1, 7, 8])
def test_an_interrupted_run_ends_with_the_same_weights(
    tmp_path: Path, settings: dict[str, Any], stop_after: int
) -> None:
    whole = run(None, **settings)

    with pytest.raises(KeyboardInterrupt, match=f"after step {stop_after} of 20; the same command"):
        run(tmp_path, stop_after=stop_after, **settings)
    resumed = run(tmp_path, **settings)

    assert same(whole.model, resumed.model)
    assert whole.history == resumed.history
    assert whole.evaluation == resumed.evaluation


def test_many_kills_at_random_moments_leave_the_weights_the_same(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.train.kills", str(tmp_path), "20"]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    )

    killed, with_kills, without = done.stdout.split()
    assert int(killed) == 20
    assert with_kills == without


def test_the_curves_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    """What was logged past the checkpoint is cut; nothing is there twice."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, evaluate_every=1)
    with pytest.raises(KeyboardInterrupt):
        run(broken, evaluate_every=1, stop_after=5)
    state = (broken / CHECKPOINT).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(broken, evaluate_every=1, stop_after=6)
    (broken / CHECKPOINT).write_bytes(state)  # as if it had been killed before the second one

    run(broken, evaluate_every=1)

    assert table(broken) == table(whole)
    assert len(table(whole)) == 20
    assert events(broken) == events(whole)


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    size = (tmp_path / "log.csv").stat().st_size

    again = run(tmp_path, stop_after=1)

    assert same(first.model, again.model)
    assert first.history == again.history
    assert (tmp_path / "log.csv").stat().st_size == size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.1}, "was begun with recipe.lr = 0.05, now it is 0.1; give what it was"),
        ({"seed": 1}, "was begun with seed = 0, now it is 1"),
        ({"images": Synthetic(64, seed=9)}, "was begun with data = "),
        ({"model": toy(1)}, "was begun with network = "),
        ({"teacher": toy(1)}, "was begun with teacher = null"),
        ({"steps": 21}, "recipe.steps = 20, now it is 21"),
    ],
)
def test_other_settings_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop_after=2)

    with pytest.raises(TrainingError, match=message):
        run(tmp_path, **changes)


def test_what_does_not_change_the_weights_may_differ(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop_after=2)

    resumed = run(tmp_path, checkpoint_every=3, evaluate_every=2)

    assert same(resumed.model, run(None).model)


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop_after=3)
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", full)
        directory = RunDirectory.__new__(RunDirectory)
        directory.path = tmp_path
        with pytest.raises(OutputError, match=r"no space is left to write .*checkpoint\.pt; free"):
            directory.write({"step": 4})

    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert not list(tmp_path.glob(".*new"))
    assert same(run(tmp_path).model, run(None).model)


def test_a_full_device_is_one_clear_sentence(tmp_path: Path) -> None:
    """On a file system that is really full, where one can be had."""
    directory = RunDirectory(tmp_path / "run", {})
    limit = "import resource, sys; from pathlib import Path\n" + (
        "from ghostify.train.checkpoint import RunDirectory\nimport signal, torch\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "run = RunDirectory(Path(sys.argv[1]), {})\n"
        "run.write({'step': torch.zeros(10)})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try: run.write({'step': torch.zeros(100000)})\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    directory.close()

    done = subprocess.run(
        [sys.executable, "-c", limit, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith("OutputError no space is left to write")
    state = read_checkpoint(tmp_path / "run")
    assert state is not None
    assert torch.equal(state["step"], torch.zeros(10))


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop_after=3)
    content = bytearray((tmp_path / CHECKPOINT).read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / CHECKPOINT).write_bytes(content)

    with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged; remove it"):
        run(tmp_path)


def test_two_runs_do_not_write_to_one_directory(tmp_path: Path) -> None:
    first = RunDirectory(tmp_path, {"a": 1})

    with pytest.raises(OutputError, match="another run is writing to"):
        RunDirectory(tmp_path, {"a": 1})

    first.close()
    RunDirectory(tmp_path, {"a": 1}).close()


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(GhostifyError, match=r"exists already and holds thesis\.tex; use --force"):
        run(tmp_path)

    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_that_is_under_way_looks_like_no_artefact(tmp_path: Path) -> None:
    import ghostify

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop_after=3)

    with pytest.raises(GhostifyError, match="is no artefact"):
        ghostify.load(tmp_path)


def test_a_log_begins_anew_without_a_checkpoint(tmp_path: Path) -> None:
    for _ in range(2):
        log = Log(tmp_path, None)
        log.row({"step": 1, "loss": 0.5})
        log.flush()
        log.close()

    assert [row["step"] for row in table(tmp_path)] == ["1"]
    assert events(tmp_path) == [(1, "train/loss", 0.5)]


def test_a_run_that_was_cut_off_at_once_can_begin(tmp_path: Path) -> None:
    for name in (".lock", ".run.json.new"):
        (tmp_path / name).write_text("")

    assert checkpoint.is_free(tmp_path)
    assert run(tmp_path).steps == 20
