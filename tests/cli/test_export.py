"""``ghostify export`` on the command line."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def test_export_prints_the_largest_difference(ghostify: Command, tmp_path: Path) -> None:
    file = tmp_path / "net.pt2"

    run = ghostify("export", "resnet20_cifar", "-o", file, "--dynamic-batch")

    assert run.code == 0, run.err
    assert file.is_file()
    assert "largest difference from torch " in run.out
    assert "dynamic batch" in run.out


def test_export_prints_one_json_object(ghostify: Command, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"

    run = ghostify("export", "resnet20_cifar", "--format", "onnx", "-o", file, "--json")

    value = json.loads(run.out)
    assert run.code == 0
    assert value["format"] == "onnx"
    assert value["file"] == str(file)
    assert value["max_difference"] <= value["tolerance"] == 1e-4
    assert value["size_bytes"] == file.stat().st_size


def test_quiet_prints_nothing(ghostify: Command, tmp_path: Path) -> None:
    run = ghostify("export", "resnet20_cifar", "-o", tmp_path / "a.pt2", "-q", "--no-optimize")

    assert (run.code, run.out, run.err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "net.foo"], 1, "the name net.foo does not say its format"),
        (["-o", "net.pt2", "--format", "tensorrt"], 1, "no format is called 'tensorrt'"),
        (["-o", "no/net.pt2"], 1, "the directory no does not exist; create it"),
        (["-o", "old.pt2"], 1, "old.pt2 exists already; use --force"),
        (["-o", "net.pt2", "--batch", 0], 2, "Invalid value for '--batch'"),
        (["-o", "net.pt2", "--input-size", "big"], 2, "--input-size is written"),
        (["-o", "net.pt2", "--input-size", "1x32x32"], 1, "does not take an input of 1x1x32x32"),
        ([], 2, "Missing option '--output'"),
    ],
)
def test_bad_input_is_one_sentence(
    ghostify: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[Any],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.pt2").write_text("mine")

    run = ghostify("export", "resnet20_cifar", *arguments)

    assert run.code == code
    assert message in run.message
    assert [one.name for one in tmp_path.iterdir()] == ["old.pt2"]
    assert Path("old.pt2").read_text() == "mine"


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """Past a limit on the size of files the system refuses to write, as on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-m", "ghostify", "export", "resnet20_cifar", "-o", "net.pt2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("error: no space is left to write net.pt2")
    assert not list(tmp_path.iterdir())
