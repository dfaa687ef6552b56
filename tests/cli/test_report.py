"""``ghostify report`` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reports.synthetic import comparison, record, suite_of, write_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return write_runs(tmp_path / "runs", comparison(), suite=suite_of())


def test_without_output_it_is_only_printed(ghostify: Callable, runs: Path, tmp_path: Path) -> None:
    run = ghostify("report", runs)

    assert run.code == 0
    assert "Ghost s=2, fitted ◆" in run.out
    assert "90.30 ± 0.50" in run.out
    assert [file.name for file in tmp_path.iterdir()] == ["runs"]


def test_output_is_written(ghostify: Callable, runs: Path, tmp_path: Path) -> None:
    run = ghostify("report", runs, "-o", tmp_path / "out", "--title", "A title", "--layout",
                   "table5", "--published", "table5", "--quiet")  # fmt: skip

    assert (run.code, run.out, run.err) == (0, "", "")
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.startswith("# A title\n")
    assert "Ghost-VGG-16 (s=2)" in text
    assert (tmp_path / "out" / "table5.tex").is_file()


def test_json_is_one_object(ghostify: Callable, runs: Path, tmp_path: Path) -> None:
    run = ghostify("report", runs, "-o", tmp_path / "out", "--json")

    value = json.loads(run.out)
    rows = {row["method"]: row for row in value["tables"][0]["rows"]}
    assert rows["Ghost s=2, fitted"]["top1"] == pytest.approx(90.3)
    assert rows["Ghost s=2, fitted"]["pareto"] is True
    assert rows["Original"]["best-top1"] is None
    assert value["report"] == str(tmp_path / "out")
    assert set(value["files"]) == {file.name for file in (tmp_path / "out").iterdir()}


def test_several_directories_are_joined(ghostify: Callable, tmp_path: Path) -> None:
    one = write_runs(tmp_path / "one", [record(seed=0, top1=90.0)])
    two = write_runs(tmp_path / "two", [record(seed=1, top1=91.0)])

    run = ghostify("report", one, two, "--json")

    (_, row) = json.loads(run.out)["tables"][0]["rows"]
    assert (row["top1"], row["seeds"]) == (90.5, 2)


def test_published_none_leaves_the_papers_rows_out(ghostify: Callable, tmp_path: Path) -> None:
    suite = suite_of(report={"published": ["table5"]})
    runs = write_runs(tmp_path / "runs", comparison(), suite=suite)

    assert "†" in ghostify("report", runs).out
    assert "†" not in ghostify("report", runs, "--published", "none").out


def test_odd_names_stay_text(ghostify: Callable, tmp_path: Path) -> None:
    odd = "<script>alert(1)</script> [red]&_%"
    runs = write_runs(tmp_path / "runs", [record(method_label=odd, label=odd)])

    run = ghostify("report", runs, "-o", tmp_path / "out")

    assert odd in run.out
    for name in ("index.html", "report.md"):
        assert "<script>alert" not in (tmp_path / "out" / name).read_text()


def test_remarks_go_to_standard_error(ghostify: Callable, runs: Path) -> None:
    with (runs / "records.jsonl").open("a") as file:
        file.write('{"format": 1, "id": "x')

    run = ghostify("report", runs)

    assert run.code == 0
    assert f"line {len(comparison()) + 1} is cut off and was left out" in run.err
    assert "cut off" not in run.out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--layout", "tabel5"], 1, "did you mean table5"),
        (["--reference", "dens"], 1, "did you mean dense"),
        (["--published", "table51"], 1, "did you mean table5"),
        (["--layot", "table5"], 2, "No such option: --layot"),
    ],
)
def test_mistakes_are_one_sentence(
    ghostify: Callable, runs: Path, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    run = ghostify("report", runs, "-o", tmp_path / "out", *options)

    assert run.code == code
    assert message in run.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no records.jsonl"),
        ("", "holds no record yet"),
        ('{"format": 2, "id": "a"}\n', "is a record of format 2, this ghostify reads format 1"),
        ("nonsense\n", "holds no whole record"),
    ],
)
def test_directories_without_records(
    ghostify: Callable, tmp_path: Path, content: str | None, message: str
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    if content is not None:
        (runs / "records.jsonl").write_text(content)

    run = ghostify("report", runs, "-o", tmp_path / "out")

    assert run.code == 1
    assert message in run.message
    assert not (tmp_path / "out").exists()


def test_missing_directory(ghostify: Callable, tmp_path: Path) -> None:
    run = ghostify("report", tmp_path / "nothing")

    assert run.code == 1
    assert "there is nothing at" in run.message


def test_existing_output(ghostify: Callable, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    run = ghostify("report", runs, "-o", tmp_path / "out")

    assert run.code == 1
    assert "exists already; use --force to replace it" in run.message
    assert ghostify("report", runs, "-o", tmp_path / "out", "--force").code == 0
