"""What all tests share: real checkpoints where they are, small networks, one thread."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ghostify.cli.app import main

torch.set_num_threads(1)

# Worker processes of a test import `tests.…` as it does; the end of the path, so that the installed
# package is tested rather than the checkout.
sys.path.append(str(Path(__file__).parents[1]))

_DATA = Path(os.environ.get("GHOSTIFY_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def checkpoints() -> Path:
    """The folder of trained CIFAR checkpoints; the test is skipped where it is absent."""
    folder = _DATA / "checkpoints"
    if not folder.is_dir():
        pytest.skip(f"no checkpoints at {folder}; set GHOSTIFY_TEST_DATA")
    return folder


class Run:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def message(self) -> str:
        """The one error line."""
        lines = self.err.strip().splitlines()

        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("error: ")


@pytest.fixture
def ghostify(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Run the command line in this process."""

    def run(*arguments: object) -> Run:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Run(code, captured.out, captured.err)

    return run
