"""A report on disk: all files, the same bytes each time, whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

import ghostify
from ghostify.errors import OutputError
from ghostify.reports.write import frame, report, write_report
from tests.reports.synthetic import comparison, suite_of, write_runs


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    suite = suite_of(report={"layout": "table5", "published": ["table5"]})
    return write_runs(tmp_path / "runs", comparison(), suite=suite)


def test_all_files_are_there_and_listed(runs: Path, tmp_path: Path) -> None:
    told = write_report(runs, tmp_path / "out")

    files = contents(tmp_path / "out")
    assert set(told.files) == set(files)
    assert {
        "index.html", "report.md", "report.tex", "table5.csv", "table5.tex", "statistics.csv",
        "tuning.csv", "records.jsonl", "suite.yaml", "accuracy-macs.svg",
    } <= set(files)  # fmt: skip
    assert files["records.jsonl"] == (runs / "records.jsonl").read_bytes()
    assert files["suite.yaml"] == (runs / "suite.yaml").read_bytes()
    assert all(files.values())


def test_same_records_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    lines = (runs / "records.jsonl").read_bytes().splitlines(keepends=True)

    write_report(runs, tmp_path / "one")
    (runs / "records.jsonl").write_bytes(b"".join(lines[::-1]))  # as other workers would end
    write_report(runs, tmp_path / "two")

    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    one.pop("records.jsonl"), two.pop("records.jsonl")
    assert one == two


def test_report_can_be_reported_again(runs: Path, tmp_path: Path) -> None:
    write_report(runs, tmp_path / "one")
    write_report(tmp_path / "one", tmp_path / "two")

    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_csv_holds_the_figures(runs: Path, tmp_path: Path) -> None:
    write_report(runs, tmp_path / "out")

    found = pandas.read_csv(tmp_path / "out" / "table5.csv").set_index("method")
    assert found.loc["Ghost s=2, fitted", "top1"] == pytest.approx(90.3)
    assert found.loc["Ghost s=2, fitted", "top1_ci95"] == pytest.approx(0.4968, abs=1e-4)
    assert found.loc["Ghost s=2, fitted", "macs"] == pytest.approx(21.2)
    assert found.loc["L1", "source"] == "measured"
    assert found.loc["Ghost-VGG-16 (s=2)", "source"] == "published"
    assert len(found.loc["L1", "records"].split()) == 3


def test_frame_keeps_numbers_as_numbers(runs: Path) -> None:
    table = report(runs, figures=False).tables[0]

    found = frame(table)

    assert str(found["top1"].dtype) == "float64"
    assert found["pareto"].sum() == 2


def test_existing_output_is_kept(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    with pytest.raises(OutputError, match="exists already; use --force"):
        write_report(runs, tmp_path / "out")
    assert not contents(tmp_path / "out")


def test_force_replaces(runs: Path, tmp_path: Path) -> None:
    write_report(runs, tmp_path / "out", title="One")
    write_report(runs, tmp_path / "out", title="Two", force=True)

    assert (tmp_path / "out" / "report.md").read_text().startswith("# Two\n")


def test_records_are_never_written_over(runs: Path) -> None:
    with pytest.raises(OutputError, match="holds the records that the report is made from"):
        write_report(runs, runs, force=True)


def test_nothing_is_left_of_a_report_that_fails(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ghostify.reports.write.markdown", fail)

    with pytest.raises(OutputError, match="no space is left"):
        write_report(runs, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["runs"]


def test_public_function_writes_or_only_tells(runs: Path, tmp_path: Path) -> None:
    told = ghostify.report(runs)
    written = ghostify.report(runs, tmp_path / "out")

    assert told.tables == written.tables
    assert (tmp_path / "out" / "index.html").is_file()


def test_report_needs_no_torch(runs: Path) -> None:
    code = (
        "import sys, json\nfrom ghostify.reports.build import build_report\n"
        "heavy = ['torch', 'pandas', 'scipy', 'matplotlib']\n"
        "light = set(heavy) & set(sys.modules)\n"
        f"build_report({str(runs)!r}, figures=False)\n"
        "print(json.dumps([list(light), 'torch' in sys.modules]))"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(run.stdout) == [[], False]
