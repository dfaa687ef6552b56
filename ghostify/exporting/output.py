"""Files that appear whole, with the files that belong to them, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ghostify.errors import OutputError
from ghostify.files import explain

__all__ = ["check_file", "fresh_files"]

_MARGIN = 2**16


def check_file(file: Path, *, force: bool) -> None:
    """Make sure, before any work, that a file can be written.

    Raises:
        OutputError: it exists and may not be replaced, or cannot be written.
    """
    target = file.resolve()
    if target.is_dir():
        raise OutputError(f"{file} is a directory; give the name of a file in it")
    if not target.parent.is_dir():
        raise OutputError(
            f"{file} cannot be written: the directory {file.parent} does not exist; create it"
        )
    if target.exists() and not force:
        raise OutputError(
            f"{file} exists already; use --force to replace it, or choose another name"
        )
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".ghostify-"):
            pass
    except OSError as error:
        raise explain(file, error) from None


@contextlib.contextmanager
def fresh_files(file: Path, *, force: bool) -> Iterator[Path]:
    """Yield a path of the same name in an empty directory, to write to.

    When the block has succeeded, all that lies there takes its place beside ``file``: what
    stood there is kept aside until all is done. If the block fails or is interrupted, nothing
    is left behind and the old files stand.

    Raises:
        OutputError: as :func:`check_file`, and for a full or failing disk.
    """
    check_file(file, force=force)
    target = file.resolve()
    try:
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:100]}."))
    except OSError as error:
        raise explain(file, error) from None
    try:
        new, old = aside / "new", aside / "old"
        new.mkdir()
        old.mkdir()
        yield new / target.name
        for made in new.iterdir():
            made.chmod(target.parent.stat().st_mode & 0o666)
            with made.open("rb") as opened:
                os.fsync(opened.fileno())
        check_file(file, force=force)
        _put(new, old, target)
    except OutputError:
        raise
    except OSError as error:
        if error.errno is None and shutil.disk_usage(target.parent).free < _MARGIN:
            raise OutputError(
                f"no space is left to write {file}; free some or choose another directory"
            ) from error
        raise explain(file, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _put(new: Path, old: Path, target: Path) -> None:
    """Move all files to their places, the one that was asked for last; undo it if one fails."""
    moved: list[Path] = []
    try:
        for made in sorted(new.iterdir(), key=lambda made: made.name == target.name):
            place = target.parent / made.name
            if place.exists():
                place.rename(old / made.name)
            moved.append(place)
            made.rename(place)
    except BaseException:
        for place in moved:
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                (old / place.name).rename(place)
        raise
