"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ghostify.errors import OutputError
from ghostify.exporting.output import check_file, fresh_files


def _content(folder: Path) -> dict[str, str]:
    return {one.name: one.read_text() for one in folder.iterdir()}


def test_all_files_take_their_places(tmp_path: Path) -> None:
    with fresh_files(tmp_path / "net.xml", force=False) as file:
        file.write_text("graph")
        file.with_suffix(".bin").write_text("weights")

    assert _content(tmp_path) == {"net.xml": "graph", "net.bin": "weights"}


def test_force_replaces(tmp_path: Path) -> None:
    (tmp_path / "net.xml").write_text("old")
    with pytest.raises(OutputError, match=r"exists already; use --force"):
        check_file(tmp_path / "net.xml", force=False)

    with fresh_files(tmp_path / "net.xml", force=True) as file:
        file.write_text("new")

    assert _content(tmp_path) == {"net.xml": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "net.xml").write_text("old")

    with (  # noqa: PT012
        pytest.raises(error),
        fresh_files(tmp_path / "net.xml", force=True) as file,
    ):
        file.write_text("half")
        raise error

    assert _content(tmp_path) == {"net.xml": "old"}


def test_a_failure_at_the_last_step_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("net.xml", "net.bin"):
        (tmp_path / name).write_text("old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.parent.name == "new" and self.name == "net.xml":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with (  # noqa: PT012
        pytest.raises(OutputError, match=r"cannot be written \(Input/output error\)"),
        fresh_files(tmp_path / "net.xml", force=True) as file,
    ):
        file.write_text("new")
        file.with_suffix(".bin").write_text("new")
        monkeypatch.setattr(Path, "rename", failing)

    assert _content(tmp_path) == {"net.xml": "old", "net.bin": "old"}


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"is a directory; give the name of a file in it"):
        check_file(tmp_path, force=True)
    with pytest.raises(OutputError, match=r"the directory .*no does not exist; create it"):
        check_file(tmp_path / "no" / "net.xml", force=False)
