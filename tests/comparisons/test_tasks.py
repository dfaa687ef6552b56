"""In which order the work behind a suite is done, and what waits for what."""

from __future__ import annotations

from pathlib import Path

import pytest

from ghostify.comparisons.folder import Folder
from ghostify.comparisons.inputs import read_inputs
from ghostify.comparisons.jobs import Job, chosen, jobs_of
from ghostify.comparisons.tasks import Task, next_task, tasks_of
from ghostify.runs.suite import Suite
from ghostify.runs.suite_file import load_suite
from tests.comparisons.suites import write_suite


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    folder = tmp_path_factory.mktemp("suite")
    return load_suite(write_suite(folder, latency=[{"runtime": "torch"}]))


@pytest.fixture(scope="module")
def jobs(suite: Suite) -> tuple[Job, ...]:
    return jobs_of(suite, read_inputs(suite)[0])


@pytest.fixture
def tasks(suite: Suite, jobs: tuple[Job, ...], tmp_path: Path) -> tuple[Task, ...]:
    return tasks_of(suite, jobs, (), Folder(tmp_path))


def simulate(tasks: tuple[Task, ...], workers: int) -> list[list[str]]:
    """Let every task take one turn; return the kinds that ran side by side in each."""
    done: set[str] = set()
    turns = []
    while len(done) < len(tasks):
        running: list[Task] = []
        while len(running) < workers:
            names = {task.name for task in running}
            task = next_task(tasks, done, set(), names)
            if task is None:
                break
            running.append(task)
            if task.kind == "latency":
                break
        assert running
        done |= {task.name for task in running}
        turns.append([task.kind for task in running])
    return turns


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_everything_is_done_and_latency_alone(tasks: tuple[Task, ...], workers: int) -> None:
    turns = simulate(tasks, workers)
    flat = [kind for turn in turns for kind in turn]

    assert sorted(flat) == sorted(
        ["original"] + 8 * ["start"] + ["latency"] + 6 * ["tune"] + 8 * ["test"]
    )
    assert [turn for turn in turns if "latency" in turn] == [["latency"]]
    assert flat.index("latency") < flat.index("tune") < flat.index("test")


def test_first_seeds_are_through_before_second_ones_are_begun(tasks: tuple[Task, ...]) -> None:
    order = [(task.kind, task.job.seed) for task in tasks if task.kind in ("start", "test")]
    first_seed_test = order.index(("test", 0))
    last_first = len(order) - 1 - order[::-1].index(("test", 0))

    assert {seed for kind, seed in order[:last_first] if kind == "start"} == {0}
    assert order[:first_seed_test] == 4 * [("start", 0)]
    assert all(seed == 1 for _, seed in order[last_first + 1 :])


def test_nothing_is_left_of_what_is_recorded(
    suite: Suite, jobs: tuple[Job, ...], tmp_path: Path
) -> None:
    recorded = {job.id for job in jobs if job.method != "l1"}

    left = tasks_of(suite, jobs, recorded, Folder(tmp_path))

    assert {task.job.method for task in left} == {"l1"}
    assert tasks_of(suite, jobs, {job.id for job in jobs}, Folder(tmp_path)) == ()


def test_a_chosen_run_comes_with_its_tuning(jobs: tuple[Job, ...]) -> None:
    names = [job.name for job in chosen(jobs, "net/dense/seed=1")]

    assert names == ["net/dense/lr=0.001", "net/dense/lr=0.03", "net/dense/seed=1"]


def test_ids_follow_from_what_decides_a_run_alone(suite: Suite, tmp_path: Path) -> None:
    """Titles, labels and other methods change no id; a step more changes those it concerns."""
    before = {job.name: job.id for job in jobs_of(suite, read_inputs(suite)[0])}
    folder = suite.path.parent

    def ids(**changes: object) -> dict[str, str]:
        changed = load_suite(write_suite(folder, **changes))
        return {job.name: job.id for job in jobs_of(changed, read_inputs(changed)[0])}

    other = ids(title="Other", methods={"dense": {"kind": "dense", "label": "Control"}})
    longer = ids(recipe={"name": "distil", "steps": 7,
                         "overrides": {"batch_size": 16, "feature_weight": 0.0}})  # fmt: skip

    assert all(before[name] == one for name, one in other.items())
    changed = {name for name in before if before[name] != longer[name]}
    assert changed == {
        f"net/{row}/seed={seed}" for row in ("dense", "l1/macs=0.6x", "random") for seed in (0, 1)
    }
